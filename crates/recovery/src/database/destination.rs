//! The folders that a restore writes into, checked before anything is touched: what a file system keeps there for
//! itself, where other file systems begin, and how much room each has.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use postgres_physical::server::is_mount_root;
use rustix::fs::StatVfsMountFlags;

use super::writing::sync_filesystem;
use crate::{Error, Result};

/// What file systems, and those who look after them, put into a root: no content, and never ours.
const KEPT_BY_FILESYSTEMS: [&str; 8] = [
    "lost+found",
    ".snapshot",
    ".snapshots",
    ".zfs",
    "aquota.user",
    "aquota.group",
    "quota.user",
    "quota.group",
];

pub(super) fn is_kept_by_filesystem(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| KEPT_BY_FILESYSTEMS.contains(&name))
}

/// The same of a path in a backup, whose source may have been the root of a file system.
pub(super) fn is_in_kept_by_filesystem(path: &str) -> bool {
    path.split('/')
        .any(|part| KEPT_BY_FILESYSTEMS.contains(&part))
}

pub(super) fn mount_root(path: &Path) -> Result<bool> {
    match is_mount_root(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        other => other.map_err(Error::io("look at", path)),
    }
}

/// Whether a folder holds anything that a restore would have to go over. What a file system keeps for itself does not
/// count, nor does an empty file system that is mounted inside, as one prepared for `pg_wal` is. A folder that is not
/// there holds nothing.
pub fn is_occupied(folder: &Path) -> Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(Error::io("open", folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let is_free = is_kept_by_filesystem(&path) || is_empty_mount(&path)?;
        if !is_free {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_empty_mount(path: &Path) -> Result<bool> {
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) || !mount_root(path)? {
        return Ok(false);
    }
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        if !is_kept_by_filesystem(&entry.map_err(Error::io("list", path))?.path()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What will be written to one file system, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The first place on it that was asked about.
    pub folder: PathBuf,
    /// Bytes, less those that are freed before.
    pub needed: u64,
    pub free: u64,
    /// Files and folders, less those that are deleted before: each takes an inode.
    pub inodes_needed: u64,
    /// `None`: the file system makes them as they are asked for.
    pub inodes_free: Option<u64>,
}

#[derive(Debug, Default)]
struct Account {
    folder: PathBuf,
    needed: u64,
    freed: u64,
    inodes_needed: u64,
    inodes_freed: u64,
}

/// Adds up by device.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    devices: BTreeMap<u64, Account>,
    /// A folder holds many files.
    known: BTreeMap<PathBuf, u64>,
}

impl Rooms {
    pub(super) fn need(&mut self, place: &Path, bytes: u64) -> Result<()> {
        let account = self.account(place)?;
        account.needed = account.needed.saturating_add(bytes);
        Ok(())
    }

    /// For so many files or folders.
    pub(super) fn need_inodes(&mut self, place: &Path, count: u64) -> Result<()> {
        let account = self.account(place)?;
        account.inodes_needed = account.inodes_needed.saturating_add(count);
        Ok(())
    }

    pub(super) fn free(&mut self, place: &Path, bytes: u64, inodes: u64) -> Result<()> {
        let account = self.account(place)?;
        account.freed = account.freed.saturating_add(bytes);
        account.inodes_freed = account.inodes_freed.saturating_add(inodes);
        Ok(())
    }

    /// Of the nearest folder that is there.
    fn account(&mut self, place: &Path) -> Result<&mut Account> {
        let parent = place.parent().unwrap_or(place);
        let device = match self.known.get(parent) {
            Some(device) => *device,
            None => {
                let existing = existing(parent);
                let meta = fs::metadata(existing).map_err(Error::io("look at", existing))?;
                self.known.insert(parent.to_owned(), meta.dev());
                meta.dev()
            }
        };
        Ok(self.devices.entry(device).or_insert_with(|| Account {
            folder: existing(parent).to_owned(),
            ..Account::default()
        }))
    }

    /// What each has; fails where it is not enough, or nothing can be written.
    pub(super) fn check(self) -> Result<Vec<Room>> {
        let mut rooms = Vec::new();
        for account in self.devices.into_values() {
            let folder = account.folder;
            let stat = rustix::fs::statvfs(&folder)
                .map_err(|error| Error::io("look at", &folder)(error.into()))?;
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let needed = account.needed.saturating_sub(account.freed);
            if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
                return Err(Error::ReadOnly(folder));
            }
            if free < needed {
                return Err(Error::NoSpace {
                    folder,
                    free,
                    needed,
                });
            }
            // Where they are made as they are asked for, none are counted.
            let inodes_free = (stat.f_files > 0).then_some(stat.f_favail);
            let inodes_needed = account.inodes_needed.saturating_sub(account.inodes_freed);
            if let Some(free) = inodes_free.filter(|free| *free < inodes_needed) {
                return Err(Error::NoInodes {
                    folder,
                    free,
                    needed: inodes_needed,
                });
            }
            rooms.push(Room {
                folder,
                needed,
                free,
                inodes_needed,
                inodes_free,
            });
        }
        Ok(rooms)
    }
}

fn existing(path: &Path) -> &Path {
    let found = path.ancestors().find(|path| path.exists());
    found.unwrap_or(Path::new("/"))
}

/// Makes a folder that is missing, with those above it. `mode` is the folder's, regardless of the umask; those above it
/// are never writable for others.
pub(super) fn make_folders_to(folder: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = folder.parent().filter(|parent| !parent.exists()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder
            .create(parent)
            .map_err(Error::io("create", parent))?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::io("create", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Everything written so far to any of these places is on disk afterwards: each file system once.
pub(super) fn sync_filesystems<'a>(places: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut synced = Vec::new();
    for place in places {
        let device = fs::metadata(place)
            .map_err(Error::io("look at", place))?
            .dev();
        if !synced.contains(&device) {
            synced.push(device);
            sync_filesystem(place)?;
        }
    }
    Ok(())
}

/// Every file system that a data folder is on: its own, those mounted at PostgreSQL's folders, and the tablespaces'.
/// Of others nothing is waited for.
pub(super) fn sync_cluster(dir: &Path) -> Result<()> {
    let mut places = vec![dir.to_owned()];
    let folders = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        // Of a link what it leads to: so the tablespaces are found.
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.is_dir()).collect()
    };
    let is_postgres = |top: &PathBuf| {
        let name = top.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("pg_") || ["base", "global"].contains(&name.as_ref())
    };
    for top in folders(dir).into_iter().filter(is_postgres) {
        if ["base", "pg_tblspc"]
            .iter()
            .any(|name| dir.join(name) == top)
        {
            places.extend(folders(&top));
        }
        places.push(top);
    }
    sync_filesystems(places.iter().map(PathBuf::as_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_only_what_a_file_system_keeps_is_free() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("target");
        assert!(!is_occupied(&folder).unwrap());
        fs::create_dir_all(folder.join("lost+found/#12")).unwrap();
        fs::create_dir(folder.join(".snapshot")).unwrap();
        assert!(!is_occupied(&folder).unwrap());
        // A plain folder of that name is somebody's.
        fs::create_dir(folder.join("pg_wal")).unwrap();
        assert!(is_occupied(&folder).unwrap());
    }

    #[test]
    fn room_is_counted_by_device_and_what_is_freed_counts() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("not/there/yet/file");
        let mut rooms = Rooms::default();
        rooms.need(&place, 1000).unwrap();
        rooms.need(&root.path().join("other"), 500).unwrap();
        rooms.need_inodes(&place, 5).unwrap();
        rooms.free(&place, 300, 2).unwrap();
        let rooms = rooms.check().unwrap();
        assert_eq!(rooms.len(), 1, "{rooms:?}");
        assert_eq!((rooms[0].needed, rooms[0].inodes_needed), (1200, 3));
        let mut rooms = Rooms::default();
        rooms.need(&place, u64::MAX).unwrap();
        assert!(matches!(rooms.check(), Err(Error::NoSpace { .. })));
        let mut rooms = Rooms::default();
        rooms.need(Path::new("/proc/file"), 1).unwrap();
        assert!(rooms.check().is_err());
    }
}
