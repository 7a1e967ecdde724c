//! The records at which a recovery can stop: ends of transactions, and named restore points.

use super::record::Record;
use super::{RM_XACT, RM_XLOG};
use crate::replication::unix_micros;

const RESTORE_POINT: u8 = 0x70;
const RESTORE_POINT_NAME_BYTES: usize = 64;

const OPERATION_MASK: u8 = 0x70;
const HAS_INFO: u8 = 0x80;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;

const HAS_DATABASE: u32 = 1;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_DROPPED_FILES: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionEnd {
    pub transaction: u32,
    pub subtransactions: Vec<u32>,
    pub committed: bool,
    /// The server's clock, microseconds since the Unix epoch.
    pub at_micros: i64,
}

/// What `pg_create_restore_point` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    pub name: String,
    /// The server's clock, microseconds since the Unix epoch.
    pub at_micros: i64,
}

impl Record {
    /// `None` for any other record, and for one that cannot be understood.
    pub fn restore_point(&self) -> Option<RestorePoint> {
        if self.resource_manager != RM_XLOG || self.operation() != RESTORE_POINT {
            return None;
        }
        let (time, name) = self.main_data().ok()?.split_first_chunk::<8>()?;
        let name = name.get(..RESTORE_POINT_NAME_BYTES)?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(RestorePoint {
            name: String::from_utf8_lossy(name).into_owned(),
            at_micros: unix_micros(i64::from_ne_bytes(*time)),
        })
    }

    /// Of a prepared transaction its own number, not the one of the session that ended it.
    pub fn transaction_end(&self) -> Option<TransactionEnd> {
        if self.resource_manager != RM_XACT {
            return None;
        }
        let operation = self.info & OPERATION_MASK;
        if ![COMMIT, ABORT, COMMIT_PREPARED, ABORT_PREPARED].contains(&operation) {
            return None;
        }
        let (time, rest) = self.main_data().ok()?.split_first_chunk::<8>()?;
        let mut fields = Fields(rest);
        let info = if self.info & HAS_INFO != 0 {
            fields.u32()?
        } else {
            0
        };
        if info & HAS_DATABASE != 0 {
            fields.skip(8)?;
        }
        let mut subtransactions = Vec::new();
        if info & HAS_SUBTRANSACTIONS != 0 {
            for _ in 0..fields.u32()? {
                subtransactions.push(fields.u32()?);
            }
        }
        let mut transaction = self.transaction;
        if info & HAS_TWO_PHASE != 0 {
            for (flag, bytes) in [
                (HAS_DROPPED_FILES, 12),
                (HAS_DROPPED_STATISTICS, 12),
                (HAS_INVALIDATIONS, 16),
            ] {
                if info & flag != 0 {
                    let count = fields.u32()? as usize;
                    fields.skip(count.checked_mul(bytes)?)?;
                }
            }
            transaction = fields.u32()?;
        }
        Some(TransactionEnd {
            transaction,
            subtransactions,
            committed: [COMMIT, COMMIT_PREPARED].contains(&operation),
            at_micros: unix_micros(i64::from_ne_bytes(*time)),
        })
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*head))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}
