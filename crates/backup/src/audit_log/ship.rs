//! Lines become stretches: sealed, noted, put, read back, and only then passed.

use std::path::Path;

use jiff::civil::Date;
use repository::{
    Progress, Repository,
    keys::RecipientPublic,
    log_stretches::{
        LogKind, SourceGap, StretchFacts, log_stretches, seal_stretch, stored_digest, stretch_facts,
    },
};
use serde::Serialize;

use super::cursor_file::{CursorFile, Pending, Place};
use super::{LogError, LogItem, LogSource};

/// A stretch is held in memory when it is written and when it is read.
const STRETCH_BYTES: usize = 8 << 20;

/// Where the lines of a source go.
#[derive(Debug)]
pub struct Shipment<'a> {
    pub repository: &'a Repository,
    pub recipient: &'a RecipientPublic,
    pub kind: LogKind,
    /// Its name in the repository.
    pub source: &'a str,
    /// How far it is, on this host.
    pub cursor_file: &'a Path,
    pub host: &'a str,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShipmentReport {
    pub stretches: u64,
    pub lines: u64,
    pub bytes: u64,
    /// The last number of the chain.
    pub number: u64,
    pub gaps: Vec<SourceGap>,
    /// What happened before, for people.
    pub notes: Vec<String>,
}

/// Lines that are not put yet.
#[derive(Default)]
struct Pile {
    day: Option<Date>,
    span: Option<(i64, i64)>,
    lines: Vec<Vec<u8>>,
    bytes: usize,
    gaps: Vec<SourceGap>,
}

impl Shipment<'_> {
    /// All that the source has. `progress` may end it between any two steps; the next call continues.
    pub fn ship(
        &self,
        source: &dyn LogSource,
        progress: &dyn Progress,
    ) -> Result<ShipmentReport, LogError> {
        let mut shipped = ShipmentReport::default();
        let mut state = CursorFile::load_or_new(self.cursor_file)?;
        self.settle(&mut state, &mut shipped, progress)?;
        let key = state.fingerprint_key();
        let cursor = state.place.cursor.clone();
        let mut reading = source.open(cursor.as_deref(), &key)?;
        let mut pile = Pile::default();
        while let Some(item) = reading.next()? {
            check(progress)?;
            match item {
                LogItem::Gap(gap) => pile.note(gap),
                LogItem::Line { at_micros, bytes } => {
                    let day = day_of(at_micros);
                    if pile.day.is_some_and(|of| of != day) && !pile.lines.is_empty() {
                        let cursor = reading.cursor(true);
                        self.flush(&mut state, &mut pile, cursor, &mut shipped, progress)?;
                    }
                    pile.take(day, at_micros, bytes);
                }
            }
            if pile.bytes >= STRETCH_BYTES {
                let cursor = reading.cursor(false);
                self.flush(&mut state, &mut pile, cursor, &mut shipped, progress)?;
            }
        }
        let cursor = reading.cursor(false);
        if pile.day.is_some() {
            self.flush(&mut state, &mut pile, cursor, &mut shipped, progress)?;
        }
        shipped.number = state.place.number;
        Ok(shipped)
    }

    /// A stretch of which it is not known whether it arrived, and one that this host does not know of.
    fn settle(
        &self,
        state: &mut CursorFile,
        shipped: &mut ShipmentReport,
        progress: &dyn Progress,
    ) -> Result<(), LogError> {
        if let Some(pending) = state.pending.take() {
            let there = stored_digest(self.repository, &pending.name)?;
            if there.is_some_and(|(digest, _)| digest == pending.place.digest) {
                state.place = pending.place;
            }
            self.save(state, progress)?;
        }
        let listed = log_stretches(self.repository, self.kind, self.source)?;
        let newest = listed.iter().max_by_key(|it| (it.number, &it.name));
        let Some(newest) = newest.filter(|newest| newest.number > state.place.number) else {
            return Ok(());
        };
        let Some((digest, bytes)) = stored_digest(self.repository, &newest.name)? else {
            return Ok(());
        };
        let stretch = stretch_facts(self.repository, &newest.name)?;
        shipped.notes.push(format!(
            "this host knew the chain up to {}; the repository holds it up to {}, from where it continues",
            state.place.number, newest.number
        ));
        state.place = Place {
            number: newest.number,
            digest,
            bytes,
            cursor: Some(stretch.cursor),
        };
        self.save(state, progress)
    }

    fn flush(
        &self,
        state: &mut CursorFile,
        pile: &mut Pile,
        cursor: String,
        shipped: &mut ShipmentReport,
        progress: &dyn Progress,
    ) -> Result<(), LogError> {
        let pile = std::mem::take(pile);
        let Some((day, span)) = pile.day.zip(pile.span) else {
            return Ok(());
        };
        check(progress)?;
        let facts = StretchFacts {
            kind: self.kind,
            source: self.source,
            number: state.place.number + 1,
            day,
            span_micros: span,
            previous: (&state.place.digest, state.place.bytes),
            cursor: &cursor,
            gaps: pile.gaps.clone(),
            host: self.host,
        };
        let sealed = seal_stretch(self.repository, self.recipient, facts, &pile.lines)?;
        check(progress)?;
        let place = Place {
            number: state.place.number + 1,
            digest: sealed.digest.clone(),
            bytes: sealed.bytes(),
            cursor: Some(cursor),
        };
        state.pending = Some(Pending {
            name: sealed.name.clone(),
            place: place.clone(),
        });
        self.save(state, progress)?;
        check(progress)?;
        sealed.put(self.repository)?;
        check(progress)?;
        sealed.read_back(self.repository)?;
        check(progress)?;
        (state.place, state.pending) = (place, None);
        self.save(state, progress)?;
        check(progress)?;
        shipped.stretches += 1;
        shipped.lines += pile.lines.len() as u64;
        shipped.bytes += sealed.bytes();
        shipped.gaps.extend(pile.gaps);
        progress.advance(sealed.bytes());
        Ok(())
    }

    fn save(&self, state: &CursorFile, progress: &dyn Progress) -> Result<(), LogError> {
        check(progress)?;
        state.save(self.cursor_file, &|| check(progress))
    }
}

impl Pile {
    fn take(&mut self, day: Date, at: i64, line: Vec<u8>) {
        self.day = Some(day);
        let (from, to) = self.span.unwrap_or((at, at));
        self.span = Some((from.min(at), to.max(at)));
        self.bytes += line.len() + 4;
        self.lines.push(line);
    }

    /// Of a pile without lines, a gap has the day on which it ends.
    fn note(&mut self, gap: SourceGap) {
        if self.day.is_none() {
            self.day = Some(day_of(gap.to_micros));
            self.span = Some((gap.from_micros, gap.to_micros));
        }
        self.gaps.push(gap);
    }
}

fn day_of(micros: i64) -> Date {
    let at = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// At every line at which a machine may stop.
fn check(progress: &dyn Progress) -> Result<(), LogError> {
    match progress.cancelled() {
        true => Err(LogError::Cancelled),
        false => Ok(()),
    }
}
