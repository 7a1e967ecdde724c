//! What a crash left: tails beside their segment object, and finished segments that nobody sealed. Needs the private key.

use std::collections::BTreeSet;

use super::frames::{Doubt, Tail, read_growing};
use super::reader::WalReader;
use super::sealer::delete_tails;
use super::segment_boxes::{SegmentObject, Wal, seal_segment};
use super::{WalFacts, WalName, segment_name, tail_prefix, without_old_heartbeats};
use crate::error::{Error, Result, StoreError};
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
        for name in segments {
            match self.compact_one(name, public, &mut report) {
                // Another one was quicker, or expiry lets go of its first tails and keeps the young ones for now.
                Err(Error::Store(StoreError::NotFound { .. }) | Error::WalHole { .. }) => {}
                other => other?,
            }
        }
        Ok(report)
    }

    fn compact_one(
        &self,
        WalName { timeline, segment }: WalName,
        public: &RecipientPublic,
        report: &mut CompactReport,
    ) -> Result<()> {
        // Tails first: what is sealed meanwhile then shows among the segments.
        let tails = without_old_heartbeats(self.names(&tail_prefix(timeline, segment))?);
        let facts = match self.sealed(&self.names(&segment_name(timeline, segment, ""))?)? {
            Some(facts) => facts,
            None => {
                let Some(facts) = self.covered_whole(&tails)? else {
                    return Ok(());
                };
                let facts = WalFacts {
                    start_lsn: facts.segment_start(),
                    server_time_micros: self.confirmed_at(timeline, segment)?.unwrap_or(0),
                    ..facts
                };
                let wal = Wal::Tails {
                    names: &tails,
                    key: &|name, id| self.keys.key(name, id),
                };
                let key = new_data_key(self.repository(), public)?;
                seal_segment(self.repository(), &key, &facts, "compact", wal)?;
                report.sealed += 1;
                facts
            }
        };
        if report.undeleted_reason.is_none() {
            match delete_tails(self.repository(), &facts) {
                Ok(()) => report.swept += 1,
                Err(error) => report.undeleted_reason = Some(error.to_string()),
            }
        }
        Ok(())
    }

    /// Of the first object that opens. Damaged ones do not count: tails may still hold what they should.
    fn sealed(&self, objects: &[String]) -> Result<Option<WalFacts>> {
        for name in objects {
            match SegmentObject::in_parts(&self.keys, name).open(|_, _| ()) {
                Ok(facts) => return Ok(Some(facts)),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether tails hold the segment from beginning to end, by their clear bytes; in the order of their beginnings.
    fn covered_whole(&self, tails: &[String]) -> Result<Option<WalFacts>> {
        let (mut first, mut end) = (None, 0);
        for name in tails {
            let covered = read_growing(self.repository().store(), name, |bytes| {
                let Some(tail) = Tail::scan(name, bytes)? else {
                    return Ok(None);
                };
                self.repository()
                    .expect_cluster(tail.facts.system_identifier, name)?;
                let tail = tail.without_torn_end(Doubt::IsIgnored);
                Ok(tail.map(|tail| (tail.facts, tail.covered())))
            })?;
            let Some((facts, covered)) = covered else {
                continue;
            };
            if first.is_none() {
                (first, end) = (Some(facts), facts.segment_start());
            }
            if covered.start > end {
                return Ok(None);
            }
            end = end.max(covered.end);
        }
        Ok(first.filter(|facts| end == facts.segment_end()))
    }
}
