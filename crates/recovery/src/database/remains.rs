//! What lies in a folder that is to be restored over: files of the backup, and what does not belong. Symbolic links are never
//! followed; the link itself is what is found, and what is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use repository::EntryKind;

use super::layout::{FIXED_FOLDERS, Layout, tablespace_of};
use super::marker::MARKER;
use super::restore::CONTROL;
use crate::{Error, Result};

/// Logs say what happened, and WAL may be newer than the repository's: both are moved aside, never deleted.
const LOG_FOLDERS: [&str; 2] = ["log", "pg_log"];
const TABLESPACES: &str = "pg_tblspc";

/// A file of the backup that is there, and can be mended in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) bytes: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
}

/// A file or folder that does not belong to the backup, or cannot be mended in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    pub path: PathBuf,
    pub bytes: u64,
    /// Moved aside instead of deleted.
    pub kept: bool,
    /// The backup has something of this name: it is made anew.
    pub replaced: bool,
}

#[derive(Debug, Default)]
pub(super) struct Remains {
    pub(super) files: BTreeMap<PathBuf, Found>,
    pub(super) surplus: Vec<Surplus>,
    /// Links among the surplus.
    pub(super) links: Vec<PathBuf>,
}

/// What the backup wants at each place.
struct Wanted {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Remains {
    pub(super) fn look(layout: &Layout) -> Result<Self> {
        let mut wanted = Wanted {
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
        remains.walk(&layout.to, &layout.to, &wanted)?;
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
            remains.item(&layout.to, &top, &wanted)?;
        }
        Ok(remains)
    }

    fn walk(&mut self, root: &Path, folder: &Path, wanted: &Wanted) -> Result<()> {
        let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(Error::io("list", folder))?.path());
        }
        paths.sort();
        for path in paths {
            self.item(root, &path, wanted)?;
        }
        Ok(())
    }

    fn item(&mut self, root: &Path, path: &Path, wanted: &Wanted) -> Result<()> {
        let meta = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("look at", path))?,
        };
        let (is_file, is_folder) = (wanted.files.contains(path), wanted.folders.contains(path));
        if meta.is_dir() && is_folder {
            return self.walk(root, path, wanted);
        }
        // A file with a second name is somebody else's, too: writing into it would change both.
        if meta.is_file() && is_file && meta.nlink() == 1 {
            let mode = meta.permissions().mode() & 0o777;
            let (bytes, uid) = (meta.len(), meta.uid());
            self.files
                .insert(path.to_owned(), Found { bytes, mode, uid });
            return Ok(());
        }
        if is_ours(root, path) {
            return Ok(());
        }
        // The links of tablespaces are always made anew.
        if meta.is_symlink() && path.parent() != Some(&root.join(TABLESPACES)) {
            self.links.push(path.to_owned());
        }
        let kept = is_kept(root, path, &meta);
        self.surplus.push(Surplus {
            bytes: bytes_below(path, &meta)?,
            path: path.to_owned(),
            kept,
            replaced: is_file || is_folder,
        });
        Ok(())
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

fn bytes_below(path: &Path, meta: &fs::Metadata) -> Result<u64> {
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let path = entry.map_err(Error::io("list", path))?.path();
        let meta = path
            .symlink_metadata()
            .map_err(Error::io("look at", &path))?;
        bytes += bytes_below(&path, &meta)?;
    }
    Ok(bytes)
}

impl Surplus {
    /// Gone when it is gone already: an interrupted restore is repeated.
    pub(super) fn clear(&self, root: &Path, aside: Option<&Path>) -> Result<()> {
        let kept = aside.filter(|_| self.kept);
        let inside = self.path.strip_prefix(root).ok();
        let (Some(aside), Some(inside)) = (kept, inside) else {
            return remove(&self.path);
        };
        let to = aside.join(inside);
        if let Some(parent) = to.parent() {
            make_private_folder(parent)?;
        }
        match fs::rename(&self.path, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::KeepAside {
                path: self.path.clone(),
                to,
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

/// WAL holds what the tables hold: not for everybody.
pub(super) fn make_private_folder(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(Error::io("create", path))
}

/// A file, a link (never what it points to), or a folder with all that is in it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
