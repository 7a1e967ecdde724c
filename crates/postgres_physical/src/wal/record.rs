//! One record.

use super::RM_XACT;
use crate::lsn::Lsn;
use crate::page::{Fork, Relation};
use crate::replication::unix_micros;

/// A whole record whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub lsn: Lsn,
    /// The position after its last byte.
    pub end: Lsn,
    pub previous: Lsn,
    pub transaction: u32,
    pub resource_manager: u8,
    pub info: u8,
    bytes: Vec<u8>,
}

/// A page that a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockReference {
    pub relation: Relation,
    pub block: u32,
    /// The record holds the whole page, and replay writes it.
    pub has_image: bool,
    /// Replay builds the page from nothing.
    pub will_init: bool,
}

impl BlockReference {
    /// Replay does not read the page's old content: a torn copy of it does no harm.
    pub fn replaces_page(&self) -> bool {
        self.has_image || self.will_init
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the WAL record at {lsn} passes its checksum but cannot be understood; a newer PostgreSQL may have written it"
)]
pub struct RecordError {
    pub lsn: Lsn,
}

const HEADER: usize = 24;
const TRANSACTION_MASK: u8 = 0x70;

impl Record {
    /// `bytes` hold at least the fixed header.
    pub(super) fn new(lsn: Lsn, end: Lsn, bytes: Vec<u8>) -> Record {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let previous = u64::from_ne_bytes([
            bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15],
        ]);
        Record {
            lsn,
            end,
            previous: Lsn(previous),
            transaction: word(4),
            info: bytes[16],
            resource_manager: bytes[17],
            bytes,
        }
    }

    /// The total length that the record names.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// The part of `info` that says which operation of the resource manager this is.
    pub fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// When a transaction committed (plain or prepared): microseconds since the Unix epoch, the server's clock.
    pub fn commit_micros(&self) -> Option<i64> {
        self.transaction_micros(&[0x00, 0x30])
    }

    /// When a transaction was rolled back.
    pub fn abort_micros(&self) -> Option<i64> {
        self.transaction_micros(&[0x20, 0x40])
    }

    fn transaction_micros(&self, operations: &[u8]) -> Option<i64> {
        if self.resource_manager != RM_XACT || !operations.contains(&(self.info & TRANSACTION_MASK))
        {
            return None;
        }
        let time = self.main_data().ok()?.get(..8)?;
        Some(unix_micros(i64::from_ne_bytes(time.try_into().ok()?)))
    }

    /// The pages the record names.
    pub fn blocks(&self) -> Result<Vec<BlockReference>, RecordError> {
        self.parts().map(|parts| parts.0)
    }

    /// The data of the record itself, after everything that belongs to pages.
    pub fn main_data(&self) -> Result<&[u8], RecordError> {
        self.parts().map(|parts| parts.1)
    }

    fn parts(&self) -> Result<(Vec<BlockReference>, &[u8]), RecordError> {
        let mut reader = Reader {
            bytes: &self.bytes[HEADER..],
        };
        reader.parts().ok_or(RecordError { lsn: self.lsn })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The headers come first (blocks, then main data), then in the same order what they announce.
    fn parts(&mut self) -> Option<(Vec<BlockReference>, &'a [u8])> {
        let mut blocks: Vec<BlockReference> = Vec::new();
        let (mut data_bytes, mut main_bytes) = (0_usize, 0_usize);
        while self.bytes.len() > data_bytes + main_bytes {
            match self.u8()? {
                255 => main_bytes = self.u8()?.into(),
                254 => main_bytes = self.u32()? as usize,
                253 => drop(self.take(2)?),
                252 => drop(self.take(4)?),
                0..=32 => {
                    let (block, bytes) = self.block(blocks.last().map(|block| block.relation))?;
                    data_bytes += bytes;
                    blocks.push(block);
                }
                _ => return None,
            }
        }
        if self.bytes.len() != data_bytes + main_bytes {
            return None;
        }
        Some((blocks, &self.bytes[data_bytes..]))
    }

    fn block(&mut self, last: Option<Relation>) -> Option<(BlockReference, usize)> {
        let flags = self.u8()?;
        let mut bytes = usize::from(self.u16()?);
        let mut has_image = flags & 0x10 != 0;
        if has_image {
            bytes += usize::from(self.u16()?);
            let _hole_offset = self.u16()?;
            let image = self.u8()?;
            // Images that only serve wal_consistency_checking are not applied.
            has_image = image & 0x02 != 0;
            let (has_hole, is_compressed) = (image & 0x01 != 0, image & 0x1C != 0);
            if has_hole && is_compressed {
                let _hole_length = self.u16()?;
            }
        }
        let fork = Fork::from_number(flags & 0x0F)?;
        let relation = if flags & 0x80 != 0 {
            Relation { fork, ..last? }
        } else {
            Relation {
                tablespace: self.u32()?,
                database: self.u32()?,
                number: self.u32()?,
                fork,
            }
        };
        let block = BlockReference {
            relation,
            block: self.u32()?,
            has_image,
            will_init: flags & 0x40 != 0,
        };
        Some((block, bytes))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

/// The name that `pg_waldump` prints.
pub fn resource_manager_name(number: u8) -> Option<&'static str> {
    const NAMES: [&str; 22] = [
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ];
    NAMES.get(usize::from(number)).copied()
}
