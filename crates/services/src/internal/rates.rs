//! `GET /internal/rates/{ticker}`: what the data-service holds of a ticker, before any policy.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use pricing::{BorrowStatus, Index, Rate, SourcedValue};
use serde::Serialize;

use super::Host;
use crate::api_gateway::ApiError;
use crate::domain::time::now_micros;

#[derive(Serialize)]
struct Facts {
    status: &'static str,
    ticker: std::sync::Arc<str>,
    currency: std::sync::Arc<str>,
    base_rate: SourcedValue<Rate>,
    minimum_rate: SourcedValue<Rate>,
    volatility_index: SourcedValue<Index>,
    event_risk_factor: SourcedValue<u8>,
    feed_status: Option<SourcedValue<BorrowStatus>>,
    available: Option<i64>,
    available_or_more: bool,
}

pub(super) async fn rates(State(host): State<Host>, Path(ticker): Path<String>) -> Response {
    let market = &host.gateway.calculator.market;
    let inputs = match market
        .view()
        .and_then(|view| view.inputs(&ticker, now_micros()))
    {
        Ok(inputs) => inputs,
        Err(error) => return ApiError::from_quote_error(error, "").into_response(),
    };
    Json(Facts {
        status: "success",
        ticker: inputs.ticker,
        currency: inputs.currency,
        base_rate: inputs.base_rate,
        minimum_rate: inputs.minimum_rate,
        volatility_index: inputs.volatility_index,
        event_risk_factor: inputs.event_risk_factor,
        feed_status: inputs.feed_status,
        available: inputs.available,
        available_or_more: inputs.available_or_more,
    })
    .into_response()
}
