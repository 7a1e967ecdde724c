//! What refers to what, readable without a key: the packs of each backup, and the tombstones that name what expires.
//! Those who write backups and those who delete them both ask here; it knows neither.

pub(crate) mod pack_list;
pub(crate) mod tombstones;

pub use pack_list::{check_present, record_references};
pub(crate) use pack_list::{read_list, read_list_below, record_references_below};
pub use tombstones::packs_marked_for_deletion;
pub(crate) use tombstones::{check_tombstone, expiring, expiring_snapshots};
