//! Packs: boxes of chunks and nodes, an index at the end (repository.md §6).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::Repository;
use crate::error::{Error, REMEDY_COPY, Result, StoreError};
use crate::keys::{ChunkIdKey, DataKey, KeyRing, random_hex};
use crate::pipeline::{
    BoxHeader, BoxKind, Compression, ObjectHeader, ObjectKind, ObjectOpener, ObjectSealer,
    OpenedBox, read_header,
};
use crate::read_back::boxes_of;

pub(crate) const PACK_BYTES_MAX: usize = 32 << 20;
const ENTRY: usize = 48;
const TRAILER: usize = 16;
const NODE_CONTEXT: &str = "bre node id 1";

/// Keyed hash of a chunk or of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlobId(pub(crate) [u8; 32]);

impl std::fmt::Debug for BlobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::keys::hex(&self.0[..8]))
    }
}

/// Computes ids; chunks and nodes never share one.
#[derive(Clone)]
pub(crate) struct Identifier {
    chunk_key: ChunkIdKey,
    node_key: ChunkIdKey,
}

impl Identifier {
    pub(crate) fn new(chunk_key: &ChunkIdKey) -> Self {
        let node = blake3::derive_key(NODE_CONTEXT, chunk_key.bytes());
        let node_key =
            ChunkIdKey::from_hex(&crate::keys::hex(&node)).unwrap_or_else(|| chunk_key.clone());
        Self {
            chunk_key: chunk_key.clone(),
            node_key,
        }
    }

    pub(crate) fn id(&self, kind: BoxKind, raw: &[u8]) -> BlobId {
        let key = if kind == BoxKind::Node {
            &self.node_key
        } else {
            &self.chunk_key
        };
        BlobId(*blake3::keyed_hash(key.bytes(), raw).as_bytes())
    }
}

/// A pack that grows in memory until it is put.
pub(crate) struct PackBuilder {
    pub(crate) id: String,
    sealer: ObjectSealer,
    bytes: Vec<u8>,
    index: Vec<u8>,
    entries: u32,
}

impl PackBuilder {
    /// `bytes`: room of a pack that was put; what it holds does not matter.
    pub(crate) fn new(key: &Arc<DataKey>, mut bytes: Vec<u8>) -> Result<Self> {
        let id = random_hex(16)?;
        let header = ObjectHeader {
            kind: ObjectKind::Pack,
            data_key: key.id(),
            clear: Vec::new(),
        };
        let sealer = ObjectSealer::new(key, &pack_name(&id), &header)?;
        bytes.clear();
        bytes.reserve(PACK_BYTES_MAX + (2 << 20));
        bytes.extend_from_slice(sealer.header());
        Ok(Self {
            id,
            sealer,
            bytes,
            index: Vec::new(),
            entries: 0,
        })
    }

    pub(crate) fn add(
        &mut self,
        kind: BoxKind,
        id: BlobId,
        compression: Compression,
        raw: &[u8],
    ) -> Result<()> {
        let start = self.bytes.len();
        self.sealer.seal(
            &mut self.bytes,
            start as u64,
            kind,
            compression,
            (0, 0),
            raw,
        )?;
        self.index.extend_from_slice(&id.0);
        self.index.extend_from_slice(&[kind as u8, 0, 0, 0]);
        for field in [start, self.bytes.len() - start, raw.len()] {
            // A pack stays far below 4 GiB.
            self.index
                .extend_from_slice(&u32::try_from(field).unwrap_or(u32::MAX).to_be_bytes());
        }
        self.entries += 1;
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(mut self) -> Result<(String, Vec<u8>)> {
        let mut index = self.entries.to_be_bytes().to_vec();
        index.append(&mut self.index);
        let start = self.bytes.len() as u64;
        self.sealer.seal(
            &mut self.bytes,
            start,
            BoxKind::PackIndex,
            Compression::Zstd(3),
            (0, 0),
            &index,
        )?;
        self.bytes.extend_from_slice(&trailer(start));
        Ok((self.id, self.bytes))
    }
}

pub(crate) fn pack_name(id: &str) -> String {
    format!("packs/{id}")
}

fn trailer(index_offset: u64) -> [u8; TRAILER] {
    let mut bytes = [0; TRAILER];
    bytes[..8].copy_from_slice(&index_offset.to_be_bytes());
    let check = blake3::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&check.as_bytes()[..8]);
    bytes
}

/// Where a blob lies.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) pack: usize,
    pub(crate) range: Range<u64>,
    pub(crate) raw_len: u64,
}

struct OpenPack {
    name: String,
    opener: ObjectOpener,
}

/// All packs of one manifest with their indexes.
pub(crate) struct PackSet {
    keys: Arc<KeyRing>,
    identifier: Identifier,
    packs: Vec<OpenPack>,
    blobs: HashMap<BlobId, Location>,
    broken: Vec<(String, Error)>,
}

impl PackSet {
    /// Reads every index; packs that cannot be read are kept in `broken` and fail only those who need them.
    pub(crate) fn open(
        keys: Arc<KeyRing>,
        key: &ChunkIdKey,
        ids: &[String],
        needed_by: &str,
    ) -> Result<Self> {
        let identifier = Identifier::new(key);
        let mut set = Self {
            keys,
            identifier,
            packs: Vec::new(),
            blobs: HashMap::new(),
            broken: Vec::new(),
        };
        for id in ids {
            let name = pack_name(id);
            match set.open_pack(&name) {
                Ok(()) => {}
                Err(Error::Store(StoreError::NotFound { object, .. })) => {
                    let error = Error::Missing {
                        object,
                        needed_by: needed_by.to_owned(),
                        remedy: REMEDY_COPY,
                    };
                    set.broken.push((name, error));
                }
                Err(error) if error.is_damage() => set.broken.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(set)
    }

    fn repository(&self) -> &Repository {
        self.keys.repository()
    }

    fn open_pack(&mut self, name: &str) -> Result<()> {
        let store = self.repository().store();
        let size = store.size(name)?;
        let (header, header_len) = read_header(store, name)?;
        if header.kind != ObjectKind::Pack {
            return Err(Error::damaged(name, 6, "it is no pack"));
        }
        let key = self.keys.key(name, header.data_key)?;
        let opener = ObjectOpener::new(&key, name, &header)?;
        let end = size
            .checked_sub(TRAILER as u64)
            .ok_or_else(|| Error::damaged(name, size, "it ends too early"))?;
        let found = store.get_range(name, end, TRAILER)?;
        let start = crate::wal::u64_be(&found);
        if found != trailer(start) || start < header_len as u64 || start >= end {
            return Err(Error::damaged(
                name,
                end,
                "its last bytes do not lead to its index: it was cut or changed",
            ));
        }
        let index = store.get_range(name, start, usize::try_from(end - start).unwrap_or(0))?;
        let opened = opener.open(start, &index)?;
        if opened.header.kind != BoxKind::PackIndex {
            return Err(Error::damaged(name, start, "its index is of another kind"));
        }
        let number = self.packs.len();
        self.blobs.extend(
            parse_index(&opened.raw, number)
                .ok_or_else(|| Error::damaged(name, start, "bad index"))?,
        );
        self.packs.push(OpenPack {
            name: name.to_owned(),
            opener,
        });
        Ok(())
    }

    pub(crate) fn broken(&self) -> &[(String, Error)] {
        &self.broken
    }

    /// The raw bytes of a chunk or node, proven to be what its id says.
    pub(crate) fn read(&self, kind: BoxKind, id: BlobId) -> Result<Vec<u8>> {
        let Some(location) = self.blobs.get(&id) else {
            return Err(self.not_indexed(id));
        };
        let pack = &self.packs[location.pack];
        let len = usize::try_from(location.range.end - location.range.start).unwrap_or(usize::MAX);
        let bytes = self
            .repository()
            .store()
            .get_range(&pack.name, location.range.start, len)?;
        let OpenedBox {
            header: BoxHeader { kind: found, .. },
            raw,
        } = pack.opener.open(location.range.start, &bytes)?;
        if found != kind || self.identifier.id(kind, &raw) != id {
            return Err(Error::damaged(
                &pack.name,
                location.range.start,
                "a box holds something else than its id says",
            ));
        }
        Ok(raw)
    }

    pub(crate) fn id(&self, kind: BoxKind, raw: &[u8]) -> BlobId {
        self.identifier.id(kind, raw)
    }

    /// 0 for what is in no readable pack.
    pub(crate) fn raw_len(&self, id: BlobId) -> u64 {
        self.blobs.get(&id).map_or(0, |location| location.raw_len)
    }

    pub(crate) fn pack_of(&self, id: BlobId) -> Option<&str> {
        self.blobs
            .get(&id)
            .map(|l| self.packs[l.pack].name.as_str())
    }

    fn not_indexed(&self, id: BlobId) -> Error {
        match self.broken.first() {
            Some((name, Error::Missing { needed_by, .. })) => Error::Missing {
                object: name.clone(),
                needed_by: needed_by.clone(),
                remedy: REMEDY_COPY,
            },
            Some((name, Error::Damaged { offset, what, .. })) => {
                Error::damaged(name, *offset, what.clone())
            }
            Some((name, error)) => Error::Damaged {
                object: name.clone(),
                offset: 0,
                what: format!("a part that is needed is not in any readable pack ({error})"),
                remedy: REMEDY_COPY,
            },
            None => Error::Missing {
                object: format!("chunk {id:?}"),
                needed_by: "the manifest".to_owned(),
                remedy: REMEDY_COPY,
            },
        }
    }
}

/// Reads a whole pack: its trailer leads to its index, boxes follow each other up to it, and the index lists exactly those. With its data
/// key each box opens, and holds what its id says under one of `identifiers` (any, where there are none).
pub(crate) fn check_pack(
    name: &str,
    bytes: &[u8],
    key: Option<&DataKey>,
    identifiers: &[Identifier],
) -> Result<()> {
    let damaged = |at: usize, what: &str| Error::damaged(name, at as u64, what);
    let (header, header_len) = ObjectHeader::decode(name, bytes)?;
    if header.kind != ObjectKind::Pack {
        return Err(damaged(6, "it is no pack"));
    }
    let end = bytes
        .len()
        .checked_sub(TRAILER)
        .filter(|end| *end > header_len);
    let end = end.ok_or_else(|| damaged(bytes.len(), "it ends too early"))?;
    let found = &bytes[end..];
    let offset = crate::wal::u64_be(found);
    let start = usize::try_from(offset).ok().filter(|start| *start < end);
    let start = start.filter(|start| found == trailer(offset) && *start >= header_len);
    let start = start.ok_or_else(|| {
        damaged(
            end,
            "its last bytes do not lead to its index: it was cut or changed",
        )
    })?;
    let boxes = boxes_of(name, &bytes[header_len..start], header_len as u64)?;
    let index = boxes_of(name, &bytes[start..end], start as u64)?;
    if !matches!(index.as_slice(), [only] if only.kind == BoxKind::PackIndex) {
        return Err(damaged(start, "its index is of another kind"));
    }
    let Some(key) = key else { return Ok(()) };
    let opener = ObjectOpener::new(key, name, &header)?;
    let opened = opener.open(offset, &bytes[start..end])?;
    let entries = parse_index(&opened.raw, 0).ok_or_else(|| damaged(start, "bad index"))?;
    if entries.len() != boxes.len() {
        return Err(damaged(start, "its index does not list its boxes"));
    }
    let mut at = header_len;
    for ((id, location), header) in entries.iter().zip(&boxes) {
        let next = at + header.box_len();
        let listed = at as u64..next as u64;
        if location.range != listed || location.raw_len != u64::from(header.raw_len) {
            return Err(damaged(start, "its index does not list its boxes"));
        }
        let opened = opener.open(at as u64, &bytes[at..next])?;
        let is = |it: &Identifier| it.id(opened.header.kind, &opened.raw) == *id;
        if !identifiers.is_empty() && !identifiers.iter().any(is) {
            return Err(damaged(at, "a box holds something else than its id says"));
        }
        at = next;
    }
    Ok(())
}

fn parse_index(raw: &[u8], pack: usize) -> Option<Vec<(BlobId, Location)>> {
    let (count, entries) = raw.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    if entries.len() != count.checked_mul(ENTRY)? {
        return None;
    }
    let field = |entry: &[u8], at: usize| -> Option<u64> {
        Some(u64::from(u32::from_be_bytes(
            *entry.get(at..)?.first_chunk::<4>()?,
        )))
    };
    let parse = |entry: &[u8]| {
        let start = field(entry, 36)?;
        let range = start..start + field(entry, 40)?;
        Some((
            BlobId(*entry.first_chunk::<32>()?),
            Location {
                pack,
                range,
                raw_len: field(entry, 44)?,
            },
        ))
    };
    entries.chunks_exact(ENTRY).map(parse).collect()
}
