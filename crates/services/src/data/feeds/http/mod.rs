//! Feeds that are asked over HTTP, each in a loop of its own where the log is written. An answer goes through the same checks as a
//! file; what changed is recorded and reaches every market view by the database. A feed that fails leaves its last good rates.

mod answers;
mod breaker;
mod client;
mod name;
mod poll;

pub(super) use answers::{index, risk};
pub(crate) use poll::run;
