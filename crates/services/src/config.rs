//! What the services are given. Nothing here is read from files or the environment: the engine does that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use crate::cache::RedisSettings;
use crate::data::SampleRates;
use crate::domain::keys::Tier;
use crate::domain::protection::{HeadPublisher, RecoveryFact, StreamHealth};
use crate::secret::InternalSecret;
use crate::service::ServiceSet;
pub use crate::trusted_proxies::TrustedProxies;

/// All that [`crate::Services::start`] needs.
#[derive(Debug)]
pub struct ServicesConfig {
    /// Those that run in this process. The others are [`Elsewhere`].
    pub services: ServiceSet,
    pub elsewhere: Elsewhere,
    pub database: DatabaseConfig,
    /// `None`: no shared cache.
    pub redis: Option<RedisSettings>,
    /// Of the api-gateway.
    pub public: Option<TcpListener>,
    /// Where other services ask, with the shared secret; `None` when nobody does.
    pub internal: Option<TcpListener>,
    /// For the command line on this machine; its file is set to mode 0600. Of the data-service.
    pub control: Option<UnixListener>,
    /// Of the data-service.
    pub audit: Option<AuditConfig>,
    pub stream: Arc<dyn StreamHealth>,
    /// Locates only while the repository holds every commit before it returns.
    pub strict: bool,
    pub settings: Settings,
    /// Loaded through the ordinary import when the database holds no book yet.
    pub sample: Option<SampleRates>,
}

/// Services in other processes, by the URLs of their internal listeners: `http://10.0.0.7:8000`.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    pub secret: Option<InternalSecret>,
    pub calculation: Option<String>,
    pub data: Option<String>,
    pub cache: Option<String>,
}

/// Where the database is, as `tokio_postgres` connection strings, one per role.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// Owns the tables and migrates them. Used by the data-service only.
    pub owner: String,
    /// Serves: may insert into the record, never change it.
    pub service: String,
}

/// A connection string may hold a password.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseConfig(…)")
    }
}

#[derive(Debug)]
pub struct AuditConfig {
    /// The number of this writer's log.
    pub log: u16,
    pub signing_key: Arc<audit::SigningKey>,
    pub publisher: Arc<dyn HeadPublisher>,
    /// Every signed head of this log that the repository holds.
    pub heads: Vec<audit::SignedHead>,
    /// The public keys that vouch for the log: the signing key's, and those that it followed.
    pub trusted: Vec<audit::VerifyingKey>,
    /// The log is published, for outsiders to watch.
    pub public: Option<crate::public_log::PublicLogConfig>,
    /// Between two checks that the log and its heads are still there.
    pub look_every: Duration,
    /// Set when the database was restored since the newest of `heads`.
    pub recovery: Option<RecoveryFact>,
}

/// Knobs with their defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Past it a quote is answered "outcome unknown".
    pub quote_deadline: Duration,
    /// How long a fee answer may be relied on.
    pub quote_valid: Duration,
    pub body_bytes_max: usize,
    /// Past it a request is answered 503, whatever it waits for.
    pub request_deadline: Duration,
    /// How long a client may take to send a request's head, or to think of the next one.
    pub head_timeout: Duration,
    /// The public port speaks TLS only.
    pub tls: Option<Tls>,
    pub requests_per_minute: RequestsPerMinute,
    /// The windows are kept in Redis, where there is one: for several gateways.
    pub share_limits: bool,
    /// The market view itself is stale when the database has been away for longer.
    pub view_age_max: Duration,
    /// Waiting quotes beyond which a locate is refused at once.
    pub queue_quotes_max: usize,
    /// Quotes in one commit.
    pub batch_quotes_max: usize,
    pub feeds: crate::market::FeedSettings,
    pub locates: crate::data::LocateSettings,
    pub metrics: MetricsDoor,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Not ready until `Running::started` is called: whoever starts the services has something to do first.
    pub starts_later: bool,
    pub books: BookSettings,
    /// What the gateway shows of the log at `/log/`, where another process writes it.
    pub public_folder: Option<std::path::PathBuf>,
    /// Whether it shows it at all.
    pub show_log: bool,
    /// The repository that the log's heads go to, where the log is written: objects of the shared cache carry its name.
    pub repository_id: Option<String>,
}

/// How whole books are received and read.
#[derive(Debug, Clone)]
pub struct BookSettings {
    /// What a book is decoded by; `None`: this process, which is for tests (memory and stack are not bounded then).
    pub reader: Option<crate::book::BookReader>,
    /// Where bodies are kept on disk, in files without a name.
    pub spool: std::path::PathBuf,
}

impl Default for BookSettings {
    fn default() -> BookSettings {
        BookSettings {
            reader: None,
            spool: std::env::temp_dir(),
        }
    }
}

/// Whom the public port tells its metrics, besides whoever is on this machine.
#[derive(Debug, Clone, Default)]
pub struct MetricsDoor {
    /// All.
    pub public: bool,
    /// Who sends it as a bearer token.
    pub token: Option<crate::secret::InternalSecret>,
}

/// Certificate chain and private key, as PEM.
#[derive(Clone)]
pub struct Tls {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// A key is not printed.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

#[derive(Debug, Clone, Copy)]
pub struct RequestsPerMinute {
    pub standard: u32,
    pub premium: u32,
    pub internal: u32,
}

impl RequestsPerMinute {
    pub(crate) fn of(&self, tier: Tier) -> u32 {
        match tier {
            Tier::Standard => self.standard,
            Tier::Premium => self.premium,
            Tier::Internal => self.internal,
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            quote_deadline: Duration::from_secs(2),
            quote_valid: Duration::from_secs(300),
            body_bytes_max: 16 * 1024,
            request_deadline: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            tls: None,
            requests_per_minute: RequestsPerMinute {
                standard: 60,
                premium: 300,
                internal: 1000,
            },
            share_limits: true,
            view_age_max: Duration::from_secs(300),
            queue_quotes_max: 8192,
            batch_quotes_max: 1024,
            feeds: crate::market::FeedSettings::default(),
            locates: crate::data::LocateSettings::default(),
            metrics: MetricsDoor::default(),
            trusted_proxies: TrustedProxies::default(),
            starts_later: false,
            books: BookSettings::default(),
            public_folder: None,
            show_log: true,
            repository_id: None,
        }
    }
}
