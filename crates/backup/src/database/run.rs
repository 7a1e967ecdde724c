//! A backup, whatever its source: begin → copy → stop → judge damaged pages → manifest → wait for its WAL.

use super::local::Local;
use super::pages::judge;
use super::protocol::Protocol;
use super::source::{Begun, Source, Stopped, Suspects};
use crate::{BackupError, Progress, Result, now_micros};
use postgres_physical::wire::ConnectOptions;
use repository::{
    BackupFacts, BackupKind, BackupOptions, BackupState, BackupStop, BackupWriter, ChunkIdKey,
    DamagedPage, RecipientPublic, Repository,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// Which way the bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceChoice {
    /// The server's files when they can be read here, the replication protocol otherwise.
    #[default]
    Auto,
    Local,
    Protocol,
}

/// What to copy, to where, and how.
#[derive(Debug, Clone)]
pub struct DatabaseBackup<'a> {
    /// A role with REPLICATION; its plain logins are used to name damaged relations.
    pub connect: &'a ConnectOptions,
    pub repository: &'a Repository,
    pub public: &'a RecipientPublic,
    pub chunk_key: &'a ChunkIdKey,
    pub label: &'a str,
    pub kind: BackupKind,
    pub source: SourceChoice,
    /// The folder of the local cache of what the repository holds already. Without it every backup is a full one.
    pub cache: Option<&'a Path>,
    /// Threads that compress and seal, and that read where the source allows it.
    pub threads: usize,
    /// Read no more than this a second.
    pub bytes_per_second_max: Option<u64>,
    /// How long to wait at the end for the stream to bring all WAL that the backup needs.
    pub wal_patience: Duration,
}

impl<'a> DatabaseBackup<'a> {
    /// A full backup, unthrottled, without a cache.
    #[must_use]
    pub fn new(
        connect: &'a ConnectOptions,
        repository: &'a Repository,
        public: &'a RecipientPublic,
        chunk_key: &'a ChunkIdKey,
    ) -> Self {
        Self {
            connect,
            repository,
            public,
            chunk_key,
            label: "",
            kind: BackupKind::Full,
            source: SourceChoice::Auto,
            cache: None,
            threads: BackupOptions::default().threads,
            bytes_per_second_max: None,
            wal_patience: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOutcome {
    pub id: String,
    pub kind: BackupKind,
    pub timeline: u32,
    pub start_lsn: u64,
    pub stop_lsn: u64,
    pub bytes_source: u64,
    pub damaged: Vec<DamagedPage>,
    /// `Waiting` when the WAL up to `stop_lsn` had not arrived in time; the catalogue knows when it has.
    pub state: BackupState,
}

/// Takes a backup from the source that was chosen.
pub fn backup(request: &DatabaseBackup<'_>, progress: &dyn Progress) -> Result<BackupOutcome> {
    let mut source = open_source(request)?;
    backup_from(request, &mut *source, progress)
}

fn open_source(request: &DatabaseBackup<'_>) -> Result<Box<dyn Source>> {
    if request.source != SourceChoice::Protocol {
        match Local::open(request)? {
            Ok(local) => return Ok(Box::new(local)),
            Err(why) if request.source == SourceChoice::Local => {
                return Err(BackupError::Source(why));
            }
            Err(why) => tracing::info!(why, "the backup comes through the replication protocol"),
        }
    }
    Ok(Box::new(Protocol::new(request)))
}

/// Takes a backup. An error, a cancel or a kill at any moment leaves no manifest: the backup then does not exist.
pub fn backup_from(
    request: &DatabaseBackup<'_>,
    source: &mut dyn Source,
    progress: &dyn Progress,
) -> Result<BackupOutcome> {
    let started_at_micros = now_micros();
    let begun = source.begin(request.label, progress)?;
    let writer = begin_writer(request, &begun, started_at_micros)?;
    progress.total(begun.bytes_expected);
    progress.message("copying");
    let suspects = source.copy(&writer, progress)?;
    let stopped = source.stop(&writer, progress)?;
    let stop_lsn = stopped.stop.0;
    let stop = conclude(request, &begun, stopped, suspects, progress);
    if progress.cancelled() {
        return Err(BackupError::Cancelled);
    }
    let (kind, bytes_source) = (request.kind, writer.bytes_source());
    let damaged = stop.damaged.clone();
    let id = writer.finish(stop)?;
    progress.message("waiting for its WAL");
    let state = wait_for_wal(request, &id, progress)?;
    Ok(BackupOutcome {
        id,
        kind,
        timeline: begun.timeline,
        start_lsn: begun.start.0,
        stop_lsn,
        bytes_source,
        damaged,
        state,
    })
}

fn begin_writer(
    request: &DatabaseBackup<'_>,
    begun: &Begun,
    started_at_micros: i64,
) -> Result<BackupWriter> {
    let facts = BackupFacts {
        id: repository::new_backup_id(started_at_micros)?,
        kind: request.kind,
        parent: None,
        label: request.label.to_owned(),
        system_identifier: begun.system_identifier,
        timeline: begun.timeline,
        start_lsn: begun.start.0,
        pg_version: begun.pg_version,
        wal_segment_bytes: begun.wal_segment_bytes,
        started_at_micros,
    };
    let options = BackupOptions {
        threads: request.threads,
        ..BackupOptions::default()
    };
    let (repository, public) = (request.repository, request.public);
    Ok(BackupWriter::begin_with(
        repository,
        public,
        request.chunk_key,
        facts,
        options,
    )?)
}

/// What the manifest says beyond the tree.
fn conclude(
    request: &DatabaseBackup<'_>,
    begun: &Begun,
    stopped: Stopped,
    Suspects(mut suspects): Suspects,
    progress: &dyn Progress,
) -> BackupStop {
    if !suspects.is_empty() {
        progress.message("judging pages by their WAL");
        suspects = judge(
            stopped.wal,
            suspects,
            (begun.start, stopped.stop),
            begun.timeline,
            begun.wal_segment_bytes,
        );
    }
    let described = suspects
        .into_iter()
        .map(|suspect| suspect.describe(request.connect));
    BackupStop {
        stop_lsn: stopped.stop.0,
        damaged: described.collect(),
        facts: stopped.facts,
        finished_at_micros: now_micros(),
    }
}

/// A backup is complete once the repository holds its WAL; the stream brings it.
fn wait_for_wal(
    request: &DatabaseBackup<'_>,
    id: &str,
    progress: &dyn Progress,
) -> Result<BackupState> {
    let deadline = Instant::now() + request.wal_patience;
    let mut pause = Duration::from_millis(50);
    loop {
        let catalogue = repository::catalogue(request.repository)?;
        let state = catalogue
            .backups
            .iter()
            .find(|backup| backup.id == id)
            .map_or(BackupState::Waiting, |backup| backup.state);
        let late = Instant::now() >= deadline || progress.cancelled();
        if late || !matches!(state, BackupState::Waiting) {
            return Ok(state);
        }
        // The stream may be another process's: looking again is the only way to know.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
