//! `GET /api/v1/health`, `/health/liveness`, `/health/readiness`: no key needed, nothing secret told.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Gateway;
use crate::cache::CacheState;
use crate::time::{now_micros, rfc3339};

/// The state of each part. 200 as long as rates are served; the word says whether all is well.
pub(crate) async fn health(State(gateway): State<Gateway>) -> (StatusCode, Json<Value>) {
    let now = now_micros();
    let market = &gateway.calculator.market;
    let stream = gateway.stream.report();
    let writer = gateway.calculator.writer.state();
    let refusal = gateway.calculator.writer.refusal();
    let cache = gateway.cache.state();
    let loaded = market.is_loaded();
    let well = market.database_up()
        && refusal.is_none()
        && cache != CacheState::Down
        && stream.alarm.is_none()
        && gateway.peers.are_up();
    let word = match (loaded, well) {
        (true, true) => "healthy",
        (true, false) => "degraded",
        (false, _) => "unhealthy",
    };
    let up = |up: bool| if up { "up" } else { "down" };
    let view = market.view().ok();
    let body = json!({
        "status": word,
        "version": crate::VERSION,
        "time": rfc3339(now),
        "mode": if gateway.strict { "strict" } else { "normal" },
        "locates": match &refusal {
            None => json!({ "served": true }),
            Some(error) => json!({ "served": false, "reason": error.to_string() }),
        },
        "components": {
            "database": { "status": up(market.database_up()) },
            "cache": { "status": match cache { CacheState::Off => "off", CacheState::Up => "up", CacheState::Down => "down" } },
            "market_view": {
                "status": if loaded { "loaded" } else { "empty" },
                "tickers": view.map_or(0, |view| view.tickers()),
                "unconfirmed_seconds": market.unconfirmed_seconds(now),
                "stale": market.is_stale(now),
            },
            "feeds": feeds(&gateway),
            "audit_log": writer,
            "wal_stream": stream,
            "services": gateway.peers.health(),
            "rate_limits": { "status": "up", "shared": gateway.limits_are_shared() },
        },
    });
    (
        if loaded {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(body),
    )
}

/// The newest load of every source, and how those do that are asked: here, or in the data-service elsewhere.
fn feeds(gateway: &Gateway) -> Value {
    let view = gateway.calculator.market.view().ok();
    let loads = view.iter().flat_map(|view| view.loads()).map(|load| {
        json!({
            "feed": load.kind,
            "source": load.source,
            "valid_at": rfc3339(load.valid_at_micros),
            "known_at": rfc3339(load.known_at_micros),
            "rows": load.rows,
            "loaded": load.loaded,
            "quarantined": load.quarantined,
        })
    });
    let mut sources = gateway.calculator.writer.feeds();
    sources.extend(gateway.keeper.board.all());
    json!({ "last_loads": loads.collect::<Vec<_>>(), "sources": sources })
}

pub(super) async fn liveness() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Whether traffic may be sent here: rates are served. Whether locates are too is told beside it.
pub(super) async fn readiness(State(gateway): State<Gateway>) -> (StatusCode, Json<Value>) {
    let ready = gateway.calculator.market.is_loaded() && gateway.keeper.keys.load().is_some();
    let locates = gateway.calculator.writer.refusal().is_none();
    let body = json!({ "status": if ready { "ready" } else { "starting" }, "locates": locates });
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(body),
    )
}
