//! HTTP: what clients see (`routes`), and what the command line on this machine may ask (`control`). Only this module knows axum.

mod control;
mod errors;
mod health;
mod keys;
mod limits;
mod locate;
mod metrics;
mod middleware;
mod parameters;
mod quotes;
mod rates;
mod routes;

pub(crate) use control::{DAYS_DEFAULT, KeyOrder, control_routes, issue};
pub use keys::{Role, Tier};
pub(crate) use keys::{KeyHash, KeyTable, StoredKey};
pub(crate) use metrics::recorder;
pub(crate) use parameters::is_ticker;
pub(crate) use routes::public_routes;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;

use crate::cache::Cache;
use crate::calculation::{Calculation, Calculator};
use crate::config::{RequestsPerMinute, StreamHealth};
use crate::data::{DatabaseError, HeadKeeper, Keeper};
use errors::ApiError;

/// What every handler may use.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// Rates, from the market view of this process.
    pub(crate) calculator: Calculator,
    /// Locates, wherever they are priced.
    pub(crate) calculation: Arc<dyn Calculation>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) heads: Arc<HeadKeeper>,
    pub(crate) stream: Arc<dyn StreamHealth>,
    pub(crate) strict: bool,
    pub(crate) limits: RequestsPerMinute,
    pub(crate) body_bytes_max: usize,
    pub(crate) patience: Duration,
}

impl Gateway {
    /// After a change of our own: seen here before it is answered. Should it fail now, the notification brings it.
    fn seen(read: Result<(), DatabaseError>) {
        if let Err(error) = read {
            tracing::warn!(%error, "a change is recorded but not read back yet");
        }
    }

    /// The body, unless it is too long or too slow.
    async fn body(&self, request: Request<Body>, bytes_max: usize) -> Result<Bytes, ApiError> {
        let read = axum::body::to_bytes(request.into_body(), bytes_max);
        match tokio::time::timeout(self.patience, read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if is_too_long(&error) => Err(ApiError::PayloadTooLarge { bytes_max }),
            Ok(Err(_)) => Err(ApiError::Unreadable("the body ended early".to_owned())),
            Err(_) => Err(ApiError::Unreadable(
                "the body did not arrive in time".to_owned(),
            )),
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
