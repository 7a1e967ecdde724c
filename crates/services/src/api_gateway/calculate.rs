//! `GET` and `POST /api/v1/calculate-locate`

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::Request;
use pricing::PositionValue;
use serde::Serialize;

use super::Gateway;
use super::errors::ApiError;
use super::middleware::{Caller, RequestId};
use super::moment::AsOf;
use super::parameters::Parameters;
use super::rates::DataSource;
use crate::calculation::QuoteRequest;
use crate::data::{LogPosition, QuoteEntry};
use crate::domain::identifiers::{CLIENT_RULE, TICKER_RULE, is_client_id, is_ticker};
use crate::domain::position::{SHARES_MAX, SHARES_RULE, shares};
use crate::domain::time::rfc3339;

pub(super) const PARAMETERS: &[&str] = &[
    "ticker",
    "position_value",
    "loan_days",
    "client_id",
    "shares",
    "share_price",
    "as_of",
    "known_at",
];

#[derive(Serialize)]
pub(super) struct FeeAnswer {
    status: &'static str,
    total_fee: pricing::Money,
    breakdown: Breakdown,
    borrow_rate_used: pricing::Rate,
    quote_id: String,
    request_id: String,
    audit: LogPosition,
    ticker: String,
    /// Where the client called it by another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_ticker: Option<String>,
    client_id: String,
    position_value: PositionValue,
    loan_days: u32,
    currency: String,
    borrow_status: &'static str,
    policy: String,
    convention: String,
    collateral_value: PositionValue,
    expires_at: String,
    /// Set on a quote as of a moment of the past: what it was priced with, and by when that had to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_at: Option<String>,
    stale: bool,
    data_sources: DataSources,
}

#[derive(Serialize)]
struct Breakdown {
    borrow_cost: pricing::Money,
    markup: pricing::Money,
    transaction_fees: pricing::Money,
}

#[derive(Serialize)]
struct DataSources {
    base_rate: DataSource,
    minimum_rate: DataSource,
    volatility_index: DataSource,
    event_risk_factor: DataSource,
    markup: DataSource,
    transaction_fees: DataSource,
}

pub(super) async fn from_query(
    State(gateway): State<Gateway>,
    Extension(id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<FeeAnswer>, ApiError> {
    price(
        &gateway,
        id,
        &caller,
        Parameters::from_query(query.as_deref(), PARAMETERS),
    )
    .await
}

pub(super) async fn from_body(
    State(gateway): State<Gateway>,
    Extension(id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Json<FeeAnswer>, ApiError> {
    let parameters = gateway.json(request, PARAMETERS).await?;
    price(&gateway, id, &caller, parameters).await
}

async fn price(
    gateway: &Gateway,
    id: RequestId,
    caller: &Caller,
    parameters: Parameters,
) -> Result<Json<FeeAnswer>, ApiError> {
    let key = &caller.0.stored;
    let (mut request, asked) = validate(parameters, id.0.clone(), key.key_id.clone())?;
    if request.client_id != key.client_id {
        return Err(ApiError::Forbidden(
            "this API key may price only for its own client_id".to_owned(),
        ));
    }
    request.moment = asked.settle(gateway).await?;
    let priced = gateway
        .calculation
        .price_quote(request)
        .await
        .map_err(|error| {
            metrics::counter!("bre_locates_refused_total").increment(1);
            ApiError::from_quote_error(error, &id.0)
        })?;
    metrics::counter!("bre_quotes_total").increment(1);
    Ok(Json(FeeAnswer::new(priced.recorded, &priced.quote)))
}

fn validate(
    mut parameters: Parameters,
    request_id: String,
    key_id: String,
) -> Result<(QuoteRequest, AsOf), ApiError> {
    let ticker = parameters.required("ticker", TICKER_RULE, |text| {
        is_ticker(text).then(|| text.to_owned())
    });
    let client_id = parameters.required("client_id", CLIENT_RULE, |text| {
        is_client_id(text).then(|| text.to_owned())
    });
    let loan_days = parameters.loan_days();
    let shares = parameters.number("shares", SHARES_RULE, |digits| shares(digits, SHARES_MAX));
    let share_price = parameters.share_price();
    let worth = parameters.worth(shares, share_price);
    let asked = AsOf::read(&mut parameters);
    let (Some(ticker), Some(client_id), Some(worth), Some(loan_days)) =
        (ticker, client_id, worth, loan_days)
    else {
        return Err(match parameters.finish() {
            Err(error) => error,
            Ok(()) => ApiError::Unreadable("the parameters could not be read".to_owned()),
        });
    };
    parameters.finish()?;
    let request = QuoteRequest {
        request_id,
        client_id,
        key_id,
        ticker,
        worth,
        loan_days,
        moment: None,
    };
    Ok((request, asked))
}

impl FeeAnswer {
    pub(super) fn new(recorded: LogPosition, quote: &QuoteEntry) -> FeeAnswer {
        let QuoteEntry {
            facts,
            inputs,
            outputs,
        } = quote;
        let stale = |name: &str| outputs.stale.iter().any(|stale| stale == name);
        FeeAnswer {
            status: "success",
            total_fee: outputs.total_fee,
            breakdown: Breakdown {
                borrow_cost: outputs.borrow_cost,
                markup: outputs.markup,
                transaction_fees: outputs.transaction_fee,
            },
            borrow_rate_used: outputs.borrow_rate,
            quote_id: facts.quote_id.clone(),
            request_id: facts.request_id.clone(),
            audit: recorded,
            ticker: inputs.ticker.to_string(),
            requested_ticker: facts.requested_ticker.clone(),
            client_id: facts.client_id.clone(),
            position_value: inputs.position_value,
            loan_days: inputs.loan_days,
            currency: inputs.currency.to_string(),
            borrow_status: outputs.borrow_status.as_str(),
            policy: inputs.policy.id(),
            convention: inputs.convention.id(),
            collateral_value: outputs.collateral_value,
            expires_at: facts.expires_at.clone(),
            as_of: facts
                .known_at
                .as_ref()
                .map(|_| rfc3339(inputs.priced_at_micros)),
            known_at: facts.known_at.clone(),
            stale: !outputs.stale.is_empty(),
            data_sources: DataSources {
                base_rate: DataSource::of(&inputs.base_rate, stale("base_rate")),
                minimum_rate: DataSource::of(&inputs.minimum_rate, false),
                volatility_index: DataSource::of(
                    &inputs.volatility_index,
                    stale("volatility_index"),
                ),
                event_risk_factor: DataSource::of(
                    &inputs.event_risk_factor,
                    stale("event_risk_factor"),
                ),
                markup: DataSource::of(&inputs.markup_percent, false),
                transaction_fees: DataSource::plain(&inputs.fee),
            },
        }
    }
}
