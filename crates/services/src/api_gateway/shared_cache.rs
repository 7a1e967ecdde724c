//! What the shared cache holds, and filling it, for the command line (`control`) and for other services (`internal`).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{ApiError, Gateway};
use crate::cache::CacheState;

pub(crate) async fn cache_stats(gateway: &Gateway) -> Response {
    match gateway.cache.stats().await {
        Some(kinds) => Json(json!({
            "status": "success",
            "kinds": kinds,
            "foreign_objects": gateway.cache.foreign(),
            "database_up": gateway.calculator.market.database_up(),
            "market_read_millis": gateway.refresher.read_millis(),
        }))
        .into_response(),
        None => cache_away(gateway),
    }
}

/// Reads the database now, and puts what it says into the cache: the whole market in one round trip. What requests
/// find is measured before and after.
pub(crate) async fn warm_cache(gateway: &Gateway) -> Response {
    let before = gateway.cache.reads().await;
    if let Err(error) = gateway.refresher.refresh().await {
        return ApiError::from(error).into_response();
    }
    let after = gateway.cache.reads().await;
    let kinds = match after.is_complete() {
        true => gateway.cache.stats().await,
        false => None,
    };
    let Some(kinds) = kinds else {
        return cache_away(gateway);
    };
    Json(json!({
        "status": "success",
        "kinds": kinds,
        "foreign_objects": gateway.cache.foreign(),
        "rates": gateway.refresher.rates(),
        "market_read_millis": gateway.refresher.read_millis(),
        "requests_before": before,
        "requests_after": after,
    }))
    .into_response()
}

pub(crate) fn cache_away(gateway: &Gateway) -> Response {
    let detail = match gateway.cache.state() {
        CacheState::Refused(word) => format!("Redis refuses: {word}"),
        CacheState::Off | CacheState::Up | CacheState::Down => {
            "Redis does not answer in time, or none is configured".to_owned()
        }
    };
    let body = json!({
        "status": "error",
        "error": "a part this answer needs is away; try again",
        "error_code": "EXTERNAL_API_UNAVAILABLE",
        "details": { "part": "cache", "detail": detail },
    });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
