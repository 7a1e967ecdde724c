//! One connection to PostgreSQL, with what the server says beside its answers: warnings are kept (a commit that returned one is
//! not acknowledged), notifications are handed on.

mod fit;
mod secure;

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connection::{Address, ConnectOptions, Host, Landing, ServerRole, TlsError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, Notification};

use secure::Handshake;

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("{0}")]
    Config(String),
    /// What answers is no place for a record, today or tomorrow.
    #[error("the database will not do: {0}")]
    Unfit(String),
    #[error("no connection to the database: {0}")]
    Connect(String),
    #[error("the database is away: {0}")]
    Away(&'static str),
    #[error("{what}: {detail}")]
    Query { what: &'static str, detail: String },
    #[error("migrating the schema failed: {0}")]
    Migration(String),
}

impl DatabaseError {
    pub(crate) fn query(what: &'static str) -> impl Fn(tokio_postgres::Error) -> DatabaseError {
        move |error| DatabaseError::Query {
            what,
            detail: describe(&error),
        }
    }
}

/// The server's own words; `tokio_postgres` prints only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    /// What only this session of the server was told: another one cannot pass for it.
    pub(crate) word: String,
    pub(crate) notifications: mpsc::UnboundedReceiver<Notification>,
    warnings: Arc<Mutex<Vec<String>>>,
    driver: Driver,
}

/// A session in parts.
#[derive(Debug)]
pub(crate) struct SessionParts {
    pub(crate) client: Arc<Client>,
    pub(crate) notifications: mpsc::UnboundedReceiver<Notification>,
    pub(crate) driver: Driver,
    pub(crate) word: String,
}

/// Fails where this is another session of the server than the one that was told the word: what it listens for and was
/// set to is then another client's.
pub(crate) async fn check_session(client: &Client, word: &str) -> Result<(), DatabaseError> {
    let said = fit::ask(client).await;
    let said = said.map_err(DatabaseError::query(
        "asking whether the session is still ours",
    ))?;
    match said.word == word {
        true => Ok(()),
        false => Err(DatabaseError::Away(
            "another session answers than the one that listens for changes: a connection pooler is in between",
        )),
    }
}

/// Moves the connection's bytes; ends with its owner.
#[derive(Debug)]
pub(crate) struct Driver(JoinHandle<()>);

/// A session on the first server that will do; `needed` is what the caller cannot do without.
pub(crate) async fn connect(
    database: &str,
    name: &str,
    needed: Landing,
) -> Result<Session, DatabaseError> {
    let options = ConnectOptions::from_url(database)
        .map_err(|error| DatabaseError::Config(error.to_string()))?
        .with_application_name(name);
    let several = options.addresses.len() > 1;
    let mut tried = Vec::new();
    for demand in options.landing.at_least(needed).rounds() {
        for address in &options.addresses {
            let began = begin(&options, address, *demand);
            match tokio::time::timeout(3 * options.timeout, began).await {
                Ok(Ok(session)) => return Ok(session),
                // What is wrong with the settings, or with what answers, is not mended by another address.
                Ok(Err(error @ (DatabaseError::Config(_) | DatabaseError::Unfit(_)))) => {
                    return Err(error);
                }
                Ok(Err(DatabaseError::Connect(reason))) => tried.push(match several {
                    true => format!("{address}: {reason}"),
                    false => reason,
                }),
                Ok(Err(error)) => tried.push(error.to_string()),
                Err(_) => tried.push(format!("{address} does not answer")),
            }
        }
    }
    Err(DatabaseError::Connect(tried.join("; ")))
}

/// Connected and logged in, not looked at yet.
struct Raw {
    client: Client,
    notifications: mpsc::UnboundedReceiver<Notification>,
    warnings: Arc<Mutex<Vec<String>>>,
    driver: Driver,
    /// As the server reported it unasked.
    role: Option<ServerRole>,
}

/// What a login came to.
enum LoginError {
    Postgres(tokio_postgres::Error),
    Other(DatabaseError),
}

impl From<LoginError> for DatabaseError {
    fn from(error: LoginError) -> DatabaseError {
        match error {
            LoginError::Postgres(error) => DatabaseError::Connect(describe(&error)),
            LoginError::Other(error) => error,
        }
    }
}

async fn begin(
    options: &ConnectOptions,
    address: &Address,
    demand: Landing,
) -> Result<Session, DatabaseError> {
    let word = uuid::Uuid::now_v7().simple().to_string();
    let (raw, mut pooled) = match connect_raw(options, address, Some(&word)).await {
        Ok(raw) => (raw, false),
        Err(LoginError::Postgres(error)) if fit::is_poolers_word(&error) => {
            (connect_raw(options, address, None).await?, true)
        }
        Err(error) => return Err(error.into()),
    };
    let refuse = |role| match demand.refusal(role) {
        Some(reason) => Err(DatabaseError::Connect(reason.to_owned())),
        None => Ok(()),
    };
    if let Some(role) = raw.role {
        refuse(role)?;
    }
    fit::check_engine(&raw.client).await?;
    let said = fit::ask(&raw.client).await;
    let said = said.map_err(|error| DatabaseError::Connect(describe(&error)))?;
    refuse(ServerRole {
        in_recovery: said.in_recovery,
        read_only: said.read_only,
    })?;
    pooled |= said.word != word;
    if pooled && !fit::keeps_sessions(&raw.client, &word, options, address).await? {
        return Err(fit::pooler(address));
    }
    Ok(Session {
        client: raw.client,
        word,
        notifications: raw.notifications,
        warnings: raw.warnings,
        driver: raw.driver,
    })
}

/// With a word: the server is told it at the start, in a parameter that poolers refuse or lose.
async fn connect_raw(
    options: &ConnectOptions,
    address: &Address,
    word: Option<&str>,
) -> Result<Raw, LoginError> {
    let connect = |error: &dyn std::fmt::Display| {
        LoginError::Other(DatabaseError::Connect(format!("{address}: {error}")))
    };
    let one = options.at(address);
    // Files are read, and a command may be run.
    let prepared = tokio::task::spawn_blocking(move || {
        let tls = one.tls();
        let password = one.password.ask(&one, &one.addresses[0]);
        (tls, password)
    });
    let (tls, password) = prepared.await.map_err(|error| connect(&error))?;
    let tls = tls.map_err(|error| connect(&error))?;
    let password = password.map_err(|error| connect(&error))?;
    let mut config = Config::new();
    config
        .user(&options.user)
        .dbname(&options.database)
        .port(address.port)
        .application_name(&options.application_name)
        .connect_timeout(options.timeout.min(CONNECT_TIMEOUT))
        // A network that swallows everything is noticed within seconds, or nobody would hear that the market has changed.
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(15))
        .channel_binding(match options.tls.channel_binding {
            connection::ChannelBinding::Disable => ChannelBinding::Disable,
            connection::ChannelBinding::Prefer => ChannelBinding::Prefer,
            connection::ChannelBinding::Require => ChannelBinding::Require,
        });
    match (&address.host, address.ip) {
        (Host::Unix(folder), _) => config.host_path(folder),
        (Host::Tcp(host), None) => config.host(host),
        (Host::Tcp(host), Some(ip)) => config.host(host).hostaddr(ip),
    };
    if let Some(password) = password {
        config.password(password.expose());
    }
    let said = options.server_options.iter().cloned();
    let words = word.map(|word| format!("-c {}={word}", fit::SETTING));
    let server_options: Vec<String> = said.chain(words).collect();
    if !server_options.is_empty() {
        config.options(server_options.join(" "));
    }
    config.ssl_mode(match &tls {
        None => SslMode::Disable,
        Some(tls) if tls.mode.demands() => SslMode::Require,
        Some(_) => SslMode::Prefer,
    });
    if tls.as_ref().is_some_and(|tls| tls.direct) {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    let handshake = Handshake {
        tls,
        address: address.clone(),
    };
    let connected = tokio::time::timeout(options.timeout, config.connect(handshake)).await;
    let (client, mut connection) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) if offers_no_tls(&error) => {
            return Err(connect(&TlsError::NotOffered(options.tls.mode.name())));
        }
        Ok(Err(error)) => return Err(LoginError::Postgres(error)),
        Err(_) => return Err(connect(&"no answer in time")),
    };
    let role = ServerRole::reported(
        connection.parameter("in_hot_standby"),
        connection.parameter("default_transaction_read_only"),
    );
    let (sender, notifications) = mpsc::unbounded_channel();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&warnings);
    // The connection yields a notice before it hands on whatever the server sent after it, so a warning of a commit is in
    // `warnings` by the time the commit's result arrives.
    let driver = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                AsyncMessage::Notice(notice) => {
                    let harmless = matches!(
                        notice.parsed_severity(),
                        Some(Severity::Debug | Severity::Info | Severity::Notice | Severity::Log)
                    );
                    if !harmless {
                        kept.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(notice.message().to_owned());
                    }
                }
                AsyncMessage::Notification(notification) => drop(sender.send(notification)),
                _ => {}
            }
        }
    });
    Ok(Raw {
        client,
        notifications,
        warnings,
        driver: Driver(driver),
        role,
    })
}

/// Of one address' socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client's word for a server that answered the request for TLS with no.
fn offers_no_tls(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.to_string() == "server does not support TLS")
}

impl Session {
    /// Returns when the connection has ended.
    pub(crate) async fn closed(&mut self) {
        self.driver.ended().await;
    }

    /// For many users at once: the client, what the server notifies of, the driver to keep, and the session's word.
    pub(crate) fn share(self) -> SessionParts {
        SessionParts {
            client: Arc::new(self.client),
            notifications: self.notifications,
            driver: self.driver,
            word: self.word,
        }
    }

    /// What the server warned of since the last call.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Driver {
    /// To be awaited to its end once only.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
