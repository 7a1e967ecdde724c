//! The manifest: a readable header, a sealed body, and the tree of nodes that describes the whole cluster.

mod node;

pub(crate) use node::{Child, DirEntry, FileLayout, Node, decode, encode};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backup::{BackupKind, DamagedPage};
use crate::pack::BlobId;

pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// One leaf of a file map covers this much of its file.
pub(crate) const LEAF_BYTES: u64 = 32 << 20;
pub(crate) const INLINE_EXTENTS_MAX: usize = 4;

/// A run of a file that lies in one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub file_offset: u64,
    pub length: u32,
    pub(crate) chunk_offset: u32,
    pub(crate) chunk: BlobId,
}

/// The clear part of a manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ManifestHeader {
    pub(crate) backup_id: String,
    pub(crate) kind: BackupKind,
    pub(crate) parent: Option<String>,
    pub(crate) label: String,
    pub(crate) system_identifier: u64,
    pub(crate) timeline: u32,
    pub(crate) start_lsn: u64,
    pub(crate) stop_lsn: u64,
    pub(crate) pg_version: u32,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) started_at_micros: i64,
    pub(crate) finished_at_micros: i64,
    pub(crate) bytes_source: u64,
    pub(crate) bytes_stored: u64,
    #[serde(default)]
    pub(crate) bytes_reused: u64,
    #[serde(default)]
    pub(crate) bytes_resumed: u64,
    pub(crate) files: u64,
    pub(crate) damaged_pages: u64,
}

/// The sealed part. Never printed: it holds the chunk id key.
#[derive(Serialize, Deserialize)]
pub(crate) struct ManifestBody {
    pub(crate) chunk_id_key: String,
    pub(crate) root: String,
    pub(crate) packs: Vec<PackRef>,
    pub(crate) damaged: Vec<DamagedPage>,
    pub(crate) facts: BTreeMap<String, String>,
}

impl Drop for ManifestBody {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.chunk_id_key);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRef {
    pub(crate) id: String,
    pub(crate) bytes: u64,
}

pub(crate) fn manifest_name(backup_id: &str) -> String {
    format!("backups/{backup_id}/manifest")
}
