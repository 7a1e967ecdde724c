//! The archives of one BASE_BACKUP stream → files of a backup. What came in part is put together with its parent here.

use super::archive::{Part, Parts};
use super::block_file::combine;
use super::changes::Limits;
use super::manifest::{Manifest, ManifestFile, plain_path};
use super::pages::PageCheck;
use crate::{BackupError, Progress, Result, now_micros};
use postgres_physical::page::{PAGE_BYTES, RelationFile};
use postgres_physical::replication::BaseBackup;
use repository::backup::BackupWriter;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

const LABEL: &str = "backup_label";
const MANIFEST: &str = "backup_manifest";

pub(super) struct Unpack<'a> {
    pub(super) writer: &'a BackupWriter,
    pub(super) progress: &'a dyn Progress,
    /// Check every page that comes.
    pub(super) checksums: bool,
    /// Of an incremental stream: which relations were shortened. `None`: every file has to come whole.
    pub(super) limits: Option<&'a Limits>,
}

/// What was noted on the way.
#[derive(Default)]
pub(super) struct UnpackReport {
    pub(super) suspects: Vec<PageCheck>,
    pub(super) bytes_read: u64,
    /// Files beside the data: settings, labels, logs.
    pub(super) beside: BTreeSet<String>,
    /// Files put together, and their sizes.
    combined: BTreeMap<String, u64>,
    /// The label, where it was changed.
    label: Option<ManifestFile>,
}

/// Mode and time of a file.
type Meta = (u32, i64);

impl Unpack<'_> {
    /// All archives and the manifest.
    pub(super) fn all(&self, source: &mut BaseBackup) -> Result<UnpackReport> {
        let mut parts = Parts::new(source, self.progress);
        let mut done = UnpackReport::default();
        let result = self.parts(&mut parts, &mut done);
        done.bytes_read = parts.bytes_read();
        match (result, parts.take_error()) {
            (Err(_), Some(error)) => Err(error.into()),
            (Err(_), None) if self.progress.cancelled() => Err(BackupError::Cancelled),
            (result, _) => result.map(|()| done),
        }
    }

    fn parts(&self, parts: &mut Parts<'_>, done: &mut UnpackReport) -> Result<()> {
        loop {
            match parts.next_part().map_err(damaged)? {
                Part::End => return Ok(()),
                Part::Manifest => self.manifest(parts, done)?,
                Part::Archive { name } => {
                    let prefix = match name.strip_suffix(".tar") {
                        Some("base") => String::new(),
                        Some(oid) => format!("pg_tblspc/{oid}/"),
                        None => {
                            return Err(BackupError::Archive(format!("an archive named {name:?}")));
                        }
                    };
                    self.archive(parts, &prefix, done)?;
                }
            }
            if self.progress.cancelled() {
                return Err(BackupError::Cancelled);
            }
        }
    }

    /// Describes the files as they were stored.
    fn manifest(&self, parts: &mut Parts<'_>, done: &mut UnpackReport) -> Result<()> {
        let mut bytes = Vec::new();
        parts.read_to_end(&mut bytes).map_err(damaged)?;
        if self.limits.is_some() {
            let mut manifest = Manifest::parse(&bytes)
                .map_err(|error| BackupError::Archive(format!("its manifest: {error}")))?;
            manifest.make_whole(&done.combined, done.label.take());
            bytes = manifest.render().into_bytes();
        }
        Ok(self.writer.blob(MANIFEST, 0o600, now_micros(), &bytes)?)
    }

    fn archive(&self, parts: &mut Parts<'_>, prefix: &str, done: &mut UnpackReport) -> Result<()> {
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
                tar::EntryType::Directory => self.writer.dir(&path, mode, mtime)?,
                tar::EntryType::Symlink => {
                    let target = entry.link_name().map_err(damaged)?.unwrap_or_default();
                    self.writer
                        .symlink(&path, &target.to_string_lossy(), mtime)?;
                }
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    if !is_data(&path) {
                        done.beside.insert(path.clone());
                    }
                    self.file(&mut entry, &path, (mode, mtime), done)?;
                }
                other => return Err(BackupError::Archive(format!("{path} is a {other:?}"))),
            }
        }
        Ok(())
    }

    fn file(
        &self,
        source: &mut dyn Read,
        path: &str,
        meta: Meta,
        done: &mut UnpackReport,
    ) -> Result<()> {
        let Some(limits) = self.limits else {
            return self.whole(source, path, meta, &mut done.suspects);
        };
        if path == LABEL {
            return self.label(source, meta, done);
        }
        let plain = plain_path(path).and_then(|plain| Some((RelationFile::parse(&plain)?, plain)));
        let Some((relation, path)) = plain else {
            return self.whole(source, path, meta, &mut done.suspects);
        };
        let mut file = self.writer.file(&path, meta.0, meta.1)?;
        let limit = limits.get(&relation.relation).copied();
        let suspects = self.checksums.then_some(&mut done.suspects);
        let size = combine(source, &mut file, (&path, relation), limit, suspects)?;
        file.finish()?;
        done.combined.insert(path, size);
        Ok(())
    }

    /// With the lines of an incremental backup a server would refuse to start: this one is whole.
    fn label(&self, source: &mut dyn Read, meta: Meta, done: &mut UnpackReport) -> Result<()> {
        let mut text = String::new();
        source.read_to_string(&mut text).map_err(damaged)?;
        let lines = text.split_inclusive('\n');
        let kept: String = lines
            .filter(|line| !line.starts_with("INCREMENTAL FROM "))
            .collect();
        done.label = Some(ManifestFile::of(LABEL, meta.1, kept.as_bytes()));
        Ok(self.writer.blob(LABEL, meta.0, meta.1, kept.as_bytes())?)
    }

    /// Reads whole buffers (of whole pages) so that the check sees each page in one piece.
    fn whole(
        &self,
        source: &mut dyn Read,
        path: &str,
        (mode, mtime): Meta,
        suspects: &mut Vec<PageCheck>,
    ) -> Result<()> {
        let relation = match self.checksums {
            true => RelationFile::parse(path),
            false => None,
        };
        let mut file = self.writer.file(path, mode, mtime)?;
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
}

/// In a folder of the server's own.
fn is_data(path: &str) -> bool {
    path.split_once('/')
        .is_some_and(|(top, _)| top == "base" || top == "global" || top.starts_with("pg_"))
}

const BUFFER_BYTES: usize = 32 * PAGE_BYTES;

fn damaged(error: std::io::Error) -> BackupError {
    BackupError::Archive(error.to_string())
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
