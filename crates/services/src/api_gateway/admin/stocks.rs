//! `GET`, `PUT /api/v1/admin/stocks/{ticker}/minimum-rate`: below which a stock is lent to nobody, from one moment to another.

use audit::{Fields, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Request;
use pricing::Rate;
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::super::parameters::Parameters;
use super::by;
use crate::data::{
    Change, LogPosition, MINIMUM_RULE, MOMENT_RULE, StockTerms, minimum, minimum_rates, moment,
};
use crate::domain::identifiers::{TICKER_RULE, is_ticker};
use crate::domain::time::{now_micros, rfc3339};
use crate::market::MinimumRate;

pub(in super::super) const PARAMETERS: &[&str] = &["minimum_rate", "valid_from", "valid_to"];

#[derive(Debug, Serialize)]
struct RatePeriod {
    minimum_rate: Rate,
    valid_from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_to: Option<String>,
}

impl RatePeriod {
    fn of(rate: &MinimumRate) -> RatePeriod {
        RatePeriod {
            minimum_rate: rate.minimum_rate,
            valid_from: rfc3339(rate.valid_from_micros),
            valid_to: rate.valid_to_micros.map(rfc3339),
        }
    }
}

#[derive(Debug, Serialize)]
pub(in super::super) struct MinimumSet {
    status: &'static str,
    ticker: String,
    #[serde(flatten)]
    set: RatePeriod,
    audit: LogPosition,
}

#[derive(Debug, Serialize)]
struct RateOnRecord {
    #[serde(flatten)]
    set: RatePeriod,
    known_at: String,
}

#[derive(Debug, Serialize)]
pub(in super::super) struct Minimums {
    status: &'static str,
    ticker: String,
    /// That counts now.
    minimum_rate: Rate,
    source: String,
    /// All that were set, the one set last first; a hundred at most.
    items: Vec<RateOnRecord>,
}

pub(in super::super) async fn show(
    State(gateway): State<Gateway>,
    Path(ticker): Path<String>,
) -> Result<Json<Minimums>, ApiError> {
    read(&gateway, &ticker).await.map(Json)
}

pub(in super::super) async fn put(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(ticker): Path<String>,
    request: Request<Body>,
) -> Result<Json<MinimumSet>, ApiError> {
    let parameters = gateway.json(request, PARAMETERS).await?;
    set(&gateway, parameters, &ticker, by(&caller))
        .await
        .map(Json)
}

pub(in super::super) async fn read(gateway: &Gateway, asked: &str) -> Result<Minimums, ApiError> {
    let ticker = known(gateway, asked)?;
    let now = now_micros();
    let view = view(gateway)?;
    let counting = view.minimum_rate(&ticker, now);
    let client = gateway.refresher.client()?;
    let items = minimum_rates(&client, &ticker).await?;
    let item = |rate: &MinimumRate| RateOnRecord {
        set: RatePeriod::of(rate),
        known_at: rfc3339(rate.known_at_micros),
    };
    Ok(Minimums {
        status: "success",
        ticker,
        minimum_rate: counting.value,
        source: counting.source.to_string(),
        items: items.iter().map(item).collect(),
    })
}

pub(in super::super) async fn set(
    gateway: &Gateway,
    mut parameters: Parameters,
    asked: &str,
    by: String,
) -> Result<MinimumSet, ApiError> {
    let rate = parameters.required_number("minimum_rate", MINIMUM_RULE, minimum);
    let from = parameters.maybe("valid_from", MOMENT_RULE, moment);
    let to = parameters.maybe("valid_to", MOMENT_RULE, moment);
    let now = now_micros();
    let from = from.unwrap_or(now);
    if to.is_some_and(|end| end <= from) {
        parameters.refuse(
            "valid_to",
            "must be after valid_from, which is now when absent",
        );
    }
    parameters.finish()?;
    let Some(minimum_rate) = rate else {
        let why = "the parameters could not be read";
        return Err(ApiError::Unreadable(why.to_owned()));
    };
    let ticker = known(gateway, asked)?;
    let before = view(gateway)?.minimum_rate(&ticker, from);
    let minimum = MinimumRate {
        minimum_rate,
        valid_from_micros: from,
        valid_to_micros: to,
        known_at_micros: now,
    };
    let terms = StockTerms {
        ticker: ticker.clone(),
        minimum: Some(minimum.clone()),
    };
    let fields = Fields::new()
        .with("actor", &by)
        .with("by", &by)
        .with("name", format!("minimum_rate {ticker}"))
        .with("ticker", &ticker)
        .with("before", before.value.to_string())
        .with("after", terms.words().to_string());
    let record = &gateway.calculator.writer;
    let audit = record
        .entry(Kind::ConfigurationChanged, fields, Change::Stock(terms))
        .await?;
    Gateway::seen(gateway.refresher.refresh().await);
    Ok(MinimumSet {
        status: "success",
        ticker,
        set: RatePeriod::of(&minimum),
        audit,
    })
}

fn view(gateway: &Gateway) -> Result<std::sync::Arc<crate::market::MarketView>, ApiError> {
    let view = gateway.calculator.market.view();
    view.map_err(|error| ApiError::from_quote_error(error, ""))
}

/// Our own name for it. A ticker with a slip in it would become a stock of its own, priced at this rate: new stocks come by file.
fn known(gateway: &Gateway, asked: &str) -> Result<String, ApiError> {
    if !is_ticker(asked) {
        return Err(ApiError::invalid(
            "ticker",
            "path",
            TICKER_RULE,
            &["ticker"],
        ));
    }
    let view = view(gateway)?;
    let ticker = view.own_name(asked, now_micros());
    match view.knows(&ticker) {
        true => Ok(ticker),
        false => Err(ApiError::TickerNotFound(asked.to_owned())),
    }
}
