//! The audit log as bytes: canonical entries, the hash chain, the Merkle tree, signed heads, and the verification of
//! all of it. The format is `docs/formats/audit_log.md`; where page and code differ, the page is right.
//!
//! Entry points: a writer holds a [`Chain`], appends to it and lets a [`SigningKey`] sign its heads; a reader feeds
//! stored entries to a [`Verifier`] (or to [`verify`] in one go) and gets a [`Report`].
//!
//! Absent: databases, clocks and threads. Times come in as numbers, entries go out as bytes, and the caller decides
//! where both are kept. Key files are the only files touched. A field is a name and a text here; its meaning belongs to
//! its writer.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

mod chain;
mod checkpoint;
mod encoded;
mod entry;
mod fields;
mod follow;
mod hash;
mod head;
pub mod hex;
mod inclusion_proof;
mod key_statement;
mod keys;
mod merkle;
mod note;
mod opening;
mod rows;
mod signed_head;
mod stored;
mod thinning;
mod tiles;
mod verdict;
mod verify;
mod witness;

#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainError, ChainLink, SealedEntry};
pub use checkpoint::{Checkpoint, LeftBehind, Origin, begins_behind_line, is_origin_name};
pub use encoded::{EncodedFields, ValueWriter};
pub use entry::{ENTRY_BYTES_MAX, Entry, EntryError, Kind};
pub use fields::{FIELDS_MAX, Fields, NAME_BYTES_MAX};
pub use follow::StoredEntry;
pub use hash::Hash;
pub use head::{Head, HeadError};
pub use hex::HexError;
pub use inclusion_proof::{InclusionProof, InclusionProofError, InclusionProver, ProvenEntry};
pub use key_statement::{KeyStatement, Says, StatementError, trust};
pub use keys::{KeyError, KeyId, SignedPlace, SigningKey, VERIFYING_LABEL, VerifyingKey};
pub use merkle::Frontier;
pub use note::{
    NOTE_BYTES_MAX, Note, NoteError, NoteKey, NoteKeyId, NoteSignature, SignatureKind,
    ValidSignature,
};
pub use opening::{EpochOpening, EpochRecord, HeadRange, LostHead, OpeningError, Reason, Stretch};
pub use rows::{RowBytes, RowDigest, RowDigestError, RowLeaves};
pub use signed_head::SignedHead;
pub use stored::expand;
pub use thinning::{
    DatedHead, KEPT_MAX, Thinning, ThinningError, missing_heads, staying, unexplained, was_thinned,
};
pub use tiles::{
    TILE_WIDTH, Tile, TileId, TileTree, TiledTree, TreeError, is_consistent, read_tile, tile_bytes,
};
pub use verdict::{Anchoring, UNSIGNED_MICROS_MAX, Verdict};
pub use verify::{BadEntry, Fault, Report, Verifier, verify};
pub use witness::{
    ANSWER_BYTES_MAX, AddCheckpoint, Judgement, KnownLog, KnownTree, REQUEST_BYTES_MAX, judge,
};
