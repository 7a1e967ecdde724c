//! Reads one backup. Mirror: `writer`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DamagedPage;
use super::catalogue::{BackupSummary, read_summary};
use crate::Repository;
use crate::error::{Error, REMEDY_COPY, Result, StoreError};
use crate::keys::{ChunkIdKey, KeyRing, RecipientPrivate, from_hex};
use crate::manifest::{
    Child, DirEntry, Extent, FileLayout, ManifestBody, Node, decode, manifest_name,
};
use crate::pack::{BlobId, PackSet};
use crate::pipeline::{BoxKind, ObjectKind, open_single};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the data folder.
    pub path: String,
    pub mode: u32,
    pub mtime_micros: i64,
    pub kind: EntryKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    File { size: u64, extents: Vec<Extent> },
    Symlink { target: String },
}

/// Shared by threads: all methods take `&self`.
pub struct BackupReader {
    pub(super) summary: BackupSummary,
    pub(super) packs: PackSet,
    root: BlobId,
    damaged: Vec<DamagedPage>,
    facts: BTreeMap<String, String>,
}

impl BackupReader {
    pub fn open(repository: &Repository, private: &RecipientPrivate, id: &str) -> Result<Self> {
        let name = manifest_name(id);
        let bytes = match repository.store().get(&name) {
            Err(StoreError::NotFound { .. }) => {
                let remedy = "List the backups and choose one of them";
                return Err(Error::Missing {
                    object: name,
                    needed_by: format!("backup {id}"),
                    remedy,
                });
            }
            other => other?,
        };
        let keys = Arc::new(KeyRing::new(repository, private));
        let (header, opened) = open_single(
            &keys,
            &name,
            &bytes,
            (ObjectKind::Manifest, BoxKind::Manifest),
        )?;
        let raw = zeroize::Zeroizing::new(opened.raw);
        let bad = |what: &str| Error::damaged(&name, 0, what);
        let body: ManifestBody =
            serde_json::from_slice(&raw).map_err(|_| bad("its body cannot be parsed"))?;
        let chunk_key = ChunkIdKey::from_hex(&body.chunk_id_key)
            .ok_or_else(|| bad("its chunk id key is none"))?;
        let root = from_hex(&body.root)
            .and_then(|root| root.try_into().ok())
            .ok_or_else(|| bad("its root is none"))?;
        let ids: Vec<String> = body.packs.iter().map(|pack| pack.id.clone()).collect();
        let packs = PackSet::open(keys, &chunk_key, &ids, &format!("backup {id}"))?;
        let summary = read_summary(repository, &name, &header.clear)?;
        if summary.id != id {
            return Err(bad("it is the manifest of another backup"));
        }
        Ok(Self {
            summary,
            packs,
            root: BlobId(root),
            damaged: body.damaged.clone(),
            facts: body.facts.clone(),
        })
    }

    /// Its state is not derived here: see [`crate::backup::catalogue`].
    #[must_use]
    pub fn summary(&self) -> &BackupSummary {
        &self.summary
    }

    #[must_use]
    pub fn damaged_pages(&self) -> &[DamagedPage] {
        &self.damaged
    }

    #[must_use]
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }

    /// Fails when a pack that the backup refers to cannot be read: ask before a restore writes its first byte.
    pub fn check_packs(&self) -> Result<()> {
        let Some((name, error)) = self.packs.broken().first() else {
            return Ok(());
        };
        Err(match error {
            Error::Damaged { offset, what, .. } => Error::damaged(name, *offset, what.clone()),
            error => Error::Missing {
                object: name.clone(),
                needed_by: match error {
                    Error::Missing { .. } => format!("backup {}", self.summary.id),
                    error => format!("backup {} ({error})", self.summary.id),
                },
                remedy: REMEDY_COPY,
            },
        })
    }

    /// All entries, parents before children, names ascending.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.walk("", self.root, &mut entries)?;
        Ok(entries)
    }

    fn walk(&self, prefix: &str, directory: BlobId, entries: &mut Vec<Entry>) -> Result<()> {
        let children = match self.node(directory)? {
            Node::Directory(children) => children,
            Node::Divided(parts) => {
                let mut children = Vec::new();
                for (_, part) in parts {
                    match self.node(part)? {
                        Node::Directory(more) => children.extend(more),
                        _ => return Err(self.bad_node(part)),
                    }
                }
                children
            }
            _ => return Err(self.bad_node(directory)),
        };
        for DirEntry {
            name,
            mode,
            mtime_micros,
            child,
        } in children
        {
            if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                return Err(self.bad_node(directory));
            }
            let path = format!("{prefix}{name}");
            let mut push = |kind| {
                entries.push(Entry {
                    path: path.clone(),
                    mode,
                    mtime_micros,
                    kind,
                })
            };
            match child {
                Child::Directory(node) => {
                    push(EntryKind::Directory);
                    self.walk(&format!("{path}/"), node, entries)?;
                }
                Child::File { size, layout } => {
                    let extents = self.extents(layout)?;
                    let end = extents.iter().try_fold(0, |at, e| {
                        (e.file_offset == at).then(|| at + u64::from(e.length))
                    });
                    if end != Some(size) {
                        return Err(self.bad_node(directory));
                    }
                    push(EntryKind::File { size, extents });
                }
                Child::Symlink(target) => push(EntryKind::Symlink { target }),
            }
        }
        Ok(())
    }

    fn extents(&self, layout: FileLayout) -> Result<Vec<Extent>> {
        let map = match layout {
            FileLayout::Inline(extents) => return Ok(extents),
            FileLayout::Map(map) => map,
        };
        match self.node(map)? {
            Node::Leaf(extents) => Ok(extents),
            Node::Inner(children) => {
                let mut extents = Vec::new();
                for (_, _, leaf) in children {
                    match self.node(leaf)? {
                        Node::Leaf(more) => extents.extend(more),
                        _ => return Err(self.bad_node(leaf)),
                    }
                }
                Ok(extents)
            }
            Node::Directory(_) | Node::Divided(_) => Err(self.bad_node(map)),
        }
    }

    fn node(&self, id: BlobId) -> Result<Node> {
        decode(&self.packs.read(BoxKind::Node, id)?).ok_or_else(|| self.bad_node(id))
    }

    fn bad_node(&self, id: BlobId) -> Error {
        let object = self.packs.pack_of(id).unwrap_or("a pack");
        Error::damaged(object, 0, "a node of the manifest does not make sense")
    }

    /// The raw length of a chunk as its pack's index says; 0 for one that no readable pack holds.
    pub(crate) fn chunk_len(&self, chunk: BlobId) -> u64 {
        self.packs.raw_len(chunk)
    }

    /// The bytes of one extent, verified.
    pub fn read_extent(&self, extent: &Extent) -> Result<Vec<u8>> {
        let mut raw = self.packs.read(BoxKind::Chunk, extent.chunk)?;
        let (start, length) = (extent.chunk_offset as usize, extent.length as usize);
        if start == 0 && length == raw.len() {
            return Ok(raw);
        }
        if start.checked_add(length).is_none_or(|end| end > raw.len()) {
            let object = self.packs.pack_of(extent.chunk).unwrap_or("a pack");
            return Err(Error::damaged(
                object,
                0,
                "a chunk is shorter than the manifest says",
            ));
        }
        raw.truncate(start + length);
        raw.drain(..start);
        Ok(raw)
    }

    /// A whole file, for small ones.
    pub fn read_file(&self, entry: &Entry) -> Result<Vec<u8>> {
        let EntryKind::File { extents, .. } = &entry.kind else {
            return Err(Error::Input(format!("`{}` is not a file", entry.path)));
        };
        let mut bytes = Vec::new();
        let mut reader = self.extent_reader();
        for extent in extents {
            bytes.extend_from_slice(reader.read(extent)?);
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for BackupReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackupReader({})", self.summary.id)
    }
}
