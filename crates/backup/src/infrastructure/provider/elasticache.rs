//! A replication group of ElastiCache.

use control_plane::aws::{Aws, AwsError, AwsRound};
use jiff::Timestamp;
use serde_json::Value;

use super::{ProviderPlan, ProviderReport, moment};
use crate::Progress;

/// Four, and two for each snapshot that is old.
const CALLS_MAX: u32 = 200;
/// The guide's name, which people use too: what is ours is said by a tag.
const NAMES: &str = "manual-backup-";

/// Looks, makes one snapshot, deletes those of ours that are too old.
pub fn run(
    group: &str,
    plan: &ProviderPlan<'_>,
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<ProviderReport, AwsError> {
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    progress.message(&format!("looking at the ElastiCache group {group}"));
    let found = &described(&round, group)?;
    let mut report = ProviderReport {
        faults: faults(group, found, plan),
        snapshot: plan.name(),
        ..ProviderReport::default()
    };
    progress.message(&format!("making the snapshot {}", report.snapshot));
    let tags = plan.tags_text();
    round.json(&[
        "elasticache",
        "create-snapshot",
        "--replication-group-id",
        group,
        "--snapshot-name",
        &report.snapshot,
        "--tags",
        &tags,
    ])?;
    let answer = round.json(&["elasticache", "describe-snapshots"])?;
    let named = named(&answer, group, plan.now);
    if !named.iter().any(|it| it.name == report.snapshot) {
        let fault = format!(
            "snapshot {} is not among those that ElastiCache lists",
            report.snapshot
        );
        report.faults.push(fault);
    }
    report.kept = named.len();
    let all: Vec<(String, Timestamp)> = named
        .iter()
        .map(|it| (it.name.clone(), it.taken_at))
        .collect();
    for name in plan.too_old(&all) {
        let arn = named
            .iter()
            .find(|it| it.name == name)
            .map(|it| it.arn.as_str());
        if !is_ours(&round, arn.unwrap_or_default(), plan)? {
            continue;
        }
        progress.message(&format!("deleting the snapshot {name}"));
        round.json(&["elasticache", "delete-snapshot", "--snapshot-name", &name])?;
        report.kept -= 1;
        report.deleted.push(name);
    }
    let arguments = [
        "elasticache",
        "describe-events",
        "--source-type",
        "replication-group",
        "--duration",
        "1440",
    ];
    report.read_events(&round, &arguments)?;
    report.calls = round.calls();
    Ok(report)
}

struct Snapshot {
    name: String,
    arn: String,
    taken_at: Timestamp,
}

fn named(answer: &Value, group: &str, now: Timestamp) -> Vec<Snapshot> {
    let all = answer["Snapshots"].as_array().into_iter().flatten();
    let snapshot = |it: &Value| {
        let name = it["SnapshotName"].as_str()?.to_owned();
        let is_of_it = it["ReplicationGroupId"] == group && name.starts_with(NAMES);
        let taken_at = moment(&it["NodeSnapshots"][0]["SnapshotCreateTime"]);
        is_of_it.then(|| Snapshot {
            arn: it["ARN"].as_str().unwrap_or_default().to_owned(),
            // One that is being made has no moment yet but the one in its name.
            taken_at: taken_at.or_else(|| moment_of_name(&name)).unwrap_or(now),
            name,
        })
    };
    all.filter_map(snapshot).collect()
}

fn moment_of_name(name: &str) -> Option<Timestamp> {
    let text = name.strip_prefix(NAMES)?;
    let moment = jiff::civil::DateTime::strptime("%Y-%m-%d-%H-%M", text).ok()?;
    moment
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|it| it.timestamp())
}

fn is_ours(round: &AwsRound<'_>, arn: &str, plan: &ProviderPlan<'_>) -> Result<bool, AwsError> {
    let arguments = [
        "elasticache",
        "list-tags-for-resource",
        "--resource-name",
        arn,
    ];
    let answer = round.json(&arguments)?;
    Ok(plan.is_ours(&answer["TagList"]))
}

fn described(round: &AwsRound<'_>, group: &str) -> Result<Value, AwsError> {
    let mut answer = round.json(&[
        "elasticache",
        "describe-replication-groups",
        "--replication-group-id",
        group,
    ])?;
    Ok(answer["ReplicationGroups"][0].take())
}

/// Where it is not as the plan demands, with the line that mends it.
pub fn faults_of(
    group: &str,
    plan: &ProviderPlan<'_>,
    round: &AwsRound<'_>,
) -> Result<Vec<String>, AwsError> {
    Ok(faults(group, &described(round, group)?, plan))
}

fn faults(group: &str, found: &Value, plan: &ProviderPlan<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let modify = format!("aws elasticache modify-replication-group --replication-group-id {group}");
    let days = found["SnapshotRetentionLimit"].as_u64().unwrap_or(0);
    if days < u64::from(plan.days_min) {
        let wanted = plan.days_min;
        faults.push(format!(
            "automated snapshots are kept for {days} days, the plan demands {wanted}: {modify} \
             --snapshot-retention-limit {wanted} --apply-immediately"
        ));
    }
    if plan.multi_az && found["MultiAZ"] != "enabled" {
        faults.push(format!(
            "it is in one zone only: {modify} --multi-az-enabled --automatic-failover-enabled --apply-immediately"
        ));
    }
    let key = found["KmsKeyId"].as_str().unwrap_or_default();
    let restore =
        "restore a snapshot into a new group with --at-rest-encryption-enabled and --kms-key-id";
    if found["AtRestEncryptionEnabled"] != true {
        faults.push(format!("it is not encrypted at rest: {restore}"));
    } else if plan.kms_key.is_some() && !plan.is_wanted_key(key) {
        let wanted = plan.kms_key.unwrap_or_default();
        faults.push(format!(
            "it is encrypted with the key {key}, the plan demands {wanted}: {restore}"
        ));
    }
    faults
}
