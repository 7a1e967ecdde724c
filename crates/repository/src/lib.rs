//! Bytes at rest: an encrypted, authenticated, compressed, write-once repository of one PostgreSQL cluster's backups
//! and WAL. The format is `docs/formats/repository.md`.
//!
//! Entry points: [`Repository`], then [`BackupWriter`] and [`WalWriter`] to write (a public key is enough),
//! [`BackupReader`] and [`WalReader`] to read (needs the private key), [`catalogue`] and [`wal_inventory`] to look
//! (needs no key), [`retention`] to delete what is old; [`snapshot`] for documents of other components than the
//! database.
//!
//! Absent: anything that speaks to PostgreSQL or knows the meaning of its files; async; S3 and KMS (crate `aws`) and
//! hardware tokens (crate `pkcs11`), which implement this crate's traits.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

mod archive;
mod backup;
mod copying;
mod error;
mod heads;
mod keys;
mod known;
mod manifest;
mod outlook;
mod pack;
mod pipeline;
mod progress;
mod read_back;
mod references;
mod repository;
pub mod retention;
pub mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod timelines;
mod transparency;
mod wal;

pub use archive::{
    ArchivePart, ArchivedEntries, archive_parts, archived_to, newest_archived, put_archive,
    read_archive,
};
pub use backup::{
    BackupFacts, BackupKind, BackupOptions, BackupReader, BackupState, BackupStop, BackupSummary,
    BackupWriter, Catalogue, DamagedObject, DamagedPage, Entry, EntryKind, ExtentReader,
    FileWriter, Proof, VerifyReport, WINDOW_BYTES, catalogue, new_backup_id, put_proof,
};
pub use copying::{Copied, CopyOptions, copy};
pub use error::{ClosedKey, Error, Result, StoreError};
pub use heads::{
    StoredHead, ThinnedName, anchors, dated_heads, drop_head, drop_thinned, head, head_sizes,
    heads, keep_head, kept_heads, put_anchor, put_head, put_thinned, thinned, thinned_names,
};
pub use keys::{
    ChunkIdKey, DataKeySecret, KeyError, KeyTrouble, NamedWrap, RecipientPrivate, RecipientPublic,
    Rewrapped, UnwrapKeys, Vault, WrapBinding, WrapHeader, WrapKeys, WrapSuite, named_recipient_id,
    named_wrap, not_sealed_to, not_sealed_to_in, open_named_wrap, recipients, recipients_in,
    retire, retire_in, rewrap, rewrap_in, seal_also,
};
pub use manifest::Extent;
pub use outlook::{KeyOutlook, KeyState, Reach, WalReach, key_outlook};
pub use progress::Progress;
pub use read_back::{
    AuditReader, ClassReport, Evidence, EvidenceSource, Finding, Gap, GapCause, ObjectClass,
    ReadBack, ReadBackOptions, Shortfall, TimelineContinuity, newest_known, read_back, shortfall,
};
pub use repository::Repository;
#[doc(hidden)]
pub use store::suite;
pub use store::{
    Appender, ColdObject, FaultyStore, Lock, LockMode, LockPolicy, MARKER, MemoryStore, NextPiece,
    ObjectInfo, PosixStore, Store, check_name,
};
pub use timelines::{known_timelines, put_history, release, reserve};
pub use transparency::{
    cosigned_heads, key_statements, published_origins, put_cosigned, put_first_checkpoint,
    put_key_statement, put_tile, tile,
};
pub use wal::{
    CompactReport, Grown, Hole, Interval, Inventory, SealStatus, Seen, TimelineWal, WalReader,
    WalWriter, record_hole, segment_file_name, wal_inventory, wal_inventory_to_go_on,
};
