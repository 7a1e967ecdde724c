//! Hands WAL out again. Mirror: `writer` and `sealer`.

use super::frames::{Doubt, Tail, read_growing};
use super::inventory::{Inventory, Look, inventory};
use super::segment_boxes::{SegmentObject, WHOLE_BYTES_MAX};
use super::{WalFacts, WalName, segment_name, tail_prefix, without_old_heartbeats};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPrivate};
use crate::store::ObjectInfo;
use crate::timelines;

const REMEDY_HOLE: &str = "Restore to a point before it, or start from a backup taken after it";

/// Shared by threads: all methods take `&self`.
#[derive(Debug)]
pub struct WalReader {
    pub(super) keys: KeyRing,
}

/// Of a segment's WAL, from its beginning on, so that no more than a few MiB of it are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentPiece<'a> {
    /// What came until now was of an object that is damaged, or that went meanwhile: it begins again.
    Restart,
    Wal(&'a [u8]),
}

/// Zeros that are handed out at a time.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

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
        let mut wal = Vec::new();
        let found = self.segment_in_pieces(timeline, segment, until, &mut collecting(&mut wal))?;
        Ok(found.map(|_| wal))
    }

    /// The same in pieces, and how long it is. What was taken before an error, or before `None`, is nothing.
    pub fn segment_in_pieces(
        &self,
        timeline: u32,
        segment: u64,
        until: u64,
        take: &mut dyn FnMut(SegmentPiece<'_>),
    ) -> Result<Option<u64>> {
        let Some((facts, len)) = self.read_in_pieces(timeline, segment, take)? else {
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
        let (end, whole) = (facts.segment_start() + len, facts.segment_bytes);
        if len < whole && end <= until && self.later(timeline, segment)? {
            return Err(Error::WalHole {
                timeline,
                from: end,
                to: facts.segment_end(),
                remedy: REMEDY_HOLE,
            });
        }
        let mut left = whole.saturating_sub(len);
        while left > 0 {
            let now = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            take(SegmentPiece::Wal(&ZEROS[..now]));
            left -= now as u64;
        }
        Ok(Some(whole))
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
    fn read(&self, timeline: u32, segment: u64) -> Result<Option<SegmentWal>> {
        let mut wal = Vec::new();
        let found = self.read_in_pieces(timeline, segment, &mut collecting(&mut wal))?;
        Ok(found.map(|(facts, _)| SegmentWal { facts, wal }))
    }

    /// The same piece by piece, and how much of it is here.
    fn read_in_pieces(
        &self,
        timeline: u32,
        segment: u64,
        take: &mut dyn FnMut(SegmentPiece<'_>),
    ) -> Result<Option<(WalFacts, u64)>> {
        for _ in 0..8 {
            // Tails first: what is sealed meanwhile then shows among the segments.
            let tails = without_old_heartbeats(self.names(&tail_prefix(timeline, segment))?);
            let store = self.repository().store();
            let objects = store.list(&segment_name(timeline, segment, ""))?;
            match self.objects_in_pieces(&objects, take) {
                Some(Ok(facts)) => return Ok(Some((facts, facts.segment_bytes))),
                Some(Err(error)) if tails.is_empty() || !error.is_damage() => return Err(error),
                _ => {}
            }
            match self.tails_in_pieces(&tails, take) {
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                other => return other,
            }
        }
        Err(Error::Input(
            "WAL objects keep changing under the reader: try again".to_owned(),
        ))
    }

    /// In one request where that takes no more memory than a segment of the usual size does.
    pub(super) fn object<'a>(&'a self, object: &'a ObjectInfo) -> Result<SegmentObject<'a>> {
        match object.size > 2 * WHOLE_BYTES_MAX {
            true => Ok(SegmentObject::in_parts(&self.keys, &object.name)),
            false => SegmentObject::whole(&self.keys, &object.name),
        }
    }

    /// The first that opens; the first error when none does.
    fn objects_in_pieces(
        &self,
        objects: &[ObjectInfo],
        take: &mut dyn FnMut(SegmentPiece<'_>),
    ) -> Option<Result<WalFacts>> {
        let mut first_error = None;
        for object in objects {
            take(SegmentPiece::Restart);
            let mut hand = |_: &WalFacts, raw: Vec<u8>| take(SegmentPiece::Wal(&raw));
            match self
                .object(object)
                .and_then(|object| object.open(&mut hand))
            {
                Ok(facts) => return Some(Ok(facts)),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map(Err)
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

    /// One after the other: their names sort by where they begin.
    fn tails_in_pieces(
        &self,
        names: &[String],
        take: &mut dyn FnMut(SegmentPiece<'_>),
    ) -> Result<Option<(WalFacts, u64)>> {
        take(SegmentPiece::Restart);
        let mut first: Option<(WalFacts, u64)> = None;
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
            let Some((facts, wal)) = part else { continue };
            let (begun, len) = first.get_or_insert((facts, 0));
            let end = begun.segment_start() + *len;
            let Some(known) = end.checked_sub(facts.start_lsn) else {
                return Err(Error::WalHole {
                    timeline: begun.timeline,
                    from: end,
                    to: facts.start_lsn,
                    remedy: REMEDY_HOLE,
                });
            };
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            let new = wal.get(known..).unwrap_or(&[]);
            take(SegmentPiece::Wal(new));
            *len += new.len() as u64;
        }
        Ok(first)
    }

    pub(super) fn later(&self, timeline: u32, segment: u64) -> Result<bool> {
        for kind in ["tail", "wal"] {
            for name in self.names(&format!("{kind}/{timeline:08x}/"))? {
                // A name that is none of ours says nothing of WAL.
                if WalName::parse(&name).is_ok_and(|name| name.segment > segment) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn collecting(wal: &mut Vec<u8>) -> impl FnMut(SegmentPiece<'_>) {
    move |piece: SegmentPiece<'_>| match piece {
        SegmentPiece::Restart => wal.clear(),
        SegmentPiece::Wal(bytes) => wal.extend_from_slice(bytes),
    }
}

const REMEDY_SEGMENT: &str = "(The numbers are segments.) Restore to a point before it, or start from a backup taken after it";
