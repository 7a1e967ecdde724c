//! For a reader that follows a stream: what a segment holds from a place on, opening only what is new.

use std::collections::BTreeMap;

use super::frames::{Tail, read_growing};
use super::reader::WalReader;
use super::{WalFacts, segment_name, tail_prefix};
use crate::error::{Error, Result, StoreError};
use crate::pipeline::BOX_HEADER;
use crate::store::ObjectInfo;

/// Of a whole segment, handed out at a time; a larger one comes in several.
const PART_BYTES_MAX: u64 = 16 << 20;

/// What a reader has seen of one segment. Objects only ever grow, into zeros that lie ahead or in length, or appear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentView {
    objects: BTreeMap<String, Look>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    bytes: u64,
    /// Where in the object its frames ended.
    frames_end: u64,
    /// The end of the WAL in it, and when that was confirmed.
    end: u64,
    confirmed_at_micros: i64,
}

/// What came since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalGrowth {
    pub segment_bytes: u64,
    /// From the place that was asked for; empty when only the confirmation moved.
    pub wal: Vec<u8>,
    /// From an object that holds the whole segment, and to its end.
    pub whole: bool,
    /// The newest server time at which the stream confirmed its end; 0 when unknown.
    pub confirmed_at_micros: i64,
    /// Objects that hold the segment.
    pub objects: u64,
}

impl WalReader {
    /// The WAL of a segment from `from` on, which lies in it; `None` when nothing changed since `seen`.
    pub fn grown(
        &self,
        timeline: u32,
        segment: u64,
        from: u64,
        seen: &mut SegmentView,
    ) -> Result<Option<WalGrowth>> {
        let store = self.repository().store();
        for _ in 0..8 {
            // Tails first: what is sealed meanwhile then shows among the segments.
            let tails = store.list(&tail_prefix(timeline, segment))?;
            // A sealed segment beside the same tails holds nothing more, and its folder may have many thousand names.
            if !tails.is_empty() && self.all_known(&tails, seen)? {
                return Ok(None);
            }
            let segments = store.list(&segment_name(timeline, segment, ""))?;
            let listed = || tails.iter().chain(&segments);
            let all: Vec<ObjectInfo> = listed().cloned().collect();
            if self.all_known(&all, seen)? {
                return Ok(None);
            }
            match self.grown_objects(&segments, from) {
                Some(Ok((facts, wal, whole))) => {
                    let look = |object: &ObjectInfo| Look {
                        bytes: object.size,
                        frames_end: object.size,
                        end: facts.segment_end(),
                        confirmed_at_micros: facts.server_time_micros,
                    };
                    // Until its end was handed out there is more to come.
                    if whole {
                        seen.objects = listed().map(|it| (it.name.clone(), look(it))).collect();
                    }
                    return Ok(Some(WalGrowth {
                        segment_bytes: facts.segment_bytes,
                        wal,
                        whole,
                        confirmed_at_micros: facts.server_time_micros,
                        objects: 1,
                    }));
                }
                Some(Err(error)) if tails.is_empty() || !error.is_damage() => return Err(error),
                _ => {}
            }
            match self.grown_tails(&tails, from, seen) {
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Ok((grown, looks)) => {
                    seen.objects = looks;
                    return Ok(grown);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Input(
            "WAL objects keep changing under the reader: try again".to_owned(),
        ))
    }

    /// From `from` on, of the first that opens, and whether to the segment's end; the first error when none does.
    fn grown_objects(
        &self,
        objects: &[ObjectInfo],
        from: u64,
    ) -> Option<Result<(WalFacts, Vec<u8>, bool)>> {
        let mut first_error = None;
        for object in objects {
            let mut wal = Vec::new();
            let take = |_: &WalFacts, lsn: u64, raw: Vec<u8>| {
                let known = usize::try_from(from.saturating_sub(lsn)).unwrap_or(usize::MAX);
                wal.extend_from_slice(raw.get(known..).unwrap_or_default());
            };
            let opened = self.object(object);
            let opened = opened.and_then(|it| it.open_stretch(from, PART_BYTES_MAX, take));
            match opened {
                Ok((facts, whole)) => return Some(Ok((facts, wal, whole))),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map(Err)
    }

    /// Whether these are the objects that were seen, as they were then.
    fn all_known(&self, objects: &[ObjectInfo], seen: &SegmentView) -> Result<bool> {
        if objects.len() != seen.objects.len() {
            return Ok(false);
        }
        for object in objects {
            match seen.objects.get(&object.name) {
                Some(look) if self.is_as_seen(object, look)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn is_as_seen(&self, object: &ObjectInfo, look: &Look) -> Result<bool> {
        let behind = object.size.saturating_sub(look.frames_end);
        if look.bytes != object.size || behind == 0 {
            return Ok(look.bytes == object.size);
        }
        // Of zeros that lie ahead the first become the next frame.
        let len = usize::try_from(behind).map_or(BOX_HEADER, |behind| behind.min(BOX_HEADER));
        let store = self.repository().store();
        match store.get_range(&object.name, look.frames_end, len) {
            Ok(next) => Ok(next.iter().all(|byte| *byte == 0)),
            // It was sealed, or cut to its length, since the listing.
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the repository holds anything of this timeline behind the segment.
    pub fn holds_later(&self, timeline: u32, segment: u64) -> Result<bool> {
        self.later(timeline, segment)
    }

    fn grown_tails(
        &self,
        tails: &[ObjectInfo],
        from: u64,
        seen: &SegmentView,
    ) -> Result<(Option<WalGrowth>, BTreeMap<String, Look>)> {
        let store = self.repository().store();
        let mut looks = BTreeMap::new();
        let mut parts = Vec::new();
        let mut segment_bytes = 0;
        for object in tails {
            let before = seen.objects.get(&object.name);
            if let Some(look) = before.filter(|look| look.end <= from)
                && self.is_as_seen(object, look)?
            {
                looks.insert(object.name.clone(), *look);
                continue;
            }
            let mut look = Look {
                bytes: object.size,
                frames_end: 0,
                end: 0,
                confirmed_at_micros: 0,
            };
            let part = read_growing(store, &object.name, |bytes| {
                let Some(mut tail) = Tail::scan(&object.name, bytes)? else {
                    return Ok(None);
                };
                self.repository()
                    .expect_cluster(tail.facts.system_identifier, &object.name)?;
                let key = self.keys.key(&object.name, tail.data_key())?;
                let part = tail.open_from(&key, from)?;
                let covered = tail.covered();
                (look.end, look.confirmed_at_micros) = (covered.end, covered.server_time_micros);
                look.frames_end = tail.frames_end();
                segment_bytes = tail.facts.segment_bytes;
                Ok(Some(part))
            })?;
            parts.extend(part);
            looks.insert(object.name.clone(), look);
        }
        if segment_bytes == 0 {
            return Ok((None, looks));
        }
        let confirmed = looks.values().map(|look| look.confirmed_at_micros).max();
        let grown = WalGrowth {
            segment_bytes,
            wal: joined(parts, from),
            whole: false,
            confirmed_at_micros: confirmed.unwrap_or_default(),
            objects: looks.len() as u64,
        };
        Ok((Some(grown), looks))
    }
}

/// As far as the parts follow each other; what lies behind a gap may be filled by a tail that is not listed yet.
fn joined(mut parts: Vec<(u64, Vec<u8>)>, from: u64) -> Vec<u8> {
    parts.sort_by_key(|(start, _)| *start);
    let mut wal = Vec::new();
    for (start, bytes) in parts {
        let end = from + wal.len() as u64;
        if start > end {
            break;
        }
        let known = usize::try_from(end - start).unwrap_or(usize::MAX);
        wal.extend_from_slice(bytes.get(known..).unwrap_or_default());
    }
    wal
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn parts_are_joined_up_to_the_first_gap() {
        let part = |start: u64, end: u64| {
            let bytes = (start..end).map(|at| at.to_le_bytes()[0]);
            (start, bytes.collect::<Vec<u8>>())
        };
        let check = |parts: Vec<(u64, Vec<u8>)>, from: u64, to: u64| {
            assert_eq!(joined(parts, from), part(from, to).1, "{from} to {to}");
        };
        check(vec![], 5, 5);
        check(vec![part(0, 10)], 5, 10);
        check(vec![part(8, 20), part(0, 10)], 5, 20);
        check(vec![part(0, 10), part(11, 20)], 5, 10);
        check(vec![part(0, 30), part(10, 20)], 0, 30);
        check(vec![part(0, 3)], 5, 5);
    }
}
