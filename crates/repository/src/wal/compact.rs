//! What a crash left: tails beside their segment object, and finished segments that nobody sealed. Needs the private key.

use std::collections::BTreeSet;

use super::reader::WalReader;
use super::sealer::{delete_tails, seal_segment};
use super::{WalFacts, WalName};
use crate::error::{Error, Result};
use crate::keys::{RecipientPublic, new_data_key};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Segments sealed from tails that covered them.
    pub sealed: u64,
    /// Segments whose superseded tails were deleted.
    pub swept: u64,
    /// Why superseded tails stay, where the store does not let them go. The first refusal is told; the others of its kind are not tried.
    pub undeleted_reason: Option<String>,
}

impl WalReader {
    /// Seals whole segments that lie in tails, and deletes tails whose segment object opens.
    /// Safe beside a running stream: the segment that it writes is not whole yet.
    pub fn compact(&self, public: &RecipientPublic) -> Result<CompactReport> {
        let mut segments = BTreeSet::new();
        for object in self.repository().store().list("tail/")? {
            segments.insert(WalName::parse(&object.name)?);
        }
        let mut report = CompactReport::default();
        for WalName { timeline, segment } in segments {
            let found = match self.read(timeline, segment) {
                Ok(Some(found)) => found,
                // Expiry let go of its first tails and keeps the young ones for now: it will never be whole.
                Ok(None) | Err(Error::WalHole { .. }) => continue,
                Err(error) => return Err(error),
            };
            if found.wal.len() as u64 != found.facts.segment_bytes {
                continue;
            }
            if !found.from_object {
                let facts = WalFacts {
                    start_lsn: found.facts.segment_start(),
                    ..found.facts
                };
                let facts = WalFacts {
                    server_time_micros: self.confirmed_at(timeline, segment)?.unwrap_or(0),
                    ..facts
                };
                let key = new_data_key(self.repository(), public)?;
                seal_segment(self.repository(), &key, &facts, "compact", &found.wal)?;
                report.sealed += 1;
            }
            if report.undeleted_reason.is_none() {
                match delete_tails(self.repository(), &found.facts) {
                    Ok(()) => report.swept += 1,
                    Err(error) => report.undeleted_reason = Some(error.to_string()),
                }
            }
        }
        Ok(report)
    }
}
