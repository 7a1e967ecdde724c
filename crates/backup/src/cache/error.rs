//! Why the cache was not copied.

use std::path::PathBuf;

use redis_physical::RedisError;

use crate::documents::Interruption;

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("Redis at {place} keeps no append-only file. Switch it on: CONFIG SET appendonly yes")]
    AofOff { place: String },
    #[error(
        "the folder {} of Redis at {place} cannot be read here: {reason}. Run this on the host of Redis, as root or \
         its account; where a provider runs it, its own snapshots protect it", folder.display()
    )]
    FolderNotReadable {
        place: String,
        folder: PathBuf,
        reason: String,
    },
    #[error(
        "{} is not what Redis at {place} writes ({what}): it runs on another host, or in a container with folders of \
         its own. Run this where its files are", path.display()
    )]
    OtherFiles {
        place: String,
        path: PathBuf,
        what: String,
    },
    #[error(
        "Redis at {place} refuses BGSAVE: {word}. Look at INFO persistence and its log; earlier snapshots are unharmed"
    )]
    BgsaveRefused { place: String, word: String },
    #[error(
        "Redis at {place} could not write its RDB file (rdb_last_bgsave_status:err); its log says why: usually no disk \
         or no memory. Earlier snapshots are unharmed"
    )]
    BgsaveFailed { place: String },
    #[error(
        "{} has {available} bytes free and a copy needs {needed}: free some, or let copies expire sooner; earlier \
         copies are unharmed", folder.display()
    )]
    NoDisk {
        folder: PathBuf,
        needed: u64,
        available: u64,
    },
    #[error(
        "Redis at {place} replaced its append-only file during each of {attempts} attempts to copy it: something asks \
         for BGREWRITEAOF all the time. Earlier copies are unharmed"
    )]
    Replaced { place: String, attempts: u32 },
    #[error(
        "no copy counts that no server loaded, and this one was not: {0}; earlier copies are unharmed"
    )]
    NotLoaded(RedisError),
}

impl From<Interruption> for CacheError {
    fn from(_: Interruption) -> CacheError {
        CacheError::Redis(RedisError::Cancelled)
    }
}

impl CacheError {
    /// The environment has to change first; a second attempt is no use.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            CacheError::Redis(error) => {
                error.is_refusal() || matches!(error, RedisError::NotAllowed { .. })
            }
            CacheError::AofOff { .. }
            | CacheError::FolderNotReadable { .. }
            | CacheError::OtherFiles { .. } => true,
            _ => false,
        }
    }
}
