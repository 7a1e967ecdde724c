//! What the writing host remembers of the repository, because it cannot read it (local_cache.md). All of it may be deleted: the next
//! backup is then a full one.
//!
//! [`ParentIndex`] is read and [`IndexWriter`] writes (mirrors); [`Journal`] remembers the packs of a backup that never ended.

mod documents;
mod journal;
mod parent;
mod records;
mod window;
mod writer;

pub(crate) use documents::{DocumentHasher, DocumentTable, ParentSnapshot, SnapshotSubject};
pub(crate) use journal::{CompletedPack, Journal, UnfinishedPacks, unfinished};
pub(crate) use parent::ParentIndex;
pub(crate) use window::{
    ChunkRange, Fingerprint, Fingerprinter, PIECE_BYTES, Window, changed, merge, to_store,
    with_kept,
};
pub(crate) use writer::IndexWriter;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Repository;
use crate::error::{Result, StoreError};
use crate::keys::{ChunkIdKey, RecipientPublic, not_sealed_to};
use records::CheckKey;

/// The folder, and whose backups it is asked about.
#[derive(Clone)]
pub(crate) struct CacheFolder {
    folder: PathBuf,
    system_identifier: u64,
    repository_id: String,
    recipient: RecipientPublic,
    key: CheckKey,
}

/// The end of an index file and the head of a journal.
#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    backup_id: String,
    repository_id: String,
    system_identifier: u64,
    /// For whom the packs were sealed.
    recipient: String,
    #[serde(default)]
    files: u64,
    #[serde(default)]
    packs: u64,
    #[serde(default)]
    blobs: u64,
    /// What the source of that backup wanted to find again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    remembered: BTreeMap<String, String>,
}

impl CacheFolder {
    pub(crate) fn new(
        folder: &Path,
        repository: &Repository,
        system_identifier: u64,
        recipient: &RecipientPublic,
        key: &ChunkIdKey,
    ) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            system_identifier,
            repository_id: repository.id().to_owned(),
            recipient: recipient.clone(),
            key: CheckKey::new(key),
        })
    }

    fn index_path(&self) -> PathBuf {
        self.folder
            .join(format!("known-{:016x}", self.system_identifier))
    }

    fn temporary(&self, backup_id: &str) -> PathBuf {
        let name = format!("known-{:016x}.{backup_id}.tmp", self.system_identifier);
        self.folder.join(name)
    }

    fn journal_prefix(&self) -> String {
        format!("unfinished-{:016x}-", self.system_identifier)
    }

    fn subject(&self, backup_id: &str) -> Subject {
        Subject {
            backup_id: backup_id.to_owned(),
            repository_id: self.repository_id.clone(),
            system_identifier: self.system_identifier,
            recipient: self.recipient.id(),
            files: 0,
            packs: 0,
            blobs: 0,
            remembered: BTreeMap::new(),
        }
    }

    fn is_ours(&self, subject: &Subject) -> bool {
        subject.repository_id == self.repository_id
            && subject.system_identifier == self.system_identifier
    }

    /// Whether the recipient of the backup that is being taken can open what that one wrote. After a key was replaced: when
    /// all data keys were sealed to the new one as well.
    fn can_be_opened(&self, subject: &Subject, repository: &Repository) -> Result<bool> {
        Ok(subject.recipient == self.recipient.id()
            || not_sealed_to(repository, &self.recipient)? == 0)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    pub(crate) fn describe(&self) -> String {
        self.folder.display().to_string()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .read(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Whether a backup of this id is in the repository.
fn has_manifest(repository: &Repository, backup_id: &str) -> Result<bool, StoreError> {
    match repository
        .store()
        .size(&crate::manifest::manifest_name(backup_id))
    {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
