//! Snapshots: named documents of another component than the database at one moment (docs/formats/snapshots.md).
//! Written by [`SnapshotWriter`] (a public key is enough), read by [`SnapshotReader`] (its mirror; needs the private
//! key), listed by [`snapshots`].

mod catalogue;
mod manifest;
mod names;
mod reader;
mod verification;
mod writer;

pub use catalogue::{
    NewerSnapshot, SnapshotCatalogue, SnapshotState, SnapshotSummary, find_snapshot, snapshots,
};
pub(crate) use catalogue::{is_newer, read_snapshot_header};
pub use names::{check_component, check_document};
pub(crate) use names::{folder_of, manifest_of, place_of, prefix_of};
pub(crate) use reader::parse_body;
pub use reader::{ReadTotals, SnapshotDocument, SnapshotReader};
pub(crate) use verification::parse as parse_verification;
pub use verification::{Verification, put_verification, verify};
pub use writer::{DocumentChanges, SnapshotOptions, SnapshotOutcome, SnapshotWriter};
