//! Targets that only the WAL itself knows: named restore points and ends of transactions. Several threads read all WAL
//! of the window, so that a second point of the same name is found too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use postgres_physical::lsn::Lsn;
use postgres_physical::wal::{Decoder, Record, Step};
use repository::{Progress, Repository, keys::RecipientPrivate};

use super::path::path_to;
use super::plan::Point;
use super::window::{Holdings, Link, Span};
use super::{show_lsn, show_time};
use crate::{Error, Result};

/// One thread reads this many segments at a time.
const UNIT_SEGMENTS: u64 = 8;
/// A refusal names at most so many points.
const NAMED_MAX: usize = 10;

/// A restore point that `pg_create_restore_point` made, inside the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPoint {
    pub name: String,
    pub timeline: u32,
    pub lsn: u64,
    pub at_micros: i64,
}

/// All restore points on the way to a timeline (the newest one when none is named), oldest first.
pub fn named_points(
    repository: &Repository,
    private: &RecipientPrivate,
    timeline: Option<u32>,
    progress: &dyn Progress,
) -> Result<Vec<NamedPoint>> {
    let holdings = Holdings::read(repository, private)?;
    let Some(timeline) = timeline.or_else(|| holdings.newest_timeline()) else {
        return Ok(Vec::new());
    };
    let spans = holdings.spans(&path_to(&holdings.reader, timeline)?);
    let found = scan(&holdings, &spans, progress, &Record::restore_point)?;
    Ok(found
        .into_iter()
        .map(|found| NamedPoint {
            timeline: spans[found.span].links[found.link].timeline,
            lsn: found.lsn,
            name: found.what.name,
            at_micros: found.what.at_micros,
        })
        .collect())
}

struct Sighting<T> {
    span: usize,
    link: usize,
    lsn: u64,
    what: T,
}

/// The span, the link and the LSN of the one record that the point means.
pub(super) fn find(
    holdings: &Holdings,
    spans: &[Span],
    point: &Point,
    progress: &dyn Progress,
) -> Result<(usize, usize, u64)> {
    let (what, mut found, known) = match point {
        Point::Name(name) => {
            let all = scan(holdings, spans, progress, &Record::restore_point)?;
            let known = known_names(&all);
            let named = all.into_iter().filter(|found| found.what.name == *name);
            let found: Vec<Sighting<i64>> = named
                .map(|found| Sighting {
                    what: found.what.at_micros,
                    ..found_at(&found)
                })
                .collect();
            (format!("restore point {name:?}"), found, known)
        }
        Point::Xid(xid) => {
            let ended = |record: &Record| {
                let end = record.transaction_end()?;
                let ours = end.transaction == *xid || end.subtransactions.contains(xid);
                ours.then_some(end.at_micros)
            };
            let found = scan(holdings, spans, progress, &ended)?;
            let hint = "It is the number that pg_current_xact_id() gave; one that never wrote has left no trace";
            (
                format!("the end of transaction {xid}"),
                found,
                hint.to_owned(),
            )
        }
        Point::Latest | Point::Time(_) | Point::Lsn(_) => {
            return Err(Error::NothingToRestore(
                "only names and transactions are looked for in the WAL".to_owned(),
            ));
        }
    };
    if found.len() > 1 {
        let places = found.iter().map(|found| {
            let timeline = spans[found.span].links[found.link].timeline;
            format!(
                "{} of {} on timeline {timeline}",
                show_lsn(found.lsn),
                show_time(found.what)
            )
        });
        let found = places.collect::<Vec<_>>().join(", ");
        return Err(Error::Ambiguous { what, found });
    }
    match found.pop() {
        Some(found) => Ok((found.span, found.link, found.lsn)),
        None => Err(Error::NoSuchPoint {
            what,
            window: describe(spans),
            known,
        }),
    }
}

fn found_at<T>(found: &Sighting<T>) -> Sighting<i64> {
    Sighting {
        span: found.span,
        link: found.link,
        lsn: found.lsn,
        what: 0,
    }
}

fn known_names(all: &[Sighting<postgres_physical::wal::RestorePoint>]) -> String {
    if all.is_empty() {
        return "There is no named point in it".to_owned();
    }
    let names = all.iter().rev().take(NAMED_MAX).map(|found| {
        let (name, at) = (&found.what.name, show_time(found.what.at_micros));
        format!("{name:?} ({at})")
    });
    format!(
        "The newest named points are {}",
        names.collect::<Vec<_>>().join(", ")
    )
}

/// `2026-…Z (0/3000148) to 2026-…Z (0/5000000)`, each span.
pub(super) fn describe(spans: &[Span]) -> String {
    let each = spans.iter().map(|span| {
        format!(
            "{} ({}) to {} ({})",
            show_time(span.from_micros),
            show_lsn(span.from_lsn()),
            show_time(span.to_micros),
            show_lsn(span.to_lsn())
        )
    });
    each.collect::<Vec<_>>().join(", and ")
}

/// Consecutive segments of one link.
struct Unit {
    span: usize,
    link: usize,
    from: u64,
    to: u64,
    segment_bytes: u64,
}

/// Every record of the spans is looked at once; what `look` gives is returned in the order of the WAL.
fn scan<T: Send>(
    holdings: &Holdings,
    spans: &[Span],
    progress: &dyn Progress,
    look: &(dyn Fn(&Record) -> Option<T> + Sync),
) -> Result<Vec<Sighting<T>>> {
    let units = units(holdings, spans);
    progress.total(units.iter().map(|unit| unit.to - unit.from).sum());
    progress.message("looking through the WAL");
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Vec::new(), None));
    let worker = || {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            let link = spans[unit.span].links[unit.link];
            let found = scan_unit(holdings, link, unit, progress, look);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match found {
                Ok(found) => results.0.extend(found),
                Err(error) => {
                    results.1.get_or_insert(error);
                    next.store(units.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 8) {
            scope.spawn(worker);
        }
    });
    match results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        (mut found, None) => {
            found.sort_by_key(|found| (found.span, found.link, found.lsn));
            Ok(found)
        }
    }
}

fn units(holdings: &Holdings, spans: &[Span]) -> Vec<Unit> {
    let mut units = Vec::new();
    for (span, links) in spans.iter().map(|span| &span.links).enumerate() {
        for (number, link) in links.iter().enumerate() {
            let wal = holdings.inventory.timelines.get(&link.timeline);
            let Some(segment_bytes) = wal.map(|wal| wal.segment_bytes).filter(|bytes| *bytes > 0)
            else {
                continue;
            };
            let mut from = (link.from / segment_bytes * segment_bytes).max(link.wal_from);
            while from < link.to {
                let end = (from / segment_bytes + UNIT_SEGMENTS) * segment_bytes;
                let to = end.min(link.to);
                units.push(Unit {
                    span,
                    link: number,
                    from,
                    to,
                    segment_bytes,
                });
                from = to;
            }
        }
    }
    units
}

/// The records that begin inside the unit; the last one may end behind it.
fn scan_unit<T>(
    holdings: &Holdings,
    link: Link,
    unit: &Unit,
    progress: &dyn Progress,
    look: &dyn Fn(&Record) -> Option<T>,
) -> Result<Vec<Sighting<T>>> {
    let mut decoder = Decoder::new(Lsn(unit.from), unit.segment_bytes);
    let mut found = Vec::new();
    loop {
        match decoder.step() {
            Step::Record(record) if record.lsn.0 >= unit.to || record.end.0 > link.to => break,
            Step::Record(record) if record.lsn.0 < link.from => {}
            Step::Record(record) => found.extend(look(&record).map(|what| Sighting {
                span: unit.span,
                link: unit.link,
                lsn: record.lsn.0,
                what,
            })),
            // The link ends inside a record.
            Step::End(_) => break,
            Step::NeedMore => {
                let at = decoder.pushed_to().0;
                if at >= link.to || decoder.position().0 >= unit.to {
                    break;
                }
                if progress.cancelled() {
                    return Err(Error::Stopped);
                }
                let bytes = segment_from(holdings, link, at, unit.segment_bytes)?;
                progress.advance(bytes.len() as u64);
                decoder.push(&bytes);
            }
        }
    }
    Ok(found)
}

/// From `at` to the end of its segment or of the link.
fn segment_from(holdings: &Holdings, link: Link, at: u64, segment_bytes: u64) -> Result<Vec<u8>> {
    let segment = at / segment_bytes;
    let found = holdings
        .reader
        .segment_until(link.timeline, segment, link.to)?;
    let Some(mut bytes) = found else {
        let to = show_lsn(link.to);
        return Err(Error::MissingWal {
            timeline: link.timeline,
            from: show_lsn(at),
            to,
        });
    };
    let start = segment * segment_bytes;
    let end = usize::try_from(link.to - start).unwrap_or(usize::MAX);
    bytes.truncate(end);
    bytes.drain(
        ..usize::try_from(at - start)
            .unwrap_or(usize::MAX)
            .min(bytes.len()),
    );
    Ok(bytes)
}
