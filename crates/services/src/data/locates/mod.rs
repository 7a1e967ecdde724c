//! Locates: shares of a ticker set aside for a client on a trade date, from offer to expiry, and the ledger of what they take from
//! what a feed says is available. `decide` is the state machine, without I/O; `desk` reads what it decides by, under one lock;
//! `writer::locates` records the step, its ledger row and its audit entry in one transaction. Nothing about remaining shares is
//! kept in memory between two transactions. docs/decisions/0013-locates-from-an-append-only-ledger.md has the argument.

mod calendar;
mod decide;
mod desk;
mod find;
mod order;
mod record;
mod states;
mod sweep;
pub(crate) mod verify;

pub(crate) use calendar::trade_date;
pub(crate) use decide::decide;
pub(crate) use desk::{Desk, DeskTerms};
pub(crate) use find::{LocateFilter, available, find_locates, made_for, steps_of};
pub(crate) use order::{
    Idempotency, LocateDecision, LocateOrder, LocateOutcome, Order, Refusal, StoredLocate,
};
pub(crate) use record::Locate;
pub(crate) use states::{LocateKind, Status};
pub(crate) use sweep::sweep;

/// What a desk can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocateSettings {
    /// Shares are located in multiples of this.
    pub lot: i64,
}

impl Default for LocateSettings {
    fn default() -> LocateSettings {
        LocateSettings { lot: 100 }
    }
}
