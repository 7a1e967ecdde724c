//! Which heads stay when old ones are deleted, and the signed record of it (format §5).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::hex::{self, HexError};
use crate::keys::{self, KeyId, Refusal, SignedPlace, SigningKey, VerifyingKey};
use crate::opening::{EpochRecord, LostHead};
use crate::signed_head::SignedHead;

const FORMAT: &str = "bre-audit-thinning-1";
const MAGIC: &[u8; 4] = b"BRET";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 48;
/// Heads that one record may list.
pub const KEPT_MAX: usize = 100_000;

const MINUTE_MICROS: i64 = 60_000_000;
const HOUR_MICROS: i64 = 60 * MINUTE_MICROS;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// Of the heads of an epoch with sizes from one to another, these stay and no others need to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinning {
    pub log: u16,
    pub epoch: u32,
    pub from: u64,
    pub to: u64,
    pub at_micros: i64,
    /// Sizes, ascending.
    pub kept: Vec<u64>,
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum ThinningError {
    #[error("it is not a JSON object of the form bre-audit-thinning-1: {0}")]
    Json(String),
    #[error("its {field} is not hex as it should be: {source}")]
    Hex {
        field: &'static str,
        source: HexError,
    },
    #[error("its payload is not a version 1 payload: {0}")]
    Payload(&'static str),
    #[error("its readable fields are not what its payload says: the file was edited")]
    CopyDisagrees,
    #[error("it is signed by key {0}, which is not among the trusted keys")]
    UnknownKey(KeyId),
    #[error("its signature is false: key {0} did not sign it")]
    Signature(KeyId),
    #[error(
        "it is signed by key {key_id}, which is revoked from epoch {}, position {} on", from.0, from.1
    )]
    Revoked { key_id: KeyId, from: (u32, u64) },
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Json {
    format: String,
    log: u16,
    epoch: u32,
    from: u64,
    to: u64,
    kept: u64,
    at_micros: i64,
    key_id: String,
    payload: String,
    signature: String,
}

impl Thinning {
    fn payload(&self, key_id: KeyId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + 8 * self.kept.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.log.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.from.to_be_bytes());
        bytes.extend_from_slice(&self.to.to_be_bytes());
        bytes.extend_from_slice(&self.at_micros.to_be_bytes());
        bytes.extend_from_slice(key_id.as_bytes());
        bytes.extend_from_slice(&(self.kept.len() as u32).to_be_bytes());
        for size in &self.kept {
            bytes.extend_from_slice(&size.to_be_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<(Thinning, KeyId), ThinningError> {
        let refused = ThinningError::Payload;
        let (fixed, rest) = bytes
            .split_at_checked(FIXED_BYTES)
            .ok_or(refused("it is shorter than 48 bytes"))?;
        if &fixed[..4] != MAGIC || array::<2>(fixed, 4) != VERSION.to_be_bytes() {
            return Err(refused("it does not begin with BRET and version 1"));
        }
        let count = u32::from_be_bytes(array(fixed, 44)) as usize;
        if count > KEPT_MAX || rest.len() != count * 8 {
            return Err(refused("its length does not fit its number of heads"));
        }
        let kept: Vec<u64> = rest
            .chunks_exact(8)
            .map(|size| u64::from_be_bytes(array(size, 0)))
            .collect();
        let thinning = Thinning {
            log: u16::from_be_bytes(array(fixed, 6)),
            epoch: u32::from_be_bytes(array(fixed, 8)),
            from: u64::from_be_bytes(array(fixed, 12)),
            to: u64::from_be_bytes(array(fixed, 20)),
            at_micros: i64::from_be_bytes(array(fixed, 28)),
            kept,
        };
        let ascending = thinning.kept.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = |size: &u64| (thinning.from..=thinning.to).contains(size);
        if !ascending || !thinning.kept.iter().all(inside) || thinning.from > thinning.to {
            return Err(refused("its sizes do not ascend within its range"));
        }
        Ok((thinning, KeyId::from_bytes(array(fixed, 36))))
    }

    /// The object to keep: JSON with a line end.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let payload = self.payload(key.key_id());
        let signature = key.sign_bytes(&payload);
        // Strings and integers only: there is nothing here that serde_json could fail on.
        let json = self.json(key.key_id(), &payload, &signature);
        let mut bytes = serde_json::to_vec_pretty(&json).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn json(&self, key_id: KeyId, payload: &[u8], signature: &[u8]) -> Json {
        Json {
            format: FORMAT.to_owned(),
            log: self.log,
            epoch: self.epoch,
            from: self.from,
            to: self.to,
            kept: self.kept.len() as u64,
            at_micros: self.at_micros,
            key_id: key_id.to_string(),
            payload: hex::encode(payload),
            signature: hex::encode(signature),
        }
    }

    /// Reads one and checks its signature. Of a key that was revoked from a place within its range on, what it says of
    /// sizes before that place is left.
    pub fn read(bytes: &[u8], keys: &[VerifyingKey]) -> Result<Thinning, ThinningError> {
        let json: Json = serde_json::from_slice(bytes)
            .map_err(|error| ThinningError::Json(error.to_string()))?;
        if json.format != FORMAT {
            return Err(ThinningError::Json(format!(
                "its format is {:?}",
                json.format
            )));
        }
        let bad = |field: &'static str| move |source| ThinningError::Hex { field, source };
        let payload = hex::decode(&json.payload).map_err(bad("payload"))?;
        let signature: [u8; 64] = hex::decode_array(&json.signature).map_err(bad("signature"))?;
        let (thinning, key_id) = Thinning::parse(&payload)?;
        if thinning.json(key_id, &payload, &signature) != json {
            return Err(ThinningError::CopyDisagrees);
        }
        let accept = |position: u64| {
            let place = SignedPlace::Log {
                epoch: thinning.epoch,
                position,
            };
            keys::accept(keys, key_id, &payload, &signature, place)
        };
        let counts_to = match accept(thinning.to) {
            Err(Refusal::Revoked(from)) if accept(thinning.from).is_ok() => from.1 - 1,
            other => other
                .map(|()| thinning.to)
                .map_err(|refusal| match refusal {
                    Refusal::UnknownKey => ThinningError::UnknownKey(key_id),
                    Refusal::False => ThinningError::Signature(key_id),
                    Refusal::Revoked(from) => ThinningError::Revoked { key_id, from },
                })?,
        };
        Ok(thinning.below(counts_to))
    }

    /// What it says of sizes to the given one: all that a key which ends behind it vouches for.
    fn below(mut self, to: u64) -> Thinning {
        self.to = self.to.min(to);
        self.kept.retain(|size| *size <= to);
        self
    }

    fn covers(&self, epoch: u32, size: u64) -> bool {
        self.epoch == epoch && (self.from..=self.to).contains(&size)
    }
}

/// Whether a head is one that was let go of. The newest record about a size counts.
pub fn was_thinned(thinnings: &[Thinning], epoch: u32, size: u64) -> bool {
    let about = thinnings
        .iter()
        .filter(|thinning| thinning.covers(epoch, size));
    let newest = about.max_by_key(|thinning| (thinning.at_micros, thinning.to - thinning.from));
    newest.is_some_and(|thinning| thinning.kept.binary_search(&size).is_err())
}

/// Heads that should be there and are not: epoch and size, ascending. `uncounted`: heads that are there and that a key
/// signed which had ended; what they say does not count, so a head of another content does not stand for one that is
/// named. `named`: by an anchor of the repository.
pub fn missing_heads(
    heads: &[SignedHead],
    uncounted: &[SignedHead],
    thinnings: &[Thinning],
    named: &[LostHead],
) -> Vec<(u32, u64)> {
    let place = |head: &SignedHead| (head.claimed().epoch, head.claimed().size);
    let counted: BTreeSet<(u32, u64)> = heads.iter().map(place).collect();
    let there: BTreeSet<(u32, u64)> = heads.iter().chain(uncounted).map(place).collect();
    let is_same = |head: &LostHead| {
        let same = |other: &&SignedHead| {
            place(other) == (head.epoch, head.size) && other.claimed().last_hash == head.hash
        };
        uncounted.iter().any(|other| same(&other))
    };
    let linked = heads.iter().filter_map(SignedHead::previous);
    let anchored = linked.chain(named.iter().copied());
    let anchored =
        anchored.filter(|head| !counted.contains(&(head.epoch, head.size)) && !is_same(head));
    let listed = thinnings
        .iter()
        .flat_map(|thinning| thinning.kept.iter().map(|size| (thinning.epoch, *size)));
    let mut missing: Vec<(u32, u64)> = anchored
        .map(|head| (head.epoch, head.size))
        .chain(listed.filter(|place| !there.contains(place)))
        .filter(|(epoch, size)| !was_thinned(thinnings, *epoch, *size))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Those that no opening accounts for.
pub fn unexplained(missing: &[(u32, u64)], openings: &[EpochRecord]) -> Vec<(u32, u64)> {
    let explained = |(epoch, size): (u32, u64)| {
        let ranges = openings.iter().flat_map(|opening| &opening.missing_heads);
        ranges.into_iter().any(|range| range.holds(epoch, size))
    };
    let left = missing.iter().copied().filter(|place| !explained(*place));
    left.collect()
}

/// A head as thinning sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatedHead {
    pub size: u64,
    pub at_micros: i64,
    /// Never let go of: an opening, a proof or a witness names it.
    pub pinned: bool,
}

/// Of the heads of one epoch, ascending, those that stay at this moment: all of the last hour, then the newest of each
/// minute, and of each quarter of an hour where they are older than a day.
pub fn staying(heads: &[DatedHead], now_micros: i64) -> Vec<u64> {
    let stretch = |head: &DatedHead| match now_micros.saturating_sub(head.at_micros) {
        ..HOUR_MICROS => None,
        HOUR_MICROS..DAY_MICROS => Some((1, head.at_micros.div_euclid(MINUTE_MICROS))),
        DAY_MICROS.. => Some((15, head.at_micros.div_euclid(15 * MINUTE_MICROS))),
    };
    let stays = |(index, head): (usize, &DatedHead)| {
        let next = heads.get(index + 1);
        let last_of_its_time =
            stretch(head).is_none_or(|mine| next.is_none_or(|next| stretch(next) != Some(mine)));
        (head.pinned || last_of_its_time).then_some(head.size)
    };
    heads.iter().enumerate().filter_map(stays).collect()
}

/// `N` bytes at an offset that the caller has checked to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
