//! What the writing host remembers of the newest snapshot of a component (local_cache.md): keyed hashes of its
//! documents, and where their chunks lie. [`ParentSnapshot::read`] and [`ParentSnapshot::write`] are mirrors.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::create;
use super::parent::{parse_blobs, parse_packs};
use super::records::{
    CheckKey, Fields, Kind, MAGIC_SNAPSHOT, Next, Records, append_record, file_header,
};
use crate::keys::{ChunkIdKey, from_hex};
use crate::manifest::PackRef;
use crate::pack::BlobId;
use crate::repository::to_json;

const CONTEXT: &str = "bre snapshot document 1";
/// Rows of a table in one record.
const ROWS_MAX: usize = 16_384;

/// Name hash → document hash.
pub(crate) type DocumentTable = BTreeMap<[u8; 16], [u8; 32]>;

/// Hashes that tell nothing to who lacks the chunk id key.
pub(crate) struct DocumentHasher([u8; 32]);

impl DocumentHasher {
    pub(crate) fn new(key: &ChunkIdKey) -> Self {
        Self(blake3::derive_key(CONTEXT, key.bytes()))
    }

    pub(crate) fn name(&self, name: &str) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"n").update(name.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        hash
    }

    pub(crate) fn document(
        &self,
        bytes: u64,
        attributes: &BTreeMap<String, String>,
        chunks: &[BlobId],
    ) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let length = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        hasher.update(b"d").update(&bytes.to_be_bytes());
        hasher.update(&length(attributes.len()));
        for text in attributes.iter().flat_map(|(key, value)| [key, value]) {
            hasher.update(&length(text.len())).update(text.as_bytes());
        }
        for chunk in chunks {
            hasher.update(&chunk.0);
        }
        *hasher.finalize().as_bytes()
    }
}

/// The last record of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotSubject {
    pub(crate) snapshot_id: String,
    pub(crate) repository_id: String,
    pub(crate) component: String,
    /// For whom the packs were sealed.
    pub(crate) recipient: String,
    pub(crate) documents: u64,
    pub(crate) blobs: u64,
    pub(crate) packs: u64,
    /// Of all documents.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct ParentSnapshot {
    pub(crate) subject: SnapshotSubject,
    pub(crate) documents: DocumentTable,
    pub(crate) packs: Vec<PackRef>,
    /// id, number of its pack, raw length
    pub(crate) chunks: Vec<(BlobId, u32, u32)>,
}

fn path_of(folder: &Path, component: &str) -> PathBuf {
    folder.join(format!("snapshot-{component}"))
}

impl ParentSnapshot {
    /// The inner error says why nothing is known, for people.
    pub(crate) fn read(
        folder: &Path,
        component: &str,
        key: &ChunkIdKey,
    ) -> io::Result<Result<Self, String>> {
        let path = path_of(folder, component);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(format!(
                    "there is no earlier snapshot of {component} in the local cache {}",
                    folder.display()
                )));
            }
            other => other?,
        };
        let snapshot = parse(BufReader::new(file), key)?;
        Ok(snapshot.ok_or_else(|| {
            format!(
                "the local cache {} is damaged, or of another chunk id key",
                path.display()
            )
        }))
    }

    /// On disk when it returns. Mirror of [`Self::read`].
    pub(crate) fn write(&self, folder: &Path, key: &ChunkIdKey) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let path = path_of(folder, &self.subject.component);
        let temporary = folder.join(format!(
            "snapshot-{}.{}.tmp",
            self.subject.component, self.subject.snapshot_id
        ));
        let written = create(&temporary).and_then(|mut file| {
            file.write_all(&self.encode(key))?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        File::open(folder)?.sync_all()
    }

    fn encode(&self, key: &ChunkIdKey) -> Vec<u8> {
        let key = CheckKey::new(key);
        let mut out = file_header(MAGIC_SNAPSHOT).to_vec();
        let documents: Vec<_> = self.documents.iter().collect();
        let rows = documents.chunks(ROWS_MAX).map(|rows| {
            let row = |(name, hash): &(&[u8; 16], &[u8; 32])| [&name[..], &hash[..]].concat();
            (Kind::Documents, rows.iter().flat_map(row).collect())
        });
        let chunks = self.chunks.chunks(ROWS_MAX).map(|rows| {
            let row = |(id, pack, raw_len): &(BlobId, u32, u32)| {
                [&id.0[..], &pack.to_be_bytes(), &raw_len.to_be_bytes()].concat()
            };
            (Kind::Blobs, rows.iter().flat_map(row).collect())
        });
        let packs = self.packs.chunks(ROWS_MAX).map(|rows| {
            let row = |pack: &PackRef| {
                let id = from_hex(&pack.id).unwrap_or_default();
                [&id[..], &pack.bytes.to_be_bytes()].concat()
            };
            (Kind::Packs, rows.iter().flat_map(row).collect())
        });
        let all: Vec<(Kind, Vec<u8>)> = rows.chain(chunks).chain(packs).collect();
        for (kind, body) in all {
            append_record(&mut out, &key, kind, &body);
        }
        append_record(&mut out, &key, Kind::End, &to_json(&self.subject));
        out
    }
}

/// Every record matches its check, or nothing of it is used.
fn parse(input: impl io::Read, key: &ChunkIdKey) -> io::Result<Option<ParentSnapshot>> {
    let Some(mut records) = Records::begin(input, CheckKey::new(key), MAGIC_SNAPSHOT)? else {
        return Ok(None);
    };
    let (mut documents, mut packs, mut chunks) = (DocumentTable::new(), Vec::new(), Vec::new());
    let subject = loop {
        let Next::Record(kind) = records.next()? else {
            return Ok(None);
        };
        let parsed = match kind {
            Kind::Documents => parse_documents(&records.body, &mut documents),
            Kind::Packs => parse_packs(&records.body, &mut packs),
            Kind::Blobs => parse_blobs(&records.body, &mut chunks),
            Kind::End => break serde_json::from_slice::<SnapshotSubject>(&records.body).ok(),
            Kind::File | Kind::JournalHead | Kind::CompletedPack => None,
        };
        if parsed.is_none() {
            return Ok(None);
        }
    };
    let whole = subject.filter(|subject| {
        [subject.documents, subject.blobs, subject.packs]
            == [documents.len(), chunks.len(), packs.len()].map(|count| count as u64)
            && chunks
                .iter()
                .all(|(_, pack, _)| u64::from(*pack) < subject.packs)
    });
    let at_end = records.next()? == Next::NoMore;
    Ok(whole.filter(|_| at_end).map(|subject| ParentSnapshot {
        subject,
        documents,
        packs,
        chunks,
    }))
}

fn parse_documents(body: &[u8], documents: &mut DocumentTable) -> Option<()> {
    let mut fields = Fields(body);
    while !fields.0.is_empty() {
        documents.insert(fields.array()?, fields.array()?);
    }
    Some(())
}
