//! Between services: internal HTTP, authenticated by a shared secret on every route. A process serves
//! the routes of the services it runs; who asks is in `remote`.

mod cache;
mod calculate;
mod inclusion;
mod rates;
mod record;
mod state;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;

use crate::api_gateway::{self, Gateway};
use crate::remote::paths::{
    CACHE_INVALIDATE, CACHE_MARKET, CACHE_STATS, CACHE_WARM, CALCULATE, HEALTH, HEALTH_DETAILED,
    INCLUSION, METRICS, RATES, RECORD_ENTRY, RECORD_LOCATE, RECORD_QUOTE, STATE,
};
use crate::secret::InternalSecret;
use crate::service::{Service, ServiceSet};

/// What a handler may use: what a gateway may, and which services are here.
#[derive(Debug, Clone)]
struct Host {
    gateway: Gateway,
    services: ServiceSet,
}

pub(crate) fn routes(
    gateway: Gateway,
    services: ServiceSet,
    secret: Arc<InternalSecret>,
) -> Router {
    let mut routes = Router::new()
        .route(HEALTH, get(state::health))
        .route(HEALTH_DETAILED, get(state::health_detailed))
        .route(METRICS, get(state::metrics));
    if services.has(Service::DataService) {
        routes = routes
            .route(STATE, get(state::data_state))
            .route(RATES, get(rates::rates))
            .route(INCLUSION, get(inclusion::inclusion))
            .route(RECORD_QUOTE, post(record::quote))
            .route(RECORD_ENTRY, post(record::entry))
            .route(RECORD_LOCATE, post(record::locate));
    }
    if services.has(Service::CalculationService) {
        routes = routes.route(CALCULATE, post(calculate::calculate));
    }
    if services.has(Service::CacheService) {
        routes = routes
            .route(CACHE_MARKET, get(cache::market))
            .route(CACHE_STATS, get(cache::stats))
            .route(CACHE_WARM, post(cache::warm))
            .route(CACHE_INVALIDATE, post(cache::invalidate));
    }
    routes
        .method_not_allowed_fallback(api_gateway::method_not_allowed)
        .fallback(api_gateway::not_found)
        // Around everything: what is not authenticated does not even learn which paths there are.
        .layer(from_fn_with_state((secret, gateway.clone()), authenticate))
        .with_state(Host { gateway, services })
}

async fn authenticate(
    State((ours, gateway)): State<(Arc<InternalSecret>, Gateway)>,
    request: Request,
    next: Next,
) -> Response {
    if ours.is_presented(request.headers()) {
        return next.run(request).await;
    }
    if request.headers().contains_key(header::AUTHORIZATION) {
        let peer = request.extensions().get().copied();
        gateway.slow("internal", peer, request.headers()).await;
    }
    let body = json!({
        "status": "error",
        "error": "this is internal: send the shared secret as a bearer token",
        "error_code": "UNAUTHORIZED",
        "details": null,
    });
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, Json(body)).into_response()
}

/// An order cannot be read: a fault of the caller's version or ours, never of a client.
fn unreadable(error: &serde_json::Error) -> Response {
    let body = json!({ "status": "error", "error": error.to_string(), "error_code": "INVALID_PARAMETER", "details": null });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

fn answer<A: Serialize, F: Serialize>(
    outcome: Result<A, F>,
    failed: impl Fn(&F) -> StatusCode,
) -> Response {
    match outcome {
        Ok(answer) => Json(answer).into_response(),
        Err(failure) => (failed(&failure), Json(failure)).into_response(),
    }
}

/// Longer than any quote: its entry's fields, or a key.
const ORDER_BYTES_MAX: usize = 1 << 20;

async fn read<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, Box<Response>> {
    let bytes = axum::body::to_bytes(body, ORDER_BYTES_MAX)
        .await
        .map_err(|_| Box::new(StatusCode::PAYLOAD_TOO_LARGE.into_response()))?;
    serde_json::from_slice(&bytes).map_err(|error| Box::new(unreadable(&error)))
}
