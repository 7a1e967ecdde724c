//! Exports a backup as plain files with its `backup_manifest` and WAL, as `pg_verifybackup` accepts them.

use std::fs;
use std::path::Path;

use postgres_physical::lsn::segment_name;
use repository::{
    Repository,
    backup::{BackupReader, EntryKind},
    keys::RecipientPrivate,
    wal::WalReader,
};

use super::destination::Rooms;
use super::fetch::place_segment;
use super::layout::folder_mode;
use super::restore::{CONTROL, MANIFEST, RestoreOptions, RestoreReport};
use super::settings::Omissions;
use super::writing::{Job, Writer, claim_folder, sync_filesystem};
use crate::{Error, Progress, Result};

/// Writes backup `id` into an empty or new folder, byte for byte, with the WAL segments that make it consistent. No
/// setting is changed: see the files before you start PostgreSQL on it. Tablespaces stay below `pg_tblspc`.
pub fn export(
    repository: &Repository,
    private: &RecipientPrivate,
    id: &str,
    to: &Path,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let reader = BackupReader::open(repository, private, id)?;
    reader.check_packs()?;
    let entries = reader.entries()?;
    let summary = reader.summary().clone();
    for path in [CONTROL, MANIFEST] {
        if !entries.iter().any(|entry| entry.path == path) {
            return Err(Error::NoSuchFile {
                backup: id.to_owned(),
                path,
            });
        }
    }
    let mut rooms = Rooms::default();
    rooms.need(&to.join("global"), summary.bytes_source)?;
    rooms.need_inodes(&to.join("global"), entries.len() as u64)?;
    rooms.check()?;
    let folder_mode = folder_mode(&entries);
    claim_folder(to, None, folder_mode)?;
    progress.total(summary.bytes_source);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let writer = Writer {
        reader: &reader,
        user: None,
        folder_mode,
        threads,
        progress,
        written: std::sync::atomic::AtomicU64::new(0),
    };
    let write = || {
        let mut jobs = Vec::new();
        for entry in &entries {
            let path = to.join(&entry.path);
            match &entry.kind {
                EntryKind::Directory => writer.folder(&path)?,
                EntryKind::File { .. } => jobs.push(Job { entry, path }),
                EntryKind::Symlink { target } => {
                    std::os::unix::fs::symlink(target, &path)
                        .map_err(Error::io("create", &path))?;
                }
            }
        }
        writer.files(&jobs)?;
        progress.message("writing WAL");
        let wal = WalReader::new(repository, private);
        let size = summary.wal_segment_bytes;
        for number in summary.start_lsn / size..=(summary.stop_lsn - 1) / size {
            let name = segment_name(summary.timeline, number, size);
            let path = to.join("pg_wal").join(&name);
            let placed = place_segment(&wal, (summary.timeline, number), u64::MAX, &path)?;
            placed.ok_or_else(|| {
                let waits =
                    "its WAL is not in the repository yet. Start the stream and export again";
                Error::NothingToRestore(format!("backup {id}: {waits} ({name} is missing)"))
            })?;
            writer.like_others(&path)?;
        }
        if let Some(history) = wal.history(summary.timeline)? {
            let name = postgres_physical::timeline::history_file_name(summary.timeline);
            fs::write(to.join("pg_wal").join(&name), history)
                .map_err(Error::io("write", to.join("pg_wal").join(name)))?;
        }
        sync_filesystem(to)
    };
    write().map_err(|error| Error::IncompleteExport {
        folder: to.to_owned(),
        error: Box::new(error),
    })?;
    Ok(RestoreReport {
        files: summary.files,
        bytes: summary.bytes_source,
        bytes_written: summary.bytes_source,
        damaged: reader.damaged_pages().to_vec(),
        aside: None,
        omissions: Omissions::default(),
    })
}

impl Default for RestoreOptions {
    /// For the account that runs this process.
    fn default() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Self::new(postgres_physical::server::OsUser {
            name: uid.to_string(),
            uid,
            gid,
        })
    }
}
