//! Whether a service does what the settings say it does in a job's place: asked, not believed.

use backup::infrastructure::provider::{ProviderPlan, elasticache, rds};
use control_plane::{
    aws::{Aws, AwsError, AwsRound},
    terraform::StateOrigin,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    config::{self, Provider},
    infrastructure::client,
};

/// Why it is not so, and the line of settings or the command that mends it.
#[derive(Debug, PartialEq, Eq)]
pub struct ProviderFault {
    pub why: String,
    pub mend: String,
}

type Answer = Result<String, ProviderFault>;

fn fault(why: impl Into<String>, mend: impl Into<String>) -> ProviderFault {
    ProviderFault {
        why: why.into(),
        mend: mend.into(),
    }
}

/// The guide keeps a network's configuration so long.
const CONFIG_DAYS_MIN: u64 = 90;
/// AWS Config keeps items for seven years where nothing else is said.
const CONFIG_DAYS_DEFAULT: u64 = 2557;

/// What the service says of it, in a few words.
pub fn ask(provider: Provider, job: &str, config: &config::Backup) -> Answer {
    let aws = client(config).map_err(|reason| fault(reason, "[aws] region = \"…\""))?;
    let round = aws.round(&|| false);
    match provider {
        Provider::Rds => rds_of(config, &aws),
        Provider::Elasticache => elasticache_of(config, &aws),
        Provider::AwsBackup => aws_backup(&round, job),
        Provider::AwsConfig => aws_config(&round),
        Provider::SecretsManager => secrets_manager(&round),
        Provider::S3Versioning => s3_versioning(&round, config),
    }
}

fn asked(answer: Result<Value, AwsError>) -> Result<Value, ProviderFault> {
    answer.map_err(not_asked)
}

fn not_asked(error: AwsError) -> ProviderFault {
    fault(error.to_string(), "bre plan check, once it answers")
}

fn rds_of(config: &config::Backup, aws: &Aws) -> Answer {
    let Some(rds) = &config.infrastructure.rds else {
        return Err(fault(
            "which instance of RDS it is was not said",
            "[rds] instance = \"…\"",
        ));
    };
    let plan = ProviderPlan {
        days_min: rds.automated_days.get(),
        multi_az: rds.multi_az,
        kms_key: rds.kms_key.as_deref(),
        keep_days: rds.keep_days.get(),
        tags: &rds.tags,
        mark: "",
        now: Timestamp::now(),
    };
    let round = aws.round(&|| false);
    let found = rds::faults_of(&rds.instance, &plan, &round).map_err(not_asked)?;
    judged(&format!("RDS instance {}", rds.instance), &found)
}

fn elasticache_of(config: &config::Backup, aws: &Aws) -> Answer {
    let Some(group) = &config.infrastructure.elasticache else {
        return Err(fault(
            "which group of ElastiCache it is was not said",
            "[elasticache] group = \"…\"",
        ));
    };
    let plan = ProviderPlan {
        days_min: group.automated_days.get(),
        multi_az: group.multi_az,
        kms_key: group.kms_key.as_deref(),
        keep_days: group.keep_days.get(),
        tags: &group.tags,
        mark: "",
        now: Timestamp::now(),
    };
    let round = aws.round(&|| false);
    let found = elasticache::faults_of(&group.group, &plan, &round).map_err(not_asked)?;
    judged(&format!("ElastiCache group {}", group.group), &found)
}

/// A fault says what is wrong and, after a colon, the line that mends it.
fn judged(what: &str, faults: &[String]) -> Answer {
    let Some(first) = faults.first() else {
        return Ok(format!("{what} is as the plan demands"));
    };
    let (why, mend) = first.split_once(": ").unwrap_or((first, ""));
    Err(fault(format!("{what}: {why}"), mend))
}

/// By what it has backed up, not by what it was told to.
fn aws_backup(round: &AwsRound<'_>, job: &str) -> Answer {
    let (kind, days) = match job {
        "cloudformation.stacks" => ("CloudFormation", 7),
        _ => ("RDS", 1),
    };
    let answer = asked(round.json(&["backup", "list-protected-resources"]))?;
    let resources = answer["Results"].as_array().into_iter().flatten();
    let newest = resources
        .filter(|it| it["ResourceType"] == kind)
        .filter_map(|it| it["LastBackupTime"].as_str()?.parse::<Timestamp>().ok())
        .max();
    let mend = format!(
        "aws backup create-backup-selection for resources of type {kind}; aws backup list-backup-jobs says what failed"
    );
    // A quarter more than the period, as for every job.
    let limit = SignedDuration::from_hours(days * 30);
    match newest {
        Some(at) if Timestamp::now().duration_since(at) <= limit => {
            Ok(format!("AWS Backup has a backup of {kind} of {at}"))
        }
        Some(at) => Err(fault(
            format!("the newest backup of {kind} in AWS Backup is of {at}"),
            mend,
        )),
        None => Err(fault(format!("AWS Backup has no backup of {kind}"), mend)),
    }
}

fn aws_config(round: &AwsRound<'_>) -> Answer {
    let status = ["configservice", "describe-configuration-recorder-status"];
    let answer = asked(round.json(&status))?;
    let recorders = answer["ConfigurationRecordersStatus"].as_array();
    let mut recorders = recorders.into_iter().flatten();
    if !recorders.any(|it| it["recording"] == true) {
        return Err(fault(
            "AWS Config records nothing in this region",
            "aws configservice start-configuration-recorder --configuration-recorder-name default",
        ));
    }
    let answer = asked(round.json(&["configservice", "describe-retention-configurations"]))?;
    let days = &answer["RetentionConfigurations"][0]["RetentionPeriodInDays"];
    let days = days.as_u64().unwrap_or(CONFIG_DAYS_DEFAULT);
    match days >= CONFIG_DAYS_MIN {
        true => Ok(format!("AWS Config records, and keeps it for {days} days")),
        false => Err(fault(
            format!(
                "AWS Config keeps what it records for {days} days; the guide asks for {CONFIG_DAYS_MIN}"
            ),
            format!(
                "aws configservice put-retention-configuration --retention-period-in-days {CONFIG_DAYS_MIN}"
            ),
        )),
    }
}

fn secrets_manager(round: &AwsRound<'_>) -> Answer {
    let answer = asked(round.json(&["secretsmanager", "list-secrets"]))?;
    let count = answer["SecretList"].as_array().map_or(0, Vec::len);
    match count {
        0 => Err(fault(
            "Secrets Manager has no secret in this region",
            "aws secretsmanager create-secret",
        )),
        _ => Ok(format!("Secrets Manager has {count} secrets")),
    }
}

fn s3_versioning(round: &AwsRound<'_>, config: &config::Backup) -> Answer {
    let mut buckets = std::collections::BTreeSet::new();
    for state in config.infrastructure.terraform.values() {
        if let Ok(StateOrigin::Bucket { bucket, .. }) = state.origin() {
            buckets.insert(bucket);
        }
    }
    if buckets.is_empty() {
        return Err(fault(
            "which bucket holds the state was not said",
            "[terraform.NAME] bucket = \"…\" and key = \"…\"",
        ));
    }
    for bucket in &buckets {
        let arguments = ["s3api", "get-bucket-versioning", "--bucket", bucket];
        let answer = asked(round.json(&arguments))?;
        if answer["Status"] != "Enabled" {
            return Err(fault(
                format!("the bucket {bucket} keeps no versions"),
                format!(
                    "aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled"
                ),
            ));
        }
        let arguments = [
            "s3api",
            "get-bucket-lifecycle-configuration",
            "--bucket",
            bucket,
        ];
        let rules = match round.json(&arguments) {
            Ok(answer) => answer["Rules"].as_array().cloned().unwrap_or_default(),
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(not_asked(error)),
        };
        let deletes = |rule: &&Value| {
            rule["Status"] == "Enabled" && rule["NoncurrentVersionExpiration"].is_object()
        };
        if let Some(rule) = rules.iter().find(deletes) {
            let id = rule["ID"].as_str().unwrap_or("without an ID");
            return Err(fault(
                format!(
                    "the rule {id} of the bucket {bucket} deletes versions; the guide keeps them without an end"
                ),
                format!(
                    "aws s3api put-bucket-lifecycle-configuration --bucket {bucket}, without that rule"
                ),
            ));
        }
    }
    let names: Vec<&str> = buckets.iter().map(String::as_str).collect();
    Ok(format!(
        "versions are kept without an end in {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use testkit::TestAws;

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_was_not_said_is_asked_for_before_anything_else() {
        let config = Config::parse("", Path::new("bre.toml")).unwrap().backup;
        let found = ask(Provider::Rds, "database.full", &config).unwrap_err();
        assert!(found.mend.contains("[aws]"), "{found:?}");
        assert_eq!(
            judged("x", &["kept for 1 days: aws rds modify".to_owned()]),
            Err(fault("x: kept for 1 days", "aws rds modify"))
        );
    }

    #[test]
    #[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
    fn each_service_is_asked_and_its_fault_names_the_remedy() {
        let Some(aws) = TestAws::start() else {
            return;
        };
        let text = format!(
            "{}[rds]\ninstance = 'db'\n[elasticache]\ngroup = 'redis'\n[terraform.prod]\nbucket = 'states'\n\
             key = 'prod/t'\n",
            aws.settings()
        );
        let config = Config::parse(&text, Path::new("bre.toml")).unwrap().backup;
        let check = |provider: Provider, job: &str, says: &str| match ask(provider, job, &config) {
            Ok(said) => assert!(says.is_empty(), "{said}"),
            Err(found) => {
                let found = format!("{} | {}", found.why, found.mend);
                assert!(!says.is_empty() && found.contains(says), "{found}");
            }
        };
        aws.python(
            "client('rds').create_db_instance(DBInstanceIdentifier='db', Engine='postgres', \
             DBInstanceClass='db.t3.medium', AllocatedStorage=20, MasterUsername='a', MasterUserPassword='abcdefgh1', \
             BackupRetentionPeriod=1, MultiAZ=True, StorageEncrypted=True)\n\
             client('s3').create_bucket(Bucket='states')\n\
             config = client('config')\n\
             config.put_configuration_recorder(ConfigurationRecorder={'name': 'default', \
             'roleARN': 'arn:aws:iam::123456789012:role/x'})",
        );
        check(
            Provider::Rds,
            "database.full",
            "| aws rds modify-db-instance",
        );
        check(Provider::Elasticache, "cache.rdb", "was refused");
        check(
            Provider::AwsConfig,
            "network.configuration",
            "start-configuration-recorder",
        );
        check(
            Provider::S3Versioning,
            "terraform.state",
            "put-bucket-versioning",
        );
        check(Provider::SecretsManager, "kubernetes.secrets", "no secret");
        aws.python(
            "client('rds').modify_db_instance(DBInstanceIdentifier='db', BackupRetentionPeriod=7, \
             ApplyImmediately=True)\n\
             client('s3').put_bucket_versioning(Bucket='states', VersioningConfiguration={'Status': 'Enabled'})\n\
             client('s3').create_bucket(Bucket='config')\n\
             client('secretsmanager').create_secret(Name='a', SecretString='x')\n\
             config = client('config')\n\
             config.put_delivery_channel(DeliveryChannel={'name': 'default', 's3BucketName': 'config'})\n\
             config.start_configuration_recorder(ConfigurationRecorderName='default')",
        );
        check(Provider::Rds, "database.full", "");
        check(Provider::AwsConfig, "network.configuration", "");
        check(Provider::S3Versioning, "terraform.state", "");
        check(Provider::SecretsManager, "kubernetes.secrets", "");
        aws.python(
            "client('s3').put_bucket_lifecycle_configuration(Bucket='states', LifecycleConfiguration={'Rules': [{\
             'ID': 'old', 'Status': 'Enabled', 'Filter': {'Prefix': ''}, \
             'NoncurrentVersionExpiration': {'NoncurrentDays': 30}}]})\n\
             client('config').put_retention_configuration(RetentionPeriodInDays=60)",
        );
        check(Provider::S3Versioning, "terraform.state", "the rule old");
        check(Provider::AwsConfig, "network.configuration", "for 60 days");
    }
}
