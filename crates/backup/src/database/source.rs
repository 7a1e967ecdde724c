//! Where the bytes of a cluster come from. One trait, so that a backup is the same bytes whichever way they came.

use std::collections::BTreeMap;

use postgres_physical::lsn::Lsn;
use postgres_physical::replication::Connection;
use repository::backup::BackupWriter;

use super::changes::ChangedPages;
use super::pages::PageCheck;
use crate::{Progress, Result};

/// Called in this order, once each: `identify`, `begin`, `copy`, `stop`.
pub trait Source: std::fmt::Debug {
    /// Whose backup it will be.
    fn identify(&mut self) -> Result<Identity>;

    /// Tells the server that a backup begins, and what is known from then on. The writer knows what its parent has.
    fn begin(
        &mut self,
        label: &str,
        writer: &BackupWriter,
        progress: &dyn Progress,
    ) -> Result<BackupStart>;

    /// Everything but what only the end of the backup tells goes into the writer. The pages whose checksum is wrong are
    /// returned: whoever runs the backup judges them by its WAL.
    fn copy(&mut self, writer: &BackupWriter, progress: &dyn Progress) -> Result<Suspects>;

    /// Tells the server that the backup ends; writes what has to be read last: `pg_control`, and the label files.
    fn stop(&mut self, writer: &BackupWriter, progress: &dyn Progress) -> Result<BackupEnd>;
}

/// Pages that failed their checksum, not yet judged.
#[derive(Debug, Default)]
pub struct Suspects(pub(super) Vec<PageCheck>);

/// The cluster.
#[derive(Debug, Clone)]
pub struct Identity {
    pub system_identifier: u64,
    pub timeline: u32,
    /// `server_version_num`, such as 150008.
    pub pg_version: u32,
    pub wal_segment_bytes: u64,
    /// Whether its pages have checksums.
    pub page_checksums: bool,
}

/// A backup that has begun on the server.
#[derive(Debug, Clone)]
pub struct BackupStart {
    pub timeline: u32,
    pub start: Lsn,
    /// An estimate, for whoever watches; 0 when there is none.
    pub bytes_expected: u64,
    pub changed_pages: ChangedPages,
}

/// A backup that has ended on the server.
#[derive(Debug)]
pub struct BackupEnd {
    pub stop: Lsn,
    pub timeline: u32,
    /// From the server, or from its files.
    pub bytes_read: u64,
    /// For the sealed part of the manifest: `tablespace.<oid>` → its location, and whatever else a restore wants to know.
    pub facts: BTreeMap<String, String>,
    /// A replication connection whose temporary slot still keeps the WAL of the backup.
    pub wal: Option<Connection>,
}
