//! What WAL is here: intervals per timeline, from names and clear headers; with keys also proven by opening tails.

use std::collections::{BTreeMap, BTreeSet};

use super::frames::{CoveredRange, Doubt, Tail, read_growing};
use super::holes::{Hole, holes};
use super::{WalFacts, WalName, without_old_heartbeats};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::KeyRing;
use crate::pipeline::{ObjectKind, read_header};

/// WAL without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub start: u64,
    pub end: u64,
    /// The last server time at which the stream confirmed `end`; 0 when unknown.
    pub end_time_micros: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimelineWal {
    /// Ascending; between them WAL is missing.
    pub intervals: Vec<Interval>,
    /// Holes on record.
    pub holes: Vec<Hole>,
    /// 0 while the timeline has recorded holes only.
    pub segment_bytes: u64,
}

impl TimelineWal {
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.intervals.last().map(|interval| interval.end)
    }
}

#[derive(Debug, Default)]
pub struct Inventory {
    pub timelines: BTreeMap<u32, TimelineWal>,
    /// Objects that cannot be read; what they held is missing from the intervals.
    pub damaged: Vec<Error>,
}

impl Inventory {
    #[must_use]
    pub fn covers(&self, timeline: u32, from: u64, to: u64) -> bool {
        self.interval_at(timeline, from)
            .is_some_and(|interval| to <= interval.end)
    }

    /// The interval that holds `lsn` (its end included).
    #[must_use]
    pub fn interval_at(&self, timeline: u32, lsn: u64) -> Option<&Interval> {
        let intervals = &self.timelines.get(&timeline)?.intervals;
        intervals
            .iter()
            .find(|interval| interval.start <= lsn && lsn <= interval.end)
    }
}

/// Derived from names and clear headers: a look that needs no key.
pub fn wal_inventory(repository: &Repository) -> Result<Inventory> {
    inventory(repository, Look::Bytes(Doubt::IsIgnored))
}

/// The same for a stream that goes on from there and tells the server so: what may be cut short is fetched again.
pub fn wal_inventory_to_go_on(repository: &Repository) -> Result<Inventory> {
    inventory(repository, Look::Bytes(Doubt::Counts))
}

/// How much is known of a tail's last frame.
#[derive(Clone, Copy)]
pub(super) enum Look<'a> {
    Bytes(Doubt),
    Keys(&'a KeyRing),
}

pub(super) fn inventory(repository: &Repository, how: Look<'_>) -> Result<Inventory> {
    // A tail that goes while we look was superseded: look again.
    for _ in 0..8 {
        if let Some(inventory) = look(repository, how)? {
            return Ok(inventory);
        }
    }
    Err(Error::Input(
        "WAL objects keep changing under the inventory: try again".to_owned(),
    ))
}

#[derive(Default)]
struct Listing {
    segments: BTreeSet<u64>,
    names: BTreeMap<u64, Vec<String>>,
    tails: Vec<(u64, String)>,
}

fn look(repository: &Repository, how: Look<'_>) -> Result<Option<Inventory>> {
    let mut inventory = Inventory::default();
    for (timeline, found) in names(repository, &mut inventory.damaged)? {
        let mut wal = TimelineWal::default();
        let mut covered = Vec::new();
        for run in runs(&found.segments) {
            covered_by_run(
                repository,
                &found,
                run,
                &mut wal,
                &mut covered,
                &mut inventory.damaged,
            )?;
        }
        for (segment, name) in &found.tails {
            if found.segments.contains(segment) {
                continue;
            }
            match covered_by_tail(repository, how, name) {
                Ok(None) => {}
                Ok(Some((facts, range))) => {
                    wal.segment_bytes = facts.segment_bytes;
                    covered.push(range);
                }
                Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
                Err(error) if error.is_unavailable() => return Err(error),
                Err(error) => inventory.damaged.push(error),
            }
        }
        wal.intervals = merge(covered);
        inventory.timelines.insert(timeline, wal);
    }
    for hole in holes(repository, &mut inventory.damaged)? {
        inventory
            .timelines
            .entry(hole.timeline)
            .or_default()
            .holes
            .push(hole);
    }
    Ok(Some(inventory))
}

/// Tails are listed first: what is sealed meanwhile then shows among the segments.
fn names(repository: &Repository, damaged: &mut Vec<Error>) -> Result<BTreeMap<u32, Listing>> {
    let listed = |prefix: &str| -> Result<Vec<String>> {
        let objects = repository.store().list(prefix)?;
        Ok(objects.into_iter().map(|object| object.name).collect())
    };
    let tails = without_old_heartbeats(listed("tail/")?);
    let segments = listed("wal/")?;
    let mut found: BTreeMap<u32, Listing> = BTreeMap::new();
    for name in tails.into_iter().chain(segments) {
        match WalName::parse(&name) {
            Ok(WalName { timeline, segment }) => {
                let found = found.entry(timeline).or_default();
                if name.starts_with("tail/") {
                    found.tails.push((segment, name));
                } else {
                    found.segments.insert(segment);
                    found.names.entry(segment).or_default().push(name);
                }
            }
            Err(error) => damaged.push(error),
        }
    }
    Ok(found)
}

/// First and last of each consecutive run.
fn runs(segments: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for segment in segments {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *segment => *last = *segment,
            _ => runs.push((*segment, *segment)),
        }
    }
    runs
}

/// Reads the header of the last segment of a run; a bad one is left out and the one before it asked.
fn covered_by_run(
    repository: &Repository,
    found: &Listing,
    (first, mut last): (u64, u64),
    wal: &mut TimelineWal,
    covered: &mut Vec<CoveredRange>,
    damaged: &mut Vec<Error>,
) -> Result<()> {
    loop {
        for name in found.names.get(&last).into_iter().flatten() {
            match segment_facts(repository, name) {
                Ok(facts) => {
                    wal.segment_bytes = facts.segment_bytes;
                    let (start, end) = (first * facts.segment_bytes, facts.segment_end());
                    covered.push(CoveredRange {
                        start,
                        end,
                        server_time_micros: facts.server_time_micros,
                    });
                    return Ok(());
                }
                Err(error) if error.is_unavailable() => return Err(error),
                Err(error) => damaged.push(error),
            }
        }
        if last == first {
            return Ok(());
        }
        last -= 1;
    }
}

fn segment_facts(repository: &Repository, name: &str) -> Result<WalFacts> {
    let (header, _) = read_header(repository.store(), name)?;
    if header.kind != ObjectKind::WalSegment {
        return Err(Error::damaged(name, 6, "it is no WAL segment"));
    }
    let facts = WalFacts::decode(name, &header.clear)?;
    repository.expect_cluster(facts.system_identifier, name)?;
    Ok(facts)
}

fn covered_by_tail(
    repository: &Repository,
    how: Look<'_>,
    name: &str,
) -> Result<Option<(WalFacts, CoveredRange)>> {
    read_growing(repository.store(), name, |bytes| {
        let Some(mut tail) = Tail::scan(name, bytes)? else {
            return Ok(None);
        };
        repository.expect_cluster(tail.facts.system_identifier, name)?;
        let tail = match how {
            Look::Bytes(doubt) => tail.without_torn_end(doubt),
            Look::Keys(keys) => {
                tail.open(&*keys.key(name, tail.data_key())?)?;
                Some(tail)
            }
        };
        Ok(tail.map(|tail| (tail.facts, tail.covered())))
    })
}

fn merge(mut covered: Vec<CoveredRange>) -> Vec<Interval> {
    covered.sort_by_key(|range| (range.start, range.end));
    let mut intervals: Vec<Interval> = Vec::new();
    for range in covered {
        let time = range.server_time_micros;
        match intervals.last_mut() {
            Some(last) if range.start <= last.end => {
                if range.end > last.end {
                    (last.end, last.end_time_micros) = (range.end, time);
                } else if range.end == last.end {
                    last.end_time_micros = last.end_time_micros.max(time);
                }
            }
            _ => intervals.push(Interval {
                start: range.start,
                end: range.end,
                end_time_micros: time,
            }),
        }
    }
    intervals
}
