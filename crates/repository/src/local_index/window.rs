//! One window of a file: where its pieces lie, what they were, and which of them have to be stored again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::keys::ChunkIdKey;
use crate::manifest::CHUNK_BYTES;

/// A page of PostgreSQL; other files are looked at in the same steps.
pub(crate) const PIECE_BYTES: usize = 8192;
const CONTEXT: &str = "bre page fingerprint 1";
/// A window that refers to more chunks is tidied, down to `CHUNKS_AFTER`.
const CHUNKS_MAX: usize = 16;
const CHUNKS_AFTER: usize = 8;
/// A restore opens at most this many times what it writes.
const OPENED_PER_BYTE_MAX: u64 = 3;

/// What a piece was: 128 bits of a keyed hash.
pub(crate) type Fingerprint = [u8; 16];

#[derive(Clone)]
pub(crate) struct Fingerprinter([u8; 32]);

impl Fingerprinter {
    pub(crate) fn new(key: &ChunkIdKey) -> Self {
        Self(blake3::derive_key(CONTEXT, key.bytes()))
    }

    pub(crate) fn all(&self, raw: &[u8]) -> Vec<Fingerprint> {
        let one = |piece: &[u8]| {
            let mut short = [0; 16];
            short.copy_from_slice(&blake3::keyed_hash(&self.0, piece).as_bytes()[..16]);
            short
        };
        raw.chunks(PIECE_BYTES).map(one).collect()
    }
}

/// Where a piece, or a run of them, lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRange {
    /// Number of the chunk.
    pub(crate) blob: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A window as it was when the parent was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) fingerprints: Vec<Fingerprint>,
    /// One a piece.
    pub(crate) pieces: Vec<ChunkRange>,
}

/// Neighbours that lie one behind the other become one.
pub(crate) fn merge(pieces: &[ChunkRange]) -> Vec<ChunkRange> {
    let mut runs = Vec::<ChunkRange>::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if run.blob == piece.blob && run.offset + run.length == piece.offset => {
                run.length += piece.length;
            }
            _ => runs.push(*piece),
        }
    }
    runs
}

/// Mirror of [`merge`]: runs cut into the pieces of a window of `len` bytes; `None` when they do not fit it.
pub(crate) fn split(runs: &[ChunkRange], len: usize) -> Option<Vec<ChunkRange>> {
    let mut pieces = Vec::with_capacity(len.div_ceil(PIECE_BYTES));
    for run in runs {
        let end = run.offset.checked_add(run.length)?;
        let mut at = run.offset;
        while at < end {
            let length = (end - at).min(PIECE_BYTES as u32);
            pieces.push(ChunkRange {
                blob: run.blob,
                offset: at,
                length,
            });
            at += length;
        }
    }
    let fits = |(number, piece): (usize, &ChunkRange)| {
        let left = len.checked_sub(number * PIECE_BYTES);
        left.is_some_and(|left| piece.length as usize == left.min(PIECE_BYTES))
    };
    let whole = pieces.len() == len.div_ceil(PIECE_BYTES) && pieces.iter().enumerate().all(fits);
    whole.then_some(pieces)
}

/// Which pieces of a window must be stored again: those that are not what they were, and, in a window that changed at all, those
/// of chunks of which too little is still used. `chunk_len` tells the raw length of a chunk by its number.
pub(crate) fn to_store(
    parent: Option<&Window>,
    now: &[Fingerprint],
    chunk_len: &dyn Fn(u32) -> u32,
) -> Vec<bool> {
    let Some(parent) = parent else {
        return vec![true; now.len()];
    };
    let mut store = changed(parent, now);
    if store.contains(&true) {
        tidy(parent, &mut store, chunk_len);
    }
    store
}

/// Which pieces are not what they were.
pub(crate) fn changed(parent: &Window, now: &[Fingerprint]) -> Vec<bool> {
    let was = |number: usize| parent.fingerprints.get(number);
    let differs = |(number, now)| was(number) != Some(now) || number >= parent.pieces.len();
    now.iter().enumerate().map(differs).collect()
}

/// The fingerprints of a window of which only some pieces were given: the others are as they were. `None` when it had not all of them,
/// or not as whole pieces.
pub(crate) fn with_kept(
    parent: &Window,
    kept: &[bool],
    given: Vec<Fingerprint>,
) -> Option<Vec<Fingerprint>> {
    let mut given = given.into_iter();
    let one = |(number, kept): (usize, &bool)| match kept {
        true => {
            let whole = parent.pieces.get(number)?.length as usize == PIECE_BYTES;
            parent.fingerprints.get(number).copied().filter(|_| whole)
        }
        false => given.next(),
    };
    let all = kept.iter().enumerate().map(one).collect();
    given.next().is_none().then_some(all).flatten()
}

/// Whether a window would be tidied if it changed: nothing more may be put on top of it unseen.
pub(crate) fn is_scattered(runs: &[ChunkRange], chunk_len: &dyn Fn(u32) -> u32) -> bool {
    let chunks: BTreeSet<u32> = runs.iter().map(|run| run.blob).collect();
    let opened: u64 = chunks.iter().map(|blob| u64::from(chunk_len(*blob))).sum();
    chunks.len() >= CHUNKS_MAX || opened > OPENED_PER_BYTE_MAX * CHUNK_BYTES as u64
}

fn tidy(parent: &Window, store: &mut [bool], chunk_len: &dyn Fn(u32) -> u32) {
    let mut used = BTreeMap::<u32, u64>::new();
    let mut stored = 0;
    for (piece, again) in parent.pieces.iter().zip(store.iter()) {
        if *again {
            stored += PIECE_BYTES as u64;
        } else {
            *used.entry(piece.blob).or_default() += u64::from(piece.length);
        }
    }
    let many = used.len() >= CHUNKS_MAX;
    loop {
        let opened: u64 = used.keys().map(|blob| u64::from(chunk_len(*blob))).sum();
        let too_long = opened + stored > OPENED_PER_BYTE_MAX * CHUNK_BYTES as u64;
        let too_many = many && used.len() >= CHUNKS_AFTER;
        let worst = if too_long {
            // Of which the smallest part is used.
            let part = |(blob, bytes): &(&u32, &u64)| {
                **bytes * CHUNK_BYTES as u64 / u64::from(chunk_len(**blob)).max(1)
            };
            used.iter().min_by_key(part)
        } else if too_many {
            used.iter().min_by_key(|(_, bytes)| **bytes)
        } else {
            return;
        };
        let Some((&blob, &bytes)) = worst else { return };
        used.remove(&blob);
        stored += bytes;
        for (piece, again) in parent.pieces.iter().zip(store.iter_mut()) {
            *again |= piece.blob == blob;
        }
    }
}
