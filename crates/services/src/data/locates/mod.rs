//! Locates: shares of a ticker set aside for a client on a trade date, from offer to expiry, and the ledger of what they take from
//! what a feed says is available. `decide` is the state machine, without I/O; `desk` reads what it decides by, under one lock;
//! `writer::locates` records the step, its ledger row and its audit entry in one transaction. Nothing about remaining shares is
//! kept in memory between two transactions. docs/decisions/0013-locates-from-an-append-only-ledger.md has the argument.

mod decide;
mod find;
mod locate_state;
mod record;
mod request;
mod states;
mod sweep;
pub(crate) mod verify;

pub(crate) use decide::decide;
pub(crate) use find::{
    LocateFilter, UseTotals, available, find_locates, find_uses, made_for, steps_of, use_totals,
};
pub(crate) use locate_state::{DecisionContext, LocateState};
pub(crate) use record::Locate;
pub(crate) use request::{
    Idempotency, LocateCommand, LocateDecision, LocateOutcome, LocateRequest, OrderUse, Refusal,
    StoredLocate, UseRoom,
};
pub(crate) use states::{LocateKind, Side, Status, UseState};
pub(crate) use sweep::sweep;

use std::num::NonZeroU32;

/// What a desk can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocateSettings {
    /// Shares are located in multiples of this.
    pub lot: NonZeroU32,
}

impl Default for LocateSettings {
    fn default() -> LocateSettings {
        const LOT: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
        LocateSettings { lot: LOT }
    }
}
