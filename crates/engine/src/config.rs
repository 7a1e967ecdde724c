//! Settings of an instance: few, with defaults that suit one machine. `bre.toml` holds what differs.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use services::{FeedSettings, RequestsPerMinute, Settings};

use crate::error::Error;

/// `DIR/bre.toml`, or the file that `--config` names. Unknown words are errors: a misspelt setting must not be a silent default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) internal: Internal,
    pub(crate) services: Services,
    pub(crate) database: Database,
    pub(crate) cache: Cache,
    pub(crate) repository: Repository,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
    /// The services say what can be set about them.
    pub(crate) feeds: FeedSettings,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// The address to listen on.
    pub(crate) bind: IpAddr,
    pub(crate) port: u16,
    /// Certificate chain and key as PEM files: the public API speaks TLS only.
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
}

impl Server {
    /// What the public port is to show, read now so that a wrong path is told at the start.
    pub(crate) fn tls(&self) -> Result<Option<services::Tls>, Error> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(Error::file("cannot read the TLS file", path))
        };
        match (&self.tls_certificate, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(services::Tls {
                certificate: read(certificate)?,
                key: read(key)?,
            })),
            _ => Err(Error::Failed(
                "[server] tls_certificate and tls_key go together".to_owned(),
            )),
        }
    }

    pub(crate) fn scheme(&self) -> &'static str {
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
        }
    }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Between services in several processes (`bre serve`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Internal {
    pub(crate) bind: IpAddr,
    /// 8000 when absent, or 8001 beside an api-gateway.
    pub(crate) port: Option<u16>,
    /// A file of mode 0600 with the secret that all services share.
    pub(crate) secret_file: Option<PathBuf>,
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
pub(crate) struct Services {
    pub(crate) calculation_service: Option<String>,
    pub(crate) data_service: Option<String>,
    pub(crate) cache_service: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// What `RUST_LOG` would say: a level, or levels by module.
    pub(crate) level: Option<String>,
}

/// May hold a password: it is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct DatabaseUrl(pub(crate) String);

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    /// A server of your own, for `bre serve`: as the role that serves.
    pub(crate) url: Option<DatabaseUrl>,
    /// As the role that owns the tables; the data-service migrates them.
    pub(crate) owner_url: Option<DatabaseUrl>,
    /// As the role that may replicate; the data-service streams WAL and takes backups.
    pub(crate) backup_url: Option<DatabaseUrl>,
    /// Folder of PostgreSQL's programs; found by itself when absent.
    pub(crate) binaries: Option<PathBuf>,
    /// How much WAL PostgreSQL keeps for us while the repository is away.
    pub(crate) max_slot_wal_keep_size_mb: u32,
    /// A locate waits for its commit until it is answered (RPO 0 once the stream is attached).
    pub(crate) strict: bool,
    /// Most quotes that share one commit. 1: each has its own, which is what group commit is measured against.
    pub(crate) batch_quotes_max: NonZeroUsize,
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
pub(crate) struct Cache {
    /// A Redis to use instead of the instance's own.
    pub(crate) url: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Repository {
    /// The repository's folder; DIR/repository when absent.
    pub(crate) path: Option<PathBuf>,
}

/// Requests a minute and key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) standard_per_minute: u32,
    pub(crate) premium_per_minute: u32,
    pub(crate) internal_per_minute: u32,
}

impl Limits {
    pub(crate) fn requests_per_minute(&self) -> RequestsPerMinute {
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
    /// What the services are told of it, in one process or in four.
    pub(crate) fn for_services(&self) -> Result<Settings, Error> {
        Ok(Settings {
            requests_per_minute: self.limits.requests_per_minute(),
            // The instance's own Redis has one gateway only: it counts faster in memory.
            share_limits: self.cache.url.is_some(),
            feeds: self.feeds.clone(),
            batch_quotes_max: self.database.batch_quotes_max.get(),
            tls: self.server.tls()?,
            ..Settings::default()
        })
    }

    /// Reads the named file, or `DIR/bre.toml` if there is one, or takes the defaults.
    pub(crate) fn load(named: Option<&Path>, data: &Path) -> Result<Self, Error> {
        let default = data.join("bre.toml");
        let path = named.unwrap_or(&default);
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(Error::file("cannot read the settings", path)(error)),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Settings {
            path: path.into(),
            reason: error.to_string(),
        })
    }
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
