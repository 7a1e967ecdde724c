//! What refers to what, readable without a key: the packs of each backup, and the tombstones that name what expires.
//! Those who write backups and those who let them go both ask here; it knows neither.

pub(crate) mod pack_list;
pub(crate) mod tombstones;

pub(crate) use pack_list::{read_list, read_list_below, refer_below};
pub use pack_list::{refer, still_there};
pub use tombstones::doomed_packs;
pub(crate) use tombstones::{check_tombstone, expiring, expiring_snapshots};
