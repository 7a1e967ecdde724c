//! `GET`, `POST /internal/keys`, `DELETE /internal/keys/{id}`

use audit::{Fields, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use serde_json::{Value, json};

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::keys::{StoredKey, Tier, generate, hash};
use super::super::parameters::{Parameters, is_client_id};
use crate::data::{Change, read_keys};
use crate::time::{now_micros, rfc3339};

const PARAMETERS: &[&str] = &["client_id", "tier", "days", "by"];
pub(crate) const DAYS_DEFAULT: i64 = 90;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

pub(super) async fn list(State(gateway): State<Gateway>) -> Result<Json<Value>, ApiError> {
    let keys = read_keys(&*gateway.keeper.client()?).await?;
    let items: Vec<Value> = keys.iter().map(describe).collect();
    Ok(Json(json!({ "status": "success", "items": items })))
}

fn describe(key: &StoredKey) -> Value {
    json!({
        "key_id": key.key_id,
        "client_id": key.client_id,
        "tier": key.tier,
        "created_at": rfc3339(key.created_at_micros),
        "expires_at": rfc3339(key.expires_at_micros),
        "revoked_at": key.revoked_at_micros.map(rfc3339),
    })
}

pub(super) async fn create(
    State(gateway): State<Gateway>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let body = gateway.body(request, gateway.body_bytes_max).await?;
    let mut parameters = Parameters::from_json(&body, PARAMETERS)?;
    let client_id = parameters.required(
        "client_id",
        "must be 3 to 50 letters, digits, '_' or '-'",
        |text| is_client_id(text).then(|| text.to_owned()),
    );
    let tier = parameters
        .maybe("tier", "must be standard, premium or internal", Tier::parse)
        .unwrap_or(Tier::Standard);
    let days = parameters
        .maybe("days", "must be a whole number from 1 to 3650", |text| {
            text.parse().ok().filter(|days| (1..=3650).contains(days))
        })
        .unwrap_or(DAYS_DEFAULT);
    let by = parameters.optional("by");
    parameters.finish()?;
    let order = KeyOrder {
        client_id: client_id.unwrap_or_default(),
        tier,
        days,
        by,
    };
    let (key, stored) = issue(&gateway, order).await?;
    let mut answer = describe(&stored);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("status".to_owned(), json!("success"));
        answer.insert("api_key".to_owned(), json!(key));
    }
    Ok(Json(answer))
}

/// What a new key is to be.
#[derive(Debug)]
pub(crate) struct KeyOrder {
    pub(crate) client_id: String,
    pub(crate) tier: Tier,
    pub(crate) days: i64,
    pub(crate) by: Option<String>,
}

/// The key's text, for the only time it is seen, and what is stored of it.
pub(crate) async fn issue(
    gateway: &Gateway,
    order: KeyOrder,
) -> Result<(String, StoredKey), ApiError> {
    let (key, key_id) = generate().map_err(|why| ApiError::Calculation(why.to_owned()))?;
    let now = now_micros();
    let stored = StoredKey {
        key_id,
        hash: hash(&key),
        client_id: order.client_id,
        tier: order.tier,
        created_at_micros: now,
        expires_at_micros: now + order.days * DAY_MICROS,
        revoked_at_micros: None,
    };
    let mut fields = fields("created", &stored, order.by);
    fields.set("expires_at", rfc3339(stored.expires_at_micros));
    record(gateway, fields, Change::Key(stored.clone())).await?;
    Ok((key, stored))
}

pub(super) async fn revoke(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let keys = read_keys(&*gateway.keeper.client()?).await?;
    let Some(mut key) = keys.into_iter().find(|key| key.key_id == id) else {
        return Err(ApiError::NotFound("there is no key with this id"));
    };
    if key.revoked_at_micros.is_none() {
        let now = now_micros();
        key.revoked_at_micros = Some(now);
        record(
            &gateway,
            fields("revoked", &key, None),
            Change::KeyRevoked {
                key_id: id,
                at_micros: now,
            },
        )
        .await?;
    }
    let mut answer = describe(&key);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("status".to_owned(), json!("success"));
    }
    Ok(Json(answer))
}

fn fields(change: &str, key: &StoredKey, by: Option<String>) -> Fields {
    let mut fields = Fields::new()
        .with("change", change)
        .with("key_id", &key.key_id)
        .with("client_id", &key.client_id)
        .with("tier", key.tier.name());
    if let Some(by) = by {
        fields.set("by", by);
    }
    fields
}

/// Returns when this instance's own view of the keys has caught up.
async fn record(gateway: &Gateway, fields: Fields, change: Change) -> Result<(), ApiError> {
    gateway
        .calculator
        .writer
        .entry(Kind::KeyChanged, fields, change)
        .await?;
    Gateway::seen(gateway.keeper.refresh_keys().await);
    Ok(())
}
