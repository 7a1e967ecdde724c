//! `bre_half_restored`: the file that marks a folder as being restored. It exists from before the first change until
//! the folder is whole, and its lock keeps two restores apart.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use postgres_physical::server::OsUser;

use super::writing::{open_plain, sync_folder};
use repository::FileLock;

use crate::{Error, Result};

pub(super) const MARKER: &str = "bre_half_restored";
const SYSTEM: &str = "system identifier: ";

/// Locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Marker {
    folder: PathBuf,
    lock: FileLock,
}

pub(crate) fn is_half_restored(folder: &Path) -> bool {
    folder.join(MARKER).symlink_metadata().is_ok()
}

/// Whose folder it was when it was marked.
pub(super) fn marked_system(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join(MARKER)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(SYSTEM))?;
    line.trim().parse().ok()
}

impl Marker {
    /// Durable when it returns.
    pub(super) fn place(folder: &Path, system_identifier: u64, user: &OsUser) -> Result<Self> {
        let path = folder.join(MARKER);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(Error::io("write", &path))?;
        let marker = Self::locked(folder, file)?;
        user.own(&path)?;
        let text = format!(
            "This folder is half restored: PostgreSQL must not be started on it.\n\
             Repeat the restore with --delta to continue from here, or delete the folder.\n\
             {SYSTEM}{system_identifier}\n"
        );
        if marked_system(folder) != Some(system_identifier) {
            let mut file = marker.lock.file();
            file.set_len(0)
                .and_then(|()| file.write_all(text.as_bytes()))
                .and_then(|()| file.sync_all())
                .map_err(Error::io("write", &path))?;
            sync_folder(folder)?;
        }
        Ok(marker)
    }

    /// Takes up a marker that is there.
    pub(crate) fn take_up(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MARKER);
        match open_plain(&path, true) {
            Ok(file) => Self::locked(folder, file).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    fn locked(folder: &Path, file: File) -> Result<Self> {
        match FileLock::try_take(file) {
            Ok(Some(lock)) => Ok(Self {
                folder: folder.to_owned(),
                lock,
            }),
            Ok(None) => Err(Error::Busy(folder.to_owned())),
            Err(error) => Err(Error::io("lock", folder.join(MARKER))(error)),
        }
    }

    /// The folder is whole.
    pub(crate) fn remove(self) -> Result<()> {
        let path = self.folder.join(MARKER);
        fs::remove_file(&path).map_err(Error::io("remove", path))?;
        sync_folder(&self.folder)
    }
}
