//! Settings of an instance: few, with defaults that suit one machine. `bre.toml` holds what differs.

mod audit;
mod audit_logs;
mod aws;
mod backup;
mod infrastructure;
mod kubernetes;
mod secrets_manager;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::{NonZeroU16, NonZeroUsize},
    path::{Path, PathBuf},
};

use repository::{
    retention::Rules,
    store::{LockMode, LockPolicy},
};
use serde::Deserialize;
use services::{
    BookSettings, FeedSettings, LocateSettings, MetricsDoor, Password, RedisSettings,
    RequestsPerMinute, Settings, TrustedProxies,
};

pub use audit::{Audit, Witness};
pub use audit_logs::{AuditArchive, AuditLogs};
pub use aws::AwsConfig;
pub use backup::{
    Backup, BackupSource, Delegation, JobSettings, OlderSettings, Provider, Schedule,
};
use host::{keys::settings::RepositoryKey, location::Location, telemetry::LogFile};
pub use infrastructure::{
    CloudFormationConfig, ElastiCacheConfig, Infrastructure, InfrastructureConfig, RdsConfig,
    TerraformConfig,
};
pub use kubernetes::Kubernetes;
pub use secrets_manager::SecretsManager;

use crate::{error::Error, read_book, secret_file, settings_file};

/// `DIR/bre.toml`, or the file that `--config` names. Unknown words are errors: a misspelt setting must not be a silent default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub server: Server,
    pub internal: Internal,
    pub services: Services,
    pub database: Database,
    pub cache: Cache,
    pub repository: Repository,
    /// Further ones, by name: copies of the first.
    pub repositories: BTreeMap<String, ReplicaConfig>,
    pub repository_key: RepositoryKey,
    pub audit: Audit,
    /// Of the audit archive, as its rotation takes the next one.
    pub audit_key: RepositoryKey,
    /// Amazon's services, through their client; absent: no job asks them.
    pub aws: Option<AwsConfig>,
    /// Where the account's configuration is kept.
    pub infrastructure: InfrastructureConfig,
    /// States of Terraform, by name.
    pub terraform: BTreeMap<String, TerraformConfig>,
    pub cloudformation: CloudFormationConfig,
    pub rds: Option<RdsConfig>,
    pub elasticache: Option<ElastiCacheConfig>,
    pub audit_archive: AuditArchive,
    pub audit_logs: AuditLogs,
    pub backup: Backup,
    /// By the names of jobs; what is said here counts, where [backup] says something of it, too.
    pub jobs: BTreeMap<String, JobSettings>,
    #[serde(rename = "spare")]
    pub standby: StandbyConfig,
    /// Clusters that are not the instance's own, by name.
    pub clusters: BTreeMap<String, Cluster>,
    /// What of a Kubernetes cluster is backed up.
    pub kubernetes: Option<Kubernetes>,
    /// Which secrets of AWS Secrets Manager are backed up.
    pub secrets_manager: Option<SecretsManager>,
    pub limits: Limits,
    pub metrics: Metrics,
    pub log: Log,
    /// The services say what can be set about them.
    pub feeds: FeedSettings,
    pub locates: LocateSettings,
    /// The file that this was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The instance's folder.
    #[serde(skip)]
    pub root: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// The address to listen on.
    pub bind: IpAddr,
    pub port: u16,
    /// Certificate chain and key as PEM files: the public API speaks TLS only.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Whose `X-Forwarded-For` says who sent a request: addresses and networks.
    pub trusted_proxies: TrustedProxies,
}

impl Server {
    /// What the public port is to show, read now so that a wrong path is told at the start.
    pub fn tls(&self) -> Result<Option<services::Tls>, Error> {
        match (&self.tls_certificate, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(services::Tls {
                certificate: std::fs::read(certificate)
                    .map_err(Error::file("cannot read the TLS file", certificate))?,
                key: secrets::read(key)?.to_vec(),
            })),
            _ => Err(Error::failed(
                "[server] tls_certificate and tls_key go together",
            )),
        }
    }

    pub fn scheme(&self) -> &'static str {
        match self.tls_certificate {
            Some(_) => "https",
            None => "http",
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: HERE,
            port: 8000,
            tls_certificate: None,
            tls_key: None,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Between services in several processes (`bre serve`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Internal {
    pub bind: IpAddr,
    /// 8000 when absent, or 8001 beside an api-gateway.
    pub port: Option<u16>,
    /// A file of mode 0600 with the secret that all services share.
    pub secret_file: Option<PathBuf>,
}

impl Default for Internal {
    fn default() -> Self {
        Self {
            bind: HERE,
            port: None,
            secret_file: None,
        }
    }
}

/// Where the services are that do not run in this process.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Services {
    pub calculation_service: Option<String>,
    pub data_service: Option<String>,
    pub cache_service: Option<String>,
}

/// Whom the public port tells its metrics, besides whoever is on this machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// All.
    pub public: bool,
    /// A file of mode 0600 with what has to be sent as a bearer token.
    pub token_file: Option<PathBuf>,
}

impl Metrics {
    fn door(&self) -> Result<MetricsDoor, Error> {
        let read = |path: &PathBuf| secret_file::read("the metrics' token is not usable", path);
        Ok(MetricsDoor {
            public: self.public,
            token: self.token_file.as_ref().map(read).transpose()?,
        })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What `RUST_LOG` would say: a level, or levels by module.
    pub level: Option<String>,
    /// Where each event is kept as a line of JSON; in DIR/logs when absent. `off`: nowhere.
    file: Option<PathBuf>,
    /// A file that is longer is turned over.
    pub file_mib: NonZeroU16,
    /// How many that were turned over stay.
    pub files: NonZeroU16,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: None,
            file: None,
            file_mib: NonZeroU16::MIN.saturating_add(63),
            files: NonZeroU16::MIN.saturating_add(15),
        }
    }
}

impl Log {
    const OFF: &str = "off";

    /// The file that is named.
    fn path(&self) -> Option<&Path> {
        self.file
            .as_deref()
            .filter(|file| *file != Path::new(Self::OFF))
    }

    /// That of this name below `folder`, also where another is named; none where it is off.
    pub fn own_file(&self, folder: &Path, name: &str) -> Option<LogFile> {
        let file = self.file(folder, name)?;
        let path = folder.join(name);
        Some(LogFile { path, ..file })
    }

    /// The one that is named; none where none is.
    pub fn named_file(&self) -> Option<LogFile> {
        let path = self.path()?;
        Some(LogFile {
            path: path.to_owned(),
            ..self.file(path, "")?
        })
    }

    /// The one that is named, or that of this name below `folder`; none where it is off.
    pub fn file(&self, folder: &Path, name: &str) -> Option<LogFile> {
        if self.file.as_deref() == Some(Path::new(Self::OFF)) {
            return None;
        }
        Some(LogFile {
            path: self
                .path()
                .map_or_else(|| folder.join(name), Path::to_owned),
            bytes_max: u64::from(self.file_mib.get()) << 20,
            files: self.files.get(),
        })
    }
}

/// May hold a password: it is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(pub String);

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// May hold a token: it is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Remote(pub String);

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote(…)")
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// A server of your own, for `bre serve`: as the role that serves.
    pub url: Option<DatabaseUrl>,
    /// As the role that owns the tables; the data-service migrates them.
    pub owner_url: Option<DatabaseUrl>,
    /// As the role that may replicate; the data-service streams WAL and takes backups.
    pub backup_url: Option<DatabaseUrl>,
    /// Folder of PostgreSQL's programs; found by itself when absent.
    pub binaries: Option<PathBuf>,
    /// How much WAL PostgreSQL keeps for us while the repository is away.
    pub max_slot_wal_keep_size_mb: u32,
    /// A locate waits for its commit until it is answered (RPO 0 once the stream is attached).
    pub strict: bool,
    /// Most quotes that share one commit. 1: each has its own, which is what group commit is measured against.
    pub batch_quotes_max: NonZeroUsize,
}

const BATCH_QUOTES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            owner_url: None,
            backup_url: None,
            binaries: None,
            max_slot_wal_keep_size_mb: 4096,
            strict: false,
            batch_quotes_max: BATCH_QUOTES_MAX,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// A Redis to use instead of the instance's own.
    pub url: Option<String>,
    /// Authorities that may have signed its certificate, PEM; the system's when absent.
    ca_file: Option<PathBuf>,
    /// Our own certificate and its key, PEM.
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    /// The password of the URL's user; asked for at each connect.
    password_file: Option<PathBuf>,
    password_command: Option<String>,
}

impl Cache {
    /// Looked at now, so that a wrong path is told at the start.
    pub fn redis(&self) -> Result<Option<RedisSettings>, Error> {
        let refused = |reason: String| Error::failed(format!("[cache] {reason}"));
        let Some(url) = &self.url else {
            return match self.ca_file.is_some()
                || self.certificate.is_some()
                || self.key.is_some()
                || self.password_file.is_some()
                || self.password_command.is_some()
            {
                true => Err(refused(
                    "names no url; the instance's own Redis needs nothing else".to_owned(),
                )),
                false => Ok(None),
            };
        };
        let password = match (&self.password_file, &self.password_command) {
            (Some(_), Some(_)) => {
                return Err(refused(
                    "password_file and password_command exclude each other".to_owned(),
                ));
            }
            (Some(file), None) => Password::File(file.clone()),
            (None, Some(command)) => Password::Command(command.clone()),
            (None, None) => Password::None,
        };
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(refused("certificate and key go together".to_owned())),
        };
        let settings = RedisSettings {
            url: url.clone(),
            authorities: self.ca_file.clone(),
            identity,
            password,
        };
        settings
            .check()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Some(settings))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repository {
    /// A folder, or `s3://BUCKET/PREFIX?region=…`; DIR/repository when absent.
    pub path: Option<Location>,
    pub lock: Option<ObjectLock>,
}

/// `[repositories.NAME]`: gets backups and WAL by copy and keeps them for as long as it says; what it does not say, as `[backup]` does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaConfig {
    pub path: Location,
    pub lock: Option<ObjectLock>,
    full_days: Option<NonZeroU16>,
    incremental_days: Option<NonZeroU16>,
    wal_days: Option<NonZeroU16>,
}

impl ReplicaConfig {
    pub fn rules(&self, first: &Backup) -> Rules {
        let mut rules = first.clone();
        rules.full_days = self.full_days.unwrap_or(rules.full_days);
        rules.incremental_days = self.incremental_days.unwrap_or(rules.incremental_days);
        rules.wal_days = self.wal_days.unwrap_or(rules.wal_days);
        rules.rules()
    }
}

/// `[repository.lock]`: how long the store itself shall refuse to delete what backups are made of.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLock {
    #[serde(deserialize_with = "lock_mode")]
    mode: LockMode,
    days: NonZeroU16,
}

impl ObjectLock {
    pub fn policy(self) -> LockPolicy {
        LockPolicy {
            mode: self.mode,
            days: self.days.get(),
        }
    }
}

fn lock_mode<'de, D: serde::Deserializer<'de>>(from: D) -> Result<LockMode, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A PostgreSQL that this host protects and does not run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// As a role that may replicate.
    pub url: DatabaseUrl,
    /// Its repository, a folder or `s3://…`; DIR/clusters/NAME/repository when absent.
    pub repository: Option<Location>,
    /// The name of its slot, and of our stream as a standby; `bre` when absent.
    pub slot: Option<String>,
    /// Its jobs, by name; without this nothing of it runs by itself.
    pub jobs: Option<BTreeMap<String, JobSettings>>,
}

/// A warm spare of the instance's own database.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StandbyConfig {
    /// `bre up` keeps one, and takes it when its database is missing.
    pub enabled: bool,
}

/// Requests a minute and key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub standard_per_minute: u32,
    pub premium_per_minute: u32,
    pub internal_per_minute: u32,
}

impl Limits {
    pub fn requests_per_minute(&self) -> RequestsPerMinute {
        RequestsPerMinute {
            standard: self.standard_per_minute,
            premium: self.premium_per_minute,
            internal: self.internal_per_minute,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            standard_per_minute: 60,
            premium_per_minute: 300,
            internal_per_minute: 1000,
        }
    }
}

impl Config {
    /// The folder of the public log that a gateway shows, whether this process writes it or another.
    pub fn public_folder(&self) -> PathBuf {
        let named = self.audit.public_folder.clone();
        named.unwrap_or_else(|| self.root.join("public_log"))
    }

    /// What the services are told of it, in one process or in four.
    pub fn for_services(&self) -> Result<Settings, Error> {
        Ok(Settings {
            requests_per_minute: self.limits.requests_per_minute(),
            // The instance's own Redis has one gateway only: it counts faster in memory.
            share_limits: self.cache.url.is_some(),
            feeds: self.feeds.clone(),
            locates: self.locates,
            batch_quotes_max: self.database.batch_quotes_max.get(),
            tls: self.server.tls()?,
            metrics: self.metrics.door()?,
            trusted_proxies: self.server.trusted_proxies.clone(),
            books: BookSettings {
                reader: Some(read_book::reader()),
                // The temporary folder may be in memory; a service that keeps nothing has no other.
                spool: match self.root.is_dir() {
                    true => self.root.clone(),
                    false => std::env::temp_dir(),
                },
            },
            public_folder: Some(self.public_folder()),
            show_log: self.audit.show_at_gateway,
            ..Settings::default()
        })
    }

    /// The named file, or `DIR/bre.toml` if there is one, or the defaults: what it says word by word. What `[jobs.NAME]`
    /// says counts only once it is taken: `jobs::settings::load`.
    pub fn read(named: Option<&Path>, data: &Path) -> Result<Self, Error> {
        let default = data.join("bre.toml");
        let path = named.unwrap_or(&default);
        let mut config = match settings_file::read(path)? {
            Some(text) => Self::parse(&text, path)?,
            None if named.is_none() => Self::default(),
            None => {
                let absent = std::io::ErrorKind::NotFound.into();
                return Err(Error::file("cannot read the settings", path)(absent));
            }
        };
        config.root = data.to_owned();
        Ok(config)
    }

    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| Self::fault(path, error.to_string()))?;
        config.backup.settings_file = Some(path.to_owned());
        config.backup.strict = config.database.strict;
        config.backup.repositories.clone_from(&config.repositories);
        infrastructure::check_terraform(&config.terraform)
            .map_err(|reason| Self::fault(path, reason))?;
        config.backup.aws.clone_from(&config.aws);
        config.backup.infrastructure = Infrastructure {
            git: config.infrastructure.git.clone(),
            terraform: config.terraform.clone(),
            stacks: config.cloudformation.stacks.clone(),
            rds: config.rds.clone(),
            elasticache: config.elasticache.clone(),
        };
        config
            .backup
            .repository_key
            .clone_from(&config.repository_key);
        config.backup.audit_key.clone_from(&config.audit_key);
        config.backup.cache = config.cache.redis().map_err(|error| error.to_string());
        if let Some(kubernetes) = &config.kubernetes {
            let checked = kubernetes.check();
            checked.map_err(|reason| Self::fault(path, format!("[kubernetes] {reason}")))?;
        }
        config.backup.kubernetes.clone_from(&config.kubernetes);
        config.backup.audit_logs.clone_from(&config.audit_logs);
        config.backup.audit_logs.archive = config.audit_archive.clone();
        config.backup.audit_logs.log_file = config.log.path().map(Path::to_owned);
        if let Some(manager) = &config.secrets_manager {
            let checked = manager.check();
            checked.map_err(|reason| Self::fault(path, format!("[secrets_manager] {reason}")))?;
        }
        config
            .backup
            .secrets_manager
            .clone_from(&config.secrets_manager);
        config.file = Some(path.to_owned());
        Ok(config)
    }

    pub fn fault(path: &Path, reason: String) -> Error {
        host::Error::Settings {
            path: path.into(),
            reason,
        }
        .into()
    }
}

/// Of a repository, as it is written.
pub fn location(named: &str) -> Result<Location, Error> {
    // Not what was typed: it may hold a password.
    named
        .parse()
        .map_err(|reason| Error::argument("repository", "…", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_an_error_that_names_it() {
        let error = Config::parse("[limits]\nstandard = 5\n", Path::new("bre.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("standard") && error.contains("bre.toml"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_said_keeps_its_default() {
        let config = Config::parse("[limits]\nstandard_per_minute = 5\n", Path::new("x")).unwrap();
        assert_eq!(
            (
                config.limits.standard_per_minute,
                config.limits.premium_per_minute
            ),
            (5, 300)
        );
        assert_eq!(config.server.port, 8000);
    }
}
