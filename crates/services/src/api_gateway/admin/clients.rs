//! `GET`, `PUT /api/v1/admin/clients/{client_id}`: what a client pays, under which policy and convention.

use audit::Kind;
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Request;
use pricing::{Money, Percent};
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::super::parameters::Parameters;
use super::by;
use crate::data::{Change, read_terms};
use crate::domain::digits::whole;
use crate::domain::identifiers::{CLIENT_RULE, is_client_id};
use crate::domain::keys::Tier;
use crate::market::{BrokerTerms, MarketView};

const PARAMETERS: &[&str] = &[
    "markup_percent",
    "fee_type",
    "fee_amount",
    "tier",
    "convention",
    "policy",
    "active",
];

#[derive(Debug, Serialize)]
pub(in super::super) struct TermsAnswer {
    status: &'static str,
    client_id: String,
    markup_percent: Box<RawValue>,
    fee_type: String,
    fee_amount: Box<RawValue>,
    tier: String,
    convention: String,
    policy: String,
    active: bool,
}

impl TermsAnswer {
    fn of(terms: BrokerTerms) -> Result<TermsAnswer, ApiError> {
        let number = |text: String| {
            RawValue::from_string(text)
                .map_err(|_| ApiError::Calculation("the terms on file are not numbers".to_owned()))
        };
        Ok(TermsAnswer {
            status: "success",
            markup_percent: number(terms.markup_percent)?,
            fee_amount: number(terms.fee_amount)?,
            client_id: terms.client_id,
            fee_type: terms.fee_type,
            tier: terms.tier,
            convention: terms.convention,
            policy: terms.policy,
            active: terms.active,
        })
    }
}

pub(in super::super) async fn show(
    State(gateway): State<Gateway>,
    Path(client_id): Path<String>,
) -> Result<Json<TermsAnswer>, ApiError> {
    check_id(&client_id)?;
    let terms = read_terms(&*gateway.refresher.client()?, &client_id).await?;
    let terms = terms.ok_or(ApiError::ClientNotFound(client_id))?;
    TermsAnswer::of(terms).map(Json)
}

pub(in super::super) async fn put(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(client_id): Path<String>,
    request: Request<Body>,
) -> Result<Json<TermsAnswer>, ApiError> {
    let parameters = gateway.json(request, PARAMETERS).await?;
    check_id(&client_id)?;
    let view = gateway
        .calculator
        .market
        .view()
        .map_err(|error| ApiError::from_quote_error(error, ""))?;
    let terms = read(parameters, client_id, &view)?;
    let fields = terms.fields().with("by", by(&caller));
    gateway
        .calculator
        .writer
        .entry(Kind::BrokerChanged, fields, Change::Broker(terms.clone()))
        .await?;
    Gateway::seen(gateway.refresher.refresh().await);
    TermsAnswer::of(terms).map(Json)
}

fn check_id(client_id: &str) -> Result<(), ApiError> {
    if is_client_id(client_id) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "client_id",
        "path",
        CLIENT_RULE,
        &["client_id"],
    ))
}

fn read(
    mut parameters: Parameters,
    client_id: String,
    view: &MarketView,
) -> Result<BrokerTerms, ApiError> {
    let markup_percent = parameters.required_number(
        "markup_percent",
        "must be a plain decimal number from 0 to 1000 with at most 6 decimals",
        |digits| {
            let percent: Percent = digits.parse()?;
            (percent >= Percent::ZERO && percent <= Percent::whole(1_000)).then_some(percent)
        },
    );
    let fee_type = parameters.required("fee_type", "must be FLAT or PERCENTAGE", |text| {
        matches!(text, "FLAT" | "PERCENTAGE").then(|| text.to_owned())
    });
    let flat = fee_type.as_deref() != Some("PERCENTAGE");
    let fee_amount = parameters.required_number(
        "fee_amount",
        "must be a plain decimal number from 0: at most 1000000000 with 4 decimals if FLAT, 100 with 6 decimals if PERCENTAGE",
        |digits| match flat {
            true => {
                let amount: Money = digits.parse()?;
                (amount >= Money::ZERO && amount <= Money::whole(1_000_000_000))
                    .then(|| amount.to_string())
            }
            false => {
                let percent: Percent = digits.parse()?;
                (percent >= Percent::ZERO && percent <= Percent::whole(100))
                    .then(|| percent.to_string())
            }
        },
    );
    let tier = super::keys::tier(&mut parameters);
    let rule = "must be a name and a version, such as standard-1";
    let id = |text: &str| is_standard_id(text).then(|| text.to_owned());
    let convention = parameters.maybe("convention", rule, id);
    let policy = parameters.maybe("policy", rule, id);
    let active = parameters.maybe("active", "must be true or false", |text| text.parse().ok());
    parameters.finish()?;
    let convention = convention.unwrap_or_else(|| "act365-1".to_owned());
    let policy = policy.unwrap_or_else(|| "standard-1".to_owned());
    if !view.has_convention(&convention) || !view.has_policy(&policy) {
        return Err(ApiError::NotFound(
            "this policy or convention is not published: see GET /api/v1/config",
        ));
    }
    Ok(BrokerTerms {
        client_id,
        markup_percent: markup_percent.unwrap_or_default().to_string(),
        fee_type: fee_type.unwrap_or_default(),
        fee_amount: fee_amount.unwrap_or_default(),
        tier: tier.unwrap_or(Tier::Standard).name().to_owned(),
        convention,
        policy,
        active: active.unwrap_or(true),
    })
}

fn is_standard_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.rsplit_once('-').is_some_and(|(name, version)| {
        (1..=40).contains(&name.len())
            && name.bytes().all(plain)
            && whole(version).is_some_and(|version| u32::try_from(version).is_ok())
    })
}
