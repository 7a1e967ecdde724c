//! The recoverable window: spans in which every moment can be restored, with holes between them.

use repository::{
    BackupState, BackupSummary, Inventory, RecipientPrivate, Repository, WalReader, catalogue,
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

/// The part of a span that lies on one timeline.
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
