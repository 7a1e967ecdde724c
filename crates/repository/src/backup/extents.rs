//! Reads extents one after another. A file that was backed up page by page lies in pieces of many chunks, each of which serves
//! several extents nearby: those chunks stay open for a while.

use std::collections::VecDeque;

use super::reader::BackupReader;
use crate::error::{Error, Result};
use crate::manifest::{CHUNK_BYTES, Extent};
use crate::pack::BlobId;
use crate::pipeline::BoxKind;

/// Chunks that are kept open, each of at most 1 MiB. Only those that serve in part are kept.
const KEPT: usize = 24;

/// For one thread.
#[derive(Debug)]
pub struct ExtentReader<'a> {
    reader: &'a BackupReader,
    /// The most recently used one last.
    kept: VecDeque<(BlobId, Vec<u8>)>,
    whole: Vec<u8>,
}

impl BackupReader {
    #[must_use]
    pub fn extent_reader(&self) -> ExtentReader<'_> {
        ExtentReader {
            reader: self,
            kept: VecDeque::new(),
            whole: Vec::new(),
        }
    }

    /// Whether these bytes are certainly those of the extent; nothing is read. False proves nothing for an extent that is
    /// [a part](Extent::is_part) of a chunk.
    #[must_use]
    pub fn is_known_same(&self, extent: &Extent, bytes: &[u8]) -> bool {
        extent.chunk_offset == 0 && self.packs.id(BoxKind::Chunk, bytes) == extent.chunk
    }
}

impl Extent {
    /// Whether it may be only a part of its chunk, in a file of this size.
    #[must_use]
    pub fn is_part(&self, file_bytes: u64) -> bool {
        let is_last = self.file_offset + u64::from(self.length) >= file_bytes;
        self.chunk_offset != 0 || (!is_last && (self.length as usize) < CHUNK_BYTES)
    }
}

impl ExtentReader<'_> {
    /// The bytes of an extent, verified.
    pub fn read(&mut self, extent: &Extent) -> Result<&[u8]> {
        let (start, length) = (extent.chunk_offset as usize, extent.length as usize);
        if let Some(at) = self.kept.iter().position(|(id, _)| *id == extent.chunk) {
            if let Some(used) = self.kept.remove(at) {
                self.kept.push_back(used);
            }
        } else {
            let raw = self.reader.packs.read(BoxKind::Chunk, extent.chunk)?;
            if start == 0 && length == raw.len() {
                self.whole = raw;
                return Ok(&self.whole);
            }
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back((extent.chunk, raw));
        }
        let end = start.checked_add(length);
        let found = self.kept.back().zip(end);
        found
            .and_then(|((_, raw), end)| raw.get(start..end))
            .ok_or_else(|| {
                let object = self.reader.packs.pack_of(extent.chunk).unwrap_or("a pack");
                Error::damaged(object, 0, "a chunk is shorter than the manifest says")
            })
    }
}
