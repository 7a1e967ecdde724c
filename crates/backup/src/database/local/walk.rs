//! What a data folder holds, as the server's own base backup would send it. Read after the backup has begun: what comes
//! later comes with WAL, what is gone by the time it is read is removed by WAL.

use super::exclusions::{holds_relations, is_copied_empty, is_left_out, is_relation_left_out};
use super::reach::CONTROL;
use crate::{BackupError, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) folders: Vec<Folder>,
    /// Everything but `pg_control`.
    pub(super) files: Vec<SourceFile>,
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
    /// Neither file nor folder, and not data: sockets, links to logs.
    pub(super) skipped: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) mtime_micros: i64,
}

#[derive(Debug)]
pub(super) struct SourceFile {
    /// In the backup.
    pub(super) path: String,
    /// On this machine.
    pub(super) place: PathBuf,
    /// When it was found.
    pub(super) size: u64,
}

/// `version_folder`: what each tablespace keeps this cluster's files in, `PG_15_202209061`.
pub(super) fn walk(data: &Path, version_folder: &str) -> Result<Tree> {
    let mut walk = Walk {
        tree: Tree::default(),
        skip: BTreeSet::new(),
    };
    walk.find_tablespaces(data)?;
    walk.folder(data, "")?;
    for (oid, location) in walk.tree.tablespaces.clone() {
        let place = location.join(version_folder);
        // Gone since: it was dropped.
        if let Some(meta) = look(&place)? {
            let path = format!("pg_tblspc/{oid}/{version_folder}");
            walk.tree.note_folder(&path, &meta);
            walk.folder(&place, &format!("{path}/"))?;
        }
    }
    Ok(walk.tree)
}

struct Walk {
    tree: Tree,
    /// Tablespaces inside the data folder: they are walked as tablespaces.
    skip: BTreeSet<PathBuf>,
}

impl Walk {
    fn find_tablespaces(&mut self, data: &Path) -> Result<()> {
        let folder = data.join("pg_tblspc");
        for name in names(&folder)?.unwrap_or_default() {
            let link = folder.join(&name);
            let (Ok(oid), Some(meta)) = (name.parse(), look(&link)?) else {
                continue;
            };
            if !meta.is_symlink() {
                return Err(BackupError::Source(format!(
                    "{} is a tablespace inside the data folder (allow_in_place_tablespaces), which is for PostgreSQL's \
                     own tests: move its tables elsewhere",
                    link.display()
                )));
            }
            let location = fs::read_link(&link).map_err(BackupError::file("read", &link))?;
            self.skip.extend(fs::canonicalize(&location));
            self.tree.tablespaces.insert(oid, location);
        }
        Ok(())
    }

    /// `prefix`: what stands before its names in the backup, with a `/` at its end.
    fn folder(&mut self, place: &Path, prefix: &str) -> Result<()> {
        let Some(names) = names(place)? else {
            return Ok(());
        };
        let relations = holds_relations(prefix.trim_end_matches('/'));
        for name in &names {
            if is_left_out(name) || (relations && is_relation_left_out(name, &names)) {
                continue;
            }
            let (place, path) = (place.join(name), format!("{prefix}{name}"));
            if path == CONTROL {
                continue;
            }
            let Some(meta) = look(&place)? else {
                continue;
            };
            if is_copied_empty(name) || path == "pg_tblspc" {
                self.tree.note_folder(&path, &meta);
            } else if path == "pg_wal" {
                self.tree.note_folder(&path, &meta);
                self.tree.note_folder("pg_wal/archive_status", &meta);
            } else if meta.is_dir() {
                self.tree.note_folder(&path, &meta);
                if !self.is_tablespace(&place) {
                    self.folder(&place, &format!("{path}/"))?;
                }
            } else if meta.is_file() {
                self.tree.files.push(SourceFile {
                    path,
                    place,
                    size: meta.len(),
                });
            } else {
                refuse_data(&path, &place, &meta)?;
                self.tree.skipped.push(path);
            }
        }
        Ok(())
    }

    fn is_tablespace(&self, place: &Path) -> bool {
        !self.skip.is_empty()
            && fs::canonicalize(place).is_ok_and(|place| self.skip.contains(&place))
    }
}

/// The server's own base backup leaves out whatever is no plain file, with a warning. Of data that would be a loss that
/// nobody notices.
fn refuse_data(path: &str, place: &Path, meta: &Metadata) -> Result<()> {
    let top = path.split('/').next().unwrap_or_default();
    let is_data = top == "base" || top == "global" || (top.starts_with("pg_") && top != "pg_log");
    let is_folder = fs::metadata(place).is_ok_and(|target| target.is_dir());
    if is_data && (path.contains('/') || is_folder) {
        let kind = match meta.is_symlink() {
            true => {
                "a symbolic link; PostgreSQL's own base backup would leave out what it leads to"
            }
            false => "neither a file nor a folder",
        };
        return Err(BackupError::Source(format!(
            "{} is {kind}. Put a real folder in its place, or make it a tablespace",
            place.display()
        )));
    }
    Ok(())
}

impl Tree {
    fn note_folder(&mut self, path: &str, meta: &Metadata) {
        self.folders.push(Folder {
            path: path.to_owned(),
            // A link becomes a folder.
            mode: match meta.is_dir() {
                true => meta.mode() & 0o7777,
                false => 0o700,
            },
            mtime_micros: meta.mtime() * 1_000_000,
        });
    }

    /// The big ones first: so no thread is left alone with one at the end.
    pub(super) fn sort_for_threads(&mut self) {
        self.files
            .sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// `None`: the folder is gone.
fn names(folder: &Path) -> Result<Option<BTreeSet<String>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(BackupError::file("read", folder))?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry
            .map_err(BackupError::file("read", folder))?
            .file_name();
        let name = name.into_string().map_err(|name| {
            BackupError::Source(format!(
                "{} is not named in UTF-8: rename it",
                folder.join(name).display()
            ))
        })?;
        names.insert(name);
    }
    Ok(Some(names))
}

/// `None`: it is gone.
fn look(place: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(BackupError::file("look at", place)),
    }
}

/// `PG_15_202209061`
pub(super) fn version_folder(pg_version: u32, catalog_version: u32) -> String {
    format!("PG_{}_{catalog_version}", pg_version / 10_000)
}
