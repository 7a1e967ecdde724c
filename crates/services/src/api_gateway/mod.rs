//! HTTP: what clients see (`routes`), and what the command line on this machine may ask (`control`). axum is known
//! here, in `internal` (HTTP between services), `witness`, and in `server`, `http_error_bodies` and `running`, which carry all
//! of them.

mod admin;
mod audit;
mod audit_proof;
mod book;
mod caching;
mod calculate;
mod calendar;
mod concerns;
mod configuration;
mod control;
mod documents;
mod errors;
mod health;
mod lists;
mod locates;
mod metrics;
mod middleware;
mod moment;
mod parameters;
mod position;
mod public_log;
mod quotes;
mod rates;
mod routes;
mod shared_cache;
mod shared_limits;
mod turns;
mod upload;
mod wrong_keys;

pub(crate) use admin::keys::{DAYS_DEFAULT, KeyRequest, issue};
pub(crate) use book::BookCapacity;
pub(crate) use control::control_routes;
pub(crate) use errors::ApiError;
pub(crate) use health::health;
pub(crate) use metrics::{metrics as metrics_text, recorder};
pub(crate) use middleware::FIXED_HEADERS;
pub(crate) use routes::{method_not_allowed, not_found, public_routes};
pub(crate) use shared_cache::{cache_away, cache_stats, warm_cache};
pub(crate) use shared_limits::SharedLimits;
pub(crate) use wrong_keys::WrongKeys;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, header};

use crate::cache::Cache;
use crate::calculation::{Calculation, Calculator};
use crate::config::{BookSettings, MetricsDoor, RequestsPerMinute};
use crate::data::{DatabaseError, HeadSigner, MarketRefresher};
use crate::domain::protection::StreamHealth;
use crate::domain::time::now_micros;
use crate::peer::Peer;
use crate::public_log::{PublicFolder, PublicLog};
use crate::reload::ReloadReport;
use crate::remote::Peers;
use parameters::Parameters;

/// What every handler may use. Cloned for every request: one count to keep, not ten.
#[derive(Debug, Clone)]
pub(crate) struct Gateway(Arc<GatewayParts>);

#[derive(Debug)]
pub(crate) struct GatewayParts {
    /// Rates, from the market view of this process.
    pub(crate) calculator: Calculator,
    /// Locates, wherever they are priced.
    pub(crate) calculation: Arc<dyn Calculation>,
    pub(crate) refresher: Arc<MarketRefresher>,
    pub(crate) cache: Arc<Cache>,
    /// Where the log is written.
    pub(crate) heads: Option<Arc<HeadSigner>>,
    /// Where the log is published from.
    pub(crate) public_log: Option<Arc<PublicLog>>,
    /// What is shown at `/log/`.
    pub(crate) public_folder: Option<PublicFolder>,
    pub(crate) show_log: bool,
    pub(crate) stream: Arc<dyn StreamHealth>,
    pub(crate) strict: bool,
    pub(crate) limits: Arc<ArcSwap<RequestsPerMinute>>,
    /// What the last change of settings brought.
    pub(crate) reload: Arc<ArcSwapOption<ReloadReport>>,
    /// Services in other processes that this one depends on.
    pub(crate) peers: Peers,
    /// Set where several gateways may share one Redis.
    pub(crate) shared_limits: Option<Arc<SharedLimits>>,
    /// Whom the public port tells its metrics.
    pub(crate) metrics: MetricsDoor,
    pub(crate) wrong_keys: WrongKeys,
    /// False as long as what a start still has to leave behind is not there.
    pub(crate) started: AtomicBool,
    pub(crate) body_bytes_max: usize,
    pub(crate) timeout: Duration,
    pub(crate) request_deadline: Duration,
    /// What whole books share.
    pub(crate) books: Arc<BookCapacity>,
    pub(crate) book_settings: BookSettings,
}

impl From<GatewayParts> for Gateway {
    fn from(parts: GatewayParts) -> Gateway {
        Gateway(Arc::new(parts))
    }
}

impl Deref for Gateway {
    type Target = GatewayParts;

    fn deref(&self) -> &GatewayParts {
        &self.0
    }
}

impl Gateway {
    /// Takes note of a wrong key or secret, and returns when it may be answered.
    pub(crate) async fn slow(&self, door: &'static str, peer: Option<Peer>, headers: &HeaderMap) {
        let peer = peer.map(|Peer(address)| address.ip());
        let delay = self.wrong_keys.note(door, peer, headers, now_micros());
        // The answer still comes before the request's own deadline.
        tokio::time::sleep(delay.min(self.request_deadline / 2)).await;
    }

    /// Whether every gateway counts in the same windows right now.
    fn limits_are_shared(&self) -> bool {
        self.shared_limits
            .as_ref()
            .is_some_and(|shared| shared.is_shared())
    }

    /// Why they are not, where they should be.
    fn limits_trouble(&self) -> Option<String> {
        self.shared_limits.as_ref()?.trouble()
    }

    /// After a change of our own: seen here before it is answered. Should it fail now, the notification brings it.
    fn seen(read: Result<(), DatabaseError>) {
        if let Err(error) = read {
            tracing::warn!(%error, "a change is recorded but not read back yet");
        }
    }

    /// The members of a JSON body, sent as such.
    async fn json(
        &self,
        request: Request<Body>,
        valid: &'static [&'static str],
    ) -> Result<Parameters, ApiError> {
        let body = self.json_body(request).await?;
        Parameters::from_json(&body, valid)
    }

    /// The same where nothing needs to be said: an empty body is of any type.
    async fn json_or_nothing(
        &self,
        request: Request<Body>,
        valid: &'static [&'static str],
    ) -> Result<Parameters, ApiError> {
        let is_json = is_json(request.headers());
        let body = self.body(request, self.body_bytes_max).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(Parameters::none("body", valid)),
            (false, true) => Parameters::from_json(&body, valid),
            (false, false) => Err(ApiError::UnsupportedMediaType),
        }
    }

    async fn json_body(&self, request: Request<Body>) -> Result<Bytes, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        self.body(request, self.body_bytes_max).await
    }

    /// The body, unless it is too long or too slow.
    async fn body(&self, request: Request<Body>, bytes_max: usize) -> Result<Bytes, ApiError> {
        if let Some(coding) = coding(request.headers()) {
            return Err(ApiError::Encoded(coding));
        }
        let read = axum::body::to_bytes(request.into_body(), bytes_max);
        match tokio::time::timeout(self.timeout, read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if is_too_long(&error) => Err(ApiError::PayloadTooLarge { bytes_max }),
            Ok(Err(_)) => Err(ApiError::unreadable_body("the body ended early")),
            Err(_) => Err(ApiError::unreadable_body("the body did not arrive in time")),
        }
    }
}

/// What has been done to the body, which nobody here undoes.
fn coding(headers: &HeaderMap) -> Option<String> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let coded = codings.find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))?;
    let text = String::from_utf8_lossy(coded.as_bytes());
    Some(text.chars().take(64).collect())
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    content_type
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
