//! `POST /internal/record/quote` and `/internal/record/entry`: the log's only doors.

use audit::{Fields, Kind};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::wire::{EntryOrder, QuoteOrder, WriteFailure};
use super::{Host, answer, read};
use crate::data::{QuoteRecord, WriteError};

pub(super) async fn quote(State(host): State<Host>, body: Body) -> Response {
    let order: QuoteOrder = match read(body).await {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let fields: Fields = order.fields.into_iter().collect();
    let recorded = match QuoteRecord::from_fields(fields) {
        Ok(quote) => host.gateway.calculator.writer.quote(quote).await,
        Err(why) => Err(WriteError::refused("data-service", why)),
    };
    answer(recorded.map_err(WriteFailure::from), status)
}

pub(super) async fn entry(State(host): State<Host>, body: Body) -> Response {
    let order: EntryOrder = match read(body).await {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let kind = Kind::from_number(order.kind);
    let fields: Fields = order.fields.into_iter().collect();
    let writer = &host.gateway.calculator.writer;
    let recorded = writer.entry(kind, fields, order.change).await;
    answer(recorded.map_err(WriteFailure::from), status)
}

fn status(_: &WriteFailure) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}
