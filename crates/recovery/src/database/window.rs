//! The recoverable window: spans in which each moment can be restored, with holes between them.

use repository::{
    Repository,
    backup::{BackupState, BackupSummary, catalogue},
    keys::RecipientPrivate,
    wal::{Inventory, WalReader},
};

use super::path::{Piece, path_to};
use crate::{Error, Result};

/// A span of the window. Its links follow each other without a hole, across timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub links: Vec<Link>,
    /// When the backup that it starts with was finished.
    pub from_micros: i64,
    /// The last server time at which the stream confirmed its end.
    pub to_micros: i64,
}

/// The part of a span that is on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub timeline: u32,
    pub from: u64,
    pub to: u64,
    /// Where the WAL that holds it starts: at or before `from`.
    pub wal_from: u64,
}

impl Span {
    #[must_use]
    pub fn from_lsn(&self) -> u64 {
        self.links.first().map_or(0, |link| link.from)
    }

    #[must_use]
    pub fn to_lsn(&self) -> u64 {
        self.links.last().map_or(0, |link| link.to)
    }
}

/// What the repository holds, read once.
pub(super) struct Holdings {
    pub(super) reader: WalReader,
    pub(super) inventory: Inventory,
    pub(super) complete: Vec<BackupSummary>,
    pub(super) others: usize,
}

impl Holdings {
    pub(super) fn read(repository: &Repository, private: &RecipientPrivate) -> Result<Self> {
        let backups = catalogue(repository)?.backups;
        let reader = WalReader::new(repository, private);
        let inventory = reader.inventory()?;
        let all = backups.len();
        let complete: Vec<BackupSummary> = backups
            .into_iter()
            .filter(|backup| backup.state == BackupState::Complete)
            .collect();
        let others = all - complete.len();
        Ok(Self {
            reader,
            inventory,
            complete,
            others,
        })
    }

    /// The newest timeline that has WAL, or the newest backup's.
    pub(super) fn newest_timeline(&self) -> Option<u32> {
        let with_wal = self.inventory.timelines.iter().filter(|(_, wal)| {
            wal.intervals
                .iter()
                .any(|interval| interval.end > interval.start)
        });
        with_wal.map(|(timeline, _)| *timeline).max()
    }

    pub(super) fn spans(&self, path: &[Piece]) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut carried: Option<Span> = None;
        for piece in path {
            carried = self.spans_of_piece(piece, carried, &mut spans);
        }
        spans.extend(carried);
        spans
    }

    /// Adds what ends on this piece to `spans` and returns the span that reaches its end, if one does.
    fn spans_of_piece(
        &self,
        piece: &Piece,
        carried: Option<Span>,
        spans: &mut Vec<Span>,
    ) -> Option<Span> {
        let wal = self.inventory.timelines.get(&piece.timeline);
        let piece_end = piece.end.unwrap_or(u64::MAX);
        let (mut carried, mut reaches_end) = (carried, None);
        for interval in wal.into_iter().flat_map(|wal| &wal.intervals) {
            let to = interval.end.min(piece_end);
            if to < piece.start || interval.start > piece_end {
                continue;
            }
            let joins = interval.start <= piece.start && piece.start <= to;
            let span = match carried.take_if(|_| joins) {
                Some(mut span) => {
                    let from = piece.start;
                    span.links.push(Link {
                        timeline: piece.timeline,
                        from,
                        to,
                        wal_from: interval.start,
                    });
                    span.to_micros = interval.end_time_micros;
                    Some(span)
                }
                None => self.span_from_backup(piece, interval.start, to, interval.end_time_micros),
            };
            match span {
                Some(span) if Some(to) == piece.end => reaches_end = Some(span),
                Some(span) => spans.push(span),
                None => {}
            }
        }
        // Nothing of this timeline continues it.
        spans.extend(carried);
        reaches_end
    }

    fn span_from_backup(
        &self,
        piece: &Piece,
        wal_from: u64,
        to: u64,
        to_micros: i64,
    ) -> Option<Span> {
        let usable = self.complete.iter().filter(|backup| {
            backup.timeline == piece.timeline
                && wal_from <= backup.start_lsn
                && backup.stop_lsn <= to
        });
        let first = usable.min_by_key(|backup| backup.stop_lsn)?;
        let link = Link {
            timeline: piece.timeline,
            from: first.stop_lsn,
            to,
            wal_from,
        };
        Some(Span {
            links: vec![link],
            from_micros: first.finished_at_micros,
            to_micros: to_micros.max(first.finished_at_micros),
        })
    }
}

/// What can be restored on a timeline (the newest one when none is named) and its ancestors.
pub fn window(
    repository: &Repository,
    private: &RecipientPrivate,
    timeline: Option<u32>,
) -> Result<Vec<Span>> {
    let holdings = Holdings::read(repository, private)?;
    let Some(timeline) = timeline.or_else(|| holdings.newest_timeline()) else {
        return Ok(Vec::new());
    };
    match path_to(&holdings.reader, timeline) {
        Ok(path) => Ok(holdings.spans(&path)),
        Err(Error::Timeline { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// WAL that is missing between what is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub timeline: u32,
    pub from: u64,
    pub to: u64,
    /// As it was recorded; `None` for a gap that nobody put on record.
    pub reason: Option<String>,
}

/// What can be restored when this timeline is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineWindow {
    pub timeline: u32,
    /// Those that end on it; they may begin on an ancestor.
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    pub timelines: Vec<TimelineWindow>,
    pub gaps: Vec<Gap>,
    /// Timelines with WAL to which no way leads, and why.
    pub unreachable: Vec<(u32, String)>,
}

/// Everything that can be restored, timeline by timeline.
pub fn windows(repository: &Repository, private: &RecipientPrivate) -> Result<Windows> {
    let holdings = Holdings::read(repository, private)?;
    let mut windows = Windows::default();
    for (timeline, wal) in &holdings.inventory.timelines {
        windows.gaps.extend(gaps(*timeline, wal));
        if !wal.intervals.iter().any(|wal| wal.end > wal.start) {
            continue;
        }
        let path = match path_to(&holdings.reader, *timeline) {
            Ok(path) => path,
            Err(Error::Timeline { what, .. }) => {
                windows.unreachable.push((*timeline, what));
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut spans = holdings.spans(&path);
        let ends_here = |span: &Span| span.links.last().map(|link| link.timeline);
        spans.retain(|span| ends_here(span) == Some(*timeline));
        if spans.is_empty() {
            let what = "no complete backup leads to it without a hole".to_owned();
            windows.unreachable.push((*timeline, what));
        } else {
            windows.timelines.push(TimelineWindow {
                timeline: *timeline,
                spans,
            });
        }
    }
    Ok(windows)
}

/// Between the intervals, with the reason where one is on record; and holes on record behind the last of them.
fn gaps(timeline: u32, wal: &repository::wal::TimelineWal) -> Vec<Gap> {
    let between = wal
        .intervals
        .windows(2)
        .map(|pair| (pair[0].end, pair[1].start));
    let mut gaps: Vec<Gap> = between
        .map(|(from, to)| {
            let on_record = wal
                .holes
                .iter()
                .find(|hole| hole.start < to && from < hole.end);
            Gap {
                timeline,
                from,
                to,
                reason: on_record.map(|hole| hole.reason.clone()),
            }
        })
        .collect();
    for hole in &wal.holes {
        let known = |gap: &Gap| hole.start < gap.to && gap.from < hole.end;
        let filled =
            |wal: &repository::wal::Interval| wal.start <= hole.start && hole.end <= wal.end;
        if !gaps.iter().any(known) && !wal.intervals.iter().any(filled) {
            gaps.push(Gap {
                timeline,
                from: hole.start,
                to: hole.end,
                reason: Some(hole.reason.clone()),
            });
        }
    }
    gaps
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use repository::{
        backup::BackupKind,
        store::MemoryStore,
        wal::{Interval, TimelineWal},
    };

    use super::*;

    pub(in super::super) fn backup(
        id: &str,
        timeline: u32,
        start_lsn: u64,
        stop_lsn: u64,
    ) -> BackupSummary {
        BackupSummary {
            id: id.to_owned(),
            kind: BackupKind::Full,
            state: BackupState::Complete,
            parent: None,
            label: String::new(),
            system_identifier: 1,
            timeline,
            start_lsn,
            stop_lsn,
            pg_version: 150_000,
            wal_segment_bytes: 0x100,
            started_at_micros: start_lsn.cast_signed(),
            finished_at_micros: stop_lsn.cast_signed(),
            bytes_source: 0,
            bytes_stored: 0,
            bytes_reused: 0,
            bytes_resumed: 0,
            files: 0,
            damaged_pages: 0,
            restored_and_proved_at_micros: None,
            proof_failed_at_micros: None,
        }
    }

    /// Server times equal LSNs. WAL is (timeline, from, to).
    pub(in super::super) fn holdings(
        wal: &[(u32, u64, u64)],
        complete: Vec<BackupSummary>,
    ) -> Holdings {
        let repository = Repository::init(Arc::new(MemoryStore::new())).unwrap();
        let mut timelines: BTreeMap<u32, TimelineWal> = BTreeMap::new();
        for (timeline, start, end) in wal {
            let interval = Interval {
                start: *start,
                end: *end,
                end_time_micros: end.cast_signed(),
            };
            timelines
                .entry(*timeline)
                .or_default()
                .intervals
                .push(interval);
        }
        Holdings {
            reader: WalReader::new(&repository, &RecipientPrivate::generate().unwrap()),
            inventory: Inventory {
                timelines,
                damaged: Vec::new(),
            },
            complete,
            others: 0,
        }
    }

    /// The way from timeline 1 over each (child, switch point).
    pub(in super::super) fn path(children: &[(u32, u64)]) -> Vec<Piece> {
        let mut path = vec![Piece {
            timeline: 1,
            start: 0,
            end: None,
        }];
        for (timeline, start) in children {
            if let Some(last) = path.last_mut() {
                last.end = Some(*start);
            }
            path.push(Piece {
                timeline: *timeline,
                start: *start,
                end: None,
            });
        }
        path
    }

    type Links = Vec<(u32, u64, u64)>;

    fn check(
        wal: &[(u32, u64, u64)],
        complete: Vec<BackupSummary>,
        children: &[(u32, u64)],
        expected: Vec<Links>,
    ) {
        let spans = holdings(wal, complete).spans(&path(children));
        let links = |span: &Span| {
            span.links
                .iter()
                .map(|link| (link.timeline, link.from, link.to))
                .collect()
        };
        assert_eq!(spans.iter().map(links).collect::<Vec<Links>>(), expected);
    }

    #[test]
    fn spans_start_with_backups_and_end_at_holes() {
        let first = || backup("a", 1, 0x120, 0x150);
        check(&[], vec![], &[], vec![]);
        check(&[(1, 0x100, 0x300)], vec![], &[], vec![]);
        check(
            &[(1, 0x100, 0x300)],
            vec![first()],
            &[],
            vec![vec![(1, 0x150, 0x300)]],
        );
        // After a hole only a later backup opens a span.
        let hole = [(1, 0x100, 0x300), (1, 0x400, 0x600)];
        check(&hole, vec![first()], &[], vec![vec![(1, 0x150, 0x300)]]);
        let both = vec![first(), backup("b", 1, 0x450, 0x480)];
        check(
            &hole,
            both,
            &[],
            vec![vec![(1, 0x150, 0x300)], vec![(1, 0x480, 0x600)]],
        );
    }

    #[test]
    fn spans_go_on_over_timelines_where_no_wal_is_missing() {
        let first = || vec![backup("a", 1, 0x120, 0x150)];
        // The child's WAL starts with the segment in which it branched off; what the parent wrote later is not on the
        // way.
        let joined = [(1, 0x100, 0x300), (2, 0x200, 0x500)];
        check(
            &joined,
            first(),
            &[(2, 0x280)],
            vec![vec![(1, 0x150, 0x280), (2, 0x280, 0x500)]],
        );
        let short_parent = [(1, 0x100, 0x270), (2, 0x200, 0x500)];
        check(
            &short_parent,
            first(),
            &[(2, 0x280)],
            vec![vec![(1, 0x150, 0x270)]],
        );
        let late_child = [(1, 0x100, 0x300), (2, 0x300, 0x500)];
        check(
            &late_child,
            first(),
            &[(2, 0x280)],
            vec![vec![(1, 0x150, 0x280)]],
        );
        // A backup of the parent that ended after the switch is on another way.
        check(
            &joined,
            vec![backup("a", 1, 0x260, 0x290)],
            &[(2, 0x280)],
            vec![],
        );
        let own = vec![backup("a", 1, 0x260, 0x290), backup("b", 2, 0x300, 0x310)];
        check(&joined, own, &[(2, 0x280)], vec![vec![(2, 0x310, 0x500)]]);
    }
}
