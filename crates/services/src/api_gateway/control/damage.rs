//! `POST /internal/audit/reopen`: a person has looked at what was found damaged, and lets writing go on.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::{Deserialize, Serialize};

use super::super::Gateway;
use super::super::errors::ApiError;
use crate::data::LogPosition;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReopenRequest {
    /// Goes on record, word for word.
    reason: String,
    by: String,
}

#[derive(Serialize)]
pub(super) struct ReopenAnswer {
    status: &'static str,
    audit: LogPosition,
}

const CHARS_MAX: usize = 1000;
const VALID: &[&str] = &["reason", "by"];

pub(super) async fn reopen(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Json<ReopenAnswer>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let request: ReopenRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::unreadable_body(error.to_string()))?;
    for (name, text) in [("reason", &request.reason), ("by", &request.by)] {
        if text.trim().is_empty() || text.chars().count() > CHARS_MAX {
            let rule = "must be 1 to 1000 characters";
            return Err(ApiError::invalid(name, "body", rule, VALID));
        }
    }
    let writer = &gateway.calculator.writer;
    let audit = writer
        .reopen(request.reason, request.by)
        .await
        .map_err(ApiError::NotReopened)?;
    Ok(Json(ReopenAnswer {
        status: "success",
        audit,
    }))
}
