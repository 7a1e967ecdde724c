//! `GET /internal/audit/head`: the log's end as this engine knows it, freshly signed, so that a verification beside a running
//! engine covers every entry.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::super::Gateway;
use super::super::errors::ApiError;
use crate::domain::time::now_micros;

pub(super) async fn head(State(gateway): State<Gateway>) -> Result<impl IntoResponse, ApiError> {
    let writer = &gateway.calculator.writer;
    // Of a log that is damaged nothing is signed.
    let tip = writer.tip().filter(|_| writer.state().is_serving());
    let durable = gateway.stream.report().durable_lsn.unwrap_or(0);
    let head = tip.and_then(|tip| tip.head(now_micros(), durable));
    let signed = head
        .zip(gateway.heads.clone())
        .map(|(head, heads)| heads.signing_key().sign(&head).to_json());
    let signed = signed.ok_or_else(|| ApiError::Unavailable {
        part: "audit_log",
        detail: "the log is not open yet".to_owned(),
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], signed))
}
