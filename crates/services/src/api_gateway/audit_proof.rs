//! `GET /api/v1/audit/{id}/proof`: that an entry of the caller's is in the log, as somebody checks it who trusts a public key alone.

use audit::{InclusionProof, SignedHead};
use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Gateway;
use super::audit::{BY_ID, ID_RULE, entry_id};
use super::errors::ApiError;
use super::middleware::Caller;
use crate::data::{Inclusion, find_entry};

/// A head follows its entries within a second, its checkpoint within another.
const RETRY_SECONDS: u64 = 1;

/// Authorised as the entry itself is: of another client's nothing is told.
pub(super) async fn proof(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = entry_id(&id).ok_or_else(|| ApiError::invalid("id", "path", ID_RULE, BY_ID))?;
    let client = gateway.refresher.client()?;
    let found = find_entry(&client, &caller.0.stored.client_id, &id).await?;
    let stored = found.ok_or(ApiError::NotFound("there is no such entry of yours"))?;
    let (epoch, position) = (stored.entry.epoch, stored.entry.position);
    let inclusion = match &gateway.public_log {
        Some(log) => log.inclusion(epoch, position).await,
        None => gateway.calculator.writer.inclusion(epoch, position).await,
    };
    let away = |detail: String| ApiError::Unavailable {
        part: "public_log",
        detail,
    };
    match inclusion.map_err(away)? {
        Inclusion::Pending { covered_to } => Ok(pending(&stored.entry, covered_to)),
        Inclusion::Path { path, head } => {
            let made = SignedHead::from_json(head.as_bytes())
                .map_err(audit::InclusionProofError::from)
                .and_then(|head| InclusionProof::assemble(stored.canonical, path, head));
            let made = made.map_err(|error| away(format!("{error}. Run: bre verify audit")))?;
            let json = HeaderValue::from_static("application/json");
            Ok(([(header::CONTENT_TYPE, json)], made.to_json()).into_response())
        }
    }
}

fn pending(entry: &audit::Entry, covered_to: u64) -> Response {
    let body = json!({
        "status": "pending",
        "entry_id": format!("{}-{}-{}", entry.log, entry.epoch, entry.position),
        "covered_to": covered_to,
        "detail": "no published head covers this entry yet; ask again",
    });
    let retry = [(header::RETRY_AFTER, HeaderValue::from(RETRY_SECONDS))];
    (StatusCode::ACCEPTED, retry, Json(body)).into_response()
}
