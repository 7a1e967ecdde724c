//! What the newest deliveries, terms and definitions say: the rows that a view is made from.

use std::sync::Arc;

use pricing::{BorrowStatus, Index, Rate};
use serde::{Deserialize, Serialize};

use super::stock::Stock;
use super::terms::BrokerTerms;

/// The newest base rate of a ticker from one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseRate {
    pub(crate) ticker: Arc<str>,
    pub(crate) rate: Rate,
    pub(crate) currency: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) valid_at_micros: i64,
    pub(crate) known_at_micros: i64,
    pub(crate) available: Option<i64>,
    pub(crate) available_or_more: bool,
    /// The source's own word.
    pub(crate) status: Option<BorrowStatus>,
    /// What the source said later and is not believed yet.
    #[serde(default)]
    pub(crate) held: Option<HeldFigure<Rate>>,
}

/// A figure that is not believed yet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldFigure<T> {
    /// Absent where its row could not be read.
    pub(crate) value: Option<T>,
    pub(crate) valid_at_micros: i64,
    pub(crate) reason: Arc<str>,
}

/// A delivery that was not believed as a whole, after the newest one that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedDelivery {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) rule: Arc<str>,
    pub(crate) valid_at_micros: i64,
    pub(crate) known_at_micros: i64,
}

/// A coming event of a ticker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnouncedEvent {
    pub(crate) ticker: Arc<str>,
    pub(crate) date: jiff::civil::Date,
    pub(crate) source: Arc<str>,
    pub(crate) valid_at_micros: i64,
}

/// The newest batch of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastLoad {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) valid_at_micros: i64,
    pub(crate) known_at_micros: i64,
    pub(crate) rows: i32,
    pub(crate) loaded: i32,
    pub(crate) quarantined: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volatility {
    pub(crate) subject: Arc<str>,
    pub(crate) index: Index,
    pub(crate) source: Arc<str>,
    pub(crate) valid_at_micros: i64,
    #[serde(default)]
    pub(crate) held: Option<HeldFigure<Index>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventRisk {
    pub(crate) subject: Arc<str>,
    pub(crate) factor: u8,
    pub(crate) source: Arc<str>,
    pub(crate) valid_at_micros: i64,
}

/// Another name for a ticker, in requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TickerAlias {
    pub(crate) symbol: String,
    pub(crate) ticker: String,
    pub(crate) valid_from_micros: i64,
    pub(crate) valid_to_micros: i64,
}

/// A desk's own policy or convention: its id and its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) json: String,
}

/// Everything that prices depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarketData {
    pub(crate) rates: Vec<BaseRate>,
    pub(crate) stocks: Vec<Stock>,
    pub(crate) volatility: Vec<Volatility>,
    pub(crate) events: Vec<EventRisk>,
    pub(crate) brokers: Vec<BrokerTerms>,
    #[serde(default)]
    pub(crate) announced: Vec<AnnouncedEvent>,
    #[serde(default)]
    pub(crate) loads: Vec<LastLoad>,
    #[serde(default)]
    pub(crate) refusals: Vec<RefusedDelivery>,
    #[serde(default)]
    pub(crate) aliases: Vec<TickerAlias>,
    #[serde(default)]
    pub(crate) policies: Vec<Definition>,
    #[serde(default)]
    pub(crate) conventions: Vec<Definition>,
    /// When reading it began; 0 where that is not known.
    #[serde(default)]
    pub(crate) read_at_micros: i64,
}
