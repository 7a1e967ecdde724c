//! `GET /internal/audit/inclusion/{epoch}/{position}`: the path of an entry in the published tree, for gateways elsewhere.

use axum::Json;
use axum::extract::{Path, State};

use super::Host;
use crate::data::Inclusion;

pub(super) async fn inclusion(
    State(host): State<Host>,
    Path((epoch, position)): Path<(u32, u64)>,
) -> Json<Result<Inclusion, String>> {
    let gateway = &host.gateway;
    Json(match &gateway.public_log {
        Some(log) => log.inclusion(epoch, position).await,
        None => gateway.calculator.writer.inclusion(epoch, position).await,
    })
}
