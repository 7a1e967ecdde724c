//! From a moment to an LSN. PostgreSQL refuses a time after the last commit, so each target becomes an LSN here.

use postgres_physical::lsn::Lsn;
use postgres_physical::wal::{Decoder, Record, Step};
use repository::wal::WalReader;

use super::plan::Plan;
use super::recover::PAGE_HEADER_BYTES_MAX;
use super::window::{Link, Span};
use crate::{Error, Result};

/// Reads records of one link, segment by segment.
struct Records<'a> {
    reader: &'a WalReader,
    link: Link,
    segment_bytes: u64,
    decoder: Decoder,
}

impl<'a> Records<'a> {
    /// From the start of a segment, or where the link's WAL begins.
    fn from_segment(reader: &'a WalReader, link: Link, segment: u64, segment_bytes: u64) -> Self {
        let start = (segment * segment_bytes).max(link.wal_from);
        Self {
            reader,
            link,
            segment_bytes,
            decoder: Decoder::new(Lsn(start), segment_bytes),
        }
    }

    fn next(&mut self) -> Result<Option<Record>> {
        loop {
            match self.decoder.step() {
                Step::Record(record) if record.end.0 > self.link.to => return Ok(None),
                Step::Record(record) => return Ok(Some(record)),
                // The link ends inside a record, or in the padding behind a switch.
                Step::End(_) => return Ok(None),
                Step::NeedMore => {
                    let at = self.decoder.pushed_to().0;
                    if at >= self.link.to {
                        return Ok(None);
                    }
                    let end = (at / self.segment_bytes + 1) * self.segment_bytes;
                    let bytes = self
                        .reader
                        .bytes(self.link.timeline, at, end.min(self.link.to))?;
                    self.decoder.push(&bytes);
                }
            }
        }
    }
}

pub(super) fn segment_bytes(reader: &WalReader, timeline: u32) -> Result<u64> {
    let found = reader.segment_bytes(timeline)?;
    found.ok_or_else(|| Error::Timeline {
        timeline,
        what: "it has no WAL".to_owned(),
    })
}

/// The start of the last whole record of a span, with its link's number.
pub(super) fn last_record(reader: &WalReader, span: &Span) -> Result<Option<(usize, u64)>> {
    for (number, link) in span.links.iter().enumerate().rev() {
        if link.to == link.wal_from {
            continue;
        }
        let segment_bytes = segment_bytes(reader, link.timeline)?;
        let mut segment = (link.to - 1) / segment_bytes;
        loop {
            let mut last = None;
            let mut records = Records::from_segment(reader, *link, segment, segment_bytes);
            while let Some(record) = records.next()? {
                last = Some(record.lsn.0);
            }
            // A record may be longer than a segment.
            match last {
                Some(lsn) if lsn >= link.from || number == 0 => return Ok(Some((number, lsn))),
                _ if segment * segment_bytes <= link.from => break,
                _ => segment -= 1,
            }
        }
    }
    Ok(None)
}

/// WAL that ends before the plan's end although the repository holds more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Break {
    pub(super) timeline: u32,
    /// Where the next record should be.
    pub(super) at: u64,
    /// The start of the last record that can be replayed.
    pub(super) last_record: u64,
}

/// Reads all that a plan replays. `None` where every record of it is there.
pub(super) fn find_break(reader: &WalReader, plan: &Plan) -> Result<Option<Break>> {
    let (mut last_record, mut entered) = (None, false);
    for link in &plan.span.links {
        entered |= link.timeline == plan.backup.timeline;
        if !entered || link.to == link.wal_from {
            continue;
        }
        let segment_bytes = segment_bytes(reader, link.timeline)?;
        let is_first = link.timeline == plan.backup.timeline;
        let from = if is_first {
            plan.backup.start_lsn
        } else {
            link.from
        };
        let segment = from / segment_bytes;
        let mut records = Records::from_segment(reader, *link, segment, segment_bytes);
        let is_last = link.timeline == plan.timeline;
        let stop = if is_last { plan.stop.lsn } else { link.to };
        let mut reached = records.decoder.position().0;
        while let Some(record) = records.next()? {
            reached = records.decoder.position().0;
            last_record = Some(record.lsn.0);
            if record.lsn.0 >= stop {
                return Ok(None);
            }
        }
        // Between the last record and the next there may be the header of a page.
        if reached + PAGE_HEADER_BYTES_MAX < stop {
            return Ok(last_record.map(|last_record| Break {
                timeline: link.timeline,
                at: reached,
                last_record,
            }));
        }
        if is_last {
            break;
        }
    }
    Ok(None)
}

/// The first commit or abort after a time: recovery stops before it.
pub(super) fn first_end_after(
    reader: &WalReader,
    span: &Span,
    micros: i64,
) -> Result<Option<(usize, u64)>> {
    for (number, link) in span.links.iter().enumerate() {
        if link.to == link.from {
            continue;
        }
        let segment_bytes = segment_bytes(reader, link.timeline)?;
        let Some(segment) = first_segment_confirmed_at(reader, *link, segment_bytes, micros)?
        else {
            continue;
        };
        let mut records = Records::from_segment(reader, *link, segment, segment_bytes);
        while let Some(record) = records.next()? {
            let ended = record.commit_micros().or_else(|| record.abort_micros());
            if record.lsn.0 >= link.from && ended.is_some_and(|ended| ended > micros) {
                return Ok(Some((number, record.lsn.0)));
            }
        }
    }
    Ok(None)
}

/// WAL that was confirmed before a moment holds nothing from after it, so the search starts here.
fn first_segment_confirmed_at(
    reader: &WalReader,
    link: Link,
    segment_bytes: u64,
    micros: i64,
) -> Result<Option<u64>> {
    let (mut low, mut high) = (link.from / segment_bytes, (link.to - 1) / segment_bytes + 1);
    let last = high;
    while low < high {
        let middle = low + (high - low) / 2;
        let confirmed = reader
            .confirmed_at(link.timeline, middle)?
            .unwrap_or(i64::MAX);
        if confirmed < micros {
            low = middle + 1
        } else {
            high = middle
        }
    }
    Ok((low < last).then_some(low))
}
