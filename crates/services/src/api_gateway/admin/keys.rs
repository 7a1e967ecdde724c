//! API keys: made, listed, rotated, revoked. The same for an operator's token and for the command line on this machine.

use audit::{Fields, Kind};
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{Request, StatusCode};
use axum::{Json, response::IntoResponse};
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::lists::{List, Page};
use super::super::middleware::Caller;
use super::super::parameters::Parameters;
use super::by;
use crate::data::{Change, read_keys};
use crate::domain::identifiers::{CLIENT_RULE, is_client_id};
use crate::domain::keys::{Role, StoredKey, Tier, generate, hash};
use crate::domain::time::{now_micros, rfc3339};

const CREATE: &[&str] = &["client_id", "tier", "days"];
const ROTATE: &[&str] = &["days", "overlap_hours"];
const LIST: &[&str] = &["skip", "limit"];
pub(crate) const DAYS_DEFAULT: i64 = 90;
const DAYS_MAX: u64 = 3650;
/// Long enough to bring the new key to every place that uses the old one.
const OVERLAP_HOURS_DEFAULT: i64 = 24;
const OVERLAP_HOURS_MAX: u64 = 720;
const HOUR_MICROS: i64 = 3600 * 1_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// Everything of a key but the key.
#[derive(Debug, Serialize)]
pub(crate) struct KeyItem {
    key_id: String,
    client_id: String,
    role: Role,
    tier: Tier,
    created_at: String,
    expires_at: String,
    revoked_at: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct KeyAnswer {
    status: &'static str,
    #[serde(flatten)]
    key: KeyItem,
    /// Shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    /// The key that this one takes the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<ReplacedKey>,
}

#[derive(Debug, Serialize)]
struct ReplacedKey {
    key_id: String,
    expires_at: String,
}

impl KeyItem {
    pub(crate) fn of(key: &StoredKey) -> KeyItem {
        KeyItem {
            key_id: key.key_id.clone(),
            client_id: key.client_id.clone(),
            role: key.role,
            tier: key.tier,
            created_at: rfc3339(key.created_at_micros),
            expires_at: rfc3339(key.expires_at_micros),
            revoked_at: key.revoked_at_micros.map(rfc3339),
        }
    }
}

impl KeyAnswer {
    pub(crate) fn of(key: &StoredKey, api_key: Option<String>) -> KeyAnswer {
        KeyAnswer {
            status: "success",
            key: KeyItem::of(key),
            api_key,
            replaces: None,
        }
    }
}

/// What a new key is to be.
#[derive(Debug)]
pub(crate) struct KeyRequest {
    pub(crate) client_id: String,
    pub(crate) role: Role,
    pub(crate) tier: Tier,
    pub(crate) days: i64,
    pub(crate) by: Option<String>,
}

pub(in super::super) async fn list(
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<KeyItem>>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), LIST);
    let page = Page::read(&mut parameters);
    parameters.finish()?;
    let keys = read_keys(&*gateway.refresher.client()?).await?;
    let items = keys.iter().skip(page.skip).take(page.limit);
    let items = items.map(KeyItem::of).collect();
    Ok(Json(List::new(items, page, keys.len())))
}

pub(in super::super) async fn create(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<impl IntoResponse, ApiError> {
    let mut parameters = gateway.json(request, CREATE).await?;
    let client_id = parameters.required("client_id", CLIENT_RULE, |text| {
        is_client_id(text).then(|| text.to_owned())
    });
    let tier = tier(&mut parameters).unwrap_or(Tier::Standard);
    let days = days(&mut parameters);
    parameters.finish()?;
    let request = KeyRequest {
        client_id: client_id.unwrap_or_default(),
        role: Role::Client,
        tier,
        days,
        by: Some(by(&caller)),
    };
    let (key, stored) = issue(&gateway, request).await?;
    Ok((StatusCode::CREATED, Json(KeyAnswer::of(&stored, Some(key)))))
}

pub(crate) fn tier(parameters: &mut Parameters) -> Option<Tier> {
    parameters.maybe("tier", "must be standard, premium or internal", Tier::parse)
}

pub(crate) fn days(parameters: &mut Parameters) -> i64 {
    let days = parameters.number("days", "must be a whole number from 1 to 3650", |digits| {
        digits
            .whole()
            .filter(|days| (1..=DAYS_MAX).contains(days))
            .and_then(|days| i64::try_from(days).ok())
    });
    days.unwrap_or(DAYS_DEFAULT)
}

/// The key's text, for the only time it is seen, and what is stored of it.
pub(crate) async fn issue(
    gateway: &Gateway,
    request: KeyRequest,
) -> Result<(String, StoredKey), ApiError> {
    let by = request.by.clone();
    let (key, stored) = new_key(request)?;
    let mut fields = fields("created", &stored, by);
    fields.set("expires_at", rfc3339(stored.expires_at_micros));
    record(gateway, fields, Change::Key(stored.clone())).await?;
    Ok((key, stored))
}

fn new_key(request: KeyRequest) -> Result<(String, StoredKey), ApiError> {
    let (key, key_id) =
        generate(request.role).map_err(|why| ApiError::Calculation(why.to_owned()))?;
    let now = now_micros();
    let stored = StoredKey {
        key_id,
        hash: hash(&key),
        client_id: request.client_id,
        tier: request.tier,
        created_at_micros: now,
        expires_at_micros: now + request.days * DAY_MICROS,
        revoked_at_micros: None,
        role: request.role,
    };
    Ok((key, stored))
}

pub(in super::super) async fn rotate(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<impl IntoResponse, ApiError> {
    let parameters = gateway.json_or_nothing(request, ROTATE).await?;
    let answer = rotate_by(&gateway, &id, parameters, Some(by(&caller)), Role::Client).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// A new key like the old one, which lives on until the overlap is over and then ends by itself.
pub(crate) async fn rotate_by(
    gateway: &Gateway,
    id: &str,
    mut parameters: Parameters,
    by: Option<String>,
    role: Role,
) -> Result<KeyAnswer, ApiError> {
    let days = days(&mut parameters);
    let overlap = parameters.number(
        "overlap_hours",
        "must be a whole number from 0 to 720",
        |digits| {
            digits
                .whole()
                .filter(|hours| *hours <= OVERLAP_HOURS_MAX)
                .and_then(|hours| i64::try_from(hours).ok())
        },
    );
    parameters.finish()?;
    let old = find(gateway, id).await?;
    let now = now_micros();
    if old.revoked_at_micros.is_some() || old.expires_at_micros <= now {
        return Err(ApiError::Conflict(
            "this key has ended; make a new one instead",
        ));
    }
    refuse_other_role(&old, role)?;
    let (api_key, key) = new_key(KeyRequest {
        client_id: old.client_id.clone(),
        role: old.role,
        tier: old.tier,
        days,
        by: None,
    })?;
    let overlap = overlap.unwrap_or(OVERLAP_HOURS_DEFAULT) * HOUR_MICROS;
    let ends_at_micros = old.expires_at_micros.min(now + overlap);
    let mut fields = fields("rotated", &key, by);
    fields.set("expires_at", rfc3339(key.expires_at_micros));
    fields.set("replaces", &old.key_id);
    fields.set("replaced_until", rfc3339(ends_at_micros));
    let mut answer = KeyAnswer::of(&key, Some(api_key));
    answer.replaces = Some(ReplacedKey {
        key_id: old.key_id.clone(),
        expires_at: rfc3339(ends_at_micros),
    });
    let change = Change::KeyRotated {
        key,
        replaced: old.key_id,
        ends_at_micros,
    };
    record(gateway, fields, change).await?;
    Ok(answer)
}

pub(in super::super) async fn revoke(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<KeyAnswer>, ApiError> {
    refuse_other_role(&find(&gateway, &id).await?, Role::Client)?;
    let answer = revoke_by(&gateway, &id, Some(by(&caller))).await?;
    Ok(Json(answer))
}

/// Revoking twice is revoking once.
pub(crate) async fn revoke_by(
    gateway: &Gateway,
    id: &str,
    by: Option<String>,
) -> Result<KeyAnswer, ApiError> {
    let mut key = find(gateway, id).await?;
    if key.revoked_at_micros.is_none() {
        let now = now_micros();
        key.revoked_at_micros = Some(now);
        let change = Change::KeyRevoked {
            key_id: id.to_owned(),
            at_micros: now,
        };
        record(gateway, fields("revoked", &key, by), change).await?;
    }
    Ok(KeyAnswer::of(&key, None))
}

/// Operators are made and unmade on the machine itself: a stolen token must not be able to shut the others out.
fn refuse_other_role(key: &StoredKey, role: Role) -> Result<(), ApiError> {
    if role == Role::Client && key.role == Role::Operator {
        return Err(ApiError::Forbidden(
            "an operator token is changed with `bre api-key` on the engine's machine".to_owned(),
        ));
    }
    Ok(())
}

async fn find(gateway: &Gateway, id: &str) -> Result<StoredKey, ApiError> {
    let keys = read_keys(&*gateway.refresher.client()?).await?;
    let found = keys.into_iter().find(|key| key.key_id == id);
    found.ok_or(ApiError::NotFound("there is no key with this id"))
}

fn fields(change: &str, key: &StoredKey, by: Option<String>) -> Fields {
    let mut fields = Fields::new()
        .with("change", change)
        .with("key_id", &key.key_id)
        .with("client_id", &key.client_id)
        .with("role", key.role.name())
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
    Gateway::seen(gateway.refresher.refresh_keys().await);
    Ok(())
}
