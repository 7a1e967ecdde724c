//! The content of a head, and the bytes that are signed (format §5).

use serde::Serialize;
use thiserror::Error;

use crate::hash::Hash;
use crate::hex::HexError;
use crate::keys::KeyId;
use crate::merkle::Frontier;

const MAGIC: &[u8; 4] = b"BREH";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 109;

/// The state of a log at one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    pub log: u16,
    pub epoch: u32,
    /// Position of the last entry.
    pub size: u64,
    pub last_hash: Hash,
    pub root: Hash,
    pub peaks: Vec<Hash>,
    pub at_micros: i64,
    /// The repository held the write-ahead log up to here.
    pub lsn: u64,
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum HeadError {
    #[error("the head's payload is not a version 1 payload: {0}")]
    Payload(&'static str),
    #[error("the head is not a JSON object of the form bre-audit-head-1: {0}")]
    Json(String),
    #[error("the head's {field} is not hex as it should be: {source}")]
    Hex {
        field: &'static str,
        source: HexError,
    },
    #[error(
        "the head's readable field {field} says {says}, but its signed payload says {payload}: the file was edited"
    )]
    CopyDisagrees {
        field: &'static str,
        says: String,
        payload: String,
    },
    #[error(
        "the head of log {log}, epoch {epoch}, size {size} is signed by key {key_id}, which is not among the trusted \
         keys"
    )]
    UnknownKey {
        log: u16,
        epoch: u32,
        size: u64,
        key_id: KeyId,
    },
    #[error(
        "the head of log {log}, epoch {epoch}, size {size} is signed by key {key_id}, which is revoked from epoch {}, position {} on", .from.0, .from.1
    )]
    Revoked {
        log: u16,
        epoch: u32,
        size: u64,
        key_id: KeyId,
        from: (u32, u64),
    },
    #[error(
        "the signature of the head of log {log}, epoch {epoch}, size {size} is false: the head was not signed by key \
         {key_id}"
    )]
    Signature {
        log: u16,
        epoch: u32,
        size: u64,
        key_id: KeyId,
    },
}

impl Head {
    /// The bytes to sign.
    pub(crate) fn payload(&self, key_id: KeyId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + 32 * self.peaks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.log.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(self.last_hash.as_bytes());
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&self.at_micros.to_be_bytes());
        bytes.extend_from_slice(&self.lsn.to_be_bytes());
        bytes.extend_from_slice(key_id.as_bytes());
        bytes.push(self.peaks.len() as u8);
        for peak in &self.peaks {
            bytes.extend_from_slice(peak.as_bytes());
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<(Head, KeyId), HeadError> {
        let (fixed, rest) = bytes
            .split_at_checked(FIXED_BYTES)
            .ok_or(HeadError::Payload("it is shorter than 109 bytes"))?;
        if &fixed[..4] != MAGIC {
            return Err(HeadError::Payload("it does not begin with BREH"));
        }
        if array::<2>(fixed, 4) != VERSION.to_be_bytes() {
            return Err(HeadError::Payload(
                "its version is not 1; a newer engine wrote it",
            ));
        }
        if rest.len() != usize::from(fixed[108]) * 32 {
            return Err(HeadError::Payload(
                "its length does not fit its number of peaks",
            ));
        }
        let head = Head {
            log: u16::from_be_bytes(array(fixed, 6)),
            epoch: u32::from_be_bytes(array(fixed, 8)),
            size: u64::from_be_bytes(array(fixed, 12)),
            last_hash: Hash::from_bytes(array(fixed, 20)),
            root: Hash::from_bytes(array(fixed, 52)),
            at_micros: i64::from_be_bytes(array(fixed, 84)),
            lsn: u64::from_be_bytes(array(fixed, 92)),
            peaks: rest
                .chunks_exact(32)
                .map(|peak| Hash::from_bytes(array(peak, 0)))
                .collect(),
        };
        head.check()?;
        Ok((head, KeyId::from_bytes(array(fixed, 100))))
    }

    fn check(&self) -> Result<(), HeadError> {
        if self.epoch == 0 || self.epoch > i32::MAX as u32 {
            return Err(HeadError::Payload("its epoch is outside 1..=2147483647"));
        }
        if self.size == 0 || self.size > i64::MAX as u64 {
            return Err(HeadError::Payload(
                "its size is outside 1..=9223372036854775807",
            ));
        }
        let frontier = self
            .frontier()
            .ok_or(HeadError::Payload("its peaks do not fit its size"))?;
        if frontier.root() != self.root {
            return Err(HeadError::Payload(
                "its root does not follow from its peaks",
            ));
        }
        Ok(())
    }

    /// The tree as of this head. `None` when the number of peaks does not fit the size.
    pub fn frontier(&self) -> Option<Frontier> {
        Frontier::from_peaks(self.size, self.peaks.clone())
    }
}

/// `N` bytes at an offset that the caller has checked to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
