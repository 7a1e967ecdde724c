//! A moment of the past, and a stretch of time.

use serde::{Deserialize, Serialize};

/// A moment of the past: what was true at `as_of`, of what was known at `known_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) as_of_micros: i64,
    pub(crate) known_at_micros: i64,
}

/// When entries were recorded: from the first moment up to and with the last one. Open where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    pub from_micros: Option<i64>,
    pub to_micros: Option<i64>,
}
