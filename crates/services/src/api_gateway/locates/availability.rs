//! `GET /api/v1/availability/{ticker}`: what could be located right now. Nothing is held by asking.

use axum::Json;
use axum::extract::{Extension, Path, State};
use jiff::civil::Date;
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::super::parameters::{TICKER_RULE, is_ticker};
use crate::data::{DeskTerms, available};
use crate::time::{now_micros, rfc3339};

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
}

pub(in super::super) async fn show(
    State(gateway): State<Gateway>,
    Extension(_): Extension<Caller>,
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
    let inputs = inputs.map_err(|error| ApiError::from_locate(error, ""))?;
    let calendar = gateway.calendar()?;
    let trade_date = calendar.trade_date(now)?;
    let terms = DeskTerms {
        now_micros: now,
        lot: 1,
        calendar,
        feeds: &calculator.market.feeds(),
        closed: None,
    };
    let client = gateway.keeper.client()?;
    let (figure, outstanding) = available(&client, &inputs.ticker, trade_date, &terms).await?;
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
    }))
}
