//! What may go, when, and why; and how it goes without ever breaking a restore (repository.md §11).
//!
//! Writers of backups call [`refer`] just before their manifest. Expiry reads, decides (pure), and deletes; it can be interrupted
//! anywhere and repeated.

mod pack_list;
mod tombstones;

pub use pack_list::{refer, still_there};
pub use tombstones::doomed_packs;
