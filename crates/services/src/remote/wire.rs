//! How results travel between services: as JSON with exact numbers, failures included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::calculation::QuoteError;
use crate::data::{Change, WriteError};

/// What became of something to be recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WriteFailure {
    Refused { part: String, reason: String },
    Unknown { part: String },
}

/// Why there is no quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QuoteFailure {
    Ticker(String),
    Client(String),
    NoView,
    Stale { part: String, detail: String },
    Invalid { field: String, message: String },
    Pricing(String),
    Record(WriteFailure),
}

/// A quote to be recorded. Its row is computed from it where it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordQuote {
    pub(crate) fields: BTreeMap<String, String>,
}

/// Anything else to be recorded, with its change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordEntry {
    pub(crate) kind: u8,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) change: Change,
}

impl From<WriteError> for WriteFailure {
    fn from(error: WriteError) -> WriteFailure {
        match error {
            WriteError::Refused { part, reason } => WriteFailure::Refused {
                part: part.to_owned(),
                reason,
            },
            WriteError::Unknown { part } => WriteFailure::Unknown {
                part: part.to_owned(),
            },
        }
    }
}

impl From<WriteFailure> for WriteError {
    fn from(failure: WriteFailure) -> WriteError {
        match failure {
            WriteFailure::Refused { part, reason } => WriteError::Refused {
                part: name(&part),
                reason,
            },
            WriteFailure::Unknown { part } => WriteError::Unknown { part: name(&part) },
        }
    }
}

impl From<QuoteError> for QuoteFailure {
    fn from(error: QuoteError) -> QuoteFailure {
        match error {
            QuoteError::Ticker(ticker) => QuoteFailure::Ticker(ticker),
            QuoteError::Client(client) => QuoteFailure::Client(client),
            QuoteError::NoView => QuoteFailure::NoView,
            QuoteError::Stale { part, detail } => QuoteFailure::Stale {
                part: part.to_owned(),
                detail,
            },
            QuoteError::Invalid { field, message } => QuoteFailure::Invalid {
                field: field.to_owned(),
                message,
            },
            QuoteError::Pricing(why) => QuoteFailure::Pricing(why),
            QuoteError::Record(error) => QuoteFailure::Record(error.into()),
        }
    }
}

impl From<QuoteFailure> for QuoteError {
    fn from(failure: QuoteFailure) -> QuoteError {
        match failure {
            QuoteFailure::Ticker(ticker) => QuoteError::Ticker(ticker),
            QuoteFailure::Client(client) => QuoteError::Client(client),
            QuoteFailure::NoView => QuoteError::NoView,
            QuoteFailure::Stale { part, detail } => QuoteError::Stale {
                part: name(&part),
                detail,
            },
            QuoteFailure::Invalid { field, message } => QuoteError::Invalid {
                field: name(&field),
                message,
            },
            QuoteFailure::Pricing(why) => QuoteError::Pricing(why),
            QuoteFailure::Record(failure) => QuoteError::Record(failure.into()),
        }
    }
}

/// Names of parts and fields are constants of the program, and so live as long as it does; here they arrive as text. There are a
/// few dozen of them; a peer that invents more gets none kept.
fn name(text: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match known.get(text) {
        Some(name) => name,
        None if known.len() < NAMES_MAX && text.len() <= NAME_BYTES_MAX => {
            let name: &'static str = String::leak(text.to_owned());
            known.insert(name);
            name
        }
        None => "unknown",
    }
}

const NAMES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_arrive_as_they_left() {
        let check = |error: QuoteError| {
            let text = serde_json::to_string(&QuoteFailure::from(error.clone())).unwrap();
            let back: QuoteFailure = serde_json::from_str(&text).unwrap();
            assert_eq!(QuoteError::from(back), error, "{text}");
        };
        check(QuoteError::Ticker("ZZZ".to_owned()));
        check(QuoteError::Client("nobody".to_owned()));
        check(QuoteError::NoView);
        check(QuoteError::Stale {
            part: "market_data",
            detail: "old".to_owned(),
        });
        check(QuoteError::Invalid {
            field: "shares",
            message: "too many".to_owned(),
        });
        check(QuoteError::Pricing("overflow".to_owned()));
        check(QuoteError::Record(WriteError::refused("database", "away")));
        check(QuoteError::Record(WriteError::unknown("data-service")));
    }

    #[test]
    fn a_name_is_kept_once() {
        assert!(std::ptr::eq(name("data-service"), name("data-service")));
        assert_eq!(name(&"x".repeat(65)), "unknown");
    }
}
