//! `POST /internal/import?kind=…`: the body is the file.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::Request;
use jiff::Timestamp;
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::parameters::Parameters;
use crate::data::{Accept, ImportReport, IntakeError, KINDS, LogPosition, Parcel, take};

const PARAMETERS: &[&str] = &[
    "kind",
    "source",
    "valid_at",
    "accept_jumps",
    "accept_older",
    "by",
];
const KIND_RULE: &str =
    "must be one of ibkr, seclend, clearstreet, vix, events, brokers, aliases, calendar, stocks";
/// Real files have 1.5 MB.
const FILE_BYTES_MAX: usize = 64 << 20;

#[derive(Serialize)]
pub(super) struct ImportAnswer {
    pub(super) status: &'static str,
    #[serde(flatten)]
    pub(super) report: ImportReport,
    pub(super) audit: LogPosition,
}

pub(super) async fn import(
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Result<Json<ImportAnswer>, ApiError> {
    // Read first: a client that is still sending would miss an early answer.
    let file = gateway.body(request, FILE_BYTES_MAX).await?;
    let mut parameters = Parameters::from_query(query.as_deref(), PARAMETERS);
    let kind = parameters.required("kind", KIND_RULE, |text| {
        KINDS.contains(&text).then(|| text.to_owned())
    });
    let source = parameters.maybe(
        "source",
        "must be 1 to 32 lower-case letters, digits or '-'",
        |text| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            ((1..=32).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
        },
    );
    let valid_at = parameters.maybe(
        "valid_at",
        "must be a time such as 2025-12-28T15:14:44Z",
        |text| text.parse::<Timestamp>().ok(),
    );
    let accept_jumps = parameters.maybe("accept_jumps", "must be true or false", |text| {
        text.parse::<bool>().ok()
    });
    let accept_older = parameters.maybe("accept_older", "must be true or false", |text| {
        text.parse::<bool>().ok()
    });
    let by = parameters.optional("by");
    parameters.finish()?;
    let parcel = Parcel {
        kind: kind.unwrap_or_default(),
        source,
        bytes: Arc::from(&file[..]),
        valid_at,
        accept: Accept {
            jumps: accept_jumps.unwrap_or_default(),
            older: accept_older.unwrap_or_default(),
        },
        by,
        now: Timestamp::now(),
    };
    let taken = take(&gateway.refresher, &*gateway.calculator.writer, parcel).await;
    let (report, audit) = taken.map_err(refused)?;
    Ok(Json(ImportAnswer {
        status: "success",
        report,
        audit,
    }))
}

pub(super) fn refused(error: IntakeError) -> ApiError {
    match error {
        IntakeError::Refused(error) => ApiError::unreadable_body(error.to_string()),
        IntakeError::Database(error) => error.into(),
        IntakeError::Write(error) => error.into(),
        IntakeError::Broken => ApiError::Calculation("reading the file failed".to_owned()),
    }
}
