//! PostgreSQL 17 and newer can name the pages that changed since an earlier backup, from its summaries of WAL: only those are then read and
//! sent. What it needs to know of that backup is kept in the local cache ([`PreviousBackup`]).
//!
//! Its word is taken for main forks and init forks alone. Summaries miss two things, which no WAL record names:
//! - bits of the **visibility map** that were cleared. Maps are therefore left out of the manifest that the server is given, and it sends
//!   them whole (free space maps it always does);
//! - pages that a relation **got back after it was shortened**, while nothing was written to them: they are empty, and in the parent they are
//!   not. [`limits`] tells which relations were shortened, and to what.

use super::manifest::{Manifest, ManifestFile, WalRange};
use super::source::Identity;
use crate::Result;
use postgres_physical::lsn::Lsn;
use postgres_physical::page::{Fork, PAGE_BYTES, Relation, RelationFile};
use postgres_physical::server::sql::Client;
use postgres_physical::wire::{ConnectOptions, WireError};
use repository::backup::{BackupWriter, DamagedPage};
use std::collections::{BTreeMap, BTreeSet};

/// How the pages were found that an incremental backup stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedPages {
    /// A full backup stores them all.
    All,
    /// The server named them; the others were not read.
    Named,
    /// All were read and compared with their fingerprints.
    Compared { why_not_named: String },
}

impl ChangedPages {
    /// For machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Named => "named by the server",
            Self::Compared { .. } => "compared",
        }
    }

    #[must_use]
    pub fn why_not_named(&self) -> Option<&str> {
        match self {
            Self::Compared { why_not_named } => Some(why_not_named),
            _ => None,
        }
    }
}

const VERSION_MIN: u32 = 170_000;

/// What the local cache keeps of a backup for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PreviousBackup {
    pub(super) timeline: u32,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) page_checksums: bool,
    /// Files that held damaged pages: they are looked at again each time.
    pub(super) damaged: BTreeSet<String>,
}

impl PreviousBackup {
    pub(super) fn of(identity: &Identity, start: Lsn, stop: Lsn, damaged: &[DamagedPage]) -> Self {
        Self {
            timeline: identity.timeline,
            start,
            stop,
            page_checksums: identity.page_checksums,
            damaged: damaged.iter().map(|page| page.path.clone()).collect(),
        }
    }

    pub(super) fn remember(&self) -> BTreeMap<String, String> {
        let damaged: Vec<&str> = self.damaged.iter().map(String::as_str).collect();
        let fields = [
            ("timeline", self.timeline.to_string()),
            ("start_lsn", self.start.to_string()),
            ("stop_lsn", self.stop.to_string()),
            ("page_checksums", self.page_checksums.to_string()),
            // No path of a relation has a line break.
            ("damaged", damaged.join("\n")),
        ];
        fields.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn recall(remembered: &BTreeMap<String, String>) -> Option<Self> {
        let field = |name| remembered.get(name);
        Some(Self {
            timeline: field("timeline")?.parse().ok()?,
            start: field("start_lsn")?.parse().ok()?,
            stop: field("stop_lsn")?.parse().ok()?,
            page_checksums: field("page_checksums")?.parse().ok()?,
            damaged: field("damaged")?.lines().map(str::to_owned).collect(),
        })
    }
}

/// The backup that the server may be asked about; the inner error says why it cannot be.
pub(super) fn before(
    writer: &BackupWriter,
    identity: &Identity,
    summarize_wal: impl FnOnce() -> Result<String, WireError>,
) -> Result<std::result::Result<PreviousBackup, String>> {
    if identity.pg_version < VERSION_MIN {
        let major = identity.pg_version / 10_000;
        return Ok(Err(format!(
            "PostgreSQL {major} cannot name them, 17 and newer can"
        )));
    }
    if summarize_wal()? != "on" {
        return Ok(Err("summarize_wal is off on the server".into()));
    }
    let Some(before) = writer.remembered().and_then(PreviousBackup::recall) else {
        let why = "the local cache does not say where the newest backup began in WAL";
        return Ok(Err(why.into()));
    };
    if before.timeline != identity.timeline {
        return Ok(Err(format!(
            "the newest backup was taken on timeline {}, the server is on {}",
            before.timeline, identity.timeline
        )));
    }
    if before.page_checksums != identity.page_checksums {
        let why = "page checksums were switched on or off since the newest backup";
        return Ok(Err(why.into()));
    }
    Ok(Ok(before))
}

/// The manifest of the parent, as far as the server is to know it: what is not in it is sent whole.
pub(super) fn manifest(
    writer: &BackupWriter,
    identity: &Identity,
    before: &PreviousBackup,
) -> Result<Manifest> {
    let mut files = Vec::new();
    for path in writer.keepable()? {
        let fork = RelationFile::parse(&path).map(|file| file.relation.fork);
        if matches!(fork, Some(Fork::Main | Fork::Init)) && !before.damaged.contains(&path) {
            // The server looks at names alone.
            files.push(ManifestFile::named(&path, PAGE_BYTES as u64));
        }
    }
    let range = WalRange {
        timeline: before.timeline,
        start: before.start.to_string(),
        end: before.stop.to_string(),
    };
    Ok(Manifest::new(
        identity.pg_version,
        identity.system_identifier,
        files,
        range,
    ))
}

/// Relation → the fewest blocks that it had at any time since the parent began, where it was shortened.
pub(super) type Limits = BTreeMap<Relation, u32>;

/// Asks the summaries that the server itself used for a backup that starts at `start`.
pub(super) fn limits(
    connect: &ConnectOptions,
    before: &PreviousBackup,
    start: Lsn,
) -> Result<Limits, WireError> {
    let sql = format!(
        "SELECT c.reltablespace, c.reldatabase, c.relfilenode, min(c.relblocknumber) \
         FROM pg_available_wal_summaries() s, \
              LATERAL pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn) c \
         WHERE s.tli = {} AND s.end_lsn > '{}' AND s.start_lsn < '{start}' \
           AND c.is_limit_block AND c.relforknumber = 0 GROUP BY 1, 2, 3",
        before.timeline, before.start
    );
    let rows = Client::connect(connect)?.query(&sql)?.rows;
    let limit = |row: &Vec<Option<String>>| {
        let field = |at: usize| row.get(at)?.as_deref()?.parse().ok();
        let relation = Relation {
            tablespace: field(0)?,
            database: field(1)?,
            number: field(2)?,
            fork: Fork::Main,
        };
        Some((relation, field(3)?))
    };
    let limits = rows.iter().map(limit).collect::<Option<Limits>>();
    limits.ok_or_else(|| WireError::Protocol(format!("limits of relations: {rows:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_recalled() {
        let before = PreviousBackup {
            timeline: 3,
            start: Lsn(0x1_0200_0028),
            stop: Lsn(0x1_0200_0120),
            page_checksums: true,
            damaged: ["base/5/1259".to_owned(), "global/1260".to_owned()].into(),
        };
        let mut remembered = before.remember();
        assert_eq!(PreviousBackup::recall(&remembered), Some(before));
        remembered.remove("start_lsn");
        assert_eq!(PreviousBackup::recall(&remembered), None);
    }
}
