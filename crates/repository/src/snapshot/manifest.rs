//! The two parts of a snapshot's manifest (snapshots.md §2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::PackRef;

pub(super) const VERSION: u64 = 1;

/// The clear part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) snapshot_version: u64,
    pub(crate) component: String,
    pub(crate) snapshot_id: String,
    pub(crate) parent: Option<String>,
    pub(crate) taken_at_micros: i64,
    pub(crate) finished_at_micros: i64,
    pub(crate) documents: u64,
    pub(crate) bytes_source: u64,
    pub(crate) bytes_stored: u64,
    pub(crate) bytes_reused: u64,
}

/// The sealed part. Never printed: it holds the chunk id key.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotBody {
    pub(crate) chunk_id_key: String,
    pub(crate) packs: Vec<PackRef>,
    pub(crate) documents: Vec<DocumentRecord>,
    pub(crate) facts: BTreeMap<String, String>,
}

impl Drop for SnapshotBody {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.chunk_id_key);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DocumentRecord {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Ids, in order.
    pub(crate) chunks: Vec<String>,
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
}
