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
use crate::data::{Change, Recorded};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryRequest {
    kind: String,
    fields: BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(super) struct EntryAnswer {
    status: &'static str,
    audit: Recorded,
}

/// What the command line may record; the rest this engine records itself.
const KINDS: [Kind; 4] = [
    Kind::ConfigurationChanged,
    Kind::BackupRun,
    Kind::RestoreRun,
    Kind::DrillRun,
];
const VALID: &[&str] = &["kind", "fields"];

pub(super) async fn record(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Json<EntryAnswer>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let request: EntryRequest =
        serde_json::from_slice(&body).map_err(|error| ApiError::Unreadable(error.to_string()))?;
    let kind = KINDS.into_iter().find(|kind| kind.name() == request.kind);
    let kind = kind.ok_or_else(|| {
        ApiError::invalid(
            "kind",
            "body",
            "must be ConfigurationChanged, BackupRun, RestoreRun or DrillRun",
            VALID,
        )
    })?;
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
