//! The source for any server: one BASE_BACKUP stream of archives.

use super::archive::{Part, Parts};
use super::pages::PageCheck;
use super::run::DatabaseBackup;
use super::source::{Begun, Source, Stopped, Suspects};
use crate::{BackupError, Progress, Result, now_micros, random_suffix};
use postgres_physical::page::{PAGE_BYTES, RelationFile};
use postgres_physical::replication::{BackupOptions, BaseBackup, Connection};
use postgres_physical::wire::ConnectOptions;
use repository::BackupWriter;
use std::collections::BTreeMap;
use std::io::Read;

/// The server sends its own label files, and `pg_control` last.
#[derive(Debug)]
pub struct Protocol {
    connect: ConnectOptions,
    rate_kb_max: Option<u32>,
    checksums: bool,
    stream: Option<BaseBackup>,
}

/// What MAX_RATE accepts, in kB/s.
const RATES_KB: std::ops::RangeInclusive<u64> = 32..=1_048_576;

impl Protocol {
    #[must_use]
    pub fn new(request: &DatabaseBackup<'_>) -> Self {
        let rate = |bytes: u64| (bytes / 1024).clamp(*RATES_KB.start(), *RATES_KB.end());
        Self {
            // Not the stream's name: strict mode waits for that one.
            connect: request.connect.clone().with_application_name("bre-backup"),
            rate_kb_max: request
                .bytes_per_second_max
                .and_then(|bytes| u32::try_from(rate(bytes)).ok()),
            checksums: false,
            stream: None,
        }
    }

    fn stream(&mut self) -> Result<&mut BaseBackup> {
        let not_begun = || BackupError::Archive("it was not begun".into());
        self.stream.as_mut().ok_or_else(not_begun)
    }
}

impl Source for Protocol {
    fn begin(&mut self, label: &str, progress: &dyn Progress) -> Result<Begun> {
        let mut connection = Connection::connect(&self.connect)?;
        let identity = connection.identify_system()?;
        let wal_segment_bytes = connection.wal_segment_bytes()?;
        let pg_version = connection
            .show("server_version_num")?
            .parse()
            .unwrap_or_default();
        self.checksums = connection.show("data_checksums")? == "on";
        // Keeps the WAL of this backup on the server until its pages are judged.
        if let Err(error) =
            connection.create_temporary_slot(&format!("bre_backup_{}", random_suffix()))
        {
            tracing::warn!(%error, "no temporary slot for this backup; torn pages may have to be recorded as damaged");
        }
        progress.message("waiting for a checkpoint");
        let mut options = BackupOptions::new(label);
        options.fast_checkpoint = true;
        options.rate_kb_max = self.rate_kb_max;
        let stream = connection.base_backup(&options)?;
        let start = stream.start();
        let begun = Begun {
            system_identifier: identity.system_identifier,
            timeline: start.timeline,
            start: start.lsn,
            pg_version,
            wal_segment_bytes,
            bytes_expected: stream.bytes_expected(),
        };
        self.stream = Some(stream);
        Ok(begun)
    }

    fn copy(&mut self, writer: &BackupWriter, progress: &dyn Progress) -> Result<Suspects> {
        let checksums = self.checksums;
        copy(self.stream()?, writer, checksums, progress).map(Suspects)
    }

    fn stop(&mut self, _: &BackupWriter, _: &dyn Progress) -> Result<Stopped> {
        let stop = self
            .stream()?
            .stop()
            .ok_or_else(|| BackupError::Archive("it has no stop position".into()))?;
        let facts = facts(self.stream()?);
        Ok(Stopped {
            stop: stop.lsn,
            facts,
            wal: self.stream.take().and_then(BaseBackup::into_connection),
        })
    }
}

/// `tablespace.<oid>` → its location on the source, for whoever restores; and which source it was.
fn facts(source: &BaseBackup) -> BTreeMap<String, String> {
    let named = source
        .tablespaces()
        .iter()
        .filter_map(|t| Some((t.oid?, t.location.clone()?)));
    let spaces = named.map(|(oid, location)| (format!("tablespace.{oid}"), location));
    spaces
        .chain([("source".to_owned(), "protocol".to_owned())])
        .collect()
}

/// All archives and the manifest; returns the pages that failed their checksum.
fn copy(
    source: &mut BaseBackup,
    writer: &BackupWriter,
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
    writer: &BackupWriter,
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
    writer: &BackupWriter,
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
    writer: &BackupWriter,
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
