//! `POST /internal/record/quote`, `/internal/record/entry` and `/internal/record/locate`: the log's only doors.

use audit::{Fields, Kind};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Host, answer, read};
use crate::data::{LocateRequest, QuoteRow, WriteError};
use crate::remote::{RecordEntry, RecordQuote, WriteFailure};

pub(super) async fn quote(State(host): State<Host>, body: Body) -> Response {
    let request: RecordQuote = match read(body).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let fields: Fields = request.fields.into_iter().collect();
    let recorded = match QuoteRow::from_fields(fields) {
        Ok(quote) => host.gateway.calculator.writer.quote(quote).await,
        Err(why) => Err(WriteError::refused("data-service", why)),
    };
    answer(recorded.map_err(WriteFailure::from), status)
}

/// What other services may ask to record. Quotes have a door of their own; epochs and feeds are begun and loaded here alone.
const KINDS: [Kind; 6] = [
    Kind::KeyChanged,
    Kind::BrokerChanged,
    Kind::ConfigurationChanged,
    Kind::BackupRun,
    Kind::RestoreRun,
    Kind::DrillRun,
];
const OWN_KIND: &str = "entries of this kind are written by the data-service alone";

pub(super) async fn entry(State(host): State<Host>, body: Body) -> Response {
    let request: RecordEntry = match read(body).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let kind = Kind::from_number(request.kind);
    let fields: Fields = request.fields.into_iter().collect();
    let writer = &host.gateway.calculator.writer;
    let recorded = match KINDS.contains(&kind) {
        true => writer.entry(kind, fields, request.change).await,
        false => Err(WriteError::refused("data-service", OWN_KIND)),
    };
    answer(recorded.map_err(WriteFailure::from), status)
}

pub(super) async fn locate(State(host): State<Host>, body: Body) -> Response {
    let request: LocateRequest = match read(body).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let outcome = host.gateway.calculator.writer.locate(request).await;
    answer(outcome.map_err(WriteFailure::from), status)
}

fn status(_: &WriteFailure) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}
