//! `GET /api/v1/rates/{ticker}`, `/rates/{ticker}/calculate` and `/rates/status/{status}`

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use pricing::{BorrowStatus, Index, Rate, SourcedValue};
use serde::Serialize;

use super::Gateway;
use super::caching::Cacheable;
use super::errors::ApiError;
use super::lists::{List, Page};
use super::middleware::Caller;
use super::moment::AsOf;
use super::parameters::Parameters;
use crate::calculation::{MarketAt, Overrides, RateNow};
use crate::domain::digits::Digits;
use crate::domain::identifiers::{TICKER_RULE, is_ticker};
use crate::domain::moment::Moment;
use crate::domain::time::rfc3339;
use crate::market::Dispersion;

#[derive(Serialize)]
struct RateAnswer {
    status: &'static str,
    #[serde(flatten)]
    rate: RateItem,
}

#[derive(Serialize)]
struct RateItem {
    ticker: String,
    /// Where the client called it by another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_ticker: Option<String>,
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
    /// How far the sources of the base rate are apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    dispersion: Option<Dispersion>,
    #[serde(flatten)]
    past: Option<Past>,
}

/// Of which moment an answer about the past speaks.
#[derive(Debug, Clone, Serialize)]
struct Past {
    as_of: String,
    known_at: String,
}

impl From<Moment> for Past {
    fn from(moment: Moment) -> Past {
        Past {
            as_of: rfc3339(moment.as_of_micros),
            known_at: rfc3339(moment.known_at_micros),
        }
    }
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
    /// Something newer that is not believed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unconfirmed: Option<Newer>,
}

/// What a source said later than the figure in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Newer {
    /// Its exact digits; absent where a whole delivery was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    as_of: String,
    reason: String,
}

impl DataSource {
    /// Of what has no newer figure beside it.
    pub(super) fn plain<T>(input: &SourcedValue<T>) -> DataSource {
        DataSource {
            source: input.source.to_string(),
            as_of: input.at_micros.map(rfc3339),
            stale: false,
            fallback: input.fallback,
            unconfirmed: None,
        }
    }

    pub(super) fn of<T: ToString>(input: &SourcedValue<T>, stale: bool) -> DataSource {
        DataSource {
            stale,
            unconfirmed: input.unconfirmed.as_deref().map(|newer| Newer {
                value: newer.value.as_ref().map(T::to_string),
                as_of: rfc3339(newer.at_micros),
                reason: newer.reason.to_string(),
            }),
            ..DataSource::plain(input)
        }
    }
}

const RATE: &[&str] = &["use_cache", "as_of", "known_at"];
const BY_STATUS: &[&str] = &["skip", "limit", "use_cache", "as_of", "known_at"];
const WHAT_IF: &[&str] = &[
    "volatility_index",
    "event_risk_factor",
    "base_rate",
    "use_cache",
    "as_of",
    "known_at",
];
const STATUS_RULE: &str = "must be EASY, MEDIUM or HARD";

pub(super) async fn rate(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), RATE);
    let ticker = ticker(path, &mut parameters);
    let cacheable = Cacheable::asked(&mut parameters, &headers);
    let asked = AsOf::read(&mut parameters);
    parameters.finish()?;
    let at = market_at(&gateway, asked).await?;
    answer(
        &gateway,
        &at,
        &caller,
        &ticker,
        &Overrides::default(),
        cacheable,
    )
}

pub(super) async fn what_if(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), WHAT_IF);
    let ticker = ticker(path, &mut parameters);
    let overrides = Overrides {
        base_rate: parameters.number(
            "base_rate",
            "must be a plain decimal number from 0 to 1000 with at most 8 decimals",
            |digits| {
                let value: Rate = digits.parse()?;
                within(digits, value, Rate::ZERO, Rate::whole(1_000))
            },
        ),
        volatility_index: parameters.number(
            "volatility_index",
            "must be a plain decimal number from 0 to 1000 with at most 6 decimals",
            |digits| {
                let value: Index = digits.parse()?;
                within(digits, value, Index::ZERO, Index::whole(1_000))
            },
        ),
        event_risk_factor: parameters.number(
            "event_risk_factor",
            "must be a whole number from 0 to 10",
            |digits| {
                digits
                    .whole()
                    .and_then(|factor| u8::try_from(factor).ok().filter(|f| *f <= 10))
            },
        ),
    };
    let cacheable = Cacheable::asked(&mut parameters, &headers);
    let asked = AsOf::read(&mut parameters);
    parameters.finish()?;
    let at = market_at(&gateway, asked).await?;
    answer(&gateway, &at, &caller, &ticker, &overrides, cacheable)
}

async fn market_at(gateway: &Gateway, asked: AsOf) -> Result<MarketAt, ApiError> {
    let moment = asked.settle(gateway).await?;
    let at = gateway.calculator.market_at(moment).await;
    at.map_err(|error| ApiError::from_quote_error(error, ""))
}

/// Minus zero is no number that anybody means.
fn within<T: PartialOrd>(digits: &Digits, value: T, min: T, max: T) -> Option<T> {
    (!digits.is_negative() && value >= min && value <= max).then_some(value)
}

fn ticker(path: Result<Path<String>, PathRejection>, parameters: &mut Parameters) -> String {
    match path {
        Ok(Path(ticker)) if is_ticker(&ticker) => ticker,
        _ => {
            parameters.refuse_path("ticker", TICKER_RULE);
            String::new()
        }
    }
}

fn answer(
    gateway: &Gateway,
    at: &MarketAt,
    caller: &Caller,
    ticker: &str,
    overrides: &Overrides,
    cacheable: Cacheable,
) -> Result<Response, ApiError> {
    let rate = gateway
        .calculator
        .rate(at, ticker, &caller.0.stored.client_id, overrides)
        .map_err(|error| ApiError::from_quote_error(error, ""))?;
    let changed_at = rate.inputs.known_at_micros;
    let mut item = RateItem::from(rate);
    item.requested_ticker = Some(ticker.to_owned()).filter(|asked| *asked != item.ticker);
    item.past = at.moment.map(Past::from);
    let answer = RateAnswer {
        status: "success",
        rate: item,
    };
    Ok(cacheable.respond(&answer, changed_at))
}

pub(super) async fn by_status(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), BY_STATUS);
    let status = path
        .ok()
        .and_then(|Path(status)| status.parse::<BorrowStatus>().ok());
    if status.is_none() {
        parameters.refuse_path("status", STATUS_RULE);
    }
    let page = Page::read(&mut parameters);
    let cacheable = Cacheable::asked(&mut parameters, &headers);
    let asked = AsOf::read(&mut parameters);
    parameters.finish()?;
    let at = market_at(&gateway, asked).await?;
    let (rates, total) = gateway
        .calculator
        .rates_of(
            &at,
            status.unwrap_or(BorrowStatus::Hard),
            &caller.0.stored.client_id,
            page.skip,
            page.limit,
        )
        .map_err(|error| ApiError::from_quote_error(error, ""))?;
    let changed_at = rates
        .iter()
        .filter_map(|rate| rate.inputs.known_at_micros)
        .max();
    let past = at.moment.map(Past::from);
    let item = |rate| RateItem {
        past: past.clone(),
        ..RateItem::from(rate)
    };
    let items: Vec<RateItem> = rates.into_iter().map(item).collect();
    Ok(cacheable.respond(&List::new(items, page, total), changed_at))
}

impl From<RateNow> for RateItem {
    fn from(now: RateNow) -> RateItem {
        let inputs = &now.inputs;
        let stale = |name: &str| now.stale.contains(&name);
        RateItem {
            ticker: inputs.ticker.to_string(),
            requested_ticker: None,
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
            dispersion: inputs.dispersion,
            past: None,
            policy: now.policy,
        }
    }
}
