//! Writes the files of a backup with several threads, each file by one of them. Each chunk is verified before its bytes
//! are written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use postgres_physical::server::OsUser;
use repository::backup::{BackupReader, Entry, EntryKind, Extent, ExtentReader};

use super::destination::{is_occupied, make_folders_to};
use super::direct::{Output, Staging};
use crate::{Error, Progress, Result};

/// What is compared, and written, at once where only differences are.
const PAGE: usize = 8192;

/// A file to write, and where.
pub(super) struct Job<'a> {
    pub(super) entry: &'a Entry,
    pub(super) path: PathBuf,
}

/// A file that is there; only these of its extents (by number) differ, or may.
pub(super) struct Patch<'a> {
    pub(super) entry: &'a Entry,
    pub(super) path: PathBuf,
    pub(super) extents: &'a [usize],
}

pub(super) struct Writer<'a> {
    pub(super) reader: &'a BackupReader,
    pub(super) user: Option<&'a OsUser>,
    /// Of the data folder: whether the source lets its group read.
    pub(super) folder_mode: u32,
    pub(super) threads: usize,
    pub(super) progress: &'a dyn Progress,
    /// Bytes that were really written.
    pub(super) written: AtomicU64,
}

/// What one thread holds.
pub(super) struct Hand<'a> {
    pub(super) extents: ExtentReader<'a>,
    staging: Staging,
    pub(super) buffer: Vec<u8>,
}

impl<'a> Hand<'a> {
    pub(super) fn new(reader: &'a BackupReader) -> Self {
        Self {
            extents: reader.extent_reader(),
            staging: Staging::new(),
            buffer: Vec::new(),
        }
    }
}

/// Runs `work` on every item with several threads; the first error ends all.
pub(super) fn in_parallel<T: Sync, S>(
    threads: usize,
    items: &[T],
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let worker = || {
        let mut state = begin();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(&mut state, item) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(worker);
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Writer<'_> {
    pub(super) fn folder(&self, path: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("create", path)(error))
            }
            _ => self.own(path),
        }
    }

    pub(super) fn own(&self, path: &Path) -> Result<()> {
        match self.user {
            Some(user) => Ok(user.own(path)?),
            None => Ok(()),
        }
    }

    /// A small file made by us.
    pub(super) fn text(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("write", path))?;
        std::io::Write::write_all(&mut file, bytes).map_err(Error::io("write", path))?;
        self.like_others(path)
    }

    /// Mode and owner of a file that is there.
    pub(super) fn like_others(&self, path: &Path) -> Result<()> {
        let mode = 0o600 | (self.folder_mode & 0o040);
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(Error::io("set the mode of", path))?;
        self.own(path)
    }

    /// Makes new files.
    pub(super) fn files(&self, jobs: &[Job<'_>]) -> Result<()> {
        let mut order: Vec<&Job<'_>> = jobs.iter().collect();
        // The biggest first, so that no thread is left alone with one at the end.
        order.sort_by_key(|job| std::cmp::Reverse(size_of(job.entry)));
        let begin = || Hand::new(self.reader);
        in_parallel(self.threads, &order, begin, |hand, job| {
            self.file(hand, job)
        })
    }

    fn file(&self, hand: &mut Hand<'_>, job: &Job<'_>) -> Result<()> {
        let EntryKind::File { size, extents } = &job.entry.kind else {
            return Ok(());
        };
        let mode = job.entry.mode & 0o777;
        let mut output = Output::create(&job.path, mode, *size, &mut hand.staging)
            .map_err(Error::io("create", &job.path))?;
        self.own(&job.path)?;
        for extent in extents {
            self.check_cancelled(&job.path)?;
            let bytes = hand.extents.read(extent)?;
            output.write(bytes).map_err(Error::io("write", &job.path))?;
            self.progress.advance(bytes.len() as u64);
        }
        self.written.fetch_add(*size, Ordering::Relaxed);
        output.finish().map_err(Error::io("write", &job.path))
    }

    /// Makes files that are there what they should be, writing only what differs.
    pub(super) fn patches(&self, patches: &[Patch<'_>]) -> Result<()> {
        let begin = || Hand::new(self.reader);
        in_parallel(self.threads, patches, begin, |hand, patch| {
            self.patch(hand, patch)
        })
    }

    fn patch(&self, hand: &mut Hand<'_>, patch: &Patch<'_>) -> Result<()> {
        let EntryKind::File { size, extents } = &patch.entry.kind else {
            return Ok(());
        };
        let path = &patch.path;
        let file = open_plain(path, true).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("look at", path))?.len();
        if length != *size {
            file.set_len(*size).map_err(Error::io("cut", path))?;
        }
        for extent in patch
            .extents
            .iter()
            .filter_map(|number| extents.get(*number))
        {
            self.check_cancelled(path)?;
            let bytes = hand.extents.read(extent)?;
            hand.buffer.resize(bytes.len(), 0);
            if let Err(error) = file.read_exact_at(&mut hand.buffer, extent.file_offset) {
                if !is_unreadable(&error) {
                    return Err(Error::io("read", path)(error));
                }
                // What the disk cannot read any more differs for certain.
                hand.buffer.clear();
            }
            let written = write_differences(&file, extent, bytes, &hand.buffer)
                .map_err(Error::io("write", path))?;
            self.written.fetch_add(written, Ordering::Relaxed);
            self.progress.advance(bytes.len() as u64);
        }
        let mode = Permissions::from_mode(patch.entry.mode & 0o777);
        file.set_permissions(mode)
            .map_err(Error::io("set the mode of", path))?;
        self.own(path)
    }

    pub(super) fn check_cancelled(&self, path: &Path) -> Result<()> {
        if self.progress.cancelled() {
            return Err(Error::Cancelled(path.to_owned()));
        }
        Ok(())
    }
}

fn write_differences(
    file: &File,
    extent: &Extent,
    wanted: &[u8],
    found: &[u8],
) -> std::io::Result<u64> {
    let mut written = 0;
    if found.len() != wanted.len() {
        file.write_all_at(wanted, extent.file_offset)?;
        return Ok(wanted.len() as u64);
    }
    let differs = |at: &usize| {
        wanted[*at..wanted.len().min(at + PAGE)] != found[*at..found.len().min(at + PAGE)]
    };
    let mut pages = (0..wanted.len()).step_by(PAGE).peekable();
    while let Some(start) = pages.next() {
        if !differs(&start) {
            continue;
        }
        let mut end = start + PAGE;
        while let Some(next) = pages.next_if(|at| differs(at)) {
            end = next + PAGE;
        }
        let run = &wanted[start..end.min(wanted.len())];
        file.write_all_at(run, extent.file_offset + start as u64)?;
        written += run.len() as u64;
    }
    Ok(written)
}

/// The disk's own fault.
pub(super) fn is_unreadable(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn size_of(entry: &Entry) -> u64 {
    match entry.kind {
        EntryKind::File { size, .. } => size,
        _ => 0,
    }
}

/// Fails on a symbolic link.
pub(super) fn open_plain(path: &Path, write: bool) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Refuses a folder that holds anything.
pub(super) fn check_free(folder: &Path) -> Result<()> {
    if !is_occupied(folder)? {
        return Ok(());
    }
    Err(match super::marker::is_half_restored(folder) {
        true => Error::HalfRestored(folder.to_owned()),
        false => Error::NotEmpty(folder.to_owned()),
    })
}

/// The same; makes it when it is missing.
pub(super) fn claim_folder(folder: &Path, user: Option<&OsUser>, mode: u32) -> Result<()> {
    check_free(folder)?;
    make_folders_to(folder, mode)?;
    take_folder(folder, user, mode)
}

/// For PostgreSQL's account, and as much for its group as the source allows.
pub(super) fn take_folder(folder: &Path, user: Option<&OsUser>, mode: u32) -> Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", folder))?;
    match user {
        Some(user) => Ok(user.own(folder)?),
        None => Ok(()),
    }
}

/// Everything written so far to the file system of `folder` is on disk afterwards.
pub(super) fn sync_filesystem(folder: &Path) -> Result<()> {
    let dir = File::open(folder).map_err(Error::io("open", folder))?;
    rustix::fs::syncfs(&dir).map_err(|error| Error::io("sync", folder)(error.into()))
}

/// The names in a folder are on disk afterwards.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", folder))
}
