//! The audit log as bytes: canonical entries, the hash chain, the Merkle tree, signed heads, and the verification of all of it.
//! The format is `docs/formats/audit_log.md`; where page and code differ, the page is right.
//!
//! Entry points: a writer holds a [`Chain`], appends to it and lets a [`SigningKey`] sign its heads; a reader feeds stored entries
//! to a [`Verifier`] (or to [`verify`] in one go) and gets a [`Report`].
//!
//! Absent: databases, clocks and threads. Times come in as numbers, entries go out as bytes, and whoever calls decides where both
//! live. Key files are the only files touched. What a field means is its writer's affair: here fields are names and text.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

mod chain;
mod encoded;
mod entry;
mod fields;
mod follow;
mod hash;
mod head;
pub mod hex;
mod keys;
mod merkle;
mod opening;
mod proof;
mod signed_head;
mod stored;
mod verify;

#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainError, Placed, Sealed};
pub use encoded::{EncodedFields, ValueWriter};
pub use entry::{ENTRY_BYTES_MAX, Entry, EntryError, Kind};
pub use fields::{FIELDS_MAX, Fields, NAME_BYTES_MAX};
pub use follow::StoredEntry;
pub use hash::Hash;
pub use head::{Head, HeadError};
pub use hex::HexError;
pub use keys::{KeyError, KeyId, SigningKey, VerifyingKey};
pub use merkle::Frontier;
pub use opening::{EpochOpening, EpochRecord, LostHead, OpeningError, Reason};
pub use proof::{InclusionProof, ProofError, Proved, Prover};
pub use signed_head::SignedHead;
pub use stored::expand;
pub use verify::{BadEntry, Report, Verifier, verify};
