//! `/internal/cache/…`: what the shared cache holds; fill it; empty it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Host;
use crate::api_gateway::ApiError;
use crate::cache::CachedMarket;

/// For services that start while the database is away; `null` when half of it has expired.
pub(super) async fn market(State(host): State<Host>) -> Json<Option<CachedMarket>> {
    Json(host.gateway.cache.get().await.map(CachedMarket::from))
}

pub(super) async fn stats(State(host): State<Host>) -> Response {
    match host.gateway.cache.stats().await {
        Some(kinds) => {
            let foreign = host.gateway.cache.foreign();
            Json(json!({ "status": "success", "kinds": kinds, "foreign_objects": foreign }))
                .into_response()
        }
        None => away(),
    }
}

/// Reads the database now, and puts what it says into the cache.
pub(super) async fn warm(State(host): State<Host>) -> Response {
    if let Err(error) = host.gateway.refresher.refresh().await {
        return ApiError::from(error).into_response();
    }
    stats(State(host)).await
}

pub(super) async fn invalidate(State(host): State<Host>) -> Response {
    match host.gateway.cache.invalidate().await {
        Some(removed) => Json(json!({ "status": "success", "removed": removed })).into_response(),
        None => away(),
    }
}

fn away() -> Response {
    let body = json!({
        "status": "error",
        "error": "a part this answer needs is away; try again",
        "error_code": "EXTERNAL_API_UNAVAILABLE",
        "details": { "part": "cache", "detail": "Redis does not answer, or none is configured" },
    });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
