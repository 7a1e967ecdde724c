//! Every chunk and node that this backup may refer to, by number, and the packs they lie in.

use std::collections::HashMap;

use crate::local_index::{ChunkRange, CompletedPack, ParentIndex};
use crate::manifest::PackRef;
use crate::pack::BlobId;

/// Who wrote a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An earlier backup.
    Parent,
    /// An attempt that never became a backup.
    Unfinished,
    Own,
}

struct Blob {
    id: BlobId,
    pack: u32,
    raw_len: u32,
    used: bool,
}

struct Pack {
    pack: PackRef,
    origin: Origin,
    used: bool,
}

#[derive(Default)]
pub(super) struct Table {
    numbers: HashMap<BlobId, u32>,
    blobs: Vec<Blob>,
    packs: Vec<Pack>,
}

/// Bytes of files that were not stored because they lay in packs already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReusedBytes {
    pub(super) reused: u64,
    pub(super) resumed: u64,
}

impl Table {
    /// Numbers of blobs stay those of the parent.
    pub(super) fn with_parent(parent: &mut ParentIndex) -> Self {
        let mut table = Self::default();
        for pack in &parent.packs {
            table.add_pack(pack.clone(), Origin::Parent);
        }
        for (id, pack, raw_len) in std::mem::take(&mut parent.blobs) {
            table.add(id, pack, raw_len);
        }
        table
    }

    pub(super) fn add_unfinished(&mut self, done: &CompletedPack) {
        let pack = self.add_pack(done.pack.clone(), Origin::Unfinished);
        for (id, raw_len) in &done.blobs {
            if !self.numbers.contains_key(id) {
                self.add(*id, pack, *raw_len);
            }
        }
    }

    pub(super) fn add_pack(&mut self, pack: PackRef, origin: Origin) -> u32 {
        self.packs.push(Pack {
            pack,
            origin,
            used: false,
        });
        number(self.packs.len() - 1)
    }

    pub(super) fn set_pack_bytes(&mut self, pack: u32, bytes: u64) {
        self.packs[pack as usize].pack.bytes = bytes;
    }

    pub(super) fn add(&mut self, id: BlobId, pack: u32, raw_len: u32) -> u32 {
        let new = number(self.blobs.len());
        self.blobs.push(Blob {
            id,
            pack,
            raw_len,
            used: false,
        });
        self.numbers.insert(id, new);
        new
    }

    pub(super) fn find(&self, id: BlobId) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    pub(super) fn raw_len(&self, blob: u32) -> u32 {
        self.blobs.get(blob as usize).map_or(0, |blob| blob.raw_len)
    }

    /// The backup refers to it.
    pub(super) fn note_use(&mut self, blob: u32) {
        let blob = &mut self.blobs[blob as usize];
        blob.used = true;
        self.packs[blob.pack as usize].used = true;
    }

    pub(super) fn id(&self, blob: u32) -> BlobId {
        self.blobs[blob as usize].id
    }

    pub(super) fn reused_bytes(&self, ranges: &[ChunkRange]) -> ReusedBytes {
        let mut bytes = ReusedBytes::default();
        for range in ranges {
            let pack = self.blobs[range.blob as usize].pack;
            match self.packs[pack as usize].origin {
                Origin::Parent => bytes.reused += u64::from(range.length),
                Origin::Unfinished => bytes.resumed += u64::from(range.length),
                Origin::Own => {}
            }
        }
        bytes
    }

    /// Every pack that the tree refers to.
    pub(super) fn packs_used(&self) -> Vec<PackRef> {
        let used = self.packs.iter().filter(|pack| pack.used);
        used.map(|pack| pack.pack.clone()).collect()
    }

    pub(super) fn bytes_own(&self) -> u64 {
        let own = self.packs.iter().filter(|pack| pack.origin == Origin::Own);
        own.map(|pack| pack.pack.bytes).sum()
    }

    pub(super) fn blobs_used(&self) -> impl Iterator<Item = u32> {
        let used = self.blobs.iter().enumerate().filter(|(_, blob)| blob.used);
        used.map(|(at, _)| number(at))
    }

    pub(super) fn blob_row(&self, blob: u32) -> (BlobId, u32, u32) {
        let blob = &self.blobs[blob as usize];
        (blob.id, blob.pack, blob.raw_len)
    }

    pub(super) fn pack_row(&self, pack: u32) -> PackRef {
        self.packs[pack as usize].pack.clone()
    }
}

/// 4 billion chunks are four petabytes, and none of them would fit in memory.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
