//! `GET /api/v1/config`: what an integrator has to know of how this engine is set. Nothing secret.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use pricing::{Convention, Policy};
use serde::Serialize;

use super::Gateway;
use super::errors::ApiError;
use super::middleware::Caller;
use crate::domain::keys::{Role, Tier};

#[derive(Debug, Serialize)]
pub(super) struct ConfigAnswer {
    status: &'static str,
    version: &'static str,
    mode: &'static str,
    caller: CallerItem,
    quotes: QuoteSettings,
    requests_per_minute: Limits,
    body_bytes_max: usize,
    /// Absent until settings were changed while this process ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    reload: Option<Arc<crate::reload::ReloadReport>>,
    cache_seconds: CacheSeconds,
    config: OlderNames,
    default_policy: String,
    default_convention: String,
    policies: Vec<NamedDefinition<Policy>>,
    conventions: Vec<NamedDefinition<Convention>>,
}

/// As older clients read it.
#[derive(Debug, Serialize)]
struct OlderNames {
    api_version: &'static str,
    supported_features: [&'static str; 3],
    rate_limits: OlderLimits,
}

#[derive(Debug, Serialize)]
struct OlderLimits {
    default: u32,
    premium: u32,
}

#[derive(Debug, Serialize)]
struct CallerItem {
    client_id: String,
    role: Role,
    tier: Tier,
    /// Absent without terms on file: such a client is not priced.
    policy: Option<String>,
    convention: Option<String>,
    shares_and_price_needed: bool,
}

#[derive(Debug, Serialize)]
struct QuoteSettings {
    valid_seconds: u64,
    deadline_milliseconds: u64,
    position_value_max: u64,
    loan_days_max: u32,
}

#[derive(Debug, Serialize)]
struct Limits {
    standard: u32,
    premium: u32,
    internal: u32,
}

#[derive(Debug, Serialize)]
struct CacheSeconds {
    rates: u64,
    volatility: u64,
    events: u64,
    broker_settings: u64,
    calculations: u64,
    minimum_rates: u64,
}

#[derive(Debug, Serialize)]
struct NamedDefinition<T> {
    id: String,
    #[serde(flatten)]
    definition: Arc<T>,
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ConfigAnswer>, ApiError> {
    let view = gateway
        .calculator
        .market
        .view()
        .map_err(|error| ApiError::from_quote_error(error, ""))?;
    let key = &caller.0.stored;
    let terms = view
        .terms(&key.client_id)
        .filter(|_| key.role == Role::Client);
    let limits = gateway.limits.load();
    Ok(Json(ConfigAnswer {
        status: "success",
        version: crate::domain::VERSION,
        mode: if gateway.strict { "strict" } else { "normal" },
        caller: CallerItem {
            client_id: key.client_id.clone(),
            role: key.role,
            tier: key.tier,
            policy: terms.map(|terms| terms.policy.id()),
            convention: terms.map(|terms| terms.convention.id()),
            shares_and_price_needed: terms.is_some_and(|terms| terms.convention.is_per_share()),
        },
        quotes: QuoteSettings {
            valid_seconds: gateway.calculator.quote_valid.as_secs(),
            deadline_milliseconds: u64::try_from(gateway.timeout.as_millis()).unwrap_or(u64::MAX),
            position_value_max: 1_000_000_000,
            loan_days_max: 365,
        },
        requests_per_minute: Limits {
            standard: limits.standard,
            premium: limits.premium,
            internal: limits.internal,
        },
        body_bytes_max: gateway.body_bytes_max,
        reload: gateway.reload.load_full(),
        cache_seconds: CacheSeconds {
            rates: crate::cache::RATES_SECONDS,
            volatility: crate::cache::VOLATILITY_SECONDS,
            events: crate::cache::EVENTS_SECONDS,
            broker_settings: crate::cache::BROKERS_SECONDS,
            calculations: super::caching::SECONDS,
            minimum_rates: crate::cache::STOCKS_SECONDS,
        },
        config: OlderNames {
            api_version: "1.0.0",
            supported_features: ["borrow_rates", "locate_fees", "volatility_adjustment"],
            rate_limits: OlderLimits {
                default: limits.standard,
                premium: limits.premium,
            },
        },
        default_policy: Policy::standard_1().id(),
        default_convention: Convention::act365_1().id(),
        policies: view
            .policies()
            .map(|policy| NamedDefinition {
                id: policy.id(),
                definition: Arc::clone(policy),
            })
            .collect(),
        conventions: view
            .conventions()
            .map(|convention| NamedDefinition {
                id: convention.id(),
                definition: Arc::clone(convention),
            })
            .collect(),
    }))
}
