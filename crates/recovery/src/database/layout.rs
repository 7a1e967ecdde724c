//! Which part of a backup goes where.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use repository::backup::{BackupReader, Entry, EntryKind};

use super::destination::{Rooms, is_in_kept_by_filesystem, sync_filesystems};
use super::restore::{CONTROL, LABEL, MANIFEST, RestoreOptions, TABLESPACE_MAP};
use super::settings::{self, Omissions};
use super::writing::{Job, Writer, claim_folder};
use crate::{Error, Result};

/// Made whether or not the backup has them.
pub(super) const FIXED_FOLDERS: [&str; 3] = ["pg_wal", "pg_wal/archive_status", "pg_tblspc"];
const TABLESPACE_FACT: &str = "tablespace.";
const SKIPPED_FACTS: [&str; 2] = ["skipped", "configuration.missing"];

pub(super) struct Layout {
    pub(super) to: PathBuf,
    pub(super) entries: Vec<Entry>,
    /// By oid.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
    /// What the source could not copy: links, and what is neither file nor folder.
    skipped: Vec<String>,
    /// What whoever restores wants the copy to be set to.
    set: Vec<(String, String)>,
}

impl Layout {
    pub(super) fn new(reader: &BackupReader, to: &Path, options: &RestoreOptions) -> Result<Self> {
        let mut entries = reader.entries()?;
        // The source's file system put it there, and the target's has its own.
        entries.retain(|entry| !is_in_kept_by_filesystem(&entry.path));
        for path in [CONTROL, LABEL] {
            if !entries.iter().any(|entry| entry.path == path) {
                return Err(Error::NoSuchFile {
                    backup: reader.summary().id.clone(),
                    path,
                });
            }
        }
        let chosen = chosen_places(reader, &entries, options)?;
        let beside = |oid: u32| PathBuf::from(format!("{}.tablespaces/{oid}", to.display()));
        let oids = entries
            .iter()
            .filter_map(|entry| tablespace_of(&entry.path));
        let tablespaces = oids
            .map(|(oid, _)| {
                let place = chosen.get(&oid).cloned();
                (oid, place.unwrap_or_else(|| beside(oid)))
            })
            .collect();
        let facts = SKIPPED_FACTS
            .iter()
            .filter_map(|name| reader.facts().get(*name));
        let skipped = facts.flat_map(|paths| paths.split(", ").map(str::to_owned));
        let skipped = skipped.collect();
        Ok(Self {
            to: to.to_owned(),
            entries,
            tablespaces,
            skipped,
            set: options.set.clone(),
        })
    }

    /// Of the data folder and of the tablespaces' folders: the source's, of which PostgreSQL knows two.
    pub(super) fn folder_mode(&self) -> u32 {
        folder_mode(&self.entries)
    }

    /// A folder beside the data folder is made for the tablespaces that were not told where to go.
    fn beside(&self) -> PathBuf {
        PathBuf::from(format!("{}.tablespaces", self.to.display()))
    }

    /// Takes the folder of every tablespace that `free` accepts. Where one cannot be had nothing was written.
    pub(super) fn claim_tablespaces(
        &self,
        writer: &Writer<'_>,
        free: impl Fn(&Path) -> bool,
    ) -> Result<()> {
        for folder in self.tablespaces.values().filter(|folder| free(folder)) {
            let beside = self.beside();
            if folder.starts_with(&beside) && !beside.exists() {
                claim_folder(&beside, writer.user, writer.folder_mode)?;
            }
            claim_folder(folder, writer.user, writer.folder_mode)?;
        }
        Ok(())
    }

    /// Room for these entries, each where it goes: its bytes, and an inode.
    pub(super) fn need_room<'a>(
        &self,
        rooms: &mut Rooms,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<()> {
        for entry in entries {
            let place = self.place(&entry.path);
            // A folder that is there, the root of a mount for example, takes none.
            if entry.kind != EntryKind::Directory || !place.exists() {
                rooms.need_inodes(&place, 1)?;
            }
            if let EntryKind::File { size, .. } = entry.kind {
                rooms.need(&place, size)?;
            }
        }
        Ok(())
    }

    pub(super) fn place(&self, path: &str) -> PathBuf {
        if let Some((oid, rest)) = tablespace_of(path)
            && let Some(folder) = self.tablespaces.get(&oid)
        {
            return folder.join(rest);
        }
        self.to.join(path)
    }

    /// Entries that are files of the restored folder, `pg_control` apart: it comes last.
    pub(super) fn is_plain_file(entry: &Entry) -> bool {
        matches!(entry.kind, EntryKind::File { .. })
            && ![CONTROL, MANIFEST, TABLESPACE_MAP].contains(&entry.path.as_str())
    }

    pub(super) fn make_folders(&self, writer: &Writer<'_>) -> Result<()> {
        for entry in &self.entries {
            let path = self.place(&entry.path);
            if entry.kind == EntryKind::Directory && path != self.to {
                writer.folder(&path)?;
            }
        }
        for folder in FIXED_FOLDERS {
            writer.folder(&self.to.join(folder))?;
        }
        Ok(())
    }

    /// All that comes after the files; `pg_control` last of all, when everything else is on disk.
    pub(super) fn finish(&self, writer: &Writer<'_>) -> Result<Omissions> {
        self.link_tablespaces(writer)?;
        let mut omissions =
            settings::make_private(&self.to, &self.set, &|path, bytes| writer.text(path, bytes))?;
        omissions.note_skipped(&self.to, &self.skipped);
        for entry in &self.entries {
            let path = self.place(&entry.path);
            if entry.kind == EntryKind::Directory && path != self.to {
                // Of a tablespace's own folder a source may know the link only.
                let mode = match tablespace_of(&entry.path) {
                    Some((_, "")) => self.folder_mode(),
                    _ => entry.mode & 0o777,
                };
                let mode = Permissions::from_mode(mode);
                fs::set_permissions(&path, mode).map_err(Error::io("set the mode of", &path))?;
            }
        }
        writer.progress.message("waiting for the disk");
        let folders: Vec<PathBuf> = self
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
            .map(|entry| self.place(&entry.path))
            .chain(FIXED_FOLDERS.map(|name| self.to.join(name)))
            .chain(self.tablespaces.values().cloned())
            .collect();
        let folders = folders.iter().map(PathBuf::as_path);
        sync_filesystems(folders.chain([self.to.as_path()]))?;
        let control = self.entries.iter().filter(|entry| entry.path == CONTROL);
        let control: Vec<Job<'_>> = control
            .map(|entry| Job {
                entry,
                path: self.place(CONTROL),
            })
            .collect();
        writer.files(&control)?;
        sync_filesystems([self.to.join("global").as_path()])?;
        Ok(omissions)
    }

    fn link_tablespaces(&self, writer: &Writer<'_>) -> Result<()> {
        let mut map = String::new();
        for (oid, folder) in &self.tablespaces {
            let link = self.to.join("pg_tblspc").join(oid.to_string());
            if link.is_symlink() {
                fs::remove_file(&link).map_err(Error::io("remove", &link))?;
            }
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

/// `global` is made by initdb, and nobody has a reason to change it alone: its mode tells whether the source lets its
/// group read.
pub(super) fn folder_mode(entries: &[Entry]) -> u32 {
    let global = entries.iter().find(|entry| entry.path == "global");
    match global {
        Some(entry) if entry.mode & 0o050 == 0o050 => 0o750,
        _ => 0o700,
    }
}

/// Places given by oid, or by where the tablespace lay on the source.
fn chosen_places(
    reader: &BackupReader,
    entries: &[Entry],
    options: &RestoreOptions,
) -> Result<BTreeMap<u32, PathBuf>> {
    let mut chosen = options.tablespaces.clone();
    let known: BTreeMap<u32, &str> = reader
        .facts()
        .iter()
        .filter_map(|(name, place)| {
            let oid = name.strip_prefix(TABLESPACE_FACT)?.parse().ok()?;
            Some((oid, place.trim_end_matches('/')))
        })
        .collect();
    let has = |oid: u32| {
        let found = |entry: &Entry| tablespace_of(&entry.path).is_some_and(|(its, _)| its == oid);
        entries.iter().any(found)
    };
    for (old, new) in &options.locations {
        let old = old.trim_end_matches('/');
        let by_place = known.iter().find(|(_, place)| **place == old);
        let by_oid = || old.parse().ok().filter(|oid| has(*oid));
        match by_place.map(|(oid, _)| *oid).or_else(by_oid) {
            Some(oid) => chosen.insert(oid, new.clone()),
            None => {
                let names = known
                    .iter()
                    .map(|(oid, place)| format!("{place} (oid {oid})"));
                let names = names.collect::<Vec<_>>().join(", ");
                return Err(Error::NoSuchTablespace {
                    given: old.to_owned(),
                    known: if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names
                    },
                });
            }
        };
    }
    match chosen.values().find(|new| !new.is_absolute()) {
        Some(new) => Err(Error::RelativeTablespace(new.clone())),
        None => Ok(chosen),
    }
}

/// `pg_tblspc/16385/PG_15_…/…` → oid and the rest.
pub(super) fn tablespace_of(path: &str) -> Option<(u32, &str)> {
    let rest = path.strip_prefix("pg_tblspc/")?;
    let (oid, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Some((oid.parse().ok()?, rest))
}
