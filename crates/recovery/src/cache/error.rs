//! Why the cache was not restored.

use std::path::PathBuf;

use redis_physical::RedisError;

#[derive(Debug, thiserror::Error)]
pub enum CacheRestoreError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(
        "no copy of the append-only file under {} can be restored to that moment: {why}", folder.display()
    )]
    NoCopy { folder: PathBuf, why: String },
    #[error(
        "a server works in {}: stop it first, or restore into it while it runs", folder.display()
    )]
    InUse { folder: PathBuf },
    #[error(
        "Redis at {place} could not write its append-only file again (aof_last_bgrewrite_status is not ok); its log \
         says why. {written} keys were written and are in memory"
    )]
    NotRewritten { place: String, written: usize },
    #[error(
        "{missing} of {written} keys are not in Redis at {place} as they were written: something else changes or \
         evicts them (maxmemory?). What is there is not older than before; restore again"
    )]
    ReadBack {
        place: String,
        missing: usize,
        written: usize,
    },
}

impl CacheRestoreError {
    /// Something has to change first; nothing was written.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            CacheRestoreError::Redis(error) => error.is_refusal(),
            CacheRestoreError::NoCopy { .. } | CacheRestoreError::InUse { .. } => true,
            _ => false,
        }
    }
}
