//! `GET /api/v1/health` (and `/health`), `/health/liveness`, `/health/readiness`: no key needed, nothing secret told.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Gateway;
use super::concerns::{DISPUTED, concerns, feed_states};
use super::errors::ApiError;
use crate::cache::CacheState;
use crate::domain::time::{now_micros, rfc3339};
use crate::market::Market;

/// The state of each part. 200 as long as rates are served; the word says whether all is well.
pub(crate) async fn health(State(gateway): State<Gateway>) -> (StatusCode, Json<Value>) {
    let now = now_micros();
    let market = &gateway.calculator.market;
    let stream = gateway.stream.report();
    let writer = gateway.calculator.writer.state();
    let refusal = gateway.calculator.writer.refusal();
    let closed = gateway.calculator.writer.closed();
    let cache = gateway.cache.state();
    let limits = gateway.limits_trouble();
    let loaded = market.is_loaded();
    let concerns = concerns(&gateway, now);
    let word = match (loaded, concerns.is_empty()) {
        (true, true) => "healthy",
        (true, false) => "degraded",
        (false, _) => "unhealthy",
    };
    let up = |up: bool| if up { "up" } else { "down" };
    let view = market.view().ok();
    let feeds = feeds(&gateway);
    let time = rfc3339(now);
    let body = json!({
        "status": word,
        "degraded": concerns,
        "version": crate::domain::VERSION,
        "time": time,
        // The same, by the name that older clients know.
        "timestamp": time,
        "mode": if gateway.strict { "strict" } else { "normal" },
        "locates": match (&refusal, &closed) {
            (None, None) => json!({ "served": true }),
            (Some(error), _) => json!({ "served": false, "reason": error.to_string() }),
            // Fees are; what they are for is not.
            (None, Some(why)) => json!({ "served": false, "reason": why, "quotes_served": true }),
        },
        "component_status": component_status(market.database_up(), &cache, &feeds),
        "components": {
            "database": { "status": up(market.database_up()) },
            "cache": of_cache(&cache, &gateway),
            "market_view": {
                "status": if loaded { "loaded" } else { "empty" },
                "tickers": view.map_or(0, |view| view.tickers()),
                "unconfirmed_seconds": market.unconfirmed_seconds(now),
                "stale": market.is_stale(now),
            },
            "feeds": feeds,
            "audit_log": writer,
            "wal_stream": stream,
            "calendar": calendar(market),
            "services": gateway.peers.health(),
            "rate_limits": of_limits(limits.as_deref(), gateway.limits_are_shared()),
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

/// The calendar in force; concerns say when it is about to end.
fn calendar(market: &Market) -> Value {
    let Some(calendar) = market.calendar() else {
        return json!({ "status": "unknown" });
    };
    json!({
        "status": "in_force",
        "name": calendar.name,
        "version": calendar.version,
        "last_day": calendar.last_day,
    })
}

const FORMAT_RULE: &str = "must be flat, or not be sent";
const PARAMETERS: &[&str] = &["format"];

/// With `?format=flat` the components are the words of `component_status`, as older clients read them.
pub(super) async fn public_health(
    state: State<Gateway>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let format = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find_map(|(name, value)| (name == "format").then(|| value.into_owned()));
    let (status, Json(mut body)) = health(state).await;
    match format.as_deref() {
        None => {}
        Some("flat") => body["components"] = body["component_status"].clone(),
        Some(_) => {
            return Err(ApiError::invalid(
                "format",
                "query",
                FORMAT_RULE,
                PARAMETERS,
            ));
        }
    }
    Ok((status, Json(body)))
}

/// In single words what older clients ask for: the database, the cache, and the feeds that are asked over HTTP.
fn component_status(database: bool, cache: &CacheState, feeds: &Value) -> Value {
    let sources = feeds["sources"].as_object().into_iter().flatten();
    let breakers = sources.filter_map(|(_, source)| source["breaker"].as_str());
    let (mut asked, mut closed) = (0, 0);
    for breaker in breakers {
        asked += 1;
        closed += usize::from(breaker == "closed");
    }
    json!({
        "database": if database { "connected" } else { "disconnected" },
        "cache": match cache {
            CacheState::Off => "disabled",
            CacheState::Up => "connected",
            CacheState::Down => "disconnected",
            CacheState::Refused(_) => "degraded",
        },
        "external_apis": match (asked, closed) {
            (0, _) => "not_configured",
            (_, 0) => "unavailable",
            _ if asked == closed => "available",
            _ => "degraded",
        },
    })
}

/// Its own word where it refuses: full, read only, not allowed.
fn of_cache(state: &CacheState, gateway: &Gateway) -> Value {
    let mut said = match state {
        CacheState::Off => json!({ "status": "off" }),
        CacheState::Up => json!({ "status": "up" }),
        CacheState::Down => json!({ "status": "down" }),
        CacheState::Refused(word) => json!({ "status": "degraded", "reason": word }),
    };
    let foreign = gateway.cache.foreign();
    if foreign > 0 {
        said["foreign_objects"] = foreign.into();
        if gateway.cache.is_disputed(now_micros()) {
            said["status"] = "degraded".into();
            said["reason"] = DISPUTED.into();
        }
    }
    said
}

/// Each gateway counts for itself while Redis does not: more is let through than the limit says.
fn of_limits(trouble: Option<&str>, shared: bool) -> Value {
    match trouble {
        None => json!({ "status": "up", "shared": shared }),
        Some(word) => json!({ "status": "degraded", "shared": shared, "reason": word }),
    }
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
    let refusals = view.iter().flat_map(|view| view.refusals()).map(|refusal| {
        json!({
            "feed": refusal.kind,
            "source": refusal.source,
            "rule": &*refusal.rule,
            "refused_at": rfc3339(refusal.known_at_micros),
        })
    });
    let held: BTreeMap<String, usize> = view
        .iter()
        .flat_map(|view| view.held())
        .map(|(source, subjects)| (source.to_owned(), subjects.len()))
        .collect();
    json!({
        "last_loads": loads.collect::<Vec<_>>(),
        "refused": refusals.collect::<Vec<_>>(),
        "held": held,
        "sources": feed_states(gateway),
    })
}

pub(super) async fn liveness() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Whether traffic may be sent here: rates are served. Whether locates are too is told beside it.
pub(super) async fn readiness(State(gateway): State<Gateway>) -> (StatusCode, Json<Value>) {
    let ready = gateway.started.load(Ordering::Acquire)
        && gateway.calculator.market.is_loaded()
        && gateway.refresher.keys.load().is_some();
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
