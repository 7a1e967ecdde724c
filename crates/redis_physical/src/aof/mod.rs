//! The append-only file of Redis 7 and Valkey: a folder with a manifest, a base and increments behind it.

mod copy;
mod manifest;
mod scan;
mod truncate;

pub use copy::{AofCopy, COPY_VERSION, CopyFacts, FACTS, UNFINISHED, copies};
pub use manifest::{AofFile, AofKind, Manifest};
pub use scan::{AofScan, scan, scan_file};
pub use truncate::{Truncation, first_moment_seconds, truncate};
