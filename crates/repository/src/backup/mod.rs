//! Backups: written by [`BackupWriter`], read by [`BackupReader`] (its mirror), listed by [`catalogue`].

mod catalogue;
mod extents;
mod file_writer;
mod open_file;
mod reader;
mod table;
mod tree;
mod verify;
mod worker;
mod workers;
mod writer;

pub use crate::manifest::Extent;
pub(crate) use catalogue::read_summary;
pub use catalogue::{
    BackupState, BackupSummary, Catalogue, RestoreTest, RestoreTestRecord, RestoreTests, catalogue,
    put_restore_test, restore_tests,
};
pub use extents::ExtentReader;
pub use file_writer::FileWriter;
pub use reader::{BackupReader, Entry, EntryKind};
pub use verify::{DamagedObject, VerifyReport};
pub use writer::{BackupOptions, BackupWriter, WINDOW_BYTES};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::random_hex;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    Full,
    Incremental,
}

/// What is known when a backup starts.
#[derive(Debug, Clone)]
pub struct BackupFacts {
    pub id: String,
    pub kind: BackupKind,
    pub parent: Option<String>,
    pub label: String,
    pub system_identifier: u64,
    pub timeline: u32,
    pub start_lsn: u64,
    /// `server_version_num`, such as 150008.
    pub pg_version: u32,
    pub wal_segment_bytes: u64,
    pub started_at_micros: i64,
}

/// What is known when it stops.
#[derive(Debug, Clone, Default)]
pub struct BackupStop {
    pub stop_lsn: u64,
    pub finished_at_micros: i64,
    pub damaged: Vec<DamagedPage>,
    /// Free facts for the sealed body.
    pub facts: BTreeMap<String, String>,
    /// What the next backup's source wants to find in the local cache ([`BackupWriter::remembered`]).
    pub remember: BTreeMap<String, String>,
}

/// A page that was bad in the source and is kept as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPage {
    pub path: String,
    pub relation: Option<String>,
    pub block: u32,
    pub what: String,
}

/// `20261123T081530Z-1f2e3d4c`: sorts by time.
pub fn new_backup_id(started_at_micros: i64) -> Result<String> {
    let at = jiff::Timestamp::from_microsecond(started_at_micros)
        .map_err(|_| Error::Input(format!("{started_at_micros} is not a time")))?;
    Ok(format!(
        "{}-{}",
        at.strftime("%Y%m%dT%H%M%SZ"),
        random_hex(4)?
    ))
}
