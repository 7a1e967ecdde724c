//! `GET`, `POST /internal/keys`, `POST /internal/keys/{id}/rotate`, `DELETE /internal/keys/{id}`: operators' tokens too.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use serde_json::{Value, json};

use super::super::Gateway;
use super::super::admin::keys::{
    KeyAnswer, KeyItem, KeyRequest, days, issue, revoke_by, rotate_by, tier,
};
use super::super::errors::ApiError;
use super::super::parameters::Parameters;
use crate::data::read_keys;
use crate::domain::identifiers::{CLIENT_RULE, is_client_id};
use crate::domain::keys::{Role, Tier};

const CREATE: &[&str] = &["client_id", "tier", "days", "by", "role"];
const ROTATE: &[&str] = &["days", "overlap_hours", "by"];
/// The holder of a token that was made without a name.
const OPERATOR: &str = "operator";

pub(super) async fn list(State(gateway): State<Gateway>) -> Result<Json<Value>, ApiError> {
    let keys = read_keys(&*gateway.refresher.client()?).await?;
    let items: Vec<KeyItem> = keys.iter().map(KeyItem::of).collect();
    Ok(Json(json!({ "status": "success", "items": items })))
}

pub(super) async fn create(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Json<KeyAnswer>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let mut parameters = Parameters::from_json(&body, CREATE)?;
    let role = parameters
        .maybe("role", "must be client or operator", Role::parse)
        .unwrap_or_default();
    let read = |text: &str| is_client_id(text).then(|| text.to_owned());
    let client_id = match role {
        Role::Client => parameters.required("client_id", CLIENT_RULE, read),
        Role::Operator => parameters.maybe("client_id", CLIENT_RULE, read),
    };
    let usual = match role {
        Role::Client => Tier::Standard,
        Role::Operator => Tier::Internal,
    };
    let tier = tier(&mut parameters).unwrap_or(usual);
    let days = days(&mut parameters);
    let by = parameters.optional("by");
    parameters.finish()?;
    let request = KeyRequest {
        client_id: client_id.unwrap_or_else(|| OPERATOR.to_owned()),
        role,
        tier,
        days,
        by,
    };
    let (key, stored) = issue(&gateway, request).await?;
    Ok(Json(KeyAnswer::of(&stored, Some(key))))
}

pub(super) async fn rotate(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Json<KeyAnswer>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let parameters = Parameters::from_json(&body, ROTATE)?;
    let by = parameters.optional("by");
    let answer = rotate_by(&gateway, &id, parameters, by, Role::Operator).await?;
    Ok(Json(answer))
}

pub(super) async fn revoke(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<KeyAnswer>, ApiError> {
    revoke_by(&gateway, &id, None).await.map(Json)
}
