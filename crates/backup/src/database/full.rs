//! A full backup: one BASE_BACKUP stream → files → page check → repository, manifest last.

use super::archive::{Part, Parts};
use super::pages::{PageCheck, judge};
use crate::{BackupError, Progress, Result, now_micros, random_suffix};
use postgres_physical::page::{PAGE_BYTES, RelationFile};
use postgres_physical::replication::{BackupOptions, BaseBackup, Connection};
use postgres_physical::wire::ConnectOptions;
use repository::{
    BackupFacts, BackupKind, BackupState, BackupStop, BackupWriter, ChunkIdKey, DamagedPage,
    RecipientPublic, Repository,
};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

/// What to copy, and to where.
#[derive(Debug)]
pub struct FullBackup<'a> {
    /// A role with REPLICATION; its plain logins are used to name damaged relations.
    pub connect: &'a ConnectOptions,
    pub repository: &'a Repository,
    pub public: &'a RecipientPublic,
    pub chunk_key: &'a ChunkIdKey,
    pub label: &'a str,
    /// How long to wait at the end for the stream to bring all WAL that the backup needs.
    pub wal_patience: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullOutcome {
    pub id: String,
    pub timeline: u32,
    pub start_lsn: u64,
    pub stop_lsn: u64,
    pub bytes_source: u64,
    pub damaged: Vec<DamagedPage>,
    /// `Waiting` when the WAL up to `stop_lsn` had not arrived in time; the catalogue knows when it has.
    pub state: BackupState,
}

/// Takes a full backup. An error, a cancel or a kill at any moment leaves no manifest: the backup then does not exist.
pub fn full(request: &FullBackup<'_>, progress: &dyn Progress) -> Result<FullOutcome> {
    // Not the stream's name: strict mode waits for that one.
    let connect = request.connect.clone().with_application_name("bre-backup");
    let mut connection = Connection::connect(&connect)?;
    let identity = connection.identify_system()?;
    let wal_segment_bytes = connection.wal_segment_bytes()?;
    let pg_version = connection
        .show("server_version_num")?
        .parse()
        .unwrap_or_default();
    let checksums = connection.show("data_checksums")? == "on";
    // Keeps the WAL of this backup on the server until its pages are judged.
    if let Err(error) = connection.create_temporary_slot(&format!("bre_backup_{}", random_suffix()))
    {
        tracing::warn!(%error, "no temporary slot for this backup; torn pages may have to be recorded as damaged");
    }
    progress.message("waiting for a checkpoint");
    let mut options = BackupOptions::new(request.label);
    options.fast_checkpoint = true;
    let started_at_micros = now_micros();
    let mut source = connection.base_backup(&options)?;
    progress.total(source.bytes_expected());
    progress.message("copying");
    let start = source.start();
    let facts = BackupFacts {
        id: repository::new_backup_id(started_at_micros)?,
        kind: BackupKind::Full,
        parent: None,
        label: request.label.to_owned(),
        system_identifier: identity.system_identifier,
        timeline: start.timeline,
        start_lsn: start.lsn.0,
        pg_version,
        wal_segment_bytes,
        started_at_micros,
    };
    let mut writer =
        BackupWriter::begin(request.repository, request.public, request.chunk_key, facts)?;
    let mut suspects = copy(&mut source, &mut writer, checksums, progress)?;
    let stop = source
        .stop()
        .ok_or_else(|| BackupError::Archive("it has no stop position".into()))?;
    let facts = tablespace_facts(&source);
    if !suspects.is_empty() {
        progress.message("judging pages by their WAL");
        if let Some(connection) = source.into_connection() {
            suspects = judge(
                connection,
                suspects,
                (start.lsn, stop.lsn),
                start.timeline,
                wal_segment_bytes,
            );
        }
    }
    let damaged = suspects
        .into_iter()
        .map(|suspect| suspect.describe(request.connect))
        .collect::<Vec<_>>();
    if progress.cancelled() {
        return Err(BackupError::Cancelled);
    }
    let bytes_source = writer.bytes_source();
    let stop_facts = BackupStop {
        stop_lsn: stop.lsn.0,
        finished_at_micros: now_micros(),
        damaged: damaged.clone(),
        facts,
    };
    let id = writer.finish(stop_facts)?;
    progress.message("waiting for its WAL");
    let state = wait_for_wal(request, &id, progress)?;
    let (start_lsn, stop_lsn) = (start.lsn.0, stop.lsn.0);
    Ok(FullOutcome {
        id,
        timeline: start.timeline,
        start_lsn,
        stop_lsn,
        bytes_source,
        damaged,
        state,
    })
}

/// `tablespace.<oid>` → its location on the source, for whoever restores.
fn tablespace_facts(source: &BaseBackup) -> BTreeMap<String, String> {
    let named = source
        .tablespaces()
        .iter()
        .filter_map(|t| Some((t.oid?, t.location.clone()?)));
    named
        .map(|(oid, location)| (format!("tablespace.{oid}"), location))
        .collect()
}

/// All archives and the manifest; returns the pages that failed their checksum.
fn copy(
    source: &mut BaseBackup,
    writer: &mut BackupWriter,
    checksums: bool,
    progress: &dyn Progress,
) -> Result<Vec<PageCheck>> {
    let mut parts = Parts::new(source, progress);
    let mut suspects = Vec::new();
    let result = copy_parts(&mut parts, writer, checksums, &mut suspects, progress);
    match (result, parts.take_error()) {
        (Err(_), Some(error)) => Err(error.into()),
        (Err(_), None) if progress.cancelled() => Err(BackupError::Cancelled),
        (result, _) => result.map(|()| suspects),
    }
}

fn copy_parts(
    parts: &mut Parts<'_>,
    writer: &mut BackupWriter,
    checksums: bool,
    suspects: &mut Vec<PageCheck>,
    progress: &dyn Progress,
) -> Result<()> {
    let damaged = |error: std::io::Error| BackupError::Archive(error.to_string());
    loop {
        match parts.next_part().map_err(damaged)? {
            Part::End => return Ok(()),
            Part::Manifest => {
                let mut manifest = Vec::new();
                parts.read_to_end(&mut manifest).map_err(damaged)?;
                writer.blob("backup_manifest", 0o600, now_micros(), &manifest)?;
            }
            Part::Archive { name } => {
                let prefix = match name.strip_suffix(".tar") {
                    Some("base") => String::new(),
                    Some(oid) => format!("pg_tblspc/{oid}/"),
                    None => return Err(BackupError::Archive(format!("an archive named {name:?}"))),
                };
                copy_archive(parts, &prefix, writer, checksums, suspects)?;
            }
        }
        if progress.cancelled() {
            return Err(BackupError::Cancelled);
        }
    }
}

fn copy_archive(
    parts: &mut Parts<'_>,
    prefix: &str,
    writer: &mut BackupWriter,
    checksums: bool,
    suspects: &mut Vec<PageCheck>,
) -> Result<()> {
    let damaged = |error: std::io::Error| BackupError::Archive(error.to_string());
    let mut archive = tar::Archive::new(parts);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry
            .path()
            .map_err(damaged)?
            .to_string_lossy()
            .into_owned();
        let name = name.trim_start_matches("./").trim_end_matches('/');
        if name.is_empty() || name == "." {
            continue;
        }
        let path = format!("{prefix}{name}");
        let mode = entry.header().mode().map_err(damaged)? & 0o7777;
        let mtime = entry.header().mtime().map_err(damaged)? as i64 * 1_000_000;
        match entry.header().entry_type() {
            tar::EntryType::Directory => writer.dir(&path, mode, mtime)?,
            tar::EntryType::Symlink => {
                let target = entry.link_name().map_err(damaged)?.unwrap_or_default();
                writer.symlink(&path, &target.to_string_lossy(), mtime)?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let relation = if checksums {
                    RelationFile::parse(&path)
                } else {
                    None
                };
                copy_file(&mut entry, &path, (mode, mtime), relation, writer, suspects)?;
            }
            other => return Err(BackupError::Archive(format!("{path} is a {other:?}"))),
        }
    }
    Ok(())
}

const BUFFER_BYTES: usize = 32 * PAGE_BYTES;

/// Reads whole buffers (of whole pages) so that the check sees each page in one piece.
fn copy_file(
    source: &mut dyn Read,
    path: &str,
    (mode, mtime): (u32, i64),
    relation: Option<RelationFile>,
    writer: &mut BackupWriter,
    suspects: &mut Vec<PageCheck>,
) -> Result<()> {
    let mut file = writer.file(path, mode, mtime)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut block = relation.map_or(0, |relation| relation.first_block());
    loop {
        let filled = fill(source, &mut buffer)
            .map_err(|error| BackupError::Archive(format!("{path}: {error}")))?;
        let bytes = &buffer[..filled];
        if let Some(relation) = relation {
            suspects.extend(PageCheck::bad_pages(bytes, path, relation, block));
            block += (filled / PAGE_BYTES) as u32;
        }
        file.write(bytes)?;
        if filled < buffer.len() {
            return Ok(file.finish()?);
        }
    }
}

fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// A backup is complete once the repository holds its WAL; the stream brings it.
fn wait_for_wal(
    request: &FullBackup<'_>,
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
