//! Restores over an existing folder: reads all of it first, then writes only what differs. It compares contents with
//! the backup, never times.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use postgres_physical::server::check_traversable;
use repository::{
    Repository,
    backup::{BackupReader, Entry, EntryKind},
    keys::RecipientPrivate,
};

use super::aside::make_private_folder;
use super::destination::{Room, Rooms};
use super::layout::Layout;
use super::marker::Marker;
use super::occupied::{check_cluster, check_not_running, check_tablespace_free, lock_holder};
use super::plan::Plan;
use super::remains::{Foreign, Remains, Surplus, remove};
use super::restore::{CONTROL, RestoreOptions, RestoreReport, half_restored, need_room_for_wal};
use super::settings::Omissions;
use super::writing::{
    Hand, Job, Patch, Writer, in_parallel, is_unreadable, open_plain, sync_folder, take_folder,
};
use crate::{Error, Progress, Result};

/// What a restore over an existing folder would do. Nothing was changed.
pub struct Survey {
    pub folder: PathBuf,
    pub files_same: u64,
    pub files_changed: u64,
    pub files_new: u64,
    /// To be written: of changed files at most, of new ones all.
    pub bytes_changed: u64,
    pub bytes_new: u64,
    /// What does not belong to the backup.
    pub surplus: Vec<Surplus>,
    /// What is not ours, and stays.
    pub foreign: Vec<Foreign>,
    /// Where the surplus WAL and logs go.
    pub aside: Option<PathBuf>,
    /// Of every file system that is written to.
    pub rooms: Vec<Room>,
    /// What a person should know before saying yes.
    pub notes: Vec<String>,
    reader: BackupReader,
    layout: Layout,
    /// Numbers of entries, with the extents that differ or may.
    changed: Vec<(usize, Vec<usize>)>,
    new: Vec<usize>,
    system_identifier: u64,
}

/// Looks at a folder that is to be restored over. Refuses one on which a server runs, and one that is not a data folder
/// of the same cluster.
pub fn survey(
    repository: &Repository,
    private: &RecipientPrivate,
    plan: &Plan,
    to: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<Survey> {
    let to = std::fs::canonicalize(to).map_err(Error::io("find", to))?;
    check_not_running(&to)?;
    let system_identifier = plan.backup.system_identifier;
    check_cluster(&to, system_identifier)?;
    check_traversable(&to, &options.user)?;
    let reader = BackupReader::open(repository, private, &plan.backup.id)?;
    reader.check_packs()?;
    let layout = Layout::new(&reader, &to, options)?;
    for folder in layout.tablespaces.values() {
        check_tablespace_free(folder)?;
    }
    let remains = Remains::look(&layout, &options.user)?;
    let aside = remains.surplus.iter().any(|surplus| surplus.kept);
    let aside =
        aside.then(|| PathBuf::from(format!("{}.before-{}", to.display(), plan.restore_id)));
    if let Some(aside) = aside.as_ref().filter(|_| !options.copy_across) {
        check_renames(&remains, aside)?;
    }
    let (changed, new, compared) = compare(&reader, &layout, &remains, options, progress)?;
    let bytes_of = |entry: &Entry| match entry.kind {
        EntryKind::File { size, .. } => size,
        _ => 0,
    };
    let rooms = rooms(
        plan,
        &layout,
        &remains,
        aside.as_deref(),
        &compared.grown,
        &new,
    )?;
    Ok(Survey {
        files_same: compared.files - changed.len() as u64,
        files_changed: changed.len() as u64,
        files_new: new.len() as u64,
        bytes_changed: compared.bytes_changed,
        bytes_new: new
            .iter()
            .map(|number| bytes_of(&layout.entries[*number]))
            .sum(),
        notes: notes(&to, &layout, &remains),
        surplus: remains.surplus,
        foreign: remains.foreign,
        aside,
        rooms,
        folder: to,
        reader,
        layout,
        changed,
        new,
        system_identifier,
    })
}

/// What is kept moves by its name alone: that does not reach another file system.
fn check_renames(remains: &Remains, aside: &Path) -> Result<()> {
    let across = || remains.surplus.iter().filter(|it| it.kept && it.across);
    let Some(first) = across().next() else {
        return Ok(());
    };
    Err(Error::AcrossFileSystems {
        first: first.path.clone(),
        count: across().count(),
        bytes: across().map(|it| it.bytes).sum(),
        aside: aside.to_owned(),
    })
}

/// Room for what is new, what grows, the WAL that is replayed, and what is copied aside; less what is deleted first.
fn rooms(
    plan: &Plan,
    layout: &Layout,
    remains: &Remains,
    aside: Option<&Path>,
    grown: &[(usize, u64)],
    new: &[usize],
) -> Result<Vec<Room>> {
    let mut rooms = Rooms::default();
    layout.need_room(
        &mut rooms,
        new.iter().map(|number| &layout.entries[*number]),
    )?;
    for (number, bytes) in grown {
        rooms.need(&layout.place(&layout.entries[*number].path), *bytes)?;
    }
    need_room_for_wal(&mut rooms, &layout.to, plan)?;
    for surplus in &remains.surplus {
        match (surplus.kept, surplus.across, aside) {
            (false, ..) => rooms.free(&surplus.path, surplus.bytes, surplus.inodes)?,
            (true, true, Some(aside)) => {
                rooms.need(aside, surplus.bytes)?;
                rooms.need_inodes(aside, surplus.inodes)?;
            }
            (true, ..) => {}
        }
    }
    rooms.check()
}

fn notes(to: &Path, layout: &Layout, remains: &Remains) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(pid) = lock_holder(to) {
        notes.push(format!(
            "postmaster.pid names process {pid}, which is not a server on this folder here. If one runs in a \
             container or on another host, stop it first"
        ));
    }
    for (oid, place) in &layout.tablespaces {
        let link = to.join("pg_tblspc").join(oid.to_string());
        match std::fs::read_link(&link) {
            Ok(old) if old != *place => notes.push(format!(
                "tablespace {oid} goes to {}; what lies in {} stays there untouched",
                place.display(),
                old.display()
            )),
            _ => notes.push(format!("tablespace {oid} goes to {}", place.display())),
        }
    }
    for link in &remains.links {
        notes.push(format!(
            "{} is a symbolic link: the link is replaced, what it points to stays untouched",
            link.display()
        ));
    }
    for foreign in &remains.foreign {
        notes.push(format!(
            "{} stays as it is: {}",
            foreign.path.display(),
            foreign.why
        ));
    }
    notes
}

#[derive(Default)]
struct Comparison {
    files: u64,
    bytes_changed: u64,
    /// Numbers of entries, and by how much each is longer.
    grown: Vec<(usize, u64)>,
}

type ChangedPages = Vec<(usize, Vec<usize>)>;

/// Which files differ, and where.
fn compare(
    reader: &BackupReader,
    layout: &Layout,
    remains: &Remains,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<(ChangedPages, Vec<usize>, Comparison)> {
    let files = layout.entries.iter().enumerate();
    let files = files.filter(|(_, entry)| Layout::is_plain_file(entry));
    let (mut there, mut new) = (Vec::new(), Vec::new());
    for (number, entry) in files {
        match remains.files.get(&layout.place(&entry.path)) {
            Some(found) => there.push((number, entry, found)),
            None => new.push(number),
        }
    }
    progress.total(there.iter().map(|(_, _, found)| found.bytes).sum());
    progress.message("comparing files");
    let (changed, grown) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let bytes_changed = AtomicU64::new(0);
    in_parallel(
        options.threads,
        &there,
        || Hand::new(reader),
        |hand, (number, entry, found)| {
            let path = layout.place(&entry.path);
            let (extents, bytes) = differing(hand, reader, entry, &path, progress)?;
            let EntryKind::File { size, .. } = entry.kind else {
                return Ok(());
            };
            let access = (found.mode, found.uid) == (entry.mode & 0o777, options.user.uid);
            if !extents.is_empty() || size != found.bytes || !access {
                bytes_changed.fetch_add(bytes, Ordering::Relaxed);
                if size > found.bytes {
                    let mut grown = grown.lock().unwrap_or_else(PoisonError::into_inner);
                    grown.push((*number, size - found.bytes));
                }
                let mut changed = changed.lock().unwrap_or_else(PoisonError::into_inner);
                changed.push((*number, extents));
            }
            Ok(())
        },
    )?;
    let mut changed = changed.into_inner().unwrap_or_else(PoisonError::into_inner);
    changed.sort_unstable();
    let compared = Comparison {
        files: there.len() as u64,
        bytes_changed: bytes_changed.into_inner(),
        grown: grown.into_inner().unwrap_or_else(PoisonError::into_inner),
    };
    Ok((changed, new, compared))
}

/// The extents of a file that are not there as they should be, and their bytes.
fn differing(
    hand: &mut Hand<'_>,
    reader: &BackupReader,
    entry: &Entry,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(Vec<usize>, u64)> {
    use std::os::unix::fs::FileExt;
    let EntryKind::File { size, extents } = &entry.kind else {
        return Ok((Vec::new(), 0));
    };
    let file = open_plain(path, false).map_err(Error::io("open", path))?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (number, extent) in extents.iter().enumerate() {
        if progress.cancelled() {
            return Err(Error::Stopped);
        }
        hand.buffer.resize(extent.length as usize, 0);
        let same = match file.read_exact_at(&mut hand.buffer, extent.file_offset) {
            Ok(()) if reader.is_known_same(extent, &hand.buffer) => true,
            Ok(()) if extent.is_part(*size) => *hand.extents.read(extent)? == *hand.buffer,
            Ok(()) => false,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            // A disk that cannot be read any more is the best of reasons to restore.
            Err(error) if is_unreadable(&error) => false,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        progress.advance(u64::from(extent.length));
        if !same {
            found.push(number);
            bytes += u64::from(extent.length);
        }
    }
    Ok((found, bytes))
}

/// Does what the survey found. Interrupted at any moment, it is repeated by surveying again; until it is done nothing
/// starts on the folder. Like [`super::restore`], it needs [`super::recover`] afterwards.
pub fn restore_over(
    survey: &Survey,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let to = &survey.folder;
    check_not_running(to)?;
    check_cluster(to, survey.system_identifier)?;
    let _marker = Marker::place(to, survey.system_identifier, &options.user)?;
    let writer = Writer {
        reader: &survey.reader,
        user: Some(&options.user),
        folder_mode: survey.layout.folder_mode(),
        threads: options.threads,
        progress,
        written: AtomicU64::new(0),
    };
    progress.total(survey.bytes_changed + survey.bytes_new);
    let omissions = write(survey, &writer).map_err(|error| half_restored(to, error))?;
    let summary = survey.reader.summary();
    Ok(RestoreReport {
        files: summary.files,
        bytes: summary.bytes_source,
        bytes_written: writer.written.into_inner(),
        damaged: survey.reader.damaged_pages().to_vec(),
        aside: survey.aside.clone(),
        omissions,
    })
}

fn write(survey: &Survey, writer: &Writer<'_>) -> Result<Omissions> {
    let (to, layout) = (&survey.folder, &survey.layout);
    take_folder(to, writer.user, writer.folder_mode)?;
    if let Some(aside) = &survey.aside {
        make_private_folder(aside)?;
    }
    // From here on PostgreSQL does not start on it.
    let global = to.join("global");
    if global.is_symlink() {
        remove(&global)?;
        sync_folder(to)?;
    } else if global.is_dir() {
        remove(&to.join(CONTROL))?;
        sync_folder(&global)?;
    }
    writer.progress.message("clearing what does not belong");
    for surplus in &survey.surplus {
        surplus.clear(to, survey.aside.as_deref())?;
    }
    if let Some(aside) = &survey.aside {
        sync_folder(aside)?;
    }
    layout.claim_tablespaces(writer, |folder| !folder.is_dir())?;
    for folder in layout.tablespaces.values() {
        take_folder(folder, writer.user, writer.folder_mode)?;
    }
    layout.make_folders(writer)?;
    writer.progress.message("writing what differs");
    let patches: Vec<Patch<'_>> = survey
        .changed
        .iter()
        .map(|(number, extents)| Patch {
            entry: &layout.entries[*number],
            path: layout.place(&layout.entries[*number].path),
            extents,
        })
        .collect();
    writer.patches(&patches)?;
    let jobs: Vec<Job<'_>> = survey
        .new
        .iter()
        .map(|number| Job {
            entry: &layout.entries[*number],
            path: layout.place(&layout.entries[*number].path),
        })
        .collect();
    writer.files(&jobs)?;
    layout.finish(writer)
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey")
            .field("folder", &self.folder)
            .field("files_same", &self.files_same)
            .field("files_changed", &self.files_changed)
            .field("files_new", &self.files_new)
            .field("bytes_changed", &self.bytes_changed)
            .field("bytes_new", &self.bytes_new)
            .field("surplus", &self.surplus)
            .finish_non_exhaustive()
    }
}
