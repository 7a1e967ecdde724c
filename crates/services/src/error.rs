//! Why the services do not start.

use crate::data::DatabaseError;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("a listener is not usable: {0}")]
    Listener(#[from] std::io::Error),
    #[error("not ready after {seconds} s: {state}")]
    NotReady { seconds: u64, state: String },
    #[error("the API key was not created: {0}")]
    Key(String),
    #[error("{service} does not run here: name its URL in [services]")]
    Missing { service: &'static str },
    #[error("{0}")]
    Address(String),
    #[error("services in several processes need a shared secret: [internal] secret_file")]
    NoSecret,
    #[error("{0}")]
    Tls(String),
    #[error("a data-service needs the audit log's signing key")]
    NoSigningKey,
}
