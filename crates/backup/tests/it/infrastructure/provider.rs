//! RDS and ElastiCache as moto plays them, with the guide's own commands, and what the jobs make of them.
//! any day: the dates are versions of policy documents, or far in the past.

use std::collections::BTreeMap;

use backup::infrastructure::provider::{MARK, ProviderPlan, elasticache, rds};
use jiff::{SignedDuration, Timestamp};
use testkit::TestAws;

use super::{Quiet, client};

/// Of the guide, "Database Backup Strategy", unchanged.
const GUIDE: &str = "\
aws rds create-db-snapshot \\
  --db-instance-identifier borrow-rate-engine-db \\
  --db-snapshot-identifier manual-backup-$(date +%Y-%m-%d-%H-%M) \\
  --tags Key=Purpose,Value=ManualBackup Key=Environment,Value=Production
";

fn plan(tags: &BTreeMap<String, String>, now: Timestamp) -> ProviderPlan<'_> {
    ProviderPlan {
        days_min: 7,
        multi_az: true,
        kms_key: None,
        keep_days: 30,
        tags,
        mark: "repository-1",
        now,
    }
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn a_snapshot_is_made_and_only_old_ones_of_ours_are_deleted() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    aws.python(
        "client('rds').create_db_instance(DBInstanceIdentifier='borrow-rate-engine-db', Engine='postgres', \
         DBInstanceClass='db.t3.medium', AllocatedStorage=20, MasterUsername='a', MasterUserPassword='abcdefgh1', \
         BackupRetentionPeriod=7, MultiAZ=True, StorageEncrypted=True)",
    );
    // A person's, an hour before any of ours.
    let guide = GUIDE.replace("$(date", "$(date -d -1hour");
    for script in [GUIDE, &guide] {
        let ran = aws.run_guide(script);
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    let tags = BTreeMap::from([("Purpose".to_owned(), "ManualBackup".to_owned())]);
    let client = client(&aws);
    let run = |now| rds::run("borrow-rate-engine-db", &plan(&tags, now), &client, &Quiet);
    // Not in the minute of the guide's own.
    let now = Timestamp::now() + SignedDuration::from_mins(2);
    let first = run(now).unwrap();
    assert_eq!(first.faults, Vec::<String>::new());
    assert_eq!((first.kept, first.deleted.len()), (1, 0), "{first:?}");
    assert!(
        first.restorable_from.is_some() && first.restorable_to.is_some(),
        "{first:?}"
    );
    let said: Vec<&str> = first.events.iter().map(|it| it.message.as_str()).collect();
    assert!(
        said.iter()
            .any(|it| it.contains("Finished DB instance backup")),
        "{said:?}"
    );
    assert!(first.events.iter().all(|it| !it.is_failure));
    let second = run(now + SignedDuration::from_hours(24 * 40)).unwrap();
    assert_eq!(second.deleted, std::slice::from_ref(&first.snapshot));
    let left = aws.python(
        "print(sorted(s['DBSnapshotIdentifier'] + str({t['Key']: t['Value'] for t in s['TagList']}) for s in \
         client('rds').describe_db_snapshots(SnapshotType='manual')['DBSnapshots']))",
    );
    assert_eq!(
        left.matches("manual-backup-").count(),
        3,
        "the guide's two and our newest: {left}"
    );
    assert!(
        left.contains(MARK) && !left.contains(&first.snapshot),
        "{left}"
    );

    aws.python(
        "client('rds').modify_db_instance(DBInstanceIdentifier='borrow-rate-engine-db', BackupRetentionPeriod=1, \
         MultiAZ=False, ApplyImmediately=True)",
    );
    aws.refuse("DescribeEvents", "AccessDenied", 1);
    let third = run(now + SignedDuration::from_mins(5)).unwrap();
    let faults = third.faults.join("\n");
    assert!(
        faults.contains("for 1 days, the plan demands 7"),
        "{faults}"
    );
    assert!(
        faults.contains("one zone only") && faults.contains("--multi-az"),
        "{faults}"
    );
    assert_eq!(third.not_read.len(), 1, "{third:?}");
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn a_snapshot_of_the_cache_is_made_and_an_old_one_of_ours_is_deleted() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    aws.python(
        "client('elasticache').create_replication_group(ReplicationGroupId='redis', \
         ReplicationGroupDescription='x', CacheNodeType='cache.t3.micro', NumNodeGroups=1, ReplicasPerNodeGroup=1, \
         AutomaticFailoverEnabled=True, MultiAZEnabled=True, AtRestEncryptionEnabled=True, SnapshotRetentionLimit=7)\n\
         client('elasticache').create_snapshot(ReplicationGroupId='redis', \
         SnapshotName='manual-backup-2020-01-01-00-00')",
    );
    let tags = BTreeMap::new();
    let client = client(&aws);
    // moto knows no events of it.
    aws.refuse("DescribeEvents", "AccessDenied", 2);
    let run = |now| elasticache::run("redis", &plan(&tags, now), &client, &Quiet);
    let first = run(Timestamp::now()).unwrap();
    assert_eq!(first.faults, Vec::<String>::new());
    assert_eq!(first.deleted, Vec::<String>::new(), "it is a person's");
    let second = run(Timestamp::now() + SignedDuration::from_hours(24 * 40)).unwrap();
    assert_eq!(second.deleted, [first.snapshot]);
}
