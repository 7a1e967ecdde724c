//! Rows of the guide that somebody else keeps (`provided_by`): whether the provider says that it is so.

use control_plane::aws::{AwsError, AwsRound};
use serde_json::Value;

use crate::{
    config::{Backup, Provider},
    infrastructure::client,
    strategy::StrategyRow,
};

/// What is wrong, and the line or the command that mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderFault {
    pub why: String,
    pub mend: String,
}

fn fault(why: impl Into<String>, mend: impl Into<String>) -> ProviderFault {
    ProviderFault {
        why: why.into(),
        mend: mend.into(),
    }
}

/// What the provider said that shows it; asks only, changes nothing.
pub fn check(
    row: &StrategyRow,
    provider: Provider,
    config: &Backup,
) -> Result<String, ProviderFault> {
    let aws = client(config).map_err(|why| fault(why, "[aws] region = \"…\""))?;
    let cancelled = || false;
    let round = aws.round(&cancelled);
    let answered = match provider {
        Provider::Rds => rds(row, config, &round),
        Provider::Elasticache => elasticache(config, &round),
        Provider::AwsBackup => backup_plans(row, &round),
        Provider::AwsConfig => recorder(row, &round),
        Provider::SecretsManager => secrets(&round),
        Provider::S3Versioning => versioning(config, &round),
    };
    answered.map_err(|error| match error {
        Trouble::Fault(fault) => fault,
        Trouble::NotAsked(error) => fault(
            format!("it could not be asked: {error}"),
            format!(
                "aws {}, as the account that bre runs as",
                error_call(provider)
            ),
        ),
    })
}

enum Trouble {
    Fault(ProviderFault),
    NotAsked(AwsError),
}

impl From<AwsError> for Trouble {
    fn from(error: AwsError) -> Self {
        Self::NotAsked(error)
    }
}

impl From<ProviderFault> for Trouble {
    fn from(fault: ProviderFault) -> Self {
        Self::Fault(fault)
    }
}

type Answer = Result<String, Trouble>;

/// What is asked first, for a person to try.
fn error_call(provider: Provider) -> &'static str {
    match provider {
        Provider::Rds => "rds describe-db-instances",
        Provider::Elasticache => "elasticache describe-replication-groups",
        Provider::AwsBackup => "backup list-backup-plans",
        Provider::AwsConfig => "configservice describe-configuration-recorder-status",
        Provider::SecretsManager => "secretsmanager list-secrets",
        Provider::S3Versioning => "s3api get-bucket-versioning",
    }
}

fn rds(row: &StrategyRow, config: &Backup, round: &AwsRound<'_>) -> Answer {
    let named = config.infrastructure.rds.as_ref();
    let named = named.ok_or_else(|| fault("no RDS instance is named", "[rds] instance = \"…\""))?;
    let name = named.instance.as_str();
    let asked = [
        "rds",
        "describe-db-instances",
        "--db-instance-identifier",
        name,
    ];
    let found = &round.json(&asked)?["DBInstances"][0];
    let (days, wanted) = (number(&found["BackupRetentionPeriod"]), row.days_min());
    if days < wanted {
        return Err(fault(
            format!("RDS keeps automated backups of {name} for {days} days; the guide asks for: {wanted}"),
            format!(
                "aws rds modify-db-instance --db-instance-identifier {name} --backup-retention-period {wanted} \
                 --apply-immediately"
            ),
        )
        .into());
    }
    Ok(format!(
        "RDS keeps automated backups of {name} for {days} days"
    ))
}

fn elasticache(config: &Backup, round: &AwsRound<'_>) -> Answer {
    let named = config.infrastructure.elasticache.as_ref();
    let named = named.ok_or_else(|| {
        fault(
            "no replication group is named",
            "[elasticache] group = \"…\"",
        )
    })?;
    let name = named.group.as_str();
    let asked = [
        "elasticache",
        "describe-replication-groups",
        "--replication-group-id",
        name,
    ];
    let found = &round.json(&asked)?["ReplicationGroups"][0];
    let days = number(&found["SnapshotRetentionLimit"]);
    if days < 1 {
        return Err(fault(
            format!("ElastiCache makes no snapshots of {name} by itself"),
            format!(
                "aws elasticache modify-replication-group --replication-group-id {name} --snapshot-retention-limit 1 \
                 --apply-immediately"
            ),
        )
        .into());
    }
    Ok(format!(
        "ElastiCache keeps snapshots of {name} for {days} days"
    ))
}

/// A plan with a rule that keeps what it makes for as long as the row asks for.
fn backup_plans(row: &StrategyRow, round: &AwsRound<'_>) -> Answer {
    let wanted = row.days_min();
    let plans = round.json(&["backup", "list-backup-plans"])?;
    for plan in list(&plans["BackupPlansList"]) {
        // Of an account with very many plans the first ones are looked at.
        if round.calls_left() == 0 {
            break;
        }
        let id = text(&plan["BackupPlanId"]);
        let found = round.json(&["backup", "get-backup-plan", "--backup-plan-id", id])?;
        let keeps = |rule: &&Value| {
            let days = &rule["Lifecycle"]["DeleteAfterDays"];
            days.is_null() || number(days) >= wanted
        };
        if let Some(rule) = list(&found["BackupPlan"]["Rules"]).find(keeps) {
            return Ok(format!(
                "AWS Backup has the plan {} with the rule {}",
                text(&plan["BackupPlanName"]),
                text(&rule["RuleName"])
            ));
        }
    }
    Err(fault(
        format!("AWS Backup has no plan whose rule keeps what it makes for {wanted} days"),
        "aws backup create-backup-plan, and a selection that has the stacks",
    )
    .into())
}

fn recorder(row: &StrategyRow, round: &AwsRound<'_>) -> Answer {
    let asked = ["configservice", "describe-configuration-recorder-status"];
    let found = round.json(&asked)?;
    let recorders: Vec<&Value> = list(&found["ConfigurationRecordersStatus"]).collect();
    let Some(recording) = recorders.iter().find(|it| it["recording"] == true) else {
        let name = recorders.first().map_or("default", |it| text(&it["name"]));
        return Err(fault(
            "AWS Config records nothing here",
            format!("aws configservice start-configuration-recorder --configuration-recorder-name {name}"),
        )
        .into());
    };
    let kept = round.json(&["configservice", "describe-retention-configurations"]);
    let periods = kept.ok().and_then(|kept| {
        let kept = list(&kept["RetentionConfigurations"]).next()?;
        kept["RetentionPeriodInDays"].as_i64()
    });
    // Seven years where none was set.
    let (days, wanted) = (periods.unwrap_or(2557), row.days_min());
    if days < wanted {
        return Err(fault(
            format!("AWS Config keeps its history for {days} days; the guide asks for: {wanted}"),
            format!(
                "aws configservice put-retention-configuration --retention-period-in-days {wanted}"
            ),
        )
        .into());
    }
    Ok(format!(
        "AWS Config records with {}, for {days} days",
        text(&recording["name"])
    ))
}

fn secrets(round: &AwsRound<'_>) -> Answer {
    let found = round.json(&[
        "secretsmanager",
        "list-secrets",
        "--query",
        "SecretList[].Name",
    ])?;
    match list(&found).count() {
        0 => Err(fault(
            "Secrets Manager has no secret here",
            "aws secretsmanager create-secret --name NAME --secret-string file:///dev/stdin",
        )
        .into()),
        count => Ok(format!("Secrets Manager has {count} secrets here")),
    }
}

fn versioning(config: &Backup, round: &AwsRound<'_>) -> Answer {
    let states = config.infrastructure.terraform.values();
    let buckets: Vec<&str> = states.filter_map(|state| state.bucket()).collect();
    if buckets.is_empty() {
        let mend = "[terraform.NAME] bucket = \"…\", key = \"…\"";
        return Err(fault("no bucket of a state is named", mend).into());
    }
    for bucket in &buckets {
        let found = round.json(&["s3api", "get-bucket-versioning", "--bucket", bucket])?;
        if found["Status"] != "Enabled" {
            return Err(fault(
                format!("the bucket {bucket} keeps no versions"),
                format!("aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled"),
            )
            .into());
        }
    }
    Ok(format!("versions are kept in {}", buckets.join(", ")))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests;
