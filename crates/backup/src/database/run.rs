//! A backup, whatever its source: begin → copy → stop → judge damaged pages → manifest → wait for its WAL.

use super::changes::{ChangedPages, PreviousBackup};
use super::local::Local;
use super::pages::judge;
use super::protocol::Protocol;
use super::settings_outside;
use super::source::{BackupEnd, BackupStart, Identity, Source, Suspects};
use super::whole::{Beginning, missing_relations};
use crate::{BackupError, Progress, Result, now_micros};
use postgres_physical::wire::ConnectOptions;
use repository::{
    Repository,
    backup::{
        BackupFacts, BackupKind, BackupOptions, BackupState, BackupStop, BackupSummary,
        BackupWriter, DamagedPage,
    },
    keys::{ChunkIdKey, RecipientPublic},
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
    pub wal_timeout: Duration,
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
            wal_timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOutcome {
    pub id: String,
    /// What it became.
    pub kind: BackupKind,
    /// The backup that an incremental one is based on.
    pub parent: Option<String>,
    /// Why it is full although an incremental was asked for.
    pub why_full: Option<String>,
    /// How the pages were found that it stores.
    pub changed_pages: ChangedPages,
    pub timeline: u32,
    pub start_lsn: u64,
    pub stop_lsn: u64,
    pub bytes_source: u64,
    /// What had to be read for it.
    pub bytes_read: u64,
    /// Newly written to the repository.
    pub bytes_stored: u64,
    /// Bytes of files that earlier backups had stored.
    pub bytes_reused: u64,
    /// And those that a killed attempt had stored.
    pub bytes_resumed: u64,
    pub damaged: Vec<DamagedPage>,
    /// What a restore of it will not have.
    pub warnings: Vec<String>,
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
    let identity = source.identify()?;
    let mut writer = begin_writer(request, &identity, started_at_micros)?;
    let beginning = Beginning::now(request.connect)?;
    let begun = source.begin(request.label, &writer, progress)?;
    writer.begins_at(begun.timeline, begun.start.0);
    progress.total(begun.bytes_expected);
    if let Some(why) = writer.why_full() {
        tracing::warn!(
            why,
            "an incremental backup was asked for; it is taken as a full one"
        );
    }
    if let Some(why) = begun.changed_pages.why_not_named() {
        tracing::info!(
            why,
            "all pages are read: the server does not name those that changed"
        );
    }
    progress.message("copying");
    let suspects = source.copy(&writer, progress)?;
    let stopped = source.stop(&writer, progress)?;
    let (stop_lsn, bytes_read) = (stopped.stop.0, stopped.bytes_read);
    let mut warnings = settings_outside::warnings(&stopped.facts);
    warnings.extend(check_whole(request, &identity, &beginning, &writer)?);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let stop = conclude(request, &identity, &begun, stopped, suspects, progress);
    if progress.cancelled() {
        return Err(BackupError::Cancelled);
    }
    let (kind, parent) = (writer.kind(), writer.parent().map(str::to_owned));
    let (why_full, bytes_source) = (writer.why_full().map(str::to_owned), writer.bytes_source());
    let damaged = stop.damaged.clone();
    let id = writer.finish(stop)?;
    progress.message("waiting for its WAL");
    let summary = wait_for_wal(request, &id, progress)?;
    let told = |told: fn(&BackupSummary) -> u64| summary.as_ref().map_or(0, told);
    Ok(BackupOutcome {
        kind,
        parent,
        why_full,
        changed_pages: begun.changed_pages,
        timeline: begun.timeline,
        start_lsn: begun.start.0,
        stop_lsn,
        bytes_source,
        bytes_read,
        bytes_stored: told(|summary| summary.bytes_stored),
        bytes_reused: told(|summary| summary.bytes_reused),
        bytes_resumed: told(|summary| summary.bytes_resumed),
        damaged,
        warnings,
        state: summary.map_or(BackupState::Waiting, |summary| summary.state),
        id,
    })
}

fn begin_writer(
    request: &DatabaseBackup<'_>,
    identity: &Identity,
    started_at_micros: i64,
) -> Result<BackupWriter> {
    let facts = BackupFacts {
        id: repository::backup::new_backup_id(started_at_micros)?,
        kind: request.kind,
        parent: None,
        label: request.label.to_owned(),
        system_identifier: identity.system_identifier,
        timeline: identity.timeline,
        // The server tells later where it begins.
        start_lsn: 0,
        pg_version: identity.pg_version,
        wal_segment_bytes: identity.wal_segment_bytes,
        started_at_micros,
    };
    let options = BackupOptions {
        threads: request.threads,
        cache: request.cache.map(Path::to_owned),
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

/// Files that it does not have end it, while an earlier backup is there to restore: that one and the WAL since then bring back
/// more. The first backup of a cluster goes on and names them.
fn check_whole(
    request: &DatabaseBackup<'_>,
    identity: &Identity,
    beginning: &Beginning,
    writer: &BackupWriter,
) -> Result<Option<String>> {
    let missing = missing_relations(request.connect, beginning, writer)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let backups = repository::backup::catalogue(request.repository)?.backups;
    let is_earlier = |backup: &BackupSummary| {
        backup.state == BackupState::Complete
            && backup.system_identifier == identity.system_identifier
    };
    if backups.iter().any(is_earlier) {
        return Err(BackupError::FilesGone(missing));
    }
    Ok(Some(format!(
        "files that the server has lost are not in this backup: {}",
        missing.join(", ")
    )))
}

/// What the manifest says beyond the tree.
fn conclude(
    request: &DatabaseBackup<'_>,
    identity: &Identity,
    begun: &BackupStart,
    stopped: BackupEnd,
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
            identity.wal_segment_bytes,
        );
    }
    let described = suspects
        .into_iter()
        .map(|suspect| suspect.describe(request.connect));
    let damaged: Vec<DamagedPage> = described.collect();
    // A backup over two timelines is nothing that the server could be asked about.
    let one_timeline = [begun.timeline, stopped.timeline] == [identity.timeline; 2];
    let before =
        one_timeline.then(|| PreviousBackup::of(identity, begun.start, stopped.stop, &damaged));
    let mut facts = stopped.facts;
    facts.insert("changed_pages".into(), begun.changed_pages.name().into());
    BackupStop {
        stop_lsn: stopped.stop.0,
        damaged,
        facts,
        remember: before.map(|before| before.remember()).unwrap_or_default(),
        finished_at_micros: now_micros(),
    }
}

/// A backup is complete once the repository holds its WAL; the stream brings it.
fn wait_for_wal(
    request: &DatabaseBackup<'_>,
    id: &str,
    progress: &dyn Progress,
) -> Result<Option<BackupSummary>> {
    let deadline = Instant::now() + request.wal_timeout;
    let mut pause = Duration::from_millis(50);
    loop {
        let catalogue = repository::backup::catalogue(request.repository)?;
        let found = catalogue.backups.into_iter().find(|backup| backup.id == id);
        let waits = found
            .as_ref()
            .is_none_or(|backup| backup.state == BackupState::Waiting);
        if !waits || Instant::now() >= deadline || progress.cancelled() {
            return Ok(found);
        }
        // The stream may be another process's: looking again is the only way to know.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
