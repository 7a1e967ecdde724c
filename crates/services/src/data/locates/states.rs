//! What a locate can be, and what it can be for. The table of steps from one to the next is the trigger `check_locate`; `decide`
//! takes no other.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Taken in and not decided. Every request is decided in the commit that takes it in, so no record of this engine has it; a
    /// client that has no answer may think of its request as pending.
    Pending,
    /// May be accepted until the offer expires. Holds no shares.
    Offered,
    /// Shares are set aside, perhaps fewer than were asked for.
    Filled,
    /// Nothing could be granted; `reason` says why.
    Rejected,
    /// The client did not want it.
    Declined,
    /// Time passed: over the offer, or over the shares that were set aside.
    Expired,
    /// All shares were given back.
    Cancelled,
}

impl Status {
    pub(crate) const ALL: [Status; 7] = [
        Status::Pending,
        Status::Offered,
        Status::Filled,
        Status::Rejected,
        Status::Declined,
        Status::Expired,
        Status::Cancelled,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Offered => "offered",
            Status::Filled => "filled",
            Status::Rejected => "rejected",
            Status::Declined => "declined",
            Status::Expired => "expired",
            Status::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// What the shares may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LocateKind {
    /// Each share may be sold short once, until the trade date ends: what was used stays used, also when it is bought back.
    SingleUse,
    /// Sold short, bought back and sold again, until the trade date ends: a cover makes what was used available again.
    Reusable,
    /// Borrowed ahead: held until the loan ends.
    PreBorrow,
}

impl LocateKind {
    pub(crate) const ALL: [LocateKind; 3] = [
        LocateKind::SingleUse,
        LocateKind::Reusable,
        LocateKind::PreBorrow,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            LocateKind::SingleUse => "single_use",
            LocateKind::Reusable => "reusable",
            LocateKind::PreBorrow => "pre_borrow",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<LocateKind> {
        LocateKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What an order does with a locate's shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    SellShort,
    BuyToCover,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Side::SellShort => "sell_short",
            Side::BuyToCover => "buy_to_cover",
        }
    }

    /// By its name, or as order systems shorten it.
    pub(crate) fn parse(name: &str) -> Option<Side> {
        match name {
            "sell_short" | "sell" => Some(Side::SellShort),
            "buy_to_cover" | "buy" | "cover" => Some(Side::BuyToCover),
            _ => None,
        }
    }
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UseState {
    /// It is at the market: its shares are nobody else's.
    Reserved,
    /// It was executed.
    Used,
    /// It ended without an execution.
    Released,
}

impl UseState {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            UseState::Reserved => "reserved",
            UseState::Used => "used",
            UseState::Released => "released",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<UseState> {
        [UseState::Reserved, UseState::Used, UseState::Released]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Why a locate is what it is, where the status alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// Not a lot is left, or not all of what was asked for.
    InsufficientAvailability,
    /// No source says how many shares there are.
    AvailabilityUnknown,
    /// What the sources said is too old to rely on.
    AvailabilityStale,
    /// The lender's newest list does not have the ticker any more.
    NotListed,
    /// The borrow rate is above what the client would pay.
    RateAboveLimit,
    /// The rate's source says something newer that is not believed yet.
    RateUnconfirmed,
    /// A recovery may have lost grants of this trade date, and no operator has reopened it.
    RecoveryUnsettled,
    OfferLapsed,
    TradeDateEnded,
    LoanEnded,
    AllReturned,
}

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reason::InsufficientAvailability => "insufficient_availability",
            Reason::AvailabilityUnknown => "availability_unknown",
            Reason::AvailabilityStale => "availability_stale",
            Reason::NotListed => "not_listed",
            Reason::RateAboveLimit => "rate_above_limit",
            Reason::RateUnconfirmed => "rate_unconfirmed",
            Reason::RecoveryUnsettled => "recovery_unsettled",
            Reason::OfferLapsed => "offer_lapsed",
            Reason::TradeDateEnded => "trade_date_ended",
            Reason::LoanEnded => "loan_ended",
            Reason::AllReturned => "all_returned",
        }
    }
}
