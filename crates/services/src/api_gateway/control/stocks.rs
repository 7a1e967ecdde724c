//! `GET`, `POST /internal/stocks/{ticker}/minimum-rate`: the same as operators have, by the account that runs the command.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;

use super::super::Gateway;
use super::super::admin::stocks::{MinimumSet, Minimums, read, set};
use super::super::errors::ApiError;
use super::super::parameters::Parameters;

const PARAMETERS: &[&str] = &["minimum_rate", "valid_from", "valid_to", "by"];

pub(super) async fn show(
    State(gateway): State<Gateway>,
    Path(ticker): Path<String>,
) -> Result<Json<Minimums>, ApiError> {
    read(&gateway, &ticker).await.map(Json)
}

pub(super) async fn put(
    State(gateway): State<Gateway>,
    Path(ticker): Path<String>,
    request: Request<Body>,
) -> Result<Json<MinimumSet>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let parameters = Parameters::from_json(&body, PARAMETERS)?;
    let by = parameters.optional("by");
    let by = by.unwrap_or_else(|| "command line".to_owned());
    set(&gateway, parameters, &ticker, by).await.map(Json)
}
