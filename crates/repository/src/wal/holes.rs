//! WAL that is known never to arrive, on record.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, StoreError};
use crate::repository::to_json;
use crate::store::now_micros;
use crate::{
    Repository,
    backup::{BackupState, BackupSummary},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub timeline: u32,
    pub start: u64,
    pub end: u64,
    pub reason: String,
    pub recorded_at_micros: i64,
}

impl Hole {
    /// A complete backup that begins behind it: from there on everything can be restored again.
    #[must_use]
    pub fn is_made_up_for(&self, backups: &[BackupSummary]) -> bool {
        backups
            .iter()
            .any(|backup| backup.state == BackupState::Complete && backup.start_lsn >= self.end)
    }
}

const PREFIX: &str = "holes/";

/// Records that WAL from `start` to `end` was lost, and why.
pub fn record_hole(
    repository: &Repository,
    timeline: u32,
    start: u64,
    end: u64,
    streamer_id: &str,
    reason: &str,
) -> Result<()> {
    let hole = Hole {
        timeline,
        start,
        end,
        reason: reason.to_owned(),
        recorded_at_micros: now_micros(),
    };
    let name = format!("{PREFIX}{timeline:08x}/{start:016x}-{end:016x}.{streamer_id}");
    match repository.store().put(&name, &to_json(&hole)) {
        Err(StoreError::AlreadyExists { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// All on record. A record that cannot be read hides none of the others and no WAL: what it said is missing.
pub(super) fn holes(repository: &Repository, damaged: &mut Vec<Error>) -> Result<Vec<Hole>> {
    let mut holes = Vec::new();
    for object in repository.store().list(PREFIX)? {
        let bytes = match repository.store().get(&object.name) {
            Ok(bytes) => bytes,
            // Expired since the listing.
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => {
                let error = Error::from(error);
                if error.is_unavailable() {
                    return Err(error);
                }
                damaged.push(error);
                continue;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(hole) => holes.push(hole),
            Err(_) => damaged.push(Error::damaged(&object.name, 0, "it cannot be parsed")),
        }
    }
    Ok(holes)
}

/// Whether an object is such a record: it holds no WAL. Without it a gap is one that is not on record, and nothing
/// else changes.
#[must_use]
pub fn is_hole_record(object: &str) -> bool {
    object.starts_with(PREFIX)
}
