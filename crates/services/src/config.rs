//! What the services are given. Nothing here is read from files or the environment: the engine does that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use crate::cache::RedisSettings;
use crate::internal::InternalSecret;
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
    pub sample: Option<SampleBook>,
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
    pub public: Option<crate::PublicLogConfig>,
    /// Set when the database was restored since the newest of `heads`.
    pub recovery: Option<RecoveryFact>,
}

/// Keeps signed heads outside the database.
pub trait HeadPublisher: Send + Sync + fmt::Debug {
    /// The WAL position up to which the repository holds everything.
    fn durable_lsn(&self) -> Option<u64>;
    /// Called from a thread of its own; may take as long as a store takes. So are all that follow.
    fn publish(&self, head: &audit::SignedHead) -> Result<(), String>;

    /// What is known outside the database. Asked for once, when the services start.
    fn known(&self) -> crate::KnownLog {
        crate::KnownLog::default()
    }
    /// From here on no other epoch has this number, whatever becomes of this one. Durable when it returns.
    fn claim(&self, _: &crate::Claim) -> Result<(), String> {
        Ok(())
    }
    /// What has disappeared since it was published, in words.
    fn look(&self) -> Result<Option<String>, String> {
        Ok(None)
    }
    /// Heads that should be there and are not. `whole`: all of them are looked at; otherwise the one that the anchor names.
    fn missing(&self, _whole: bool) -> Result<Vec<audit::HeadRange>, String> {
        Ok(Vec::new())
    }
    /// Writes down what was found damaged, or that a person has looked at it: it holds across starts.
    fn note_damage(&self, _: Option<&str>) -> Result<(), String> {
        Ok(())
    }
    /// Lets go of old heads (audit_log.md §5). `named`: epochs and sizes that openings name.
    fn thin(&self, _named: &[(u32, u64)]) -> Result<(), String> {
        Ok(())
    }
}

/// What the WAL stream is doing, asked for at every locate: answer from memory.
pub trait StreamHealth: Send + Sync + fmt::Debug {
    fn report(&self) -> StreamReport;
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StreamReport {
    pub attached: bool,
    /// PostgreSQL waits for this stream at every commit.
    pub strict: bool,
    pub durable_lsn: Option<u64>,
    /// Thousandths of `max_slot_wal_keep_size` in use.
    pub slot_fill_permille: Option<u32>,
    /// When the newest complete backup ended.
    #[serde(default)]
    pub last_backup_at_micros: Option<i64>,
    /// When a backup was last restored and proved.
    #[serde(default)]
    pub last_proof_at_micros: Option<i64>,
    /// The newest restore proof failed.
    #[serde(default)]
    pub proof_failed: bool,
    /// Something to do in time, while nothing is wrong yet.
    #[serde(default)]
    pub warning: Option<String>,
    /// Something an operator should look at; shown in health and status.
    pub alarm: Option<String>,
    /// Set: locates are refused, and why (strict mode with the slot full, for one).
    pub refuse_locates: Option<String>,
}

/// The database was restored from the repository: what the new epoch's first entry will say.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecoveryFact {
    pub restore_id: String,
    /// The timeline that the restore opened.
    pub timeline: u32,
    /// Where it ended: a WAL position on the old timeline.
    pub target_lsn: u64,
}

/// Files in the feeds' own formats.
#[derive(Debug, Clone, Copy)]
pub struct SampleBook {
    pub book: &'static [u8],
    pub volatility: &'static [u8],
}

impl SampleBook {
    /// A small book with invented rates, shipped with the engine.
    pub const fn shipped() -> SampleBook {
        SampleBook {
            book: include_bytes!("../sample/book.txt"),
            volatility: include_bytes!("../sample/vix.csv"),
        }
    }
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
    pub head_patience: Duration,
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
    pub feeds: crate::FeedSettings,
    pub locates: crate::LocateSettings,
    pub metrics: MetricsDoor,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Not ready until `Running::started` is called: whoever starts the services has something to do first.
    pub starts_later: bool,
    pub books: BookSettings,
    /// What the gateway shows of the log at `/log/`, where another process writes it.
    pub public_folder: Option<std::path::PathBuf>,
    /// The repository that the log's heads go to, where the log is written: objects of the shared cache carry its name.
    pub repository_id: Option<String>,
}

/// How whole books are received and read.
#[derive(Debug, Clone)]
pub struct BookSettings {
    /// What a book is decoded by; `None`: this process, which is for tests (memory and stack are not bounded then).
    pub reader: Option<crate::BookReader>,
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
    pub token: Option<crate::InternalSecret>,
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

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            quote_deadline: Duration::from_secs(2),
            quote_valid: Duration::from_secs(300),
            body_bytes_max: 16 * 1024,
            request_deadline: Duration::from_secs(10),
            head_patience: Duration::from_secs(30),
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
            feeds: crate::FeedSettings::default(),
            locates: crate::LocateSettings::default(),
            metrics: MetricsDoor::default(),
            trusted_proxies: TrustedProxies::default(),
            starts_later: false,
            books: BookSettings::default(),
            public_folder: None,
            repository_id: None,
        }
    }
}
