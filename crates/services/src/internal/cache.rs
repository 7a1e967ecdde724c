//! `/internal/cache/…`: what the shared cache holds; fill it; empty it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Host;
use crate::api_gateway::{cache_away, cache_stats, warm_cache};
use crate::cache::CachedMarket;

/// For services that start while the database is away; `null` when half of it has expired.
pub(super) async fn market(State(host): State<Host>) -> Json<Option<CachedMarket>> {
    Json(host.gateway.cache.get().await.map(CachedMarket::from))
}

pub(super) async fn stats(State(host): State<Host>) -> Response {
    cache_stats(&host.gateway).await
}

pub(super) async fn warm(State(host): State<Host>) -> Response {
    warm_cache(&host.gateway).await
}

pub(super) async fn invalidate(State(host): State<Host>) -> Response {
    match host.gateway.cache.invalidate().await {
        Some(removed) => Json(json!({ "status": "success", "removed": removed })).into_response(),
        None => cache_away(&host.gateway),
    }
}
