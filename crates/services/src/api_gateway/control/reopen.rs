//! `POST /internal/locates/reopen`: what the admin API does, for the command line.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::locates::reopen::{ReopenReport, reopen_by};

pub(super) async fn reopen(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Json<ReopenReport>, ApiError> {
    // Nothing is in it; left unread, the connection would be reset under the answer.
    gateway.body(request, gateway.body_bytes_max).await?;
    reopen_by(&gateway, "bre locate reopen".to_owned()).await
}
