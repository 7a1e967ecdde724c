//! `POST /internal/audit/entries`: backups, restores, drills and settings go on record.

use std::collections::BTreeMap;

use audit::{Fields, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::{Deserialize, Serialize};

use super::super::Gateway;
use super::super::errors::ApiError;
use crate::data::{Change, LogPosition, is_own_field};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryRequest {
    kind: String,
    fields: BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(super) struct EntryAnswer {
    status: &'static str,
    audit: LogPosition,
}

/// What the command line may record; the rest this engine records itself.
const KINDS: [Kind; 4] = [
    Kind::ConfigurationChanged,
    Kind::BackupRun,
    Kind::RestoreRun,
    Kind::DrillRun,
];
const FIELDS_MAX: usize = 256;
const BYTES_MAX: usize = 64 * 1024;
const VALID: &[&str] = &["kind", "fields"];

/// What the log's format can hold: refused here, where it is the caller's fault, and not by the writer.
fn is_field_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.')
    };
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

pub(super) async fn record(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Json<EntryAnswer>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let request: EntryRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::unreadable_body(error.to_string()))?;
    let kind = KINDS.into_iter().find(|kind| kind.name() == request.kind);
    let kind = kind.ok_or_else(|| {
        ApiError::invalid(
            "kind",
            "body",
            "must be ConfigurationChanged, BackupRun, RestoreRun or DrillRun",
            VALID,
        )
    })?;
    if let Some(name) = request.fields.keys().find(|name| !is_field_name(name)) {
        let rule = "field names must be 1 to 64 of a-z, 0-9, '_' and '.'";
        return Err(ApiError::invalid(name, "body", rule, VALID));
    }
    if let Some(name) = request.fields.keys().find(|name| is_own_field(name)) {
        let rule = "says what is in the engine's tables: only the writer of the log sets it";
        return Err(ApiError::invalid(name, "body", rule, VALID));
    }
    let bytes: usize = request.fields.iter().map(|(n, v)| n.len() + v.len()).sum();
    if request.fields.len() > FIELDS_MAX || bytes > BYTES_MAX {
        let rule = "at most 256 fields and 64 KiB in all";
        return Err(ApiError::invalid("fields", "body", rule, VALID));
    }
    let fields: Fields = request.fields.into_iter().collect();
    let audit = gateway
        .calculator
        .writer
        .entry(kind, fields, Change::None)
        .await?;
    Ok(Json(EntryAnswer {
        status: "success",
        audit,
    }))
}
