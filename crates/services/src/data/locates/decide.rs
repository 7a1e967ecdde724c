//! The state machine: what becomes of an order, given what is known under the lock. No I/O, no clock.

use jiff::Timestamp;
use pricing::PositionValue;
use uuid::Uuid;

use super::locate_state::LocateState;
use super::record::{At, Figure, LedgerStep, Locate, LocateFee};
use super::request::{LocateCommand, LocateDecision, LocateRequest, OrderUse, Refusal};
use super::states::{LocateKind, Reason, Side, Status, UseState};
use crate::data::quotes::{QuoteEntry, quote_uuid};

type StepResult = Result<LocateDecision, Refusal>;

/// The actor on record for transitions that expiry causes.
const ENGINE: &str = "engine";

pub(crate) fn decide(state: &LocateState, request: &LocateRequest) -> LocateDecision {
    if let Some(sent) = &request.idempotency
        && let Some(made) = state.made_for(request.client_id.as_deref(), &sent.key)
    {
        let digest = made.locate.idempotency.as_ref().map(|first| &first.digest);
        return match digest == Some(&sent.digest) {
            true => LocateDecision::Already(Box::new(made.clone())),
            false => LocateDecision::Refused(Refusal::KeyReused),
        };
    }
    let decided = match &request.command {
        LocateCommand::Offer { .. } => offer(state, request),
        LocateCommand::Accept { locate_id } => accept(state, request, *locate_id),
        LocateCommand::Decline { locate_id } => decline(state, request, *locate_id),
        LocateCommand::Return { locate_id, shares } => {
            give_back(state, request, *locate_id, *shares)
        }
        LocateCommand::Use {
            locate_id,
            order: wanted,
        } => use_shares(state, request, *locate_id, wanted),
        LocateCommand::Expire { locate_id } => expire(state, *locate_id),
    };
    decided.unwrap_or_else(LocateDecision::Refused)
}

fn step(locate: Locate) -> StepResult {
    Ok(LocateDecision::Step(Box::new(locate)))
}

fn offer(state: &LocateState, request: &LocateRequest) -> StepResult {
    let LocateCommand::Offer {
        locate_id,
        quote_id,
        shares,
        kind,
        all_or_none,
        limit_rate,
    } = &request.command
    else {
        return Err(Refusal::NoQuote);
    };
    let quote = quote_of(state, *quote_id, request.client_id.as_deref())?;
    if quote.facts.known_at.is_some() {
        return Err(Refusal::QuotePast);
    }
    if state.is_used(quote_id) {
        return Err(Refusal::QuoteUsed);
    }
    let quote_expires: Timestamp = quote.facts.expires_at.parse().unwrap_or(Timestamp::MIN);
    if quote_expires.as_microsecond() <= state.now_micros {
        return Err(Refusal::QuoteExpired);
    }
    let priced = quote.inputs.per_share.map(|priced| priced.shares);
    let shares = match (
        *shares,
        priced.and_then(|shares| i64::try_from(shares).ok()),
    ) {
        (Some(asked), Some(priced)) if asked != priced => {
            Err(Refusal::QuoteShares(Some(priced.cast_unsigned())))
        }
        (Some(shares), _) | (None, Some(shares)) => Ok(shares),
        (None, None) => Err(Refusal::QuoteShares(None)),
    }?;
    if shares <= 0 || shares % state.lot != 0 {
        return Err(Refusal::NotLots(state.lot));
    }
    let calendar = &state.calendar;
    let trade_date = calendar.trade_date(state.now_micros)?;
    let session_end = calendar.session_end(trade_date);
    let expires = match kind {
        LocateKind::PreBorrow => {
            calendar.session_end(calendar.loan_end(trade_date, quote.inputs.loan_days)?)
        }
        LocateKind::SingleUse | LocateKind::Reusable => session_end,
    };
    let mut locate = Locate {
        locate_id: *locate_id,
        sequence: 1,
        status: Status::Offered,
        reason: None,
        quote_id: *quote_id,
        client_id: quote.facts.client_id.clone(),
        actor: request.actor.clone(),
        request_id: request.request_id.clone(),
        engine: crate::domain::VERSION.to_owned(),
        ticker: quote.inputs.ticker.to_string(),
        currency: quote.inputs.currency.to_string(),
        kind: *kind,
        shares,
        granted: 0,
        returned: 0,
        reserved: 0,
        used: 0,
        all_or_none: *all_or_none,
        limit_rate: *limit_rate,
        lot: state.lot,
        borrow_rate: quote.outputs.borrow_rate,
        loan_days: quote.inputs.loan_days,
        fee: fee_for(quote, shares, shares)?,
        trade_date,
        settlement_date: Some(calendar.settlement_date(trade_date)?),
        calendar: Some(calendar.id()),
        offer_expires_at: At(quote_expires.as_microsecond().min(session_end)),
        expires_at: At(expires),
        availability: None,
        step: None,
        order: None,
        idempotency: request.idempotency.clone(),
    };
    let room = room_for(state, &locate);
    locate.availability = room.figure.cloned();
    if limit_rate.is_some_and(|limit| locate.borrow_rate > limit) {
        locate.reject(Reason::RateAboveLimit);
    } else if state.is_unconfirmed(quote) {
        locate.reject(Reason::RateUnconfirmed);
    } else if let Err(reason) = room.shares {
        locate.reject(reason);
    }
    step(locate)
}

fn accept(state: &LocateState, request: &LocateRequest, locate_id: Uuid) -> StepResult {
    let before = locate_of(state, locate_id, request.client_id.as_deref())?;
    if let Some(ended) = ended(state, before, Status::Offered)? {
        return Ok(ended);
    }
    let mut locate = next(before, request);
    let room = room_for(state, before);
    locate.availability = room.figure.cloned();
    match (room.shares, room.figure) {
        (Ok(granted), Some(figure)) => {
            let quote = quote_of(state, before.quote_id, None)?;
            if state.is_unconfirmed(quote) {
                locate.reject(Reason::RateUnconfirmed);
                return step(locate);
            }
            locate.status = Status::Filled;
            locate.granted = granted;
            locate.fee = fee_for(quote, granted, before.shares)?;
            locate.step = Some(state.granted(before, granted, figure));
        }
        (Err(reason), _) => locate.reject(reason),
        (Ok(_), None) => locate.reject(Reason::AvailabilityUnknown),
    }
    step(locate)
}

fn decline(state: &LocateState, request: &LocateRequest, locate_id: Uuid) -> StepResult {
    let before = locate_of(state, locate_id, request.client_id.as_deref())?;
    if let Some(ended) = ended(state, before, Status::Offered)? {
        return Ok(ended);
    }
    step(Locate {
        status: Status::Declined,
        ..next(before, request)
    })
}

fn give_back(
    state: &LocateState,
    request: &LocateRequest,
    locate_id: Uuid,
    shares: Option<i64>,
) -> StepResult {
    let before = locate_of(state, locate_id, request.client_id.as_deref())?;
    if let Some(ended) = ended(state, before, Status::Filled)? {
        return Ok(ended);
    }
    let (held, available) = (before.held(), before.room().available);
    let shares = shares.unwrap_or(available);
    if shares > available || available == 0 {
        return Err(Refusal::TooMany { held, available });
    }
    if shares <= 0 || (shares % before.lot != 0 && shares != available) {
        return Err(Refusal::NotLots(before.lot));
    }
    let mut locate = next(before, request);
    locate.returned += shares;
    if shares == held {
        locate.status = Status::Cancelled;
        locate.reason = Some(Reason::AllReturned);
    }
    locate.step = state.credited(before, shares);
    step(locate)
}

/// Idempotent by the order's id: what it did before is answered again, also when the locate has ended since.
fn use_shares(
    state: &LocateState,
    request: &LocateRequest,
    locate_id: Uuid,
    wanted: &OrderUse,
) -> StepResult {
    let before = locate_of(state, locate_id, request.client_id.as_deref())?;
    let done = state.uses_of(locate_id, &wanted.order_id);
    let same = done
        .iter()
        .find(|done| done.locate.order.as_ref() == Some(wanted));
    if let Some(same) = same {
        return Ok(LocateDecision::Already(Box::new(same.clone())));
    }
    let reserved = match done {
        [] => 0,
        [first] => match &first.locate.order {
            Some(known) if known.state == UseState::Reserved && known.side == wanted.side => {
                known.shares
            }
            _ => return Err(Refusal::OrderReused),
        },
        _ => return Err(Refusal::OrderReused),
    };
    if let Some(ended) = ended(state, before, Status::Filled)? {
        return Ok(ended);
    }
    let room = before.room();
    let mut locate = next(before, request);
    match (wanted.side, wanted.state) {
        (Side::SellShort, UseState::Reserved) if reserved > 0 => return Err(Refusal::OrderReused),
        (Side::SellShort, UseState::Reserved) => locate.reserved += wanted.shares,
        (Side::SellShort, UseState::Used) => {
            locate.reserved -= reserved;
            locate.used += wanted.shares;
        }
        (Side::SellShort, UseState::Released) if reserved == 0 => return Err(Refusal::NotReserved),
        (Side::SellShort, UseState::Released) if reserved != wanted.shares => {
            return Err(Refusal::OrderReused);
        }
        (Side::SellShort, UseState::Released) => locate.reserved -= reserved,
        (Side::BuyToCover, UseState::Used) if wanted.shares > before.used => {
            return Err(Refusal::UseTooLarge(room));
        }
        (Side::BuyToCover, UseState::Used) => match before.kind {
            LocateKind::SingleUse => {}
            LocateKind::Reusable | LocateKind::PreBorrow => locate.used -= wanted.shares,
        },
        (Side::BuyToCover, _) => return Err(Refusal::NotReserved),
    }
    if wanted.shares <= 0 || locate.room().available < 0 {
        return Err(Refusal::UseTooLarge(room));
    }
    locate.order = Some(wanted.clone());
    step(locate)
}

fn expire(state: &LocateState, locate_id: Uuid) -> StepResult {
    let before = locate_of(state, locate_id, None)?;
    match time_out(state, before) {
        Some(ended) => step(ended),
        None => Err(Refusal::NotOpen(before.status)),
    }
}

/// `Some`: time was quicker. An error: it is not what it has to be.
fn ended(
    state: &LocateState,
    before: &Locate,
    wanted: Status,
) -> Result<Option<LocateDecision>, Refusal> {
    if let Some(ended) = time_out(state, before) {
        return Ok(Some(LocateDecision::Ended(
            Box::new(ended),
            Refusal::Expired,
        )));
    }
    match before.status {
        status if status == wanted => Ok(None),
        Status::Expired => Err(Refusal::Expired),
        status => Err(Refusal::NotOpen(status)),
    }
}

/// The step that is due, if one is. What was not given back is credited.
fn time_out(state: &LocateState, before: &Locate) -> Option<Locate> {
    let (due, reason) = match (before.status, before.kind) {
        (Status::Offered, _) => (before.offer_expires_at, Reason::OfferLapsed),
        (Status::Filled, LocateKind::PreBorrow) => (before.expires_at, Reason::LoanEnded),
        (Status::Filled, _) => (before.expires_at, Reason::TradeDateEnded),
        _ => return None,
    };
    if state.now_micros < due.0 {
        return None;
    }
    Some(Locate {
        sequence: before.sequence.saturating_add(1),
        status: Status::Expired,
        reason: Some(reason),
        actor: ENGINE.to_owned(),
        request_id: String::new(),
        engine: crate::domain::VERSION.to_owned(),
        availability: None,
        step: state.credited(before, before.held()),
        order: None,
        idempotency: None,
        ..before.clone()
    })
}

fn next(before: &Locate, request: &LocateRequest) -> Locate {
    Locate {
        sequence: before.sequence.saturating_add(1),
        reason: None,
        actor: request.actor.clone(),
        request_id: request.request_id.clone(),
        engine: crate::domain::VERSION.to_owned(),
        availability: None,
        step: None,
        order: None,
        idempotency: request.idempotency.clone(),
        ..before.clone()
    }
}

impl Locate {
    fn reject(&mut self, reason: Reason) {
        self.status = Status::Rejected;
        self.reason = Some(reason);
    }
}

/// What could be granted of what is asked for, and the figure that says so.
struct Room<'a> {
    shares: Result<i64, Reason>,
    figure: Option<&'a Figure>,
}

fn room_for<'a>(state: &'a LocateState, locate: &Locate) -> Room<'a> {
    let figure = match state.figure(&locate.ticker) {
        Ok(figure) => figure,
        Err(reason) => {
            return Room {
                shares: Err(reason),
                figure: None,
            };
        }
    };
    let free = figure.available - state.outstanding(&locate.ticker, locate.trade_date);
    let lots = free.max(0) / locate.lot * locate.lot;
    let granted = lots.min(locate.shares);
    let too_few = granted == 0 || (locate.all_or_none && granted < locate.shares);
    let shares = match (state.is_closed(locate.trade_date), too_few) {
        (true, _) => Err(Reason::RecoveryUnsettled),
        (_, true) => Err(Reason::InsufficientAvailability),
        _ => Ok(granted),
    };
    Room {
        shares,
        figure: Some(figure),
    }
}

impl LocateState {
    fn granted(&self, locate: &Locate, shares: i64, figure: &Figure) -> LedgerStep {
        let (sequence, outstanding) = self
            .head(&locate.ticker, locate.trade_date)
            .map_or((0, 0), |head| (head.sequence, head.outstanding));
        LedgerStep {
            trade_date: locate.trade_date,
            sequence: sequence.saturating_add(1),
            change: shares,
            available: figure.available,
            outstanding: outstanding + shares,
            source: figure.source.clone(),
            valid_at: figure.valid_at,
            known_at: figure.known_at,
        }
    }

    /// Under the figure that was in force: a credit needs no newer one. Nothing when nothing is held.
    fn credited(&self, locate: &Locate, shares: i64) -> Option<LedgerStep> {
        let head = self.head(&locate.ticker, locate.trade_date)?;
        (shares > 0).then(|| LedgerStep {
            sequence: head.sequence.saturating_add(1),
            change: -shares,
            outstanding: head.outstanding - shares,
            ..head.clone()
        })
    }
}

/// Another client's is none.
fn locate_of<'a>(
    state: &'a LocateState,
    id: Uuid,
    client_id: Option<&str>,
) -> Result<&'a Locate, Refusal> {
    state
        .locate(id)
        .filter(|locate| client_id.is_none_or(|client| client == locate.client_id))
        .ok_or(Refusal::NoLocate)
}

fn quote_of<'a>(
    state: &'a LocateState,
    id: Uuid,
    client_id: Option<&str>,
) -> Result<&'a QuoteEntry, Refusal> {
    state
        .quote(id)
        .filter(|quote| client_id.is_none_or(|client| client == quote.facts.client_id))
        .filter(|quote| quote_uuid(&quote.facts.quote_id) == Some(id))
        .ok_or(Refusal::NoQuote)
}

/// What so many of the quoted shares cost: priced again from the quote's own inputs, for their part of the position.
fn fee_for(quote: &QuoteEntry, shares: i64, quoted: i64) -> Result<LocateFee, Refusal> {
    let outputs = &quote.outputs;
    let mut fee = LocateFee {
        shares,
        total_fee: outputs.total_fee,
        borrow_cost: outputs.borrow_cost,
        markup: outputs.markup,
        transaction_fees: outputs.transaction_fee,
    };
    if shares == quoted {
        return Ok(fee);
    }
    let mut inputs = quote.inputs.clone();
    // Where shares have a price, the part is worth what it would be by itself.
    let worth = inputs.per_share.as_mut().and_then(|per_share| {
        per_share.shares = shares.unsigned_abs();
        per_share.value()
    });
    inputs.position_value = worth
        .unwrap_or_else(|| part_of(inputs.position_value, shares, quoted))
        .max(PositionValue::from_units(1));
    let priced = pricing::quote(&inputs).map_err(|error| Refusal::Pricing(error.to_string()))?;
    let outputs = priced.outputs();
    fee.total_fee = outputs.total_fee;
    fee.borrow_cost = outputs.borrow_cost;
    fee.markup = outputs.markup;
    fee.transaction_fees = outputs.transaction_fee;
    Ok(fee)
}

/// Half a cent is rounded up; a part is never nothing.
fn part_of(value: PositionValue, shares: i64, of: i64) -> PositionValue {
    let exact = i128::from(value.units()) * i128::from(shares) * 2 + i128::from(of);
    let units = exact / (i128::from(of) * 2).max(1);
    PositionValue::from_units(i64::try_from(units).unwrap_or(value.units()).max(1))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
