//! WAL records out of plain WAL bytes, from any source.
//!
//! [`Decoder`] takes bytes as they arrive and gives records; [`records`] reads a whole slice. Where records stop being
//! valid, WAL ends: [`Step::End`] says where and why. Only the caller can know whether that is the true end or damage,
//! by comparing with the end it expects. [`Follower`] only checks and keeps no record: it is for receivers of WAL.

mod decoder;
mod follower;
mod record;
mod transaction;

pub use decoder::{Decoder, Step, WalEnd, records};
pub use follower::Follower;
pub use record::{BlockReference, Record, RecordError, resource_manager_name};
pub use transaction::{RestorePoint, TransactionEnd};

/// Resource manager of WAL itself (checkpoints, segment switches, full-page images).
pub const RM_XLOG: u8 = 0;
/// Resource manager of transactions.
pub const RM_XACT: u8 = 1;
/// Resource manager of databases.
pub const RM_DATABASE: u8 = 4;
/// `info` of the record that leaves the rest of a segment unused.
pub const XLOG_SWITCH: u8 = 0x40;
