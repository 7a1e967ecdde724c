//! Writes the files of a backup with several threads. Every chunk was verified before its bytes are written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use postgres_physical::server::OsUser;
use repository::{BackupReader, Entry, EntryKind, Extent};

use crate::{Error, Progress, Result};

/// One thread writes this many chunks of a file at a time.
const UNIT_EXTENTS: usize = 8;

/// A file to write, and where.
pub(super) struct Job<'a> {
    pub(super) entry: &'a Entry,
    pub(super) path: PathBuf,
}

struct Unit<'a> {
    path: &'a Path,
    /// Made by the first thread that comes; `None` for files that are made before.
    create_mode: Option<u32>,
    extents: &'a [Extent],
}

pub(super) struct Writer<'a> {
    pub(super) reader: &'a BackupReader,
    pub(super) user: Option<&'a OsUser>,
    pub(super) threads: usize,
    pub(super) progress: &'a dyn Progress,
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
        fs::write(path, bytes).map_err(Error::io("write", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(Error::io("set the mode of", path))?;
        self.own(path)
    }

    pub(super) fn files(&self, jobs: &[Job<'_>]) -> Result<()> {
        let mut units = Vec::new();
        for job in jobs {
            let EntryKind::File { size, extents } = &job.entry.kind else {
                continue;
            };
            let mode = job.entry.mode;
            if extents.len() <= UNIT_EXTENTS {
                units.push(Unit {
                    path: &job.path,
                    create_mode: Some(mode),
                    extents,
                });
                continue;
            }
            let file = self.create(&job.path, mode)?;
            file.set_len(*size)
                .map_err(Error::io("extend", &job.path))?;
            let parts = extents.chunks(UNIT_EXTENTS);
            units.extend(parts.map(|extents| Unit {
                path: &job.path,
                create_mode: None,
                extents,
            }));
        }
        self.run(&units)
    }

    fn create(&self, path: &Path, mode: u32) -> Result<File> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o777)
            .open(path)
            .map_err(Error::io("create", path))?;
        self.own(path)?;
        Ok(file)
    }

    fn run(&self, units: &[Unit<'_>]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let worker = || {
            while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.unit(unit) {
                    failed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                    next.store(units.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(worker);
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn unit(&self, unit: &Unit<'_>) -> Result<()> {
        let file = match unit.create_mode {
            Some(mode) => self.create(unit.path, mode)?,
            None => OpenOptions::new()
                .write(true)
                .open(unit.path)
                .map_err(Error::io("open", unit.path))?,
        };
        for extent in unit.extents {
            if self.progress.cancelled() {
                return Err(Error::Cancelled(unit.path.to_owned()));
            }
            let bytes = self.reader.read_extent(extent)?;
            file.write_all_at(&bytes, extent.file_offset)
                .map_err(Error::io("write", unit.path))?;
            self.progress.advance(bytes.len() as u64);
        }
        Ok(())
    }
}

/// Refuses a folder that holds anything; makes it when it is missing.
pub(super) fn claim_folder(folder: &Path, user: Option<&OsUser>) -> Result<()> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(Error::NotEmpty(folder.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        Err(error) => return Err(Error::io("open", folder)(error)),
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .map_err(Error::io("set the mode of", folder))?;
    match user {
        Some(user) => Ok(user.own(folder)?),
        None => Ok(()),
    }
}

pub(super) fn check_space(folder: &Path, needed: u64) -> Result<()> {
    let existing = folder
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .map_err(|error| Error::io("look at", existing)(error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        return Err(Error::NoSpace {
            folder: folder.to_owned(),
            free,
            needed,
        });
    }
    Ok(())
}

/// Everything written so far to the file system of `folder` is on disk afterwards.
pub(super) fn sync_filesystem(folder: &Path) -> Result<()> {
    let dir = File::open(folder).map_err(Error::io("open", folder))?;
    rustix::fs::syncfs(&dir).map_err(|error| Error::io("sync", folder)(error.into()))
}
