//! `POST /api/v1/locates`: a quote, priced now or named, becomes an offer.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Request;
use pricing::Rate;
use uuid::Uuid;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::{Caller, RequestId};
use super::super::parameters::Parameters;
use super::{Asker, LocateAnswer, idempotency};
use crate::calculation::QuoteRequest;
use crate::data::{LocateCommand, LocateKind, made_for};
use crate::domain::digits::Digits;
use crate::domain::identifiers::{CLIENT_RULE, TICKER_RULE, is_client_id, is_ticker};
use crate::domain::position::shares as read_shares;

pub(super) const PARAMETERS: &[&str] = &[
    "ticker",
    "shares",
    "share_price",
    "position_value",
    "loan_days",
    "client_id",
    "quote_id",
    "type",
    "all_or_none",
    "limit_rate",
];

const ROUTE: &str = "POST /api/v1/locates";
const SHARES_MAX: u64 = 1_000_000_000;

/// Which quote the locate is to be made from.
enum Basis {
    Quoted(Uuid),
    Price(QuoteRequest),
}

struct WantedLocate {
    basis: Basis,
    shares: Option<i64>,
    kind: LocateKind,
    all_or_none: bool,
    limit_rate: Option<Rate>,
}

pub(in super::super) async fn request(
    State(gateway): State<Gateway>,
    Extension(request_id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Json<LocateAnswer>, ApiError> {
    let headers = request.headers().clone();
    let parameters = gateway.json(request, PARAMETERS).await?;
    let idempotency = idempotency(&headers, ROUTE, &parameters)?;
    let key = &caller.0.stored;
    let wanted = validate(parameters, &request_id.0, &key.key_id, &key.client_id)?;
    let asker = Asker {
        gateway: &gateway,
        caller: &caller,
        request_id,
        idempotency,
    };
    let quote_id = asker.quote(wanted.basis).await?;
    let command = LocateCommand::Offer {
        locate_id: Uuid::now_v7(),
        quote_id,
        shares: wanted.shares,
        kind: wanted.kind,
        all_or_none: wanted.all_or_none,
        limit_rate: wanted.limit_rate,
    };
    Ok(Json(asker.request(command).await?.into()))
}

impl Asker<'_> {
    /// The quote of the first time, if this is a repetition; or else the one that is named, or a new one.
    async fn quote(&self, basis: Basis) -> Result<Uuid, ApiError> {
        if let Some(sent) = &self.idempotency {
            let client = self.gateway.refresher.client()?;
            let own = &self.caller.0.stored.client_id;
            if let Some(made) = made_for(&client, own, &sent.key).await? {
                return Ok(made.locate.quote_id);
            }
        }
        let request = match basis {
            Basis::Quoted(quote_id) => return Ok(quote_id),
            Basis::Price(request) => request,
        };
        let priced = self.gateway.calculation.price_quote(request).await;
        let priced = priced.map_err(|error| {
            metrics::counter!("bre_locates_refused_total").increment(1);
            ApiError::from_quote_error(error, &self.request_id.0)
        })?;
        metrics::counter!("bre_quotes_total").increment(1);
        let id = priced.quote.facts.quote_id.parse();
        id.map_err(|_| ApiError::Calculation("the quote has no usable id".to_owned()))
    }
}

fn validate(
    mut parameters: Parameters,
    request_id: &str,
    key_id: &str,
    own: &str,
) -> Result<WantedLocate, ApiError> {
    let quote_id = parameters.maybe("quote_id", "must be a quote's id", |text| {
        text.parse::<Uuid>().ok()
    });
    let quoted = parameters.is_sent("quote_id");
    let rule = "must be a whole number from 1 to 1000000000";
    let in_bounds = |digits: &Digits| read_shares(digits, SHARES_MAX);
    let shares = match quoted {
        true => parameters.number("shares", rule, in_bounds),
        false => parameters.required_number("shares", rule, in_bounds),
    };
    let rule = "must be single_use, reusable or pre_borrow";
    let kind = parameters.maybe("type", rule, LocateKind::parse);
    let all_or_none = parameters.maybe("all_or_none", "must be true or false", |text| {
        text.parse::<bool>().ok()
    });
    let rule = "must be a plain decimal fraction a year from 0 to 1000, with at most 8 decimals";
    let limit_rate = parameters.number("limit_rate", rule, |digits| {
        let rate: Rate = digits.parse()?;
        (rate >= Rate::ZERO && rate <= Rate::whole(1_000)).then_some(rate)
    });
    let client_id = parameters.maybe("client_id", CLIENT_RULE, |text| {
        is_client_id(text).then(|| text.to_owned())
    });
    let priced = match quoted {
        true => {
            for name in ["ticker", "share_price", "position_value", "loan_days"] {
                if parameters.is_sent(name) {
                    parameters.refuse(name, "is the quote's, where a quote_id is sent");
                }
            }
            None
        }
        false => price_terms(&mut parameters, shares),
    };
    parameters.finish()?;
    if client_id.as_deref().is_some_and(|client| client != own) {
        let why = "this API key may locate only for its own client_id";
        return Err(ApiError::Forbidden(why.to_owned()));
    }
    let basis = match (quote_id, priced) {
        (Some(quote_id), _) => Basis::Quoted(quote_id),
        (None, Some(priced)) => Basis::Price(QuoteRequest {
            request_id: request_id.to_owned(),
            client_id: own.to_owned(),
            key_id: key_id.to_owned(),
            ..priced
        }),
        (None, None) => {
            let why = "the parameters could not be read";
            return Err(ApiError::Unreadable(why.to_owned()));
        }
    };
    Ok(WantedLocate {
        basis,
        shares: shares.and_then(|shares| i64::try_from(shares).ok()),
        kind: kind.unwrap_or(LocateKind::SingleUse),
        all_or_none: all_or_none.unwrap_or(false),
        limit_rate,
    })
}

/// What has to be priced; whose it is, is filled in by the caller.
fn price_terms(parameters: &mut Parameters, shares: Option<u64>) -> Option<QuoteRequest> {
    if !parameters.is_sent("client_id") {
        parameters.refuse("client_id", "is required");
    }
    let ticker = parameters.required("ticker", TICKER_RULE, |text| {
        is_ticker(text).then(|| text.to_owned())
    });
    let loan_days = parameters.loan_days();
    let price = parameters.share_price();
    parameters.require("share_price");
    let worth = parameters.worth(shares, price);
    Some(QuoteRequest {
        request_id: String::new(),
        client_id: String::new(),
        key_id: String::new(),
        ticker: ticker?,
        worth: worth?,
        loan_days: loan_days?,
        moment: None,
    })
}
