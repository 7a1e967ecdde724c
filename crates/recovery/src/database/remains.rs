//! The content of a folder that a restore overwrites: files of the backup, files that do not belong, and what is not
//! ours. Symbolic links are never followed; the link itself is found and removed. A mount is not entered unless the
//! backup has a folder of that name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use postgres_physical::server::{OsUser, remove_tree};
use repository::backup::EntryKind;

use super::aside;
use super::destination::{is_kept_by_filesystem, mount_root};
use super::layout::{FIXED_FOLDERS, Layout, tablespace_of};
use super::marker::MARKER;
use super::restore::CONTROL;
use crate::{Error, Result};

/// Logs say what happened, and WAL may be newer than the repository's: both are moved aside, never deleted.
const LOG_FOLDERS: [&str; 2] = ["log", "pg_log"];
const TABLESPACES: &str = "pg_tblspc";

/// A file of the backup that is there, and can be mended in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReusableFile {
    pub(super) bytes: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
}

/// A file or folder that does not belong to the backup, or cannot be mended in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    pub path: PathBuf,
    pub bytes: u64,
    /// Of it and all that is in it.
    pub inodes: u64,
    /// Moved aside instead of deleted.
    pub kept: bool,
    /// The backup has something of this name: it is created again.
    pub replaced: bool,
    /// On another file system than what is beside the data folder: it cannot be moved there by renaming.
    pub across: bool,
}

/// What is not ours and stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    pub path: PathBuf,
    pub why: &'static str,
}

const MOUNTED: &str = "another file system is mounted there";
const KEPT: &str = "the file system keeps it";
const SPECIAL: &str = "it is neither a file nor a folder";

#[derive(Debug, Default)]
pub(super) struct Remains {
    pub(super) files: BTreeMap<PathBuf, ReusableFile>,
    pub(super) surplus: Vec<Surplus>,
    pub(super) foreign: Vec<Foreign>,
    /// Links among the surplus.
    pub(super) links: Vec<PathBuf>,
}

/// What the backup wants at each place.
struct ExpectedFiles<'a> {
    root: &'a Path,
    user: &'a OsUser,
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Remains {
    /// Of a folder that is restored over for this account.
    pub(super) fn look(layout: &Layout, user: &OsUser) -> Result<Self> {
        let mut wanted = ExpectedFiles {
            root: &layout.to,
            user,
            files: BTreeSet::new(),
            folders: FIXED_FOLDERS
                .iter()
                .map(|name| layout.to.join(name))
                .collect(),
        };
        for entry in &layout.entries {
            let path = layout.place(&entry.path);
            match entry.kind {
                EntryKind::Directory => drop(wanted.folders.insert(path)),
                EntryKind::File { .. } if Layout::is_plain_file(entry) => {
                    wanted.files.insert(path);
                }
                _ => {}
            }
        }
        let mut remains = Self::default();
        let across = mount_root(&layout.to)?;
        remains.walk(&layout.to, across, &wanted)?;
        // Of a tablespace's folder only what this version of PostgreSQL makes there is ours to judge.
        let tops: BTreeSet<PathBuf> = layout
            .entries
            .iter()
            .filter_map(|entry| {
                let (oid, rest) = tablespace_of(&entry.path)?;
                let top = rest.split('/').next().filter(|top| !top.is_empty())?;
                Some(layout.tablespaces.get(&oid)?.join(top))
            })
            .collect();
        for top in tops {
            remains.item(&top, true, &wanted)?;
        }
        Ok(remains)
    }

    /// `across`: on another file system than what is beside the data folder.
    fn walk(&mut self, folder: &Path, across: bool, wanted: &ExpectedFiles<'_>) -> Result<()> {
        let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(Error::io("list", folder))?.path());
        }
        paths.sort();
        for path in paths {
            self.item(&path, across, wanted)?;
        }
        Ok(())
    }

    fn item(&mut self, path: &Path, across: bool, wanted: &ExpectedFiles<'_>) -> Result<()> {
        let meta = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("look at", path))?,
        };
        let (is_file, is_folder) = (wanted.files.contains(path), wanted.folders.contains(path));
        if is_kept_by_filesystem(path) && !is_file && !is_folder {
            return self.stays(path, KEPT);
        }
        let mounted = mount_root(path)?;
        let across = across || mounted;
        if meta.is_dir() && is_folder {
            wanted.check_owner(path, &meta)?;
            return self.walk(path, across, wanted);
        }
        if mounted && (is_file || is_folder) {
            return Err(Error::MountInTheWay(path.to_owned()));
        }
        // A file with a second name is somebody else's, too: writing into it would change both.
        if meta.is_file() && is_file && meta.nlink() == 1 {
            wanted.check_owner(path, &meta)?;
            let mode = meta.permissions().mode() & 0o777;
            let (bytes, uid) = (meta.len(), meta.uid());
            self.files
                .insert(path.to_owned(), ReusableFile { bytes, mode, uid });
            return Ok(());
        }
        if is_ours(wanted.root, path) {
            return Ok(());
        }
        let kept = is_kept(wanted.root, path, &meta);
        if mounted && !kept {
            return self.stays(path, MOUNTED);
        }
        let kind = meta.file_type();
        if kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            return self.stays(path, SPECIAL);
        }
        // The links of tablespaces are always created again.
        if meta.is_symlink() && path.parent() != Some(&wanted.root.join(TABLESPACES)) {
            self.links.push(path.to_owned());
        }
        let below = Below::look(path, &meta)?;
        if below.holds_foreign {
            // What is mounted inside stays, and the way there with it.
            return self.walk(path, across, wanted);
        }
        self.surplus.push(Surplus {
            bytes: below.bytes,
            inodes: below.inodes,
            path: path.to_owned(),
            kept,
            replaced: is_file || is_folder,
            across,
        });
        Ok(())
    }

    fn stays(&mut self, path: &Path, why: &'static str) -> Result<()> {
        let path = path.to_owned();
        self.foreign.push(Foreign { path, why });
        Ok(())
    }
}

impl ExpectedFiles<'_> {
    /// Root may give it to whom it belongs; anybody else has to own what he mends.
    fn check_owner(&self, path: &Path, meta: &fs::Metadata) -> Result<()> {
        if meta.uid() == self.user.uid || rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(Error::NotOwned {
            path: path.to_owned(),
            uid: meta.uid(),
            user: self.user.name.clone(),
        })
    }
}

/// Handled by itself: removed first and written last, or removed at the end.
fn is_ours(root: &Path, path: &Path) -> bool {
    path == root.join(MARKER) || path == root.join(CONTROL)
}

fn is_kept(root: &Path, path: &Path, meta: &fs::Metadata) -> bool {
    let Ok(inside) = path.strip_prefix(root) else {
        return false;
    };
    let parts: Vec<&str> = inside
        .components()
        .filter_map(|part| part.as_os_str().to_str())
        .collect();
    match parts.as_slice() {
        // The folders in it only say which segments were archived, or hold copies.
        ["pg_wal", _] => meta.is_file(),
        [top, ..] => LOG_FOLDERS.contains(top) && !meta.is_symlink(),
        [] => false,
    }
}

/// All that is in something that does not belong.
#[derive(Debug, Default)]
struct Below {
    bytes: u64,
    inodes: u64,
    holds_foreign: bool,
}

impl Below {
    fn look(path: &Path, meta: &fs::Metadata) -> Result<Self> {
        if !meta.is_dir() {
            let bytes = meta.len();
            return Ok(Self {
                bytes,
                // One with a second name stays under that.
                inodes: u64::from(meta.nlink() == 1),
                holds_foreign: false,
            });
        }
        let mut all = Self {
            inodes: 1,
            ..Self::default()
        };
        for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
            let path = entry.map_err(Error::io("list", path))?.path();
            let meta = path
                .symlink_metadata()
                .map_err(Error::io("look at", &path))?;
            if mount_root(&path)? {
                all.holds_foreign = true;
                continue;
            }
            let below = Self::look(&path, &meta)?;
            all.bytes += below.bytes;
            all.inodes += below.inodes;
            all.holds_foreign |= below.holds_foreign;
        }
        Ok(all)
    }
}

impl Surplus {
    /// Gone when it is gone already: an interrupted restore is repeated.
    pub(super) fn clear(&self, root: &Path, aside: Option<&Path>) -> Result<()> {
        let kept = aside.filter(|_| self.kept);
        let inside = self.path.strip_prefix(root).ok();
        let (Some(aside), Some(inside)) = (kept, inside) else {
            return remove(&self.path);
        };
        aside::keep(&self.path, &aside.join(inside), self.across)
    }
}

/// A file, a link (never what it points to), or a folder with all that is in it. Nothing when something is mounted
/// there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    Ok(remove_tree(path)?)
}
