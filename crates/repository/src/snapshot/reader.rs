//! Reads one snapshot. Mirror: `writer`.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::catalogue::read_snapshot_header;
use super::manifest::SnapshotBody;
use super::{check_document, manifest_of};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{ChunkIdKey, KeyRing, RecipientPrivate, from_hex};
use crate::pack::{BlobId, PackSet};
use crate::pipeline::{BoxKind, ObjectHeader, ObjectKind, open_single};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDocument {
    pub name: String,
    pub bytes: u64,
    pub attributes: BTreeMap<String, String>,
    chunks: Vec<BlobId>,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadTotals {
    pub documents: u64,
    pub bytes: u64,
}

pub struct SnapshotReader {
    manifest: String,
    packs: PackSet,
    documents: Vec<SnapshotDocument>,
    facts: BTreeMap<String, String>,
}

impl SnapshotReader {
    pub fn open(
        repository: &Repository,
        private: &RecipientPrivate,
        component: &str,
        id: &str,
    ) -> Result<Self> {
        let name = manifest_of(component, id);
        let bytes = match repository.store().get(&name) {
            Err(StoreError::NotFound { .. }) => {
                return Err(Error::Missing {
                    object: name,
                    needed_by: format!("snapshot {id} of {component}"),
                    remedy: "List the snapshots and choose one of them",
                });
            }
            other => other?,
        };
        // Before anything is opened: a newer one is refused by its version, not by what it cannot be parsed as.
        let (header, _) = ObjectHeader::decode(&name, &bytes)?;
        read_snapshot_header(&name, &header)?;
        let keys = Arc::new(KeyRing::new(repository, private));
        let kinds = (ObjectKind::Snapshot, BoxKind::Snapshot);
        let (_, opened) = open_single(&keys, &name, &bytes, kinds)?;
        let body = parse_body(&name, &Zeroizing::new(opened.raw))?;
        let bad = |what: &str| Error::damaged(&name, 0, what);
        let chunk_key = ChunkIdKey::from_hex(&body.chunk_id_key)
            .ok_or_else(|| bad("its chunk id key is none"))?;
        let ids: Vec<String> = body.packs.iter().map(|pack| pack.id.clone()).collect();
        let needed_by = format!("snapshot {id} of {component}");
        let packs = PackSet::open(keys, &chunk_key, &ids, &needed_by)?;
        let documents = documents(&body).ok_or_else(|| bad("its documents make no sense"))?;
        Ok(Self {
            packs,
            documents,
            facts: body.facts.clone(),
            manifest: name,
        })
    }

    /// By name.
    #[must_use]
    pub fn documents(&self) -> &[SnapshotDocument] {
        &self.documents
    }

    #[must_use]
    pub fn document(&self, name: &str) -> Option<&SnapshotDocument> {
        self.documents.iter().find(|document| document.name == name)
    }

    #[must_use]
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }

    /// A whole document, verified; wiped when it is dropped.
    pub fn read(&self, document: &SnapshotDocument) -> Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::new());
        self.read_chunks(document, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// A document in pieces of at most 1 MiB.
    pub fn read_chunks(
        &self,
        document: &SnapshotDocument,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut length = 0;
        for chunk in &document.chunks {
            let raw = Zeroizing::new(self.packs.read(BoxKind::Chunk, *chunk)?);
            length += raw.len() as u64;
            take(&raw)?;
        }
        match length == document.bytes {
            true => Ok(()),
            false => Err(Error::damaged(
                &self.manifest,
                0,
                format!(
                    "the document `{}` has another length than it says",
                    document.name
                ),
            )),
        }
    }

    /// Every document, in the order of their names.
    pub fn read_all(
        &self,
        take: &mut dyn FnMut(&SnapshotDocument, &[u8]) -> Result<()>,
    ) -> Result<ReadTotals> {
        let mut totals = ReadTotals::default();
        for document in &self.documents {
            self.read_chunks(document, &mut |chunk| take(document, chunk))?;
            totals.documents += 1;
            totals.bytes += document.bytes;
        }
        Ok(totals)
    }

    /// A document of which a chunk is in no pack that can be read.
    pub(crate) fn unindexed_document(&self) -> Option<&str> {
        let is_here = |chunk: &BlobId| self.packs.pack_of(*chunk).is_some();
        let lost = |document: &&SnapshotDocument| !document.chunks.iter().all(is_here);
        self.documents
            .iter()
            .find(lost)
            .map(|document| document.name.as_str())
    }
}

pub(crate) fn parse_body(name: &str, raw: &[u8]) -> Result<SnapshotBody> {
    serde_json::from_slice(raw).map_err(|_| Error::damaged(name, 0, "its body cannot be parsed"))
}

/// `None` when a name leads elsewhere, is there twice, or an id is none.
fn documents(body: &SnapshotBody) -> Option<Vec<SnapshotDocument>> {
    let mut documents: Vec<SnapshotDocument> = Vec::with_capacity(body.documents.len());
    for record in &body.documents {
        check_document(&record.name).ok()?;
        let ascends = documents.last().is_none_or(|last| last.name < record.name);
        let chunk = |id: &String| Some(BlobId(from_hex(id)?.try_into().ok()?));
        documents.push(SnapshotDocument {
            name: ascends.then(|| record.name.clone())?,
            bytes: record.bytes,
            attributes: record.attributes.clone(),
            chunks: record.chunks.iter().map(chunk).collect::<Option<_>>()?,
        });
    }
    Some(documents)
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SnapshotReader({}, {} documents)",
            self.manifest,
            self.documents.len()
        )
    }
}
