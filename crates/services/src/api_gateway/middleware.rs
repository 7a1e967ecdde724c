//! What happens around every handler: ids, headers, counting; and, for priced endpoints, the key and its limit.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use uuid::Uuid;

use super::Gateway;
use super::book;
use super::errors::ApiError;
use super::metrics::count_request;
use crate::domain::identifiers::is_request_id;
use crate::domain::keys::{LiveKey, Role};
use crate::domain::limits::Verdict;
use crate::domain::time::now_micros;

/// The id that a request goes by, the client's own if it sent a good one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// The key that opened the door.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Arc<LiveKey>);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const API_KEY: &str = "x-api-key";

pub(crate) const FIXED_HEADERS: [(HeaderName, HeaderValue); 7] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000; includeSubDomains"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Around everything, errors and unknown paths included.
pub(super) async fn frame(
    State(gateway): State<Gateway>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let began = Instant::now();
    let id = good_id(request.headers(), &REQUEST_ID).unwrap_or_else(|| Uuid::now_v7().to_string());
    let correlation = good_id(request.headers(), &CORRELATION_ID);
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    let method = request.method().clone();
    request.extensions_mut().insert(RequestId(id.clone()));
    let deadline = match route {
        book::ROUTE => book::DEADLINE,
        _ => gateway.request_deadline,
    };
    let answering = async {
        match names_one_host(&request) {
            true => next.run(request).await,
            false => ApiError::invalid("Host", "header", HOST_RULE, &[]).into_response(),
        }
    };
    // A panic is a fault of ours; its words go to the log, never to a client.
    let answering = std::panic::AssertUnwindSafe(answering).catch_unwind();
    let mut response = match tokio::time::timeout(deadline, answering).await {
        Ok(Ok(response)) => response,
        Err(_) => too_late(route, &method, &id),
        Ok(Err(_)) => {
            tracing::error!(request_id = id, route, "a handler panicked");
            ApiError::Calculation("an internal fault; report the request id".to_owned())
                .into_response()
        }
    };
    let headers = response.headers_mut();
    headers.reserve(FIXED_HEADERS.len() + 8);
    for (name, value) in FIXED_HEADERS {
        headers.entry(name).or_insert(value);
    }
    set(headers, REQUEST_ID, &id);
    if let Some(correlation) = correlation {
        set(headers, CORRELATION_ID, &correlation);
    }
    let status = response.status();
    let seconds = began.elapsed().as_secs_f64();
    count_request(route, &method, status, seconds);
    let number = status.as_u16();
    match status.is_server_error() {
        true => {
            tracing::warn!(request_id = id, %method, route, status = number, seconds, "answered")
        }
        false => {
            tracing::debug!(request_id = id, %method, route, status = number, seconds, "answered")
        }
    }
    response
}

const HOST_RULE: &str = "must be sent once, and be a host with or without a port";

/// Two parties that read different ones of two hosts, or guess at a missing one, are how requests are smuggled past one of them. Before
/// HTTP/1.1 none was needed.
fn names_one_host(request: &Request<Body>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let authority = |text: &str| text.parse::<Authority>().ok();
            let named = host.to_str().ok().and_then(authority);
            named.is_some_and(|named| !named.as_str().contains('@') && !named.host().is_empty())
        }
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// A deadline is a promise to the client, whatever hangs. What may have been recorded is not denied.
fn too_late(route: &str, method: &Method, id: &str) -> Response {
    let part = "api-gateway";
    let records = route.ends_with("/calculate-locate") || !method.is_safe();
    let error = match records {
        true if route.starts_with("/api/v1/locates") => ApiError::LocateUnknown {
            part,
            request_id: id.to_owned(),
        },
        true => ApiError::OutcomeUnknown {
            part,
            request_id: Some(id.to_owned()),
        },
        false => ApiError::Unavailable {
            part,
            detail: "what this answer needs did not answer in time".to_owned(),
        },
    };
    error.into_response()
}

/// Lets a request through whose key is known, not over its limit, and of the role required, if one is.
#[derive(Debug, Clone)]
pub(super) struct AuthLayer {
    pub(super) gateway: Gateway,
    pub(super) required_role: Option<Role>,
}

/// The key, then its limit, then its role. Every answer to a known key tells what is left of the minute.
pub(super) async fn authenticate(
    State(AuthLayer {
        gateway,
        required_role,
    }): State<AuthLayer>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let now = now_micros();
    let key = match known_key(&gateway, request.headers(), now) {
        Ok(key) => key,
        Err(error) => {
            let is_guess = request.headers().contains_key(API_KEY);
            if matches!(error, ApiError::Unauthorized(_)) && is_guess {
                let peer = request.extensions().get().copied();
                gateway.slow("public", peer, request.headers()).await;
            }
            return error.into_response();
        }
    };
    let verdict = count(&gateway, &key, now).await;
    let mut response = if !verdict.allowed {
        let reset_seconds = verdict.reset_seconds;
        ApiError::RateLimited { reset_seconds }.into_response()
    } else if let Some(refusal) = refusal_for(key.stored.role, required_role) {
        refusal.into_response()
    } else {
        request.extensions_mut().insert(Caller(key));
        next.run(request).await
    };
    tell(response.headers_mut(), verdict);
    response
}

/// By all gateways together, or by this one alone.
async fn count(gateway: &Gateway, key: &LiveKey, now: i64) -> Verdict {
    let limit = gateway.limits.load().of(key.stored.tier);
    if let Some(shared) = &gateway.shared_limits
        && let Some(verdict) = shared.take(&key.id, limit).await
    {
        if verdict.allowed {
            key.window.note(now);
        }
        return verdict;
    }
    key.window.take(limit, now)
}

/// Prices and records are for clients: an operator's token opens administration only.
fn refusal_for(role: Role, required: Option<Role>) -> Option<ApiError> {
    match (role, required) {
        (Role::Operator, Some(Role::Client)) => Some(ApiError::Forbidden(
            "an operator token opens /api/v1/admin and /api/v1/config only".to_owned(),
        )),
        (Role::Client, Some(Role::Operator)) => Some(ApiError::Forbidden(
            "this takes an operator token".to_owned(),
        )),
        _ => None,
    }
}

fn known_key(gateway: &Gateway, headers: &HeaderMap, now: i64) -> Result<Arc<LiveKey>, ApiError> {
    let mut presented = headers.get_all(API_KEY).iter();
    let (Some(key), None) = (presented.next(), presented.next()) else {
        return Err(ApiError::Unauthorized(
            "send one API key in the header X-API-Key",
        ));
    };
    let key = key
        .to_str()
        .map_err(|_| ApiError::Unauthorized("this API key is not known"))?;
    let Some(keys) = gateway.refresher.keys.load_full() else {
        let detail = "the API keys have not been read from the database yet".to_owned();
        return Err(ApiError::Unavailable {
            part: "database",
            detail,
        });
    };
    keys.find(key, now).map_err(ApiError::Unauthorized)
}

fn tell(headers: &mut HeaderMap, verdict: Verdict) {
    let mut put =
        |name: &'static str, value: u64| drop(headers.insert(name, HeaderValue::from(value)));
    put("x-ratelimit-limit", u64::from(verdict.limit));
    put("x-ratelimit-remaining", u64::from(verdict.remaining));
    put("x-ratelimit-reset", verdict.reset_seconds);
    let scope = HeaderValue::from_static(verdict.scope.name());
    headers.insert("x-ratelimit-scope", scope);
}

fn good_id(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    is_request_id(text).then(|| text.to_owned())
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
