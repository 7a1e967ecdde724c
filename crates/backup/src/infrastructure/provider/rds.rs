//! An instance of RDS.

use control_plane::aws::{Aws, AwsError, AwsRound};
use jiff::Timestamp;
use serde_json::Value;

use super::{ProviderPlan, ProviderReport, moment};
use crate::Progress;

/// Five, and one for each snapshot that is deleted.
const CALLS_MAX: u32 = 200;

/// Looks, makes one snapshot, deletes those of ours that are too old.
pub fn run(
    instance: &str,
    plan: &ProviderPlan<'_>,
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<ProviderReport, AwsError> {
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    progress.message(&format!("looking at the RDS instance {instance}"));
    let found = &described(&round, instance)?;
    let mut report = ProviderReport {
        faults: faults(instance, found, plan),
        snapshot: plan.name(),
        ..ProviderReport::default()
    };
    report.restorable_to = found["LatestRestorableTime"].as_str().map(str::to_owned);
    report.restorable_from = earliest(&round, instance, found, plan.now)?;
    progress.message(&format!("making the snapshot {}", report.snapshot));
    let tags = plan.tags_text();
    round.json(&[
        "rds",
        "create-db-snapshot",
        "--db-instance-identifier",
        instance,
        "--db-snapshot-identifier",
        &report.snapshot,
        "--tags",
        &tags,
    ])?;
    let answer = round.json(&[
        "rds",
        "describe-db-snapshots",
        "--db-instance-identifier",
        instance,
        "--snapshot-type",
        "manual",
    ])?;
    let ours = ours(&answer, plan);
    let is_made = ours.iter().any(|(name, _)| *name == report.snapshot);
    if !is_made {
        let fault = format!(
            "snapshot {} is not among those that RDS lists",
            report.snapshot
        );
        report.faults.push(fault);
    }
    report.kept = ours.len();
    for name in plan.too_old(&ours) {
        progress.message(&format!("deleting the snapshot {name}"));
        round.json(&[
            "rds",
            "delete-db-snapshot",
            "--db-snapshot-identifier",
            &name,
        ])?;
        report.kept -= 1;
        report.deleted.push(name);
    }
    let arguments = [
        "rds",
        "describe-events",
        "--source-identifier",
        instance,
        "--source-type",
        "db-instance",
        "--duration",
        "1440",
    ];
    report.read_events(&round, &arguments)?;
    report.calls = round.calls();
    Ok(report)
}

fn described(round: &AwsRound<'_>, instance: &str) -> Result<Value, AwsError> {
    let mut answer = round.json(&[
        "rds",
        "describe-db-instances",
        "--db-instance-identifier",
        instance,
    ])?;
    Ok(answer["DBInstances"][0].take())
}

/// Where it is not as the plan demands, with the line that mends it.
pub fn faults_of(
    instance: &str,
    plan: &ProviderPlan<'_>,
    round: &AwsRound<'_>,
) -> Result<Vec<String>, AwsError> {
    Ok(faults(instance, &described(round, instance)?, plan))
}

fn faults(instance: &str, found: &Value, plan: &ProviderPlan<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let modify = format!("aws rds modify-db-instance --db-instance-identifier {instance}");
    let days = found["BackupRetentionPeriod"].as_u64().unwrap_or(0);
    if days < u64::from(plan.days_min) {
        let wanted = plan.days_min;
        faults.push(format!(
            "automated backups are kept for {days} days, the plan demands {wanted}: {modify} --backup-retention-period \
             {wanted} --apply-immediately"
        ));
    }
    if plan.multi_az && found["MultiAZ"] != true {
        faults.push(format!(
            "it is in one zone only: {modify} --multi-az --apply-immediately"
        ));
    }
    let key = found["KmsKeyId"].as_str().unwrap_or_default();
    if found["StorageEncrypted"] != true {
        faults.push(
            "its storage is not encrypted, and RDS encrypts none afterwards: copy a snapshot with --kms-key-id and \
             restore that one"
                .to_owned(),
        );
    } else if !plan.is_wanted_key(key) {
        faults.push(format!(
            "it is encrypted with the key {key}, the plan demands {}: copy a snapshot with --kms-key-id and restore \
             that one",
            plan.kms_key.unwrap_or_default()
        ));
    }
    faults
}

fn earliest(
    round: &AwsRound<'_>,
    instance: &str,
    found: &Value,
    now: Timestamp,
) -> Result<Option<String>, AwsError> {
    let arguments = [
        "rds",
        "describe-db-instance-automated-backups",
        "--db-instance-identifier",
        instance,
    ];
    let window = match round.json(&arguments) {
        Ok(answer) => answer["DBInstanceAutomatedBackups"][0]["RestoreWindow"]["EarliestTime"]
            .as_str()
            .map(str::to_owned),
        // A right that a role may lack: the rest is known without it.
        Err(error) if error.is_of_one_call() => None,
        Err(error) => return Err(error),
    };
    // Not before the instance was made, nor before its backups are kept.
    let days = found["BackupRetentionPeriod"].as_i64().unwrap_or(0);
    let computed = || {
        let kept = now - jiff::SignedDuration::from_hours(24 * days);
        let made = moment(&found["InstanceCreateTime"]).unwrap_or(kept);
        (days > 0).then(|| kept.max(made).to_string())
    };
    Ok(window.or_else(computed))
}

fn ours(answer: &Value, plan: &ProviderPlan<'_>) -> Vec<(String, Timestamp)> {
    let all = answer["DBSnapshots"].as_array().into_iter().flatten();
    let all = all.filter(|it| plan.is_ours(&it["TagList"]));
    let named = |it: &Value| {
        let name = it["DBSnapshotIdentifier"].as_str()?.to_owned();
        // One that is being made has no moment yet.
        Some((name, moment(&it["SnapshotCreateTime"]).unwrap_or(plan.now)))
    };
    all.filter_map(named).collect()
}
