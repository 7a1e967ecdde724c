//! Hands WAL out again. Mirror: `writer` and `sealer`.

use super::frames::{Doubt, Tail, read_growing};
use super::inventory::{Inventory, Look, inventory};
use super::segment_boxes::SegmentObject;
use super::{WalFacts, WalName, segment_name, tail_prefix, without_old_heartbeats};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPrivate};
use crate::timelines;

const REMEDY_HOLE: &str = "Restore to a point before it, or start from a backup taken after it";

/// Shared by threads: all methods take `&self`.
#[derive(Debug)]
pub struct WalReader {
    pub(super) keys: KeyRing,
}

/// A segment as far as it is here.
pub(super) struct SegmentWal {
    pub(super) facts: WalFacts,
    /// From the start of the segment.
    pub(super) wal: Vec<u8>,
}

impl WalReader {
    #[must_use]
    pub fn new(repository: &Repository, private: &RecipientPrivate) -> Self {
        Self {
            keys: KeyRing::new(repository, private),
        }
    }

    pub(super) fn repository(&self) -> &Repository {
        self.keys.repository()
    }

    /// What is here, with every open tail proven by opening it.
    pub fn inventory(&self) -> Result<Inventory> {
        inventory(self.repository(), Look::Keys(&self.keys))
    }

    /// A timeline's history file, or `None` when there is none (timeline 1 has none).
    pub fn history(&self, timeline: u32) -> Result<Option<Vec<u8>>> {
        timelines::history(&self.keys, timeline)
    }

    /// A whole segment, the newest one padded with zeros. `None` only when complete listings show that neither it
    /// nor anything later on its timeline is here; whatever else keeps it from being read is an error.
    pub fn segment(&self, timeline: u32, segment: u64) -> Result<Option<Vec<u8>>> {
        self.segment_until(timeline, segment, u64::MAX)
    }

    /// The same for a reader that goes no further than the record at `until`: a hole behind that place is padded like the
    /// end of all WAL.
    pub fn segment_until(
        &self,
        timeline: u32,
        segment: u64,
        until: u64,
    ) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.read(timeline, segment)? else {
            return match self.later(timeline, segment)? {
                false => Ok(None),
                true => Err(Error::WalHole {
                    timeline,
                    from: segment,
                    to: segment + 1,
                    remedy: REMEDY_SEGMENT,
                }),
            };
        };
        let SegmentWal { facts, mut wal, .. } = found;
        let (end, whole) = (
            facts.segment_start() + wal.len() as u64,
            facts.segment_bytes,
        );
        if (wal.len() as u64) < whole && end <= until && self.later(timeline, segment)? {
            return Err(Error::WalHole {
                timeline,
                from: end,
                to: facts.segment_end(),
                remedy: REMEDY_HOLE,
            });
        }
        wal.resize(usize::try_from(whole).unwrap_or(usize::MAX), 0);
        Ok(Some(wal))
    }

    /// WAL from `from` to `to`, all of it or an error.
    pub fn bytes(&self, timeline: u32, from: u64, to: u64) -> Result<Vec<u8>> {
        let hole = |at: u64| Error::WalHole {
            timeline,
            from: at,
            to,
            remedy: REMEDY_HOLE,
        };
        if from >= to {
            return Ok(Vec::new());
        }
        let segment_bytes = self.segment_bytes(timeline)?.ok_or_else(|| hole(from))?;
        let mut bytes = Vec::new();
        let mut at = from;
        while at < to {
            let found = self
                .read(timeline, at / segment_bytes)?
                .ok_or_else(|| hole(at))?;
            let start = usize::try_from(at - found.facts.segment_start()).unwrap_or(usize::MAX);
            let wanted = usize::try_from(to - at).unwrap_or(usize::MAX);
            let here = found.wal.get(start..).unwrap_or(&[]);
            let here = &here[..wanted.min(here.len())];
            if here.is_empty() {
                return Err(hole(at));
            }
            bytes.extend_from_slice(here);
            at += here.len() as u64;
        }
        Ok(bytes)
    }

    /// The size of this timeline's segments, from any of its objects.
    pub fn segment_bytes(&self, timeline: u32) -> Result<Option<u64>> {
        let store = self.repository().store();
        for kind in ["wal", "tail"] {
            for object in store.list(&format!("{kind}/{timeline:08x}/"))? {
                let header = crate::pipeline::read_header(store, &object.name);
                if let Ok(facts) =
                    header.and_then(|(header, _)| WalFacts::decode(&object.name, &header.clear))
                {
                    return Ok(Some(facts.segment_bytes));
                }
            }
        }
        Ok(None)
    }

    /// The newest server time that the objects of a segment confirm, from clear headers; `None` when it is not here.
    pub fn confirmed_at(&self, timeline: u32, segment: u64) -> Result<Option<i64>> {
        for _ in 0..8 {
            let tails = without_old_heartbeats(self.names(&tail_prefix(timeline, segment))?);
            let objects = self.names(&segment_name(timeline, segment, ""))?;
            match self.newest_time(&tails, &objects) {
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                other => return other,
            }
        }
        Err(Error::Input(
            "WAL objects keep changing under the reader: try again".to_owned(),
        ))
    }

    fn newest_time(&self, tails: &[String], objects: &[String]) -> Result<Option<i64>> {
        let store = self.repository().store();
        let mut newest = None;
        for name in objects {
            let (header, _) = crate::pipeline::read_header(store, name)?;
            newest = newest.max(Some(
                WalFacts::decode(name, &header.clear)?.server_time_micros,
            ));
        }
        for name in if objects.is_empty() { tails } else { &[] } {
            let time = read_growing(store, name, |bytes| {
                let tail = Tail::scan(name, bytes)?;
                let tail = tail.and_then(|tail| tail.without_torn_end(Doubt::IsIgnored));
                Ok(tail.map(|tail| tail.covered().server_time_micros))
            })?;
            newest = newest.max(time);
        }
        Ok(newest)
    }

    /// Segment object first, tails where there is none; `None` when there is nothing.
    pub(super) fn read(&self, timeline: u32, segment: u64) -> Result<Option<SegmentWal>> {
        for _ in 0..8 {
            // Tails first: what is sealed meanwhile then shows among the segments.
            let tails = without_old_heartbeats(self.names(&tail_prefix(timeline, segment))?);
            let objects = self.names(&segment_name(timeline, segment, ""))?;
            match self.read_objects(&objects) {
                Some(Ok(found)) => return Ok(Some(found)),
                Some(Err(error)) if tails.is_empty() || !error.is_damage() => return Err(error),
                _ => {}
            }
            match self.read_tails(&tails) {
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                other => return other,
            }
        }
        Err(Error::Input(
            "WAL objects keep changing under the reader: try again".to_owned(),
        ))
    }

    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self
            .repository()
            .store()
            .list(prefix)?
            .into_iter()
            .map(|object| object.name)
            .collect())
    }

    /// The first that opens; the first error when none does.
    pub(super) fn read_objects(&self, names: &[String]) -> Option<Result<SegmentWal>> {
        let mut first_error = None;
        for name in names {
            match self.read_object(name) {
                Ok(found) => return Some(Ok(found)),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map(Err)
    }

    pub(super) fn read_object(&self, name: &str) -> Result<SegmentWal> {
        let mut wal = Vec::new();
        let facts = SegmentObject::whole(&self.keys, name)?.open(|facts, raw| {
            if raw.len() as u64 == facts.segment_bytes {
                wal = raw;
                return;
            }
            if wal.is_empty() {
                wal.reserve_exact(usize::try_from(facts.segment_bytes).unwrap_or(0));
            }
            wal.extend_from_slice(&raw);
        })?;
        Ok(SegmentWal { facts, wal })
    }

    fn read_tails(&self, names: &[String]) -> Result<Option<SegmentWal>> {
        let mut parts = Vec::new();
        for name in names {
            let part = read_growing(self.repository().store(), name, |bytes| {
                let Some(mut tail) = Tail::scan(name, bytes)? else {
                    return Ok(None);
                };
                self.repository()
                    .expect_cluster(tail.facts.system_identifier, name)?;
                let wal = tail.open(&*self.keys.key(name, tail.data_key())?)?;
                Ok(Some((tail.facts, wal)))
            })?;
            parts.extend(part);
        }
        parts.sort_by_key(|(facts, _)| facts.start_lsn);
        let Some(facts) = parts.first().map(|(facts, _)| *facts) else {
            return Ok(None);
        };
        let mut wal = Vec::new();
        for (part, bytes) in parts {
            let end = facts.segment_start() + wal.len() as u64;
            let Some(known) = end.checked_sub(part.start_lsn) else {
                let (from, to) = (end, part.start_lsn);
                return Err(Error::WalHole {
                    timeline: facts.timeline,
                    from,
                    to,
                    remedy: REMEDY_HOLE,
                });
            };
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            wal.extend_from_slice(bytes.get(known..).unwrap_or(&[]));
        }
        Ok(Some(SegmentWal { facts, wal }))
    }

    pub(super) fn later(&self, timeline: u32, segment: u64) -> Result<bool> {
        for kind in ["tail", "wal"] {
            for name in self.names(&format!("{kind}/{timeline:08x}/"))? {
                if WalName::parse(&name)?.segment > segment {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

const REMEDY_SEGMENT: &str = "(The numbers are segments.) Restore to a point before it, or start from a backup taken after it";
