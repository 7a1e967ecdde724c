//! Bytes at rest: an encrypted, authenticated, compressed, write-once repository of one PostgreSQL cluster's backups
//! and WAL. The format is `docs/formats/repository.md`.
//!
//! Entry points: [`Repository`], then [`backup::BackupWriter`] and [`wal::WalWriter`] to write (a public key is
//! enough), [`backup::BackupReader`] and [`wal::WalReader`] to read (needs the private key), [`backup::catalogue`] and
//! [`wal::wal_inventory`] to look (needs no key), [`retention`] to delete what is old;
//! [`snapshot`] for documents of other components than the database.
//!
//! Absent: anything that speaks to PostgreSQL or knows the meaning of its files; async; S3 and KMS (crate `aws`) and
//! hardware tokens (crate `pkcs11`), which implement this crate's traits.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod archive;
pub mod backup;
pub mod claims;
pub mod copying;
mod error;
pub mod heads;
pub mod keys;
mod local_index;
mod lock;
pub mod log_stretches;
mod manifest;
pub mod outlook;
mod pack;
mod pipeline;
mod progress;
pub mod read_back;
pub mod references;
mod repository;
pub mod retention;
pub mod runs;
pub mod snapshot;
pub mod store;
#[cfg(test)]
mod tests;
pub mod timelines;
pub mod transparency;
pub mod wal;

pub use error::{ClosedKey, Error, Result, StoreError, WrongKey};
pub use lock::FileLock;
pub use progress::Progress;
pub use repository::Repository;
