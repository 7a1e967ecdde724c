//! PostgreSQL as files, bytes and a process: what a physical backup needs and SQL does not give.
//!
//! Entry points: [`server`] starts and stops a cluster as a direct child, [`replication::Connection`] speaks the
//! streaming replication protocol, [`wal::Records`] reads WAL records out of plain bytes, [`page`] and [`pg_control`]
//! check files on disk.
//!
//! Absent on purpose: the engine's own tables and queries (they belong to `services`), logical decoding, and any
//! knowledge of where backups are kept.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod lsn;
pub mod page;
pub mod pg_control;
pub mod replication;
pub mod server;
pub mod timeline;
pub mod wal;
pub mod wire;
