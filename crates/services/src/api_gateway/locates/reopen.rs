//! `POST /api/v1/admin/locates/reopen`: an operator has looked at what a recovery may have lost.

use audit::{Fields, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Request;
use serde::Serialize;

use super::super::Gateway;
use super::super::admin::by;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use crate::data::{Change, LogPosition};

#[derive(Debug, Serialize)]
pub(in super::super) struct ReopenReport {
    status: &'static str,
    audit: LogPosition,
}

pub(in super::super) async fn reopen(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Json<ReopenReport>, ApiError> {
    gateway.json_or_nothing(request, &[]).await?.finish()?;
    reopen_by(&gateway, by(&caller)).await
}

pub(in super::super) async fn reopen_by(
    gateway: &Gateway,
    by: String,
) -> Result<Json<ReopenReport>, ApiError> {
    let fields = Fields::new()
        .with("actor", &by)
        .with("name", "locates")
        .with("before", "closed")
        .with("after", "reopened");
    let change = Change::LocatesReopened { by };
    let record = &gateway.calculator.writer;
    let audit = record
        .entry(Kind::ConfigurationChanged, fields, change)
        .await?;
    Ok(Json(ReopenReport {
        status: "success",
        audit,
    }))
}
