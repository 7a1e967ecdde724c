//! What is asked of a locate, and what became of it. Both travel between services.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::Locate;
use super::states::{LocateKind, Side, Status, UseState};
use crate::data::writer::LogPosition;
use crate::market::BeyondCalendar;

/// One step that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocateRequest {
    /// Whose locates may be touched; `None`: the engine's own business.
    pub(crate) client_id: Option<String>,
    /// The API key's id, or `engine`.
    pub(crate) actor: String,
    pub(crate) request_id: String,
    pub(crate) idempotency: Option<Idempotency>,
    #[serde(rename = "order")]
    pub(crate) command: LocateCommand,
}

/// A client's own name for a request, and what the request was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Idempotency {
    pub(crate) key: String,
    /// SHA-256 over what was asked, in hexadecimal.
    pub(crate) digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LocateCommand {
    Offer {
        locate_id: Uuid,
        quote_id: Uuid,
        /// Those of the quote when absent.
        shares: Option<i64>,
        kind: LocateKind,
        all_or_none: bool,
        limit_rate: Option<pricing::Rate>,
    },
    Accept {
        locate_id: Uuid,
    },
    Decline {
        locate_id: Uuid,
    },
    Return {
        locate_id: Uuid,
        /// All that are held when absent.
        shares: Option<i64>,
    },
    /// An order reserves, uses or releases shares.
    Use {
        locate_id: Uuid,
        order: OrderUse,
    },
    /// Time has passed.
    Expire {
        locate_id: Uuid,
    },
}

impl LocateCommand {
    pub(crate) fn locate_id(&self) -> Uuid {
        match self {
            LocateCommand::Offer { locate_id, .. }
            | LocateCommand::Accept { locate_id }
            | LocateCommand::Decline { locate_id }
            | LocateCommand::Return { locate_id, .. }
            | LocateCommand::Use { locate_id, .. }
            | LocateCommand::Expire { locate_id } => *locate_id,
        }
    }
}

/// What a client's order did with shares of a locate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderUse {
    /// The client's own name for the order; a locate knows it once.
    pub(crate) order_id: String,
    pub(crate) side: Side,
    pub(crate) state: UseState,
    pub(crate) shares: i64,
}

/// A step as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLocate {
    pub(crate) recorded: LogPosition,
    pub(crate) recorded_at_micros: i64,
    pub(crate) locate: Locate,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LocateOutcome {
    /// The step that was made for this request, now or the first time it was sent.
    Step(Box<StoredLocate>),
    Refused(Refusal),
}

/// What there was when an order wanted more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UseRoom {
    pub(crate) available: i64,
    pub(crate) reserved: i64,
    pub(crate) used: i64,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    NoLocate,
    NoQuote,
    QuoteExpired,
    /// It was priced with what was known earlier.
    QuotePast,
    /// Another locate was made from it.
    QuoteUsed,
    /// The quote was for that many, or for none in particular.
    QuoteShares(Option<u64>),
    NotLots(i64),
    /// It is something else by now.
    NotOpen(Status),
    Expired,
    /// More than are held and not used.
    TooMany {
        held: i64,
        available: i64,
    },
    /// An order wants more than there is to sell, or to cover.
    UseTooLarge(UseRoom),
    /// The same order, with something else.
    OrderReused,
    /// An order that reserved nothing releases nothing.
    NotReserved,
    /// The same key, with another request.
    KeyReused,
    Pricing(String),
    /// The calendar does not go so far.
    BeyondCalendar(String),
}

impl From<BeyondCalendar> for Refusal {
    fn from(beyond: BeyondCalendar) -> Refusal {
        Refusal::BeyondCalendar(beyond.to_string())
    }
}

/// What is to be recorded, if anything, and what to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LocateDecision {
    Step(Box<Locate>),
    /// It was made before.
    Already(Box<StoredLocate>),
    Refused(Refusal),
    /// Time ended the locate before the request came: that is recorded, and the request refused.
    Ended(Box<Locate>, Refusal),
}
