//! The guide's backup strategy: its five tables as it prints them, which job answers to each row, and whether the plan
//! keeps what a row promises.

use std::{fmt, time::Duration};

use jobs::{JobSpec, schedule::Trigger};
use serde::Serialize;

use crate::config::{Delegation, Provider};

/// A table of the guide's "Backup Strategy".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Database,
    ApplicationState,
    Cache,
    AuditLog,
    Infrastructure,
}

impl Section {
    pub const ALL: [Self; 5] = [
        Self::Database,
        Self::ApplicationState,
        Self::Cache,
        Self::AuditLog,
        Self::Infrastructure,
    ];

    /// The guide's.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Database => "Database Backup Strategy",
            Self::ApplicationState => "Application State Backup",
            Self::Cache => "Cache Backup Strategy",
            Self::AuditLog => "Audit Log Backup",
            Self::Infrastructure => "Infrastructure Backup",
        }
    }

    pub fn rows(self) -> impl Iterator<Item = &'static StrategyRow> {
        STRATEGY.iter().filter(move |row| row.section == self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frequency {
    Continuous,
    OnChange,
    Hourly,
    Daily,
    Weekly,
}

/// Between two looks at something that cannot be watched all the time.
const LOOK: Duration = Duration::from_secs(5 * 60);
const CHANGE_LOOK: Duration = Duration::from_secs(15 * 60);

impl Frequency {
    fn period_max(self) -> Duration {
        match self {
            Self::Continuous => LOOK,
            Self::OnChange => CHANGE_LOOK,
            Self::Hourly => Duration::from_secs(3600),
            Self::Daily => Duration::from_secs(24 * 3600),
            Self::Weekly => Duration::from_secs(7 * 24 * 3600),
        }
    }

    fn is_kept_by(self, trigger: &Trigger) -> bool {
        match trigger {
            Trigger::Continuous | Trigger::OnChange => true,
            _ => trigger
                .period()
                .is_some_and(|period| period <= self.period_max()),
        }
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continuous => "Continuous",
            Self::OnChange => "On Change",
            Self::Hourly => "Hourly",
            Self::Daily => "Daily",
            Self::Weekly => "Weekly",
        })
    }
}

/// How long the guide has something kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFor {
    Hours(u32),
    Days(u32),
    Years(u32),
    Indefinite,
}

const DAY_SECONDS: u64 = 24 * 3600;

impl KeptFor {
    fn at_least(self) -> Duration {
        match self {
            Self::Hours(hours) => Duration::from_secs(3600 * u64::from(hours)),
            Self::Days(days) => Duration::from_secs(DAY_SECONDS * u64::from(days)),
            Self::Years(years) => Duration::from_secs(365 * DAY_SECONDS * u64::from(years)),
            Self::Indefinite => Duration::MAX,
        }
    }
}

impl fmt::Display for KeptFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hours(hours) => write!(f, "{hours} hours"),
            Self::Days(days) => write!(f, "{days} days"),
            Self::Years(years) => write!(f, "{years} years"),
            Self::Indefinite => f.write_str("Indefinite"),
        }
    }
}

/// One row of a table, in the guide's words.
#[derive(Debug)]
pub struct StrategyRow {
    pub section: Section,
    pub component: &'static str,
    /// Empty where the guide's table has no such column.
    pub method: &'static str,
    pub frequency: Frequency,
    pub retention: KeptFor,
    pub storage: &'static str,
    /// The job that answers to it.
    pub job: &'static str,
    /// Who may do it in the job's place.
    pub providers: &'static [Provider],
}

const fn row(
    section: Section,
    (component, method): (&'static str, &'static str),
    (frequency, retention, storage): (Frequency, KeptFor, &'static str),
    (job, providers): (&'static str, &'static [Provider]),
) -> StrategyRow {
    StrategyRow {
        section,
        component,
        method,
        frequency,
        retention,
        storage,
        job,
        providers,
    }
}

const SEALED: &str = "Encrypted S3 Bucket";
const ARCHIVED: &str = "Encrypted S3 Bucket (Glacier)";
const GIT: &str = "Git Repository";
const GITOPS: &str = "GitOps Repository";

/// In the guide's order.
pub const STRATEGY: [StrategyRow; 17] = {
    use Frequency::{Continuous, Daily, Hourly, OnChange, Weekly};
    use KeptFor::{Days, Hours, Indefinite, Years};
    use Provider::{AwsBackup, AwsConfig, Elasticache, Rds, S3Versioning, SecretsManager};
    use Section::{ApplicationState, AuditLog, Cache, Database, Infrastructure};
    [
        row(
            Database,
            ("Full Database", ""),
            (Daily, Days(30), SEALED),
            ("database.full", &[Rds, AwsBackup]),
        ),
        row(
            Database,
            ("Incremental", ""),
            (Hourly, Days(7), SEALED),
            ("database.incremental", &[Rds, AwsBackup]),
        ),
        row(
            Database,
            ("Transaction Logs", ""),
            (Continuous, Days(7), SEALED),
            ("wal.stream", &[]),
        ),
        row(
            Database,
            ("Schema Backup", ""),
            (OnChange, Days(90), "Version Control System"),
            ("database.schema", &[]),
        ),
        row(
            ApplicationState,
            ("Kubernetes Config", GITOPS),
            (OnChange, Indefinite, GIT),
            ("kubernetes.config", &[]),
        ),
        row(
            ApplicationState,
            ("Secrets", "AWS Secrets Manager"),
            (Daily, Days(30), "AWS Secrets Manager"),
            ("kubernetes.secrets", &[SecretsManager]),
        ),
        row(
            ApplicationState,
            ("ConfigMaps", GITOPS),
            (OnChange, Indefinite, GIT),
            ("kubernetes.configmaps", &[]),
        ),
        row(
            ApplicationState,
            ("Helm Values", GITOPS),
            (OnChange, Indefinite, GIT),
            ("kubernetes.helm", &[]),
        ),
        row(
            Cache,
            ("RDB Snapshot", ""),
            (Hourly, Hours(24), SEALED),
            ("cache.rdb", &[Elasticache]),
        ),
        row(
            Cache,
            ("AOF Log", ""),
            (Continuous, Hours(24), "Local Storage"),
            ("cache.aof", &[Elasticache]),
        ),
        row(
            AuditLog,
            ("Database Audit Logs", ""),
            (Daily, Years(7), ARCHIVED),
            ("audit_log.archive", &[]),
        ),
        row(
            AuditLog,
            ("Application Audit Logs", ""),
            (Daily, Years(7), ARCHIVED),
            ("audit_log.application", &[]),
        ),
        row(
            AuditLog,
            ("System Audit Logs", ""),
            (Daily, Years(2), ARCHIVED),
            ("audit_log.system", &[]),
        ),
        row(
            Infrastructure,
            ("Terraform State", "Versioned S3 Bucket"),
            (OnChange, Indefinite, "S3 with Versioning"),
            ("terraform.state", &[S3Versioning]),
        ),
        row(
            Infrastructure,
            ("CloudFormation Stacks", "AWS Backup"),
            (Weekly, Days(90), "AWS Backup"),
            ("cloudformation.stacks", &[AwsBackup]),
        ),
        row(
            Infrastructure,
            ("IAM Policies", GIT),
            (OnChange, Indefinite, GIT),
            ("iam.policies", &[]),
        ),
        row(
            Infrastructure,
            ("Network Configuration", "AWS Config"),
            (Continuous, Days(90), "AWS Config"),
            ("network.configuration", &[AwsConfig]),
        ),
    ]
};

/// Of the row that this job answers to.
pub fn row_of(job: &str) -> Option<&'static StrategyRow> {
    STRATEGY.iter().find(|row| row.job == job)
}

/// Whether settings may say of this job that it does not run here.
pub fn may_delegate(job: &str, delegation: &Delegation, of_instance: bool) -> Result<(), String> {
    let key = match delegation {
        Delegation::NotHere(_) => "not_here",
        Delegation::ProvidedBy(_) => "provided_by",
    };
    if !of_instance {
        return Err(format!(
            "{key}: the guide's rows are the instance's own; a named cluster has none"
        ));
    }
    let Some(row) = row_of(job) else {
        let jobs = STRATEGY.iter().map(|row| row.job).collect::<Vec<_>>();
        return Err(format!(
            "{key}: {job} is no row of the guide's strategy; its rows are: {}",
            jobs.join(", ")
        ));
    };
    match delegation {
        Delegation::NotHere(_) => Ok(()),
        Delegation::ProvidedBy(provider) if row.providers.contains(provider) => Ok(()),
        Delegation::ProvidedBy(provider) => {
            let known: Vec<&str> = row.providers.iter().map(|it| it.name()).collect();
            let known = match known.is_empty() {
                true => "nothing else does what this job does".to_owned(),
                false => format!("this row may be provided by: {}", known.join(", ")),
            };
            Err(format!("provided_by = \"{}\": {known}", provider.name()))
        }
    }
}

/// What is known of a job beside its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobCondition {
    /// The settings alone are looked at.
    NotAsked,
    /// No engine runs.
    NotRunning,
    /// An operator paused it: since when, by whom and why.
    Paused(String),
    /// It cannot run on this host, and why.
    Unavailable(String),
    /// Its last run.
    Failed(String),
    Working,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Runs,
    /// By its settings; nothing else was asked.
    Configured,
    NotHere,
    ProvidedBy,
    NotRunning,
    /// It is configured, and does not do what the row promises.
    Wrong,
    /// Neither configured nor said to be absent.
    Missing,
}

impl Verdict {
    pub fn words(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Configured => "configured",
            Self::NotHere => "not here",
            Self::ProvidedBy => "provided",
            Self::NotRunning => "not running",
            Self::Wrong => "WRONG",
            Self::Missing => "MISSING",
        }
    }
}

/// How a row is kept here.
#[derive(Debug, Serialize)]
pub struct RowCheck {
    pub section: &'static str,
    pub component: &'static str,
    pub job: &'static str,
    pub verdict: Verdict,
    /// What is wrong or missing, or why it is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The line of settings or the command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// A fault of a row and its remedy.
type Fault = (Verdict, String, String);

impl StrategyRow {
    /// `guide`: the job as it is without any settings. None of a job that this version does not have.
    pub fn check(
        &self,
        spec: Option<&JobSpec>,
        guide: Option<&JobSpec>,
        delegation: Option<&Delegation>,
        seen: &JobCondition,
    ) -> RowCheck {
        let (verdict, why, mend) = match (delegation, spec) {
            (Some(Delegation::NotHere(reason)), _) => {
                (Verdict::NotHere, Some(reason.clone()), None)
            }
            (Some(delegation @ Delegation::ProvidedBy(_)), _) => {
                (Verdict::ProvidedBy, Some(delegation.to_string()), None)
            }
            (None, None) => (
                Verdict::Missing,
                Some("this version of bre has no job for it".to_owned()),
                Some(self.not_here()),
            ),
            (None, Some(spec)) => match self.fault(spec, guide, seen) {
                Some((verdict, why, mend)) => (verdict, Some(why), Some(mend)),
                None if *seen == JobCondition::NotAsked => (Verdict::Configured, None, None),
                None => (Verdict::Runs, None, None),
            },
        };
        RowCheck {
            section: self.section.heading(),
            component: self.component,
            job: self.job,
            verdict,
            why,
            mend,
        }
    }

    fn not_here(&self) -> String {
        format!(
            "[jobs.\"{}\"] not_here = \"why there is none here\"",
            self.job
        )
    }

    fn fault(&self, spec: &JobSpec, guide: Option<&JobSpec>, seen: &JobCondition) -> Option<Fault> {
        let section = format!("[jobs.\"{}\"]", self.job);
        let default = guide.map_or_else(
            || "daily 00:00".to_owned(),
            |guide| guide.trigger.to_string(),
        );
        let schedule = format!("{section} schedule = \"{default}\"");
        if matches!(spec.trigger, Trigger::Off | Trigger::Manual) {
            let why = match spec.trigger {
                Trigger::Off => "it is off".to_owned(),
                _ => "it runs by hand only".to_owned(),
            };
            return Some((
                Verdict::Wrong,
                why,
                format!("{schedule}, or {}", self.not_here()),
            ));
        }
        if !self.frequency.is_kept_by(&spec.trigger) {
            let why = format!(
                "it runs {}; the guide asks for: {}",
                spec.trigger, self.frequency
            );
            return Some((Verdict::Wrong, why, schedule));
        }
        if spec
            .retention
            .at_least()
            .is_some_and(|kept| kept < self.retention.at_least())
        {
            let why = format!(
                "kept for {}; the guide asks for: {}",
                spec.retention, self.retention
            );
            let days = self.retention.at_least().as_secs().div_ceil(DAY_SECONDS);
            return Some((Verdict::Wrong, why, format!("{section} keep_days = {days}")));
        }
        match seen {
            JobCondition::NotAsked | JobCondition::Working => None,
            JobCondition::NotRunning => Some((
                Verdict::NotRunning,
                "no engine runs the plan".to_owned(),
                "bre up, or bre serve with the data-service".to_owned(),
            )),
            JobCondition::Paused(said) => Some((
                Verdict::Wrong,
                format!("it is paused: {said}"),
                format!("bre job resume {}", self.job),
            )),
            JobCondition::Unavailable(reason) => {
                Some((Verdict::Missing, reason.clone(), self.not_here()))
            }
            JobCondition::Failed(said) => Some((
                Verdict::Wrong,
                format!("its last run failed: {said}"),
                format!("bre job show {0}; bre job run {0}", self.job),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
