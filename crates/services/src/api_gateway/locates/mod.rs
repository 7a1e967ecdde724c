//! `/api/v1/locates`: asked for, accepted or declined, given back, looked up. One file an endpoint; here what they share.

pub(super) mod accept;
pub(super) mod availability;
pub(super) mod decline;
pub(super) mod give_back;
pub(super) mod list;
pub(super) mod reopen;
pub(super) mod request;
pub(super) mod show;
pub(super) mod use_shares;
pub(super) mod uses;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderMap;
use jiff::civil::Date;
use pricing::{Money, Rate};
use serde::Serialize;
use uuid::Uuid;

use super::Gateway;
use super::errors::ApiError;
use super::middleware::{Caller, RequestId};
use super::parameters::Parameters;
use crate::data::{
    Idempotency, Locate, LocateCommand, LocateOutcome, LocateRequest, LogPosition, OrderUse,
    Refusal, StoredLocate, UseRoom, WriteError,
};
use crate::domain::time::rfc3339;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const HEADERS: &[&str] = &["Idempotency-Key"];
const BY_ID: &[&str] = &["id"];

/// A step of a locate. Made from its entry alone, so that a repeated request gets the same bytes.
#[derive(Debug, Serialize)]
pub(super) struct LocateAnswer {
    status: &'static str,
    locate_id: Uuid,
    locate_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    r#type: &'static str,
    client_id: String,
    ticker: String,
    currency: String,
    shares: i64,
    granted: i64,
    returned: i64,
    held: i64,
    #[serde(flatten)]
    room: Room,
    lot: i64,
    all_or_none: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_rate: Option<Rate>,
    borrow_rate: Rate,
    loan_days: u32,
    fee: FeeOf,
    trade_date: Date,
    #[serde(skip_serializing_if = "Option::is_none")]
    settlement_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calendar: Option<String>,
    offer_expires_at: String,
    expires_at: String,
    quote_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<OrderAnswer>,
    request_id: String,
    sequence: i32,
    recorded_at: String,
    audit: LogPosition,
}

/// A locate's shares by what they are for: what may be sold short, what orders hold, what was sold.
#[derive(Debug, Serialize)]
struct Room {
    available: i64,
    reserved: i64,
    used: i64,
}

impl From<UseRoom> for Room {
    fn from(room: UseRoom) -> Room {
        Room {
            available: room.available,
            reserved: room.reserved,
            used: room.used,
        }
    }
}

/// What an order did.
#[derive(Debug, Serialize)]
struct OrderAnswer {
    order_id: String,
    side: &'static str,
    state: &'static str,
    shares: i64,
    /// Shares that are available again because of it.
    credited: i64,
}

impl OrderAnswer {
    fn of(order: OrderUse, credited: i64) -> OrderAnswer {
        OrderAnswer {
            order_id: order.order_id,
            side: order.side.name(),
            state: order.state.name(),
            shares: order.shares,
            credited,
        }
    }
}

#[derive(Debug, Serialize)]
struct FeeOf {
    shares: i64,
    total_fee: Money,
    borrow_cost: Money,
    markup: Money,
    transaction_fees: Money,
}

/// What was decided by, and what was left after it.
#[derive(Debug, Serialize)]
struct Source {
    source: String,
    available: i64,
    or_more: bool,
    valid_at: String,
    known_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<i64>,
}

impl From<StoredLocate> for LocateAnswer {
    fn from(stored: StoredLocate) -> LocateAnswer {
        let held = stored.locate.held();
        let room = stored.locate.room().into();
        let order = stored.locate.order.clone();
        let credited = stored.locate.credited();
        let Locate {
            fee, availability, ..
        } = stored.locate;
        let left = stored.locate.step.as_ref();
        let left = left.map(|step| (step.available - step.outstanding).max(0));
        LocateAnswer {
            status: "success",
            locate_id: stored.locate.locate_id,
            locate_status: stored.locate.status.name(),
            reason: stored.locate.reason.map(|reason| reason.name()),
            r#type: stored.locate.kind.name(),
            client_id: stored.locate.client_id,
            ticker: stored.locate.ticker,
            currency: stored.locate.currency,
            shares: stored.locate.shares,
            granted: stored.locate.granted,
            returned: stored.locate.returned,
            held,
            room,
            lot: stored.locate.lot,
            all_or_none: stored.locate.all_or_none,
            limit_rate: stored.locate.limit_rate,
            borrow_rate: stored.locate.borrow_rate,
            loan_days: stored.locate.loan_days,
            fee: FeeOf {
                shares: fee.shares,
                total_fee: fee.total_fee,
                borrow_cost: fee.borrow_cost,
                markup: fee.markup,
                transaction_fees: fee.transaction_fees,
            },
            trade_date: stored.locate.trade_date,
            settlement_date: stored.locate.settlement_date,
            calendar: stored.locate.calendar,
            offer_expires_at: rfc3339(stored.locate.offer_expires_at.0),
            expires_at: rfc3339(stored.locate.expires_at.0),
            quote_id: stored.locate.quote_id,
            availability: availability.map(|figure| Source {
                source: figure.source,
                available: figure.available,
                or_more: figure.or_more,
                valid_at: rfc3339(figure.valid_at.0),
                known_at: rfc3339(figure.known_at.0),
                remaining: left,
            }),
            order: order.map(|order| OrderAnswer::of(order, credited)),
            request_id: stored.locate.request_id,
            sequence: stored.locate.sequence,
            recorded_at: rfc3339(stored.recorded_at_micros),
            audit: stored.recorded,
        }
    }
}

/// Who asks, and under which name of their own.
struct Asker<'a> {
    gateway: &'a Gateway,
    caller: &'a Caller,
    request_id: RequestId,
    idempotency: Option<Idempotency>,
}

impl Asker<'_> {
    /// Sends the order to where the log is written.
    async fn request(&self, command: LocateCommand) -> Result<StoredLocate, ApiError> {
        let key = &self.caller.0.stored;
        let request = LocateRequest {
            client_id: Some(key.client_id.clone()),
            actor: key.key_id.clone(),
            request_id: self.request_id.0.clone(),
            idempotency: self.idempotency.clone(),
            command,
        };
        match self.gateway.calculator.writer.locate(request).await {
            Ok(LocateOutcome::Step(stored)) => Ok(*stored),
            Ok(LocateOutcome::Refused(refusal)) => Err(refusal.into()),
            Err(WriteError::Refused { part, reason }) => {
                metrics::counter!("bre_locates_refused_total").increment(1);
                Err(ApiError::Unavailable {
                    part,
                    detail: reason,
                })
            }
            Err(WriteError::Unknown { part }) => Err(ApiError::LocateUnknown {
                part,
                request_id: self.request_id.0.clone(),
            }),
        }
    }
}

fn locate_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse()
        .map_err(|_| ApiError::invalid("id", "path", "must be a locate's id", BY_ID))
}

/// The client's own name for this request, with a digest of what it asks: the route, and each parameter by its length.
fn idempotency(
    headers: &HeaderMap,
    route: &str,
    parameters: &Parameters,
) -> Result<Option<Idempotency>, ApiError> {
    let mut sent = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = match (sent.next(), sent.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok().filter(|key| is_key(key)),
        (Some(_), Some(_)) => None,
    };
    let Some(key) = key else {
        let rule = "must be sent once, 1 to 128 letters, digits, '_', '-', '.' or ':'";
        return Err(ApiError::invalid(
            "Idempotency-Key",
            "header",
            rule,
            HEADERS,
        ));
    };
    let mut asked: Vec<(&str, &str)> = parameters.named().collect();
    asked.sort_unstable();
    let mut text = format!("{}:{route}", route.len());
    for (name, value) in asked {
        text.push_str(&format!(",{}:{name}={}:{value}", name.len(), value.len()));
    }
    Ok(Some(Idempotency {
        key: key.to_owned(),
        digest: hex(digest(&SHA256, text.as_bytes()).as_ref()),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_key(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed)
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let shares =
            |message: &str| ApiError::invalid("shares", "body", message, request::PARAMETERS);
        match refusal {
            Refusal::NoLocate => ApiError::NotFound("there is no such locate of yours"),
            Refusal::NoQuote => ApiError::NotFound("there is no such quote of yours"),
            Refusal::QuoteExpired => {
                ApiError::QuoteExpired("this quote has expired: ask for another")
            }
            Refusal::QuotePast => {
                ApiError::QuoteExpired("a quote as of the past is not for locates")
            }
            Refusal::QuoteUsed => ApiError::Conflict("a locate was made from this quote already"),
            Refusal::QuoteShares(Some(quoted)) => {
                shares(&format!("must be the {quoted} of the quote"))
            }
            Refusal::QuoteShares(None) => shares("is required: the quote names none"),
            Refusal::NotLots(lot) => shares(&format!("must be a multiple of {lot} above 0")),
            Refusal::NotOpen(status) => ApiError::LocateNotOpen {
                locate_status: status.name(),
            },
            Refusal::Expired => ApiError::LocateExpired,
            Refusal::TooMany { held, available } => ApiError::ReturnTooLarge { held, available },
            Refusal::UseTooLarge(UseRoom {
                available,
                reserved,
                used,
            }) => ApiError::UseTooLarge {
                available,
                reserved,
                used,
            },
            Refusal::OrderReused => ApiError::OrderIdReused,
            Refusal::NotReserved => {
                ApiError::Conflict("this order holds no shares of the locate that it could release")
            }
            Refusal::KeyReused => ApiError::IdempotencyKeyReused,
            Refusal::Pricing(why) => ApiError::Calculation(why),
            Refusal::BeyondCalendar(detail) => ApiError::Unavailable {
                part: "calendar",
                detail,
            },
        }
    }
}
