//! `POST /api/v1/admin/policies` and `/admin/conventions`: a desk's own, as data. A published version never changes.

use audit::{Fields, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use pricing::{Convention, Policy, PricingError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::by;
use crate::data::{Change, Definition};

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
    publish(&gateway, &caller, "policy", policy, id, checked).await
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
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::Unreadable(format!("this is not such a definition: {error}")))
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
        return refuse(
            "version",
            "is published already, and a published version never changes: take the next one",
        );
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
