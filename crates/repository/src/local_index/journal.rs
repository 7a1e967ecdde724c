//! The packs that a backup completed, so that the next one goes on where a killed one stopped.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use super::records::{Fields, Kind, MAGIC_JOURNAL, Next, Records, append_record, file_header};
use super::{CacheFolder, Subject, create, has_manifest};
use crate::Repository;
use crate::error::Result;
use crate::keys::{from_hex, hex};
use crate::manifest::PackRef;
use crate::pack::BlobId;
use crate::repository::to_json;

/// A pack that was put, with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompletedPack {
    pub(crate) pack: PackRef,
    /// id and raw length
    pub(crate) blobs: Vec<(BlobId, u32)>,
}

/// Locked while its backup runs.
pub(crate) struct Journal {
    folder: CacheFolder,
    path: PathBuf,
    file: File,
}

impl Journal {
    pub(crate) fn begin(folder: &CacheFolder, backup_id: &str) -> io::Result<Self> {
        let path = folder
            .folder
            .join(format!("{}{backup_id}", folder.journal_prefix()));
        let mut file = create(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut head = file_header(MAGIC_JOURNAL).to_vec();
        let subject = to_json(&folder.subject(backup_id));
        append_record(&mut head, &folder.key, Kind::JournalHead, &subject);
        file.write_all(&head)?;
        file.sync_all()?;
        folder.sync()?;
        Ok(Self {
            folder: folder.clone(),
            path,
            file,
        })
    }

    /// On disk when it returns.
    pub(crate) fn append(&mut self, done: &CompletedPack) -> io::Result<()> {
        let mut body = from_hex(&done.pack.id).unwrap_or_default();
        body.extend_from_slice(&done.pack.bytes.to_be_bytes());
        for (id, raw_len) in &done.blobs {
            body.extend_from_slice(&id.0);
            body.extend_from_slice(&raw_len.to_be_bytes());
        }
        let mut record = Vec::new();
        append_record(&mut record, &self.folder.key, Kind::CompletedPack, &body);
        self.file.write_all(&record)?;
        self.file.sync_data()
    }

    /// Its backup has a manifest: nothing is unfinished.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What killed backups left, as far as it is still in the repository.
#[derive(Default)]
pub(crate) struct UnfinishedPacks {
    pub(crate) packs: Vec<CompletedPack>,
    /// Locked by us, so that no other backup takes them over or deletes them.
    journals: Vec<(PathBuf, File)>,
}

impl UnfinishedPacks {
    /// To be called once a manifest was put that took over what they list.
    pub(crate) fn remove(self) {
        for (path, _) in self.journals {
            let _ = fs::remove_file(path);
        }
    }
}

/// Journals nobody writes. What cannot be read is left alone: it costs no more than storing again.
pub(crate) fn unfinished(folder: &CacheFolder, repository: &Repository) -> Result<UnfinishedPacks> {
    let mut found = UnfinishedPacks::default();
    let Ok(names) = fs::read_dir(&folder.folder) else {
        return Ok(found);
    };
    let prefix = folder.journal_prefix();
    for name in names.flatten().map(|entry| entry.file_name()) {
        let Some(backup_id) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
            continue;
        };
        let path = folder.folder.join(&name);
        let Ok(file) = OpenOptions::new().read(true).open(&path) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        // It was killed before it could: see `IndexWriter`.
        let _ = fs::remove_file(folder.temporary(backup_id));
        if has_manifest(repository, backup_id)? {
            let _ = fs::remove_file(&path);
            continue;
        }
        match read(folder, &file) {
            Ok(Some((subject, packs))) => {
                if folder.can_be_opened(&subject, repository)? {
                    found.packs.extend(packs);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, journal = %path.display(), "it cannot be read; its packs are stored again");
            }
        }
        found.journals.push((path, file));
    }
    keep_those_still_there(&mut found.packs, repository)?;
    Ok(found)
}

fn keep_those_still_there(packs: &mut Vec<CompletedPack>, repository: &Repository) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let listed = repository.store().list("packs/")?;
    let here: HashMap<&str, u64> = listed
        .iter()
        .filter_map(|object| Some((object.name.strip_prefix("packs/")?, object.size)))
        .collect();
    let marked = crate::references::packs_marked_for_deletion(repository)?;
    packs.retain(|done| {
        here.get(done.pack.id.as_str()) == Some(&done.pack.bytes) && !marked.contains(&done.pack.id)
    });
    Ok(())
}

fn read(folder: &CacheFolder, file: &File) -> io::Result<Option<(Subject, Vec<CompletedPack>)>> {
    let input = BufReader::with_capacity(1 << 18, file);
    let mut packs = Vec::new();
    let Some(mut records) = Records::begin(input, folder.key.clone(), MAGIC_JOURNAL)? else {
        return Ok(None);
    };
    if records.next()? != Next::Record(Kind::JournalHead) {
        return Ok(None);
    }
    let subject = serde_json::from_slice::<Subject>(&records.body).ok();
    let Some(subject) = subject.filter(|subject| folder.is_ours(subject)) else {
        return Ok(None);
    };
    // What follows a torn record was never written.
    while records.next()? == Next::Record(Kind::CompletedPack) {
        packs.extend(parse(&records.body));
    }
    Ok(Some((subject, packs)))
}

fn parse(body: &[u8]) -> Option<CompletedPack> {
    let mut fields = Fields(body);
    let pack = PackRef {
        id: hex(&fields.array::<16>()?),
        bytes: fields.u64()?,
    };
    let mut blobs = Vec::new();
    while !fields.0.is_empty() {
        blobs.push((BlobId(fields.array()?), fields.u32()?));
    }
    Some(CompletedPack { pack, blobs })
}
