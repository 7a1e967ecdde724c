//! `GET /api/v1/availability/{ticker}`: what could be located right now, and what the caller holds. Nothing is held by asking.
//! `GET /api/v1/locates/availability` and `/locates/{id}/availability`: what the caller may sell short, what its orders reserve, what
//! they have used.

use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use jiff::civil::Date;
use serde::Serialize;
use uuid::Uuid;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::super::parameters::Parameters;
use super::{Room, locate_id};
use crate::data::{DecisionContext, UseTotals, available, steps_of, use_totals};
use crate::domain::identifiers::{TICKER_RULE, is_ticker};
use crate::domain::time::{now_micros, rfc3339};

#[derive(Debug, Serialize)]
pub(in super::super) struct Availability {
    status: &'static str,
    ticker: String,
    trade_date: Date,
    /// Shares that could be granted; 0 where `reason` says why.
    remaining: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    or_more: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_at: Option<String>,
    /// Of the caller's own locates in force.
    yours: Yours,
}

#[derive(Debug, Default, Serialize)]
struct Yours {
    locates: i64,
    held: i64,
    available: i64,
    reserved: i64,
    used: i64,
}

impl Yours {
    fn of(totals: &UseTotals) -> Yours {
        Yours {
            locates: totals.locates,
            held: totals.held,
            available: totals.held - totals.reserved - totals.used,
            reserved: totals.reserved,
            used: totals.used,
        }
    }
}

#[derive(Debug, Serialize)]
struct OfTicker {
    ticker: String,
    #[serde(flatten)]
    yours: Yours,
}

#[derive(Debug, Serialize)]
pub(in super::super) struct OfTickers {
    status: &'static str,
    items: Vec<OfTicker>,
}

/// Of each ticker that the caller holds locates of, or of one.
pub(in super::super) async fn of_tickers(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<OfTickers>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), &["ticker"]);
    let ticker = parameters.maybe("ticker", TICKER_RULE, |text| {
        is_ticker(text).then(|| text.to_owned())
    });
    parameters.finish()?;
    let now = now_micros();
    let view = gateway.calculator.market.view();
    let view = view.map_err(|error| ApiError::from_quote_error(error, ""))?;
    let ticker = ticker.map(|ticker| view.own_name(&ticker, now));
    let client = gateway.refresher.client()?;
    let own = &caller.0.stored.client_id;
    let totals = use_totals(&client, own, ticker.as_deref(), now).await?;
    let item = |totals: &UseTotals| OfTicker {
        ticker: totals.ticker.clone(),
        yours: Yours::of(totals),
    };
    Ok(Json(OfTickers {
        status: "success",
        items: totals.iter().map(item).collect(),
    }))
}

#[derive(Debug, Serialize)]
pub(in super::super) struct OfLocate {
    status: &'static str,
    locate_id: Uuid,
    locate_status: &'static str,
    r#type: &'static str,
    ticker: String,
    trade_date: Date,
    expires_at: String,
    granted: i64,
    returned: i64,
    #[serde(flatten)]
    room: Room,
}

/// Of one locate.
pub(in super::super) async fn of_locate(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<OfLocate>, ApiError> {
    let locate_id = locate_id(&id)?;
    let client = gateway.refresher.client()?;
    let mut steps = steps_of(&client, &caller.0.stored.client_id, locate_id).await?;
    let newest = steps.pop();
    let locate = newest
        .ok_or(ApiError::NotFound("there is no such locate of yours"))?
        .locate;
    let mut room: Room = locate.room().into();
    // Time may have passed that nobody has recorded yet.
    if locate.expires_at.0 <= now_micros() {
        room.available = 0;
    }
    Ok(Json(OfLocate {
        status: "success",
        locate_id,
        locate_status: locate.status.name(),
        r#type: locate.kind.name(),
        ticker: locate.ticker,
        trade_date: locate.trade_date,
        expires_at: rfc3339(locate.expires_at.0),
        granted: locate.granted,
        returned: locate.returned,
        room,
    }))
}

pub(in super::super) async fn show(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(ticker): Path<String>,
) -> Result<Json<Availability>, ApiError> {
    if !is_ticker(&ticker) {
        return Err(ApiError::invalid(
            "ticker",
            "path",
            TICKER_RULE,
            &["ticker"],
        ));
    }
    let now = now_micros();
    let calculator = &gateway.calculator;
    let inputs = calculator
        .market
        .view()
        .and_then(|view| view.inputs(&ticker, now));
    let inputs = inputs.map_err(|error| ApiError::from_quote_error(error, ""))?;
    let calendar = gateway.calendar()?;
    let trade_date = calendar.trade_date(now)?;
    let terms = DecisionContext {
        now_micros: now,
        lot: 1,
        calendar,
        feeds: &calculator.market.feeds(),
        closed: None,
    };
    let client = gateway.refresher.client()?;
    let (figure, outstanding) = available(&client, &inputs.ticker, trade_date, &terms).await?;
    let own = &caller.0.stored.client_id;
    let totals = use_totals(&client, own, Some(&inputs.ticker), now).await?;
    let yours = totals.first().map(Yours::of).unwrap_or_default();
    let figure = figure.as_ref();
    let known = figure.ok();
    Ok(Json(Availability {
        status: "success",
        ticker: inputs.ticker.to_string(),
        trade_date,
        remaining: known.map_or(0, |figure| (figure.available - outstanding).max(0)),
        reason: figure.err().map(|reason| reason.name()),
        available: known.map(|figure| figure.available),
        or_more: known.map(|figure| figure.or_more),
        source: known.map(|figure| figure.source.clone()),
        valid_at: known.map(|figure| rfc3339(figure.valid_at.0)),
        yours,
    }))
}
