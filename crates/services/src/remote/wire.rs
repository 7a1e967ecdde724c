//! How results travel between services: as JSON with exact numbers, failures included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::calculation::LocateError;
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
pub(crate) enum LocateFailure {
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
pub(crate) struct QuoteOrder {
    pub(crate) fields: BTreeMap<String, String>,
}

/// Anything else to be recorded, with its change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryOrder {
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

impl From<LocateError> for LocateFailure {
    fn from(error: LocateError) -> LocateFailure {
        match error {
            LocateError::Ticker(ticker) => LocateFailure::Ticker(ticker),
            LocateError::Client(client) => LocateFailure::Client(client),
            LocateError::NoView => LocateFailure::NoView,
            LocateError::Stale { part, detail } => LocateFailure::Stale {
                part: part.to_owned(),
                detail,
            },
            LocateError::Invalid { field, message } => LocateFailure::Invalid {
                field: field.to_owned(),
                message,
            },
            LocateError::Pricing(why) => LocateFailure::Pricing(why),
            LocateError::Record(error) => LocateFailure::Record(error.into()),
        }
    }
}

impl From<LocateFailure> for LocateError {
    fn from(failure: LocateFailure) -> LocateError {
        match failure {
            LocateFailure::Ticker(ticker) => LocateError::Ticker(ticker),
            LocateFailure::Client(client) => LocateError::Client(client),
            LocateFailure::NoView => LocateError::NoView,
            LocateFailure::Stale { part, detail } => LocateError::Stale {
                part: name(&part),
                detail,
            },
            LocateFailure::Invalid { field, message } => LocateError::Invalid {
                field: name(&field),
                message,
            },
            LocateFailure::Pricing(why) => LocateError::Pricing(why),
            LocateFailure::Record(failure) => LocateError::Record(failure.into()),
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
        let check = |error: LocateError| {
            let text = serde_json::to_string(&LocateFailure::from(error.clone())).unwrap();
            let back: LocateFailure = serde_json::from_str(&text).unwrap();
            assert_eq!(LocateError::from(back), error, "{text}");
        };
        check(LocateError::Ticker("ZZZ".to_owned()));
        check(LocateError::Client("nobody".to_owned()));
        check(LocateError::NoView);
        check(LocateError::Stale {
            part: "market_data",
            detail: "old".to_owned(),
        });
        check(LocateError::Invalid {
            field: "shares",
            message: "too many".to_owned(),
        });
        check(LocateError::Pricing("overflow".to_owned()));
        check(LocateError::Record(WriteError::refused("database", "away")));
        check(LocateError::Record(WriteError::unknown("data-service")));
    }

    #[test]
    fn a_name_is_kept_once() {
        assert!(std::ptr::eq(name("data-service"), name("data-service")));
        assert_eq!(name(&"x".repeat(65)), "unknown");
    }
}
