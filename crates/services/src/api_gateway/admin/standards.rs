//! `POST /api/v1/admin/policies` and `/admin/conventions`: a desk's own, as data. A published version never changes.

use std::collections::BTreeSet;

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
use super::by;
use crate::data::Change;
use crate::domain::digits::{Ambiguous, Digits};
use crate::domain::identifiers::is_currency;
use crate::market::Definition;

const CONVENTION_FIELDS: &[&str] = &[
    "name",
    "version",
    "collateral",
    "basis_days",
    "basis_days_of",
];
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
struct Publication<T> {
    status: &'static str,
    id: String,
    definition: T,
}

pub(in super::super) async fn publish_policy(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<impl IntoResponse, ApiError> {
    let policy: Policy = read(&gateway, request, POLICY_FIELDS).await?;
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
    let convention: Convention = read(&gateway, request, CONVENTION_FIELDS).await?;
    let (id, checked) = (convention.id(), convention.check());
    check_currencies(&convention)?;
    publish(&gateway, &caller, "convention", convention, id, checked).await
}

/// A currency has one basis: of two, pricing would take the first and never apply the second. The same holds for one
/// that no rate has, like `gbp`.
fn check_currencies(convention: &Convention) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    let fault = convention.basis_days_of.iter().find_map(|own| {
        let currency = own.currency.as_str();
        if !is_currency(currency) {
            return Some("currency must be three capital letters, like GBP".to_owned());
        }
        (!seen.insert(currency)).then(|| format!("names {currency} twice"))
    });
    fault.map_or(Ok(()), |message| {
        Err(ApiError::invalid(
            "basis_days_of",
            "body",
            &message,
            CONVENTION_FIELDS,
        ))
    })
}

async fn read<T: DeserializeOwned>(
    gateway: &Gateway,
    request: Request<Body>,
    valid_params: &'static [&'static str],
) -> Result<T, ApiError> {
    let body = gateway.json_body(request).await?;
    let unreadable = |error: &dyn std::fmt::Display| ApiError::UnreadableBody {
        why: format!("the body is not such a definition: {error}"),
        valid_params,
    };
    // Rewritten only once it is known to be JSON.
    let raw: &RawValue = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    let plain = with_plain_numbers(raw.get()).map_err(|error| unreadable(&error))?;
    serde_json::from_str(&plain).map_err(|error| unreadable(&error))
}

/// The same JSON with its numbers by value. Strings that are numbers are read as text is: two readings are one too many.
fn with_plain_numbers(json: &str) -> Result<String, Ambiguous> {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_bytes(rest),
            '-' | '0'..='9' => rest
                .find(|char: char| !matches!(char, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'))
                .unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '"' => {
                let inner = token.get(1..length - 1).unwrap_or_default();
                text.push_str(&format!("\"{}\"", Digits::of_text(inner)?));
            }
            '-' | '0'..='9' => text.push_str(&Digits::typed(token).to_string()),
            _ => text.push_str(token),
        }
        rest = after;
    }
    Ok(text)
}

/// Of the string that the JSON begins with, quotes included.
fn string_bytes(json: &str) -> usize {
    let mut escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
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
        .map_err(|error| ApiError::from_quote_error(error, ""))?;
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
    Gateway::seen(gateway.refresher.refresh().await);
    let published = Publication {
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
        let json = r#"{"a": 1.0E2, "b": [true, 1e-2, "1e2 \" 1e2"], "c": 30.0, "d": "0.2500"}"#;
        let plain = r#"{"a": 100, "b": [true, 0.01, "1e2 \" 1e2"], "c": 30, "d": "0.25"}"#;
        assert_eq!(with_plain_numbers(json).unwrap(), plain);
        let long = r#"{"a": 2500.5000, "b": "é\\", "c": 1.000}"#;
        let plain = r#"{"a": 2500.5, "b": "é\\", "c": 1}"#;
        assert_eq!(with_plain_numbers(long).unwrap(), plain);
        assert!(with_plain_numbers(r#"{"threshold": "20.000"}"#).is_err());
    }

    #[test]
    fn a_currency_has_one_basis() {
        let mut convention = Convention::act365_1();
        let of = |currency: &str, basis_days| pricing::CurrencyBasis {
            currency: currency.to_owned(),
            basis_days,
        };
        convention.basis_days_of = vec![of("GBP", 365), of("EUR", 360)];
        assert!(check_currencies(&convention).is_ok());
        convention.basis_days_of.push(of("GBP", 360));
        let refused = check_currencies(&convention).unwrap_err();
        assert!(format!("{refused:?}").contains("names GBP twice"));
        for no_rate_has_it in ["gbp", "", "GBPX", "G\u{82}P"] {
            convention.basis_days_of = vec![of(no_rate_has_it, 360)];
            let refused = check_currencies(&convention).unwrap_err();
            assert!(format!("{refused:?}").contains("three capital letters"));
        }
    }
}
