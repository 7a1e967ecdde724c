//! `GET /api/v1/rates/{ticker}`

use axum::Json;
use axum::extract::{Extension, Path, State};
use pricing::Sourced;
use serde::Serialize;

use super::Gateway;
use super::errors::ApiError;
use super::middleware::Caller;
use super::parameters::{TICKER_RULE, is_ticker};
use crate::calculation::RateNow;
use crate::time::rfc3339;

#[derive(Serialize)]
pub(super) struct RateAnswer {
    status: &'static str,
    ticker: String,
    current_rate: pricing::Rate,
    borrow_status: &'static str,
    volatility_index: pricing::Index,
    event_risk_factor: u8,
    last_updated: Option<String>,
    base_rate: pricing::Rate,
    volatility_tier: &'static str,
    currency: String,
    policy: String,
    available: Option<i64>,
    /// The feed says "more than".
    available_or_more: bool,
    stale: bool,
    data_sources: DataSources,
}

#[derive(Serialize)]
struct DataSources {
    base_rate: DataSource,
    minimum_rate: DataSource,
    volatility_index: DataSource,
    event_risk_factor: DataSource,
    /// Read from memory while the database is away, for longer than it may be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    market_view_stale: bool,
}

/// Where an input came from, and what is the matter with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct DataSource {
    pub(super) source: String,
    pub(super) as_of: Option<String>,
    pub(super) stale: bool,
    pub(super) fallback: bool,
}

impl DataSource {
    pub(super) fn of<T>(input: &Sourced<T>, stale: bool) -> DataSource {
        DataSource {
            source: input.source.to_string(),
            as_of: input.at_micros.map(rfc3339),
            stale,
            fallback: input.fallback,
        }
    }
}

const PARAMETERS: &[&str] = &["ticker"];

pub(super) async fn rate(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<RateAnswer>, ApiError> {
    let ticker = path
        .map(|Path(ticker)| ticker)
        .ok()
        .filter(|ticker| is_ticker(ticker));
    let ticker =
        ticker.ok_or_else(|| ApiError::invalid("ticker", "path", TICKER_RULE, PARAMETERS))?;
    let rate = gateway
        .calculator
        .rate(&ticker, &caller.0.stored.client_id)
        .map_err(|error| ApiError::from_locate(error, ""))?;
    Ok(Json(RateAnswer::from(rate)))
}

impl From<RateNow> for RateAnswer {
    fn from(now: RateNow) -> RateAnswer {
        let inputs = &now.inputs;
        let stale = |name: &str| now.stale.contains(&name);
        RateAnswer {
            status: "success",
            ticker: inputs.ticker.to_string(),
            current_rate: now.rate,
            borrow_status: now.borrow_status.as_str(),
            volatility_index: inputs.volatility_index.value,
            event_risk_factor: inputs.event_risk_factor.value,
            last_updated: inputs.known_at_micros.map(rfc3339),
            base_rate: inputs.base_rate.value,
            volatility_tier: now.volatility_tier.as_str(),
            currency: inputs.currency.to_string(),
            available: inputs.available,
            available_or_more: inputs.available_or_more,
            stale: !now.stale.is_empty(),
            data_sources: DataSources {
                base_rate: DataSource::of(&inputs.base_rate, stale("base_rate")),
                minimum_rate: DataSource::of(&inputs.minimum_rate, false),
                volatility_index: DataSource::of(
                    &inputs.volatility_index,
                    stale("volatility_index"),
                ),
                event_risk_factor: DataSource::of(
                    &inputs.event_risk_factor,
                    stale("event_risk_factor"),
                ),
                market_view_stale: stale("market_view"),
            },
            policy: now.policy,
        }
    }
}
