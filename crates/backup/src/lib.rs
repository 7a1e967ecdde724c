//! Copies a system into its repository: the database as full backups ([`database::full`]) and, between and around
//! them, as a continuous stream of WAL ([`stream::Streamer`]).
//!
//! Absent on purpose: reading anything back (that is `recovery`; this crate needs only the public key), schedules, and
//! the knowledge of what the tables mean.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod database;
mod error;
pub mod stream;

pub use error::{BackupError, Result};
pub use repository::Progress;

/// Microseconds since the Unix epoch.
pub(crate) fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// Eight random hex digits.
pub(crate) fn random_suffix() -> String {
    format!("{:08x}", rand::random::<u32>())
}
