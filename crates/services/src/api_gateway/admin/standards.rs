//! `POST /api/v1/admin/policies` and `/admin/conventions`: a desk's own, as data. A published version never changes.

use audit::{Fields, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use pricing::{Convention, Index, Policy, PricingError, Rate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::super::parameters::written_out;
use super::by;
use crate::data::{Change, Definition};

const POLICY_FIELDS: &[&str] = &[
    "name",
    "version",
    "combine",
    "threshold",
    "slope",
    "bands",
    "weight",
    "minimum_rate",
    "status",
    "freshness",
];

#[derive(Debug, Serialize)]
struct Published<T> {
    status: &'static str,
    id: String,
    definition: T,
}

pub(in super::super) async fn publish_policy(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<impl IntoResponse, ApiError> {
    let policy: Policy = read(&gateway, request).await?;
    let (id, checked) = (policy.id(), policy.check());
    check_bounds(&policy)?;
    publish(&gateway, &caller, "policy", policy, id, checked).await
}

/// What pricing computes with unchecked, because any number will do there, but not every number makes sense.
fn check_bounds(policy: &Policy) -> Result<(), ApiError> {
    const SECONDS_MAX: i64 = 1_000_000_000;
    let refuse = |field, message| Err(ApiError::invalid(field, "body", message, POLICY_FIELDS));
    let bands = &policy.status;
    for rate in [bands.easy_max, bands.medium_max] {
        if rate < Rate::ZERO || rate > Rate::whole(1_000) {
            return refuse("status", "must be rates from 0 to 1000");
        }
    }
    let ages = &policy.freshness;
    for seconds in [
        ages.base_rate_age_seconds_max,
        ages.volatility_age_seconds_max,
        ages.event_age_seconds_max,
    ] {
        if !(0..=SECONDS_MAX).contains(&seconds) {
            return refuse("freshness", "must be seconds from 0 to 1000000000");
        }
    }
    let to = policy.bands.iter().filter_map(|band| band.to);
    for to in to {
        if to < Index::ZERO || to > Index::whole(1_000) {
            return refuse("bands", "must be points from 0 to 1000");
        }
    }
    Ok(())
}

pub(in super::super) async fn publish_convention(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<impl IntoResponse, ApiError> {
    let convention: Convention = read(&gateway, request).await?;
    let (id, checked) = (convention.id(), convention.check());
    publish(&gateway, &caller, "convention", convention, id, checked).await
}

async fn read<T: DeserializeOwned>(
    gateway: &Gateway,
    request: Request<Body>,
) -> Result<T, ApiError> {
    let body = gateway.json_body(request).await?;
    let unreadable = |error: serde_json::Error| {
        ApiError::Unreadable(format!("this is not such a definition: {error}"))
    };
    // Rewritten only once it is known to be JSON.
    let raw: &RawValue = serde_json::from_slice(&body).map_err(unreadable)?;
    serde_json::from_str(&with_plain_numbers(raw.get())).map_err(unreadable)
}

/// The same JSON with its numbers written out.
fn with_plain_numbers(json: &str) -> String {
    let (mut text, mut number) = (String::with_capacity(json.len()), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for char in json.chars() {
        let numeric = char.is_ascii_digit() || matches!(char, '-' | '+' | '.' | 'e' | 'E');
        // A number begins with a digit or a minus; the letters of `true` and `false` do not.
        if !quoted && numeric && (!number.is_empty() || !char.is_ascii_alphabetic()) {
            number.push(char);
            continue;
        }
        text.push_str(&written_out(&std::mem::take(&mut number)));
        text.push(char);
        if quoted {
            quoted = escaped || char != '"';
            escaped = char == '\\' && !escaped;
        } else {
            quoted = char == '"';
        }
    }
    text.push_str(&written_out(&number));
    text
}

async fn publish<T: Serialize>(
    gateway: &Gateway,
    caller: &Caller,
    what: &'static str,
    definition: T,
    id: String,
    checked: Result<(), PricingError>,
) -> Result<impl IntoResponse + use<T>, ApiError> {
    let refuse = |field: &str, message: &str| {
        Err(ApiError::invalid(
            field,
            "body",
            message,
            &["name", "version"],
        ))
    };
    let name = id.rsplit_once('-').map_or("", |(name, _)| name);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=40).contains(&name.len()) || !name.bytes().all(plain) {
        return refuse("name", "must be 1 to 40 lower-case letters, digits or '-'");
    }
    if let Err(error) = checked {
        return refuse(error.field(), &error.to_string());
    }
    let view = gateway
        .calculator
        .market
        .view()
        .map_err(|error| ApiError::from_locate(error, ""))?;
    let known = match what {
        "policy" => view.has_policy(&id),
        _ => view.has_convention(&id),
    };
    if known {
        return Err(ApiError::Conflict(
            "this version is published already and never changes: take the next one",
        ));
    }
    let json = serde_json::to_string(&definition)
        .map_err(|error| ApiError::Calculation(error.to_string()))?;
    let fields = Fields::new()
        .with("change", format!("{what}_published"))
        .with(what, &id)
        .with("definition", &json)
        .with("by", by(caller));
    let stored = Definition {
        id: id.clone(),
        json,
    };
    let change = match what {
        "policy" => Change::Policy(stored),
        _ => Change::Convention(stored),
    };
    gateway
        .calculator
        .writer
        .entry(Kind::ConfigurationChanged, fields, change)
        .await?;
    Gateway::seen(gateway.keeper.refresh().await);
    let published = Published {
        status: "success",
        id,
        definition,
    };
    Ok((StatusCode::CREATED, Json(published)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_out_and_text_is_not() {
        let json = r#"{"a": 1.0E2, "b": [true, 1e-2, "1e2 \" 1e2"], "c": 30.0}"#;
        let plain = r#"{"a": 100, "b": [true, 0.01, "1e2 \" 1e2"], "c": 30}"#;
        assert_eq!(with_plain_numbers(json), plain);
    }
}
