//! One connection to PostgreSQL, with what the server says beside its answers: warnings are kept (a commit that returned one is
//! not acknowledged), notifications are handed on.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification};

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database connection string is malformed: {0}")]
    Config(String),
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
    pub(crate) notifications: mpsc::UnboundedReceiver<Notification>,
    warnings: Arc<Mutex<Vec<String>>>,
    driver: Driver,
}

/// Moves the connection's bytes; ends with its owner.
#[derive(Debug)]
pub(crate) struct Driver(JoinHandle<()>);

pub(crate) async fn connect(config: &str, name: &str) -> Result<Session, DatabaseError> {
    let mut config: Config = config
        .parse()
        .map_err(|error: tokio_postgres::Error| DatabaseError::Config(describe(&error)))?;
    config
        .application_name(name)
        .connect_timeout(Duration::from_secs(5))
        // A network that swallows everything is noticed within seconds, or nobody would hear that the market has changed.
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(15));
    let (client, mut connection) = config
        .connect(NoTls)
        .await
        .map_err(|error| DatabaseError::Connect(describe(&error)))?;
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
    Ok(Session {
        client,
        notifications,
        warnings,
        driver: Driver(driver),
    })
}

impl Session {
    /// Returns when the connection has ended.
    pub(crate) async fn closed(&mut self) {
        self.driver.ended().await;
    }

    /// For many users at once: the client, what the server notifies of, and the driver to keep.
    pub(crate) fn share(self) -> (Arc<Client>, mpsc::UnboundedReceiver<Notification>, Driver) {
        (Arc::new(self.client), self.notifications, self.driver)
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
