//! Writes a data folder from a backup. `global/pg_control` comes last: without it nothing starts.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use postgres_physical::server::{OsUser, check_traversable};
use repository::{BackupReader, Entry, EntryKind, RecipientPrivate, Repository};

use super::plan::Plan;
use super::settings;
use super::writing::{Job, Writer, check_space, claim_folder, sync_filesystem};
use crate::{Error, Progress, Result};

pub(super) const CONTROL: &str = "global/pg_control";
const LABEL: &str = "backup_label";
const TABLESPACE_MAP: &str = "tablespace_map";
pub(super) const MANIFEST: &str = "backup_manifest";

#[derive(Debug, Clone)]
pub struct RestoreOptions {
    pub threads: usize,
    /// Who the folder will belong to; usually [`OsUser::for_server`].
    pub user: OsUser,
    /// Where each tablespace (by oid) goes; without an entry, beside the data folder in `<folder>.tablespaces/<oid>`.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

impl RestoreOptions {
    #[must_use]
    pub fn new(user: OsUser) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            threads: cores.clamp(2, 8),
            user,
            tablespaces: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub files: u64,
    pub bytes: u64,
}

/// Restores the backup of a plan into an empty or new folder. The result needs [`super::recover`] before it can be used;
/// interrupted or failed, it cannot be started.
pub fn restore(
    repository: &Repository,
    private: &RecipientPrivate,
    plan: &Plan,
    to: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<Restored> {
    let reader = BackupReader::open(repository, private, &plan.backup.id)?;
    reader.check_packs()?;
    let to = std::path::absolute(to).map_err(Error::io("resolve", to))?;
    let layout = Layout::new(&reader, &to, options)?;
    // Everything that can be refused is refused before the first byte.
    check_space(&to, plan.backup.bytes_source + plan.segment_bytes * 4)?;
    for folder in layout.tablespaces.values().chain([&to]) {
        claim_folder(folder, Some(&options.user))?;
        check_traversable(folder, &options.user)?;
    }
    progress.total(plan.backup.bytes_source);
    progress.message("writing files");
    let writer = Writer {
        reader: &reader,
        user: Some(&options.user),
        threads: options.threads,
        progress,
    };
    layout.write(&writer).map_err(|error| match error {
        Error::Cancelled(_) => Error::Cancelled(to.clone()),
        error => Error::Incomplete {
            folder: to.clone(),
            error: Box::new(error),
        },
    })?;
    Ok(Restored {
        files: plan.backup.files,
        bytes: plan.backup.bytes_source,
    })
}

/// What goes where.
struct Layout<'a> {
    to: &'a Path,
    entries: Vec<Entry>,
    tablespaces: BTreeMap<u32, PathBuf>,
}

impl<'a> Layout<'a> {
    fn new(reader: &BackupReader, to: &'a Path, options: &RestoreOptions) -> Result<Self> {
        let entries = reader.entries()?;
        for path in [CONTROL, LABEL] {
            if !entries.iter().any(|entry| entry.path == path) {
                return Err(Error::NoSuchFile {
                    backup: reader.summary().id.clone(),
                    path,
                });
            }
        }
        let beside = |oid: u32| PathBuf::from(format!("{}.tablespaces/{oid}", to.display()));
        let mut tablespaces = BTreeMap::new();
        for (oid, _) in entries
            .iter()
            .filter_map(|entry| tablespace_of(&entry.path))
        {
            let chosen = options.tablespaces.get(&oid).cloned();
            tablespaces.insert(oid, chosen.unwrap_or_else(|| beside(oid)));
        }
        Ok(Self {
            to,
            entries,
            tablespaces,
        })
    }

    fn place(&self, path: &str) -> PathBuf {
        if let Some((oid, rest)) = tablespace_of(path)
            && let Some(folder) = self.tablespaces.get(&oid)
        {
            return folder.join(rest);
        }
        self.to.join(path)
    }

    fn write(&self, writer: &Writer<'_>) -> Result<()> {
        let mut jobs = Vec::new();
        let mut control = Vec::new();
        for entry in &self.entries {
            let path = self.place(&entry.path);
            match &entry.kind {
                EntryKind::Directory if path != self.to => writer.folder(&path)?,
                EntryKind::Directory => {}
                // Tablespaces get links of their own below; others do not occur in a data folder.
                EntryKind::Symlink { .. } => {}
                EntryKind::File { .. } if entry.path == CONTROL => {
                    control.push(Job { entry, path })
                }
                EntryKind::File { .. }
                    if [MANIFEST, TABLESPACE_MAP].contains(&entry.path.as_str()) => {}
                EntryKind::File { .. } => jobs.push(Job { entry, path }),
            }
        }
        for folder in ["pg_wal", "pg_wal/archive_status", "pg_tblspc"] {
            writer.folder(&self.to.join(folder))?;
        }
        writer.files(&jobs)?;
        self.link_tablespaces(writer)?;
        settings::make_private(self.to, writer)?;
        for (entry, path) in self
            .entries
            .iter()
            .map(|entry| (entry, self.place(&entry.path)))
        {
            if entry.kind == EntryKind::Directory && path != self.to {
                let mode = Permissions::from_mode(entry.mode & 0o777);
                fs::set_permissions(&path, mode).map_err(Error::io("set the mode of", &path))?;
            }
        }
        sync_filesystem(self.to)?;
        for folder in self.tablespaces.values() {
            sync_filesystem(folder)?;
        }
        writer.files(&control)?;
        sync_filesystem(self.to)
    }

    fn link_tablespaces(&self, writer: &Writer<'_>) -> Result<()> {
        let mut map = String::new();
        for (oid, folder) in &self.tablespaces {
            let link = self.to.join("pg_tblspc").join(oid.to_string());
            symlink(folder, &link).map_err(Error::io("create", &link))?;
            // PostgreSQL makes the links again from this when recovery starts.
            let escaped = folder
                .display()
                .to_string()
                .replace('\\', "\\\\")
                .replace('\n', "\\\n");
            map.push_str(&format!("{oid} {escaped}\n"));
        }
        if map.is_empty() {
            return Ok(());
        }
        writer.text(&self.to.join(TABLESPACE_MAP), map.as_bytes())
    }
}

/// `pg_tblspc/16385/PG_15_…/…` → oid and the rest.
fn tablespace_of(path: &str) -> Option<(u32, &str)> {
    let rest = path.strip_prefix("pg_tblspc/")?;
    let (oid, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Some((oid.parse().ok()?, rest))
}
