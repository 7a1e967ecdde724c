//! `[backup]` and `[jobs.NAME]`: when the jobs of the plan run, and how long their results are kept.

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
};

use host::keys::settings::RepositoryKey;
use jobs::schedule::{After, Trigger};
use repository::retention::{DAY_MICROS, HOUR_MICROS, Rules};
use serde::{Deserialize, Serialize};
use services::RedisSettings;

use super::{
    AuditLogs, AwsConfig, Infrastructure, Kubernetes, Remote, ReplicaConfig, SecretsManager,
};

/// The plan: when its jobs run, and how long their results are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    pub full: Schedule,
    pub incremental: Schedule,
    pub proof: Schedule,
    pub expire: Schedule,
    /// Of the definitions into git; where git or pg_dump is missing the plan says so.
    pub schema: Schedule,
    /// What is new in the audit log, into its archive.
    pub audit_archive: Schedule,
    /// A folder, or a remote of git; DIR/schema when absent.
    pub schema_to: Option<Remote>,
    pub full_days: NonZeroU16,
    pub incremental_days: NonZeroU16,
    pub wal_days: NonZeroU16,
    /// Of schema dumps. git keeps its history for longer; nothing is deleted there.
    pub schema_days: NonZeroU16,
    /// Of components other than the database.
    pub snapshot_days: NonZeroU16,
    /// Of RDB files of the cache.
    pub cache_days: NonZeroU16,
    /// Of snapshots of Secrets.
    pub secrets_days: NonZeroU16,
    /// Of copies of the cache's append-only file, on this host.
    pub cache_aof_days: NonZeroU16,
    /// Between the mark that something expires and its deletion. Longer than any backup takes.
    pub grace_hours: NonZeroU16,
    /// Of older engines: signed heads are thinned by one rule now (audit_log.md §5). Read, and without effect.
    #[serde(rename = "heads_minutes")]
    _heads_minutes: Option<NonZeroU16>,
    pub source: BackupSource,
    /// Most MiB a second that a backup reads; none: as fast as it can.
    pub throttle_mib: Option<NonZeroU32>,
    /// These settings themselves, where they are a file.
    #[serde(skip)]
    pub settings_file: Option<PathBuf>,
    /// As `[database] strict` has it.
    #[serde(skip)]
    pub strict: bool,
    /// As `[repositories.NAME]` has them.
    #[serde(skip)]
    pub repositories: BTreeMap<String, ReplicaConfig>,
    /// The named cluster whose plan this is; the instance's own when absent.
    #[serde(skip)]
    pub cluster: Option<String>,
    /// The plans of `[clusters.NAME]`, by name.
    #[serde(skip)]
    pub clusters: BTreeMap<String, Backup>,
    /// As `[cache]` names it; the instance's own Redis when absent. What is wrong with it is told where it is reached.
    #[serde(skip, default = "own_cache")]
    pub cache: Result<Option<RedisSettings>, String>,
    /// As `[aws]` has it.
    #[serde(skip)]
    pub aws: Option<AwsConfig>,
    #[serde(skip)]
    pub infrastructure: Infrastructure,
    /// As `[kubernetes]` has it; none: there is no cluster.
    #[serde(skip)]
    pub kubernetes: Option<Kubernetes>,
    /// As `[audit_logs]`, `[audit_archive]` and `[log]` have it.
    #[serde(skip)]
    pub audit_logs: AuditLogs,
    /// As `[repository_key]` and `[audit_key]` say: what the next keys shall be.
    #[serde(skip)]
    pub repository_key: RepositoryKey,
    #[serde(skip)]
    pub audit_key: RepositoryKey,
    #[serde(skip)]
    pub secrets_manager: Option<SecretsManager>,
    /// By name, of jobs that have no schedule above.
    #[serde(skip)]
    schedules: BTreeMap<String, Trigger>,
    /// By the names of jobs that this instance does not do itself.
    #[serde(skip)]
    delegations: BTreeMap<String, Delegation>,
}

/// `[jobs."database.full"]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobSettings {
    pub schedule: Option<Schedule>,
    /// How long its results are kept.
    pub keep_days: Option<NonZeroU16>,
    /// Why there is nothing here that it could protect.
    pub not_here: Option<String>,
    /// Who protects it in the place of this instance.
    pub provided_by: Option<Provider>,
}

/// Why a row of the guide's strategy has no job that runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delegation {
    NotHere(String),
    ProvidedBy(Provider),
}

/// A service that protects something by itself, once it is set up to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Automated backups of RDS.
    Rds,
    /// Snapshots of ElastiCache.
    Elasticache,
    AwsBackup,
    AwsConfig,
    SecretsManager,
    /// A versioned bucket.
    S3Versioning,
}

impl Provider {
    /// As settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rds => "rds",
            Self::Elasticache => "elasticache",
            Self::AwsBackup => "aws-backup",
            Self::AwsConfig => "aws-config",
            Self::SecretsManager => "secrets-manager",
            Self::S3Versioning => "s3-versioning",
        }
    }
}

impl fmt::Display for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere(reason) => write!(f, "not here: {reason}"),
            Self::ProvidedBy(provider) => write!(f, "provided by {}", provider.name()),
        }
    }
}

/// What `[backup]` says of a job under an older name.
#[derive(Debug, Default)]
pub struct OlderSettings<'a> {
    pub schedule: Option<&'a mut Schedule>,
    pub keep_days: Option<&'a mut NonZeroU16>,
}

/// Which way the bytes of a backup come.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BackupSource {
    #[default]
    Auto,
    Local,
    Protocol,
}

/// In the words of `docs/operations/jobs.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Schedule(pub Trigger);

impl TryFrom<String> for Schedule {
    type Error = jobs::schedule::TriggerError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

const fn days(days: u16) -> NonZeroU16 {
    match NonZeroU16::new(days) {
        Some(days) => days,
        None => NonZeroU16::MIN,
    }
}

fn own_cache() -> Result<Option<RedisSettings>, String> {
    Ok(None)
}

/// The guide's table.
impl Default for Backup {
    fn default() -> Self {
        Self {
            full: Schedule(Trigger::daily(90)),
            incremental: Schedule(Trigger::Hourly { minute: 0 }),
            proof: Schedule(Trigger::After(After::Every("backup".to_owned()))),
            expire: Schedule(Trigger::After(After::Jobs(vec!["full".to_owned()]))),
            schema: Schedule(Trigger::EveryMinutes { minutes: 15 }),
            audit_archive: Schedule(Trigger::daily(150)),
            schema_to: None,
            full_days: days(30),
            incremental_days: days(7),
            wal_days: days(7),
            schema_days: days(90),
            snapshot_days: days(90),
            cache_days: days(1),
            secrets_days: days(30),
            cache_aof_days: days(1),
            grace_hours: days(24),
            _heads_minutes: None,
            source: BackupSource::Auto,
            throttle_mib: None,
            settings_file: None,
            strict: false,
            repositories: BTreeMap::new(),
            cluster: None,
            clusters: BTreeMap::new(),
            cache: own_cache(),
            aws: None,
            infrastructure: Infrastructure::default(),
            kubernetes: None,
            audit_logs: AuditLogs::default(),
            repository_key: RepositoryKey::default(),
            audit_key: RepositoryKey::default(),
            secrets_manager: None,
            schedules: BTreeMap::new(),
            delegations: BTreeMap::new(),
        }
    }
}

impl Backup {
    pub fn rules(&self) -> Rules {
        let micros = |days: NonZeroU16| i64::from(days.get()) * DAY_MICROS;
        Rules {
            full_micros: micros(self.full_days),
            incremental_micros: micros(self.incremental_days),
            wal_micros: micros(self.wal_days),
            schema_micros: micros(self.schema_days),
            snapshot_micros: micros(self.snapshot_days),
            cache_micros: micros(self.cache_days),
            secrets_micros: micros(self.secrets_days),
            grace_micros: i64::from(self.grace_hours.get()) * HOUR_MICROS,
            wal_at_once: false,
        }
    }

    /// With which the plan of a named cluster begins.
    pub(crate) fn of_cluster(&self, name: &str) -> Self {
        Self {
            cluster: Some(name.to_owned()),
            repositories: BTreeMap::new(),
            strict: false,
            delegations: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// As `[jobs.NAME]` has it, of a job that `[backup]` says nothing of.
    pub fn schedule_of(&self, name: &str) -> Option<&Trigger> {
        self.schedules.get(name)
    }

    /// In the place of the job's own: of a job that `[backup]` says nothing of.
    pub fn set_schedule(&mut self, name: String, schedule: &Schedule) {
        self.schedules.insert(name, schedule.0.clone());
    }

    /// Why the job of this name does not run here.
    pub fn delegation_of(&self, name: &str) -> Option<&Delegation> {
        self.delegations.get(name)
    }

    /// The job of this name does not run here.
    pub fn delegate(&mut self, name: String, delegation: Delegation) {
        self.delegations.insert(name, delegation);
    }
}
