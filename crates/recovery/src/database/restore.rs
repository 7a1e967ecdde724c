//! Writes a data folder from a backup. `global/pg_control` comes last: without it no server starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use postgres_physical::server::{OsUser, check_traversable};
use repository::{
    Repository,
    backup::{BackupReader, DamagedPage},
    keys::RecipientPrivate,
};

use super::destination::{Room, Rooms};
use super::layout::Layout;
use super::marker::Marker;
use super::plan::Plan;
use super::recover::REPLAYED_MAX;
use super::settings::Omissions;
use super::writing::{Job, Writer, check_free, claim_folder};
use crate::{Error, Progress, Result};

pub(super) const CONTROL: &str = "global/pg_control";
pub(super) const LABEL: &str = "backup_label";
pub(super) const TABLESPACE_MAP: &str = "tablespace_map";
pub(super) const MANIFEST: &str = "backup_manifest";

#[derive(Debug, Clone)]
pub struct RestoreOptions {
    pub threads: usize,
    /// Who the folder will belong to; usually [`OsUser::for_server`].
    pub user: OsUser,
    /// Where each tablespace (by oid) goes; without an entry, beside the data folder in `<folder>.tablespaces/<oid>`.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// The same by where each lay on the source.
    pub locations: BTreeMap<String, PathBuf>,
    /// Settings of the copy, in the place that PostgreSQL reads last.
    pub set: Vec<(String, String)>,
    /// Over a folder that is there: what is kept of it may be copied to another file system.
    pub copy_across: bool,
}

impl RestoreOptions {
    #[must_use]
    pub fn new(user: OsUser) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            threads: cores.clamp(2, 8),
            user,
            tablespaces: BTreeMap::new(),
            locations: BTreeMap::new(),
            set: Vec::new(),
            copy_across: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    pub files: u64,
    pub bytes: u64,
    /// What was really written: less than `bytes` over a folder that was there.
    pub bytes_written: u64,
    /// Pages that were bad in the source when the backup was taken, and are restored as they were.
    pub damaged: Vec<DamagedPage>,
    /// WAL and server logs of the folder that was there, moved aside.
    pub aside: Option<PathBuf>,
    /// What of the source's settings has no effect in the copy.
    pub omissions: Omissions,
}

/// What a restore into an empty or new folder would need. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    pub rooms: Vec<Room>,
}

/// Looks at an empty or new folder, and refuses whatever a restore into it would refuse.
pub fn outlook(
    repository: &Repository,
    private: &RecipientPrivate,
    plan: &Plan,
    to: &Path,
    options: &RestoreOptions,
) -> Result<Outlook> {
    let reader = BackupReader::open(repository, private, &plan.backup.id)?;
    reader.check_packs()?;
    let to = std::path::absolute(to).map_err(Error::io("resolve", to))?;
    let layout = Layout::new(&reader, &to, options)?;
    look(&layout, plan, options)
}

fn look(layout: &Layout, plan: &Plan, options: &RestoreOptions) -> Result<Outlook> {
    for folder in layout.tablespaces.values().chain([&layout.to]) {
        check_free(folder)?;
        if let Some(above) = folder.parent() {
            check_traversable(above, &options.user)?;
        }
    }
    let mut rooms = Rooms::default();
    layout.need_room(&mut rooms, &layout.entries)?;
    need_room_for_wal(&mut rooms, &layout.to, plan)?;
    let rooms = rooms.check()?;
    Ok(Outlook { rooms })
}

/// Restores the backup of a plan into an empty or new folder. The result needs [`super::recover`] before it can be
/// used; interrupted or failed, it cannot be started.
pub fn restore(
    repository: &Repository,
    private: &RecipientPrivate,
    plan: &Plan,
    to: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let reader = BackupReader::open(repository, private, &plan.backup.id)?;
    reader.check_packs()?;
    let to = std::path::absolute(to).map_err(Error::io("resolve", to))?;
    let layout = Layout::new(&reader, &to, options)?;
    // Everything that can be refused is refused before the first byte.
    look(&layout, plan, options)?;
    let writer = Writer {
        reader: &reader,
        user: Some(&options.user),
        folder_mode: layout.folder_mode(),
        threads: options.threads,
        progress,
        written: AtomicU64::new(0),
    };
    layout.claim_tablespaces(&writer, |_| true)?;
    claim_folder(&to, writer.user, writer.folder_mode)?;
    for folder in layout.tablespaces.values().chain([&to]) {
        check_traversable(folder, &options.user)?;
    }
    let _marker = Marker::place(&to, plan.backup.system_identifier, &options.user)?;
    progress.total(plan.backup.bytes_source);
    progress.message("writing files");
    let omissions = write(&layout, &writer).map_err(|error| half_restored(&to, error))?;
    Ok(RestoreReport {
        files: plan.backup.files,
        bytes: plan.backup.bytes_source,
        bytes_written: writer.written.into_inner(),
        damaged: reader.damaged_pages().to_vec(),
        aside: None,
        omissions,
    })
}

/// Replayed WAL stays until a restart point passes it, and some is read ahead.
pub(super) fn need_room_for_wal(rooms: &mut Rooms, to: &Path, plan: &Plan) -> Result<()> {
    let bytes = plan.wal_bytes.min(REPLAYED_MAX) + plan.segment_bytes * 4;
    let segment = to.join("pg_wal/wal");
    rooms.need(&segment, bytes)?;
    rooms.need_inodes(&segment, bytes.div_ceil(plan.segment_bytes))
}

pub(super) fn half_restored(to: &Path, error: Error) -> Error {
    match error {
        Error::Cancelled(_) => Error::Cancelled(to.to_owned()),
        error => Error::Incomplete {
            folder: to.to_owned(),
            error: Box::new(error),
        },
    }
}

fn write(layout: &Layout, writer: &Writer<'_>) -> Result<Omissions> {
    layout.make_folders(writer)?;
    let files = layout
        .entries
        .iter()
        .filter(|entry| Layout::is_plain_file(entry));
    let jobs: Vec<Job<'_>> = files
        .map(|entry| Job {
            entry,
            path: layout.place(&entry.path),
        })
        .collect();
    writer.files(&jobs)?;
    layout.finish(writer)
}
