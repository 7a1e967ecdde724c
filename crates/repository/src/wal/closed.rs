//! Which WAL hangs on certain data keys: from names, which hold the first digits of the data key's id.

use std::collections::BTreeMap;

use super::inventory::wal_inventory;
use super::{Interval, WalName};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::DataKeyId;
use crate::pipeline::read_header;

/// (timeline, start, end), ascending: WAL that is here, and that only objects sealed with a lost data key hold.
pub(crate) fn closed_stretches(
    repository: &Repository,
    known: &[DataKeyId],
    lost: &dyn Fn(&DataKeyId) -> bool,
) -> Result<Vec<(u32, u64, u64)>> {
    let mut by_prefix: BTreeMap<String, Vec<DataKeyId>> = BTreeMap::new();
    for id in known {
        let prefix = id.to_string()[..8].to_owned();
        by_prefix.entry(prefix).or_default().push(*id);
    }
    // By segment: is all of it lost? A tail holds a part; when one part is lost the segment counts as lost.
    let mut segments: BTreeMap<(u32, u64), State> = BTreeMap::new();
    for kind in ["tail/", "wal/"] {
        for object in repository.store().list(kind)? {
            let Ok(WalName { timeline, segment }) = WalName::parse(&object.name) else {
                continue;
            };
            let key = match named_key(&object.name, &by_prefix) {
                Some(key) => key,
                None => match read_header(repository.store(), &object.name) {
                    Ok((header, _)) => header.data_key,
                    // Superseded since the listing, or damaged, which the inventory tells.
                    Err(Error::Store(StoreError::NotFound { .. }) | Error::Damaged { .. }) => {
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let state = segments.entry((timeline, segment)).or_default();
            match (kind, lost(&key)) {
                ("wal/", false) => state.whole_opens = true,
                (_, true) => state.some_lost = true,
                _ => {}
            }
        }
    }
    let mut stretches: Vec<(u32, u64, u64)> = Vec::new();
    let timelines = wal_inventory(repository)?.timelines;
    for ((timeline, segment), state) in segments {
        let Some(wal) = timelines.get(&timeline) else {
            continue;
        };
        if state.some_lost && !state.whole_opens {
            let (start, end) = (
                segment * wal.segment_bytes,
                (segment + 1) * wal.segment_bytes,
            );
            add(&mut stretches, timeline, (start, end), &wal.intervals);
        }
    }
    Ok(stretches)
}

#[derive(Default)]
struct State {
    /// A whole segment object opens: tails of it do not matter.
    whole_opens: bool,
    some_lost: bool,
}

/// As much of it as there is, joined to what came before.
fn add(
    stretches: &mut Vec<(u32, u64, u64)>,
    timeline: u32,
    (start, end): (u64, u64),
    intervals: &[Interval],
) {
    for interval in intervals {
        let (start, end) = (start.max(interval.start), end.min(interval.end));
        if start >= end {
            continue;
        }
        match stretches.last_mut() {
            Some((before, _, until)) if *before == timeline && *until == start => *until = end,
            _ => stretches.push((timeline, start, end)),
        }
    }
}

/// `<streamer>-<8 hex>` ends a segment's name, `<streamer>-<8 hex>-<serial>` a tail's.
fn named_key(name: &str, by_prefix: &BTreeMap<String, Vec<DataKeyId>>) -> Option<DataKeyId> {
    let from_end = usize::from(name.starts_with("tail/"));
    let prefix = name.rsplit('-').nth(from_end)?;
    match by_prefix.get(prefix)?.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}
