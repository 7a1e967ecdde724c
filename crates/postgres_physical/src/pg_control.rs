//! `global/pg_control`: a cluster's state, readable while it is stopped.

use crate::lsn::Lsn;
use crate::page::PAGE_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    pub system_identifier: u64,
    pub control_version: u32,
    pub catalog_version: u32,
    pub state: ClusterState,
    /// When the file was last written, seconds since the Unix epoch.
    pub modified_at_seconds: i64,
    pub checkpoint: Lsn,
    pub redo: Lsn,
    pub timeline: u32,
    pub previous_timeline: u32,
    pub checkpoint_at_seconds: i64,
    pub min_recovery_point: Lsn,
    pub min_recovery_timeline: u32,
    pub backup_start_point: Lsn,
    pub backup_end_point: Lsn,
    pub backup_end_required: bool,
    /// As the server was set when it wrote this; a hot standby needs at least as much of each.
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
    pub page_bytes: u32,
    pub pages_per_segment: u32,
    pub wal_page_bytes: u32,
    pub wal_segment_bytes: u64,
    pub checksums_enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("pg_control has {0} bytes; a whole one has 8192: restore it from a backup")]
    Short(usize),
    #[error(
        "pg_control is of format {0}; known are 1300 (PostgreSQL 13 to 16), 1700 and 1800: use a newer version of \
         this program"
    )]
    UnknownVersion(u32),
    #[error(
        "pg_control fails its checksum (stored {stored:08x}, computed {computed:08x}): it is damaged or was read \
         while being written; read it again or restore it"
    )]
    Checksum { stored: u32, computed: u32 },
    #[error("pg_control holds {field} = {value}, which is not possible or not supported")]
    Value { field: &'static str, value: u64 },
}

impl ControlFile {
    /// The settings of which recovery needs as much as the server had, by their names.
    #[must_use]
    pub fn needed_settings(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }

    pub fn parse(bytes: &[u8]) -> Result<ControlFile, ControlError> {
        // Everything read is within the first 296 bytes.
        let short = || ControlError::Short(bytes.len());
        let head = bytes.get(..296).ok_or_else(short)?;
        let word =
            |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| {
            let (low, high) = (u64::from(word(at)), u64::from(word(at + 4)));
            if cfg!(target_endian = "little") {
                high << 32 | low
            } else {
                low << 32 | high
            }
        };
        let control_version = word(8);
        let crc_at = match control_version {
            1300 | 1700 => 288,
            1800 => 292,
            other => return Err(ControlError::UnknownVersion(other)),
        };
        let (stored, computed) = (word(crc_at), crc32c::crc32c(&head[..crc_at]));
        if stored != computed {
            return Err(ControlError::Checksum { stored, computed });
        }
        let file = ControlFile {
            system_identifier: long(0),
            control_version,
            catalog_version: word(12),
            state: state(word(16))?,
            modified_at_seconds: long(24) as i64,
            checkpoint: Lsn(long(32)),
            redo: Lsn(long(40)),
            timeline: word(48),
            previous_timeline: word(52),
            checkpoint_at_seconds: long(104) as i64,
            min_recovery_point: Lsn(long(136)),
            min_recovery_timeline: word(144),
            backup_start_point: Lsn(long(152)),
            backup_end_point: Lsn(long(160)),
            backup_end_required: head[168] != 0,
            max_connections: word(180),
            max_worker_processes: word(184),
            max_wal_senders: word(188),
            max_prepared_transactions: word(192),
            max_locks_per_transaction: word(196),
            page_bytes: word(216),
            pages_per_segment: word(220),
            wal_page_bytes: word(224),
            wal_segment_bytes: u64::from(word(228)),
            checksums_enabled: word(252) != 0,
        };
        if file.page_bytes as usize != PAGE_BYTES {
            return Err(ControlError::Value {
                field: "the page size",
                value: file.page_bytes.into(),
            });
        }
        if !file.wal_segment_bytes.is_power_of_two() || file.wal_segment_bytes < 1 << 20 {
            return Err(ControlError::Value {
                field: "the WAL segment size",
                value: file.wal_segment_bytes,
            });
        }
        Ok(file)
    }
}

fn state(number: u32) -> Result<ClusterState, ControlError> {
    use ClusterState::*;
    let states = [
        StartingUp,
        ShutDown,
        ShutDownInRecovery,
        ShuttingDown,
        InCrashRecovery,
        InArchiveRecovery,
        InProduction,
    ];
    let unknown = ControlError::Value {
        field: "the cluster state",
        value: number.into(),
    };
    states.get(number as usize).copied().ok_or(unknown)
}
