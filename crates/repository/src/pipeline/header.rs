//! The clear headers of objects and boxes (repository.md §3).

use super::check;
use crate::error::{Error, Result};
use crate::keys::DataKeyId;

const MAGIC: &[u8; 4] = b"BREO";
const VERSION: u16 = 1;
const FIXED: usize = 28;
const CHECK: usize = 8;
pub(crate) const BOX_HEADER: usize = 40;
pub(crate) const TAG: usize = 16;
/// No clear part comes near this; a length beyond it is damage.
const CLEAR_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Pack = 1,
    Manifest = 2,
    WalSegment = 3,
    WalTail = 4,
    History = 5,
    AuditArchive = 6,
    Snapshot = 7,
    LogStretch = 8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectHeader {
    pub(crate) kind: ObjectKind,
    pub(crate) data_key: DataKeyId,
    pub(crate) clear: Vec<u8>,
}

impl ObjectHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.clear.len() + CHECK);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.push(self.kind as u8);
        bytes.push(0);
        bytes.extend_from_slice(&self.data_key.0);
        let clear_len = u32::try_from(self.clear.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&clear_len.to_be_bytes());
        bytes.extend_from_slice(&self.clear);
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// The header's length, from the first `FIXED` bytes or more.
    pub(crate) fn encoded_len(name: &str, start: &[u8]) -> Result<usize> {
        let Some(fixed) = start.first_chunk::<FIXED>() else {
            return Err(Error::damaged(
                name,
                start.len() as u64,
                "it ends inside its header",
            ));
        };
        if &fixed[..4] != MAGIC {
            return Err(Error::damaged(
                name,
                0,
                "it does not start as a sealed object",
            ));
        }
        let version = u16_at(fixed, 4);
        if version != VERSION {
            return Err(Error::Version {
                object: name.to_owned(),
                found: version.into(),
            });
        }
        let clear = u32_at(fixed, 24) as usize;
        if clear > CLEAR_MAX {
            return Err(Error::damaged(
                name,
                24,
                "its header has an impossible length",
            ));
        }
        Ok(FIXED + clear + CHECK)
    }

    /// Mirror of `encode`; also returns the header's length.
    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<(Self, usize)> {
        let len = Self::encoded_len(name, bytes)?;
        let Some(header) = bytes.get(..len) else {
            return Err(Error::damaged(
                name,
                bytes.len() as u64,
                "it ends inside its header",
            ));
        };
        let (body, stored_check) = header.split_at(len - CHECK);
        if check(body) != stored_check {
            return Err(Error::damaged(
                name,
                0,
                "its header does not match its check",
            ));
        }
        let kind = match body[6] {
            1 => ObjectKind::Pack,
            2 => ObjectKind::Manifest,
            3 => ObjectKind::WalSegment,
            4 => ObjectKind::WalTail,
            5 => ObjectKind::History,
            6 => ObjectKind::AuditArchive,
            7 => ObjectKind::Snapshot,
            8 => ObjectKind::LogStretch,
            other => {
                return Err(Error::damaged(
                    name,
                    6,
                    format!("its kind {other} is unknown"),
                ));
            }
        };
        let mut data_key = [0; 16];
        data_key.copy_from_slice(&body[8..24]);
        let header = Self {
            kind,
            data_key: DataKeyId(data_key),
            clear: body[FIXED..].to_vec(),
        };
        Ok((header, len))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoxKind {
    Chunk = 1,
    Node = 2,
    PackIndex = 3,
    Manifest = 4,
    WalSegment = 5,
    WalFrame = 6,
    WalHeartbeat = 7,
    History = 8,
    AuditEntries = 9,
    Snapshot = 10,
    LogLines = 11,
}

impl BoxKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Chunk,
            2 => Self::Node,
            3 => Self::PackIndex,
            4 => Self::Manifest,
            5 => Self::WalSegment,
            6 => Self::WalFrame,
            7 => Self::WalHeartbeat,
            8 => Self::History,
            9 => Self::AuditEntries,
            10 => Self::Snapshot,
            11 => Self::LogLines,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoxHeader {
    /// Ciphertext and tag.
    pub(crate) sealed_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) kind: BoxKind,
    pub(crate) zstd: bool,
    /// LSN and server time of WAL; zero elsewhere.
    pub(crate) label_a: u64,
    pub(crate) label_b: i64,
}

impl BoxHeader {
    pub(crate) fn encode(&self) -> [u8; BOX_HEADER] {
        let mut bytes = [0; BOX_HEADER];
        bytes[..4].copy_from_slice(&self.sealed_len.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.raw_len.to_be_bytes());
        bytes[8] = self.kind as u8;
        bytes[9] = u8::from(self.zstd);
        bytes[16..24].copy_from_slice(&self.label_a.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.label_b.to_be_bytes());
        let check = check(&bytes[..32]);
        bytes[32..].copy_from_slice(&check);
        bytes
    }

    /// Mirror of `encode`; `None` when the bytes are not a box header.
    pub(crate) fn decode(bytes: &[u8; BOX_HEADER]) -> Option<Self> {
        if bytes[32..] != check(&bytes[..32]) || bytes[9] > 1 {
            return None;
        }
        let mut label_b = [0; 8];
        label_b.copy_from_slice(&bytes[24..32]);
        Some(Self {
            sealed_len: u32_at(bytes, 0),
            raw_len: u32_at(bytes, 4),
            kind: BoxKind::from_byte(bytes[8])?,
            zstd: bytes[9] == 1,
            label_a: u64_at(bytes, 16),
            label_b: i64::from_be_bytes(label_b),
        })
    }

    /// Header and sealed bytes together.
    pub(crate) fn box_len(&self) -> usize {
        BOX_HEADER + self.sealed_len as usize
    }
}

// The three below are called with fixed offsets inside fixed-size buffers.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(raw)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(raw)
}
