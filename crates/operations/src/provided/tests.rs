use std::path::Path;

use testkit::TestAws;

use super::*;
use crate::{config::Config, strategy::row_of};

/// The row of each job that somebody else may do, and who.
const ROWS: [(&str, Provider); 6] = [
    ("database.full", Provider::Rds),
    ("cache.rdb", Provider::Elasticache),
    ("cloudformation.stacks", Provider::AwsBackup),
    ("network.configuration", Provider::AwsConfig),
    ("kubernetes.secrets", Provider::SecretsManager),
    ("terraform.state", Provider::S3Versioning),
];

const BARE: &str = "
client('rds').create_db_instance(DBInstanceIdentifier='db', DBInstanceClass='db.m5.large', Engine='postgres',
    AllocatedStorage=10, MasterUsername='bre', MasterUserPassword='planted-secret', BackupRetentionPeriod=7)
client('elasticache').create_replication_group(ReplicationGroupId='cache', ReplicationGroupDescription='c')
client('s3').create_bucket(Bucket='states')
";
const SET_UP: &str = "
client('rds').modify_db_instance(DBInstanceIdentifier='db', BackupRetentionPeriod=30, ApplyImmediately=True)
client('elasticache').create_replication_group(ReplicationGroupId='kept', ReplicationGroupDescription='c',
    SnapshotRetentionLimit=1)
client('backup').create_backup_vault(BackupVaultName='v')
client('backup').create_backup_plan(BackupPlan={'BackupPlanName': 'weekly', 'Rules': [
    {'RuleName': 'short', 'TargetBackupVaultName': 'v', 'Lifecycle': {'DeleteAfterDays': 89}},
    {'RuleName': 'stacks', 'TargetBackupVaultName': 'v', 'Lifecycle': {'DeleteAfterDays': 90}}]})
config = client('config')
config.put_configuration_recorder(ConfigurationRecorder={'name': 'all', 'roleARN': 'arn:aws:iam::123456789012:role/c'})
config.put_delivery_channel(DeliveryChannel={'name': 'all', 's3BucketName': 'states'})
config.start_configuration_recorder(ConfigurationRecorderName='all')
client('secretsmanager').create_secret(Name='desk', SecretString='planted-secret')
client('s3').put_bucket_versioning(Bucket='states', VersioningConfiguration={'Status': 'Enabled'})
";

#[test]
fn a_provider_is_asked_whether_it_keeps_what_the_row_asks_for() {
    let Some(aws) = TestAws::start() else { return };
    aws.python(BARE);
    let of = |group: &str| {
        let text = format!(
            "{}[rds]\ninstance = \"db\"\n[elasticache]\ngroup = \"{group}\"\n\
             [terraform.prod]\nbucket = \"states\"\nkey = \"t.tfstate\"\n",
            aws.settings()
        );
        Config::parse(&text, Path::new("bre.toml")).unwrap().backup
    };
    let ask = |config: &Backup| {
        ROWS.map(|(job, provider)| (job, check(row_of(job).unwrap(), provider, config)))
    };
    let mends = [
        "modify-db-instance --db-instance-identifier db --backup-retention-period 30",
        "modify-replication-group --replication-group-id cache",
        "create-backup-plan",
        "start-configuration-recorder",
        "create-secret",
        "put-bucket-versioning --bucket states",
    ];
    for ((job, answer), mend) in ask(&of("cache")).into_iter().zip(mends) {
        let fault = answer.unwrap_err();
        assert!(fault.mend.contains(mend), "{job}: {fault:?}");
    }
    aws.python(SET_UP);
    let shown = [
        "automated backups of db for 30 days",
        "snapshots of kept for 1 days",
        "plan weekly with the rule stacks",
        "records with all, for 2557 days",
        "1 secrets",
        "versions are kept in states",
    ];
    for ((job, answer), shown) in ask(&of("kept")).into_iter().zip(shown) {
        let said = answer.unwrap();
        assert!(said.contains(shown), "{job}: {said}");
        assert!(!said.contains("planted-secret"));
    }
    aws.refuse("ListSecrets", "AccessDeniedException", 1);
    let refused = check(
        row_of("kubernetes.secrets").unwrap(),
        Provider::SecretsManager,
        &of("kept"),
    );
    let refused = refused.unwrap_err();
    assert!(
        refused.why.contains("this account may not do it"),
        "{refused:?}"
    );
}

#[test]
fn a_provider_that_cannot_be_asked_here_says_which_line_is_missing() {
    let config = Config::parse("", Path::new("bre.toml")).unwrap().backup;
    for (job, provider) in ROWS {
        let fault = check(row_of(job).unwrap(), provider, &config).unwrap_err();
        assert!(fault.mend.contains("[aws] region"), "{fault:?}");
    }
}
