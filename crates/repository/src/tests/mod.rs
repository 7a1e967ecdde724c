//! Tests over the public interface; each store has its own suite in `store/suite.rs`.

mod archive;
mod backups;
mod copying;
mod damage;
mod format_document;
mod incremental;
mod keys;
mod log_stretches;
mod read_back;
mod retention;
mod rotation;
mod snapshots;
mod timelines_and_heads;
mod wal;
mod wal_faults;

use std::sync::Arc;

use crate::archive::*;
use crate::backup::*;
use crate::copying::*;
use crate::heads::*;
use crate::keys::*;
use crate::outlook::*;
use crate::read_back::*;
use crate::store::*;
use crate::timelines::*;
use crate::wal::*;
use crate::*;

pub(super) const SYSTEM: u64 = 7_301_234_567_890_123_456;
pub(super) const SEGMENT: u64 = 1 << 16;

/// A repository in memory behind a store that can be made to fail.
pub(super) struct World {
    pub(super) memory: MemoryStore,
    pub(super) faults: FaultyStore,
    pub(super) repository: Repository,
    pub(super) private: RecipientPrivate,
    pub(super) chunk_key: ChunkIdKey,
}

impl World {
    pub(super) fn new() -> Self {
        let memory = MemoryStore::new();
        let faults = FaultyStore::new(Arc::new(memory.clone()), 1);
        Self {
            repository: Repository::init(Arc::new(faults.clone())).unwrap(),
            memory,
            faults,
            private: RecipientPrivate::generate().unwrap(),
            chunk_key: ChunkIdKey::generate().unwrap(),
        }
    }

    pub(super) fn facts(&self, id: &str) -> BackupFacts {
        BackupFacts {
            id: id.to_owned(),
            kind: BackupKind::Full,
            parent: None,
            label: "test".to_owned(),
            system_identifier: SYSTEM,
            timeline: 1,
            start_lsn: SEGMENT,
            pg_version: 150_008,
            wal_segment_bytes: SEGMENT,
            started_at_micros: 1_000_000,
        }
    }

    pub(super) fn begin(&self, id: &str) -> Result<BackupWriter> {
        BackupWriter::begin(
            &self.repository,
            self.private.public(),
            &self.chunk_key,
            self.facts(id),
        )
    }

    /// A small backup of two folders, whose stop LSN is in the middle of segment 1.
    pub(super) fn backup(&self, id: &str) -> Result<String> {
        let backup = self.begin(id)?;
        backup.dir("base", 0o700, 5)?;
        backup.blob("PG_VERSION", 0o600, 7, b"15\n")?;
        backup.blob("base/1/1259", 0o600, 7, &noise(3 * (1 << 20) + 8192, 1))?;
        backup.blob("base/1/empty", 0o600, 7, b"")?;
        backup.symlink("pg_tblspc/1", "/elsewhere", 7)?;
        backup.finish(stop(SEGMENT + 5000))
    }

    pub(super) fn writer(&self, start_lsn: u64) -> Result<WalWriter> {
        let public = self.private.public();
        WalWriter::new(
            &self.repository,
            public,
            SYSTEM,
            1,
            SEGMENT,
            "s1",
            start_lsn,
        )
    }

    pub(super) fn reader(&self) -> WalReader {
        WalReader::new(&self.repository, &self.private)
    }

    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        self.memory
            .list(prefix)
            .unwrap()
            .into_iter()
            .map(|object| object.name)
            .collect()
    }

    pub(super) fn only(&self, prefix: &str) -> String {
        let names = self.names(prefix);
        assert_eq!(names.len(), 1, "{names:?}");
        names[0].clone()
    }
}

pub(super) fn stop(stop_lsn: u64) -> BackupStop {
    BackupStop {
        stop_lsn,
        finished_at_micros: 2_000_000,
        ..BackupStop::default()
    }
}

/// Bytes that do not compress and are the same on every run.
pub(super) fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// The WAL of the test cluster: the byte at each LSN is a function of the LSN.
pub(super) fn wal(from: u64, to: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
    let mut xof = blake3::Hasher::new_keyed(&[9; 32]).finalize_xof();
    xof.set_position(from);
    xof.fill(&mut bytes);
    bytes
}
