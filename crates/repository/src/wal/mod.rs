//! WAL: tails that grow while the server writes, whole segments that supersede them, holes that are known.

mod check;
mod closed;
mod compact;
mod follow;
mod frames;
mod holes;
mod inventory;
mod reader;
mod sealer;
mod segment_boxes;
mod writer;

pub(crate) use check::{check_clear_segment, check_segment, check_tail};
pub(crate) use closed::closed_stretches;
pub use compact::CompactReport;
pub use follow::{SegmentView, WalGrowth};
pub use holes::{Hole, is_hole_record, record_hole};
pub use inventory::{Interval, Inventory, TimelineWal, wal_inventory, wal_inventory_to_go_on};
pub use reader::{SegmentPiece, WalReader};
pub use sealer::SealStatus;
pub use writer::WalWriter;

use std::collections::BTreeMap;

use crate::error::{Error, Result};

const CLEAR: usize = 48;

/// The clear part of segments and tails (repository.md §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalFacts {
    pub(crate) system_identifier: u64,
    pub(crate) timeline: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) segment: u64,
    pub(crate) start_lsn: u64,
    pub(crate) server_time_micros: i64,
}

impl WalFacts {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut clear = Vec::with_capacity(CLEAR);
        clear.extend_from_slice(&self.system_identifier.to_be_bytes());
        clear.extend_from_slice(&self.timeline.to_be_bytes());
        clear.extend_from_slice(&[0; 4]);
        clear.extend_from_slice(&self.segment_bytes.to_be_bytes());
        clear.extend_from_slice(&self.segment.to_be_bytes());
        clear.extend_from_slice(&self.start_lsn.to_be_bytes());
        clear.extend_from_slice(&self.server_time_micros.to_be_bytes());
        clear
    }

    /// Mirror of `encode`; the name of the object has to say the same.
    pub(crate) fn decode(object: &str, clear: &[u8]) -> Result<Self> {
        if clear.len() != CLEAR {
            return Err(Error::damaged(object, 24, "its header is not one of WAL"));
        }
        let mut timeline = [0; 4];
        timeline.copy_from_slice(&clear[8..12]);
        let facts = Self {
            system_identifier: u64_be(&clear[..8]),
            timeline: u32::from_be_bytes(timeline),
            segment_bytes: u64_be(&clear[16..24]),
            segment: u64_be(&clear[24..32]),
            start_lsn: u64_be(&clear[32..40]),
            server_time_micros: u64_be(&clear[40..48]).cast_signed(),
        };
        let name = WalName::parse(object)?;
        if name.timeline != facts.timeline
            || name.segment != facts.segment
            || !facts.segment_bytes.is_power_of_two()
        {
            return Err(Error::damaged(
                object,
                28,
                "its header and its name disagree",
            ));
        }
        Ok(facts)
    }

    pub(crate) fn segment_start(&self) -> u64 {
        self.segment * self.segment_bytes
    }

    pub(crate) fn segment_end(&self) -> u64 {
        (self.segment + 1) * self.segment_bytes
    }
}

/// Big-endian, from a slice of at least 8 bytes.
pub(crate) fn u64_be(bytes: &[u8]) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(raw)
}

/// What the name of a segment or tail says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WalName {
    pub(crate) timeline: u32,
    pub(crate) segment: u64,
}

impl WalName {
    pub(crate) fn parse(object: &str) -> Result<Self> {
        let mut parts = object.split('/').skip(1);
        let mut hex = || u64::from_str_radix(parts.next()?.split('.').next()?, 16).ok();
        let parsed = hex().and_then(|timeline| Some((u32::try_from(timeline).ok()?, hex()?)));
        match parsed {
            Some((timeline, segment)) => Ok(Self { timeline, segment }),
            None => Err(Error::damaged(
                object,
                0,
                "its name holds no timeline and segment",
            )),
        }
    }
}

/// Of tails that one span began at one position only the last may hold WAL: what came before it are heartbeats, which it repeats.
/// Where they cannot be deleted there is one for each ten seconds that the server was idle.
pub(super) fn without_old_heartbeats(names: Vec<String>) -> Vec<String> {
    let mut newest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for name in names {
        let (span, serial) = match name.rsplit_once('-') {
            Some((span, serial)) => match u64::from_str_radix(serial, 16) {
                Ok(serial) => (span.to_owned(), serial),
                Err(_) => (name.clone(), 0),
            },
            None => (name.clone(), 0),
        };
        let known = newest.entry(span).or_insert_with(|| (serial, name.clone()));
        if serial > known.0 {
            *known = (serial, name);
        }
    }
    newest.into_values().map(|(_, name)| name).collect()
}

pub(crate) fn segment_name(timeline: u32, segment: u64, span: &str) -> String {
    format!("wal/{timeline:08x}/{segment:016x}.{span}")
}

pub(crate) fn tail_prefix(timeline: u32, segment: u64) -> String {
    format!("tail/{timeline:08x}/{segment:016x}/")
}

/// PostgreSQL's name of a WAL segment file.
#[must_use]
pub fn segment_file_name(timeline: u32, segment: u64, segment_bytes: u64) -> String {
    let per_id = (1u64 << 32) / segment_bytes.max(1);
    let per_id = per_id.max(1);
    format!(
        "{timeline:08X}{:08X}{:08X}",
        segment / per_id,
        segment % per_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_span_at_one_position_the_last_tail_counts() {
        let at = |lsn: u64, rest: &str| format!("{}{lsn:016x}.{rest}", tail_prefix(1, 2));
        let names = [
            at(16, "s1-0a0b0c0d-9"),
            at(16, "s1-0a0b0c0d-10"),
            at(16, "s1-0a0b0c0d-f"),
            at(16, "s1-11111111-2"),
            at(17, "s1-0a0b0c0d-11"),
            "tail/odd".to_owned(),
        ];
        let kept = without_old_heartbeats(names.to_vec());
        let wanted = [1, 3, 4, 5].map(|index: usize| names[index].clone());
        assert_eq!(kept, wanted);
    }
}
