//! The cache: files are loaded into a server of our own ([`LoadedCache`]), compared with the cache that is there
//! ([`plan`]), and only what is missing or older there is written ([`apply`]); then its append-only file is written
//! again from memory, and everything is read back.
//!
//! An RDB file that is put beside an append-only file is ignored by Redis 7, and overwritten at the next save: nothing
//! here puts one there.

mod apply;
mod error;
mod folder;
mod load;
mod plan;

pub use apply::{CacheRestoreReport, apply};
pub use error::CacheRestoreError;
pub use folder::StoppedCache;
pub use load::{LoadedCache, copy_for};
pub use plan::{CachePlan, KeyAction, plan};

/// As the repository names it, and its document.
pub const COMPONENT: &str = "cache";
pub const DOCUMENT: &str = "dump.rdb";
