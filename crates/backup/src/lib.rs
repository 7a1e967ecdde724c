//! Copies a system into its repository: the database as backups ([`database::backup`]) and, between and around
//! them, as a continuous stream of WAL ([`stream::Streamer`]).
//!
//! [`documents`] does the same for everything that is not a database: [`schema`] keeps the definitions as SQL in git,
//! [`configuration`] the instance's own settings as sealed snapshots, [`application_state`] what runs on a
//! cluster, [`infrastructure`] what it is built of. [`audit_log`] ships logs in chained stretches. [`cache`] copies
//! Redis: its RDB file as such a snapshot, its append-only file into a folder of this host.
//!
//! Absent on purpose: reading anything back (that is `recovery`; this crate needs only the public key), and the
//! knowledge of what the tables mean.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod application_state;
pub mod audit_log;
pub mod cache;
pub mod configuration;
pub mod database;
pub mod documents;
mod error;
pub mod infrastructure;
pub mod schema;
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
