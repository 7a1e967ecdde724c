//! Restores from the repository, by mechanism: [`database`], [`table`], [`pages`], [`spare`] (the standby). Which
//! heading of the recovery guide each answers to: `docs/guide.md`. A restore needs the repository and its private key,
//! nothing else.
//!
//! Entry points, in the order in which they are used: [`database::plan`], [`database::restore`], [`database::recover`];
//! beside them [`database::window`] (what can be restored), [`database::export`] (a plain copy for other tools) and
//! [`database::wal_fetch`] (what PostgreSQL's `restore_command` calls). [`spare`] keeps a restored cluster following.
//! [`documents`] restores the documents of a snapshot into files, [`cache`] a Redis from its files,
//! [`application_state`] what ran on a cluster, [`audit_log`] logs, [`infrastructure`] what it is built of.
//! [`table`] restores one table, or a few of its rows, into a running database.
//!
//! Absent: to take backups; to decide when to restore; the audit log's view of a recovery.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod application_state;
pub mod audit_log;
mod backoff;
pub mod cache;
pub mod database;
pub mod documents;
mod error;
pub mod infrastructure;
pub mod pages;
pub mod standby;
pub mod table;

pub use backoff::Backoff;
pub use error::{Error, Fault, Result};
pub use repository::Progress;
