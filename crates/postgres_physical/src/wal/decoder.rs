//! Pages and continuation: from bytes to whole, checked records.

use super::record::Record;
use super::{RM_XLOG, XLOG_SWITCH};
use crate::lsn::Lsn;

pub(super) const PAGE: u64 = 8192;
pub(super) const SHORT_HEADER: u64 = 24;
pub(super) const LONG_HEADER: u64 = 40;
pub(super) const RECORD_HEADER: usize = 24;
/// PostgreSQL refuses to write larger records.
pub(super) const RECORD_BYTES_MAX: u32 = 1020 << 20;

pub(super) const FIRST_IS_CONTINUATION: u16 = 0x1;
const HAS_LONG_HEADER: u16 = 0x2;
pub(super) const FIRST_OVERWRITES_CONTINUATION: u16 = 0x8;

/// What [`Decoder::step`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Record(Record),
    /// The next record is not complete yet: push more.
    NeedMore,
    /// No valid record follows.
    End(WalEnd),
}

/// Where valid WAL ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalEnd {
    /// Where the next record would be.
    pub at: Lsn,
    pub reason: String,
}

/// Give it the bytes of WAL in order; take records out.
#[derive(Debug)]
pub struct Decoder {
    segment_bytes: u64,
    /// Bytes from `base` on.
    buffer: Vec<u8>,
    base: u64,
    /// The next record, or the page boundary before it.
    at: u64,
    previous: Option<Lsn>,
    /// The rest of a record that began before our start is still to be passed over.
    at_start: bool,
    magic: Option<u16>,
    system_identifier: Option<u64>,
    timeline: u32,
}

enum Trouble {
    NeedMore,
    End(String),
    /// The continued record was abandoned by a crash; continue at this page.
    Abandoned(u64),
}

struct PageHeader {
    bytes: u64,
    info: u16,
    remaining: u32,
}

impl Decoder {
    /// `start` is the beginning of a page (a segment, usually) or of a record.
    pub fn new(start: Lsn, segment_bytes: u64) -> Decoder {
        Decoder {
            segment_bytes,
            buffer: Vec::new(),
            base: start.0,
            at: start.0,
            previous: None,
            at_start: start.0.is_multiple_of(PAGE),
            magic: None,
            system_identifier: None,
            timeline: 0,
        }
    }

    /// Where the next pushed byte belongs.
    pub fn pushed_to(&self) -> Lsn {
        Lsn(self.base + self.buffer.len() as u64)
    }

    /// The end of the last record; the next one begins here or after the next page header.
    pub fn position(&self) -> Lsn {
        Lsn(self.at)
    }

    /// From the first page of a segment, once one was read.
    pub fn system_identifier(&self) -> Option<u64> {
        self.system_identifier
    }

    /// The timeline of the last page that was read.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let done = (self.at.saturating_sub(self.base) as usize).min(self.buffer.len());
        if done > 1 << 20 || done == self.buffer.len() {
            self.buffer.drain(..done);
            self.base += done as u64;
        }
        self.buffer.extend_from_slice(bytes);
    }

    pub fn step(&mut self) -> Step {
        loop {
            return match self.next_record() {
                Ok(record) => Step::Record(record),
                Err(Trouble::NeedMore) => Step::NeedMore,
                Err(Trouble::End(reason)) => Step::End(WalEnd {
                    at: Lsn(self.at),
                    reason,
                }),
                Err(Trouble::Abandoned(page)) => {
                    self.at = page;
                    continue;
                }
            };
        }
    }

    fn next_record(&mut self) -> Result<Record, Trouble> {
        let mut at = self.at;
        while at.is_multiple_of(PAGE) {
            let header = self.page_header(at)?;
            at += header.bytes;
            if header.info & FIRST_IS_CONTINUATION != 0 {
                if !self.at_start {
                    return Err(Trouble::End(format!(
                        "the page at {} continues a record that never began",
                        Lsn(at)
                    )));
                }
                let page_end = at - header.bytes + PAGE;
                at = (at + u64::from(header.remaining))
                    .next_multiple_of(8)
                    .min(page_end);
            }
        }
        let length = u32::from_ne_bytes(self.array(at)?);
        if length == 0 {
            return Err(Trouble::End("the record has length 0".into()));
        }
        if (length as usize) < RECORD_HEADER || length > RECORD_BYTES_MAX {
            return Err(Trouble::End(format!(
                "the record has an impossible length, {length}"
            )));
        }
        let (bytes, end) = self.gather(at, length)?;
        let record = self.check_record(at, end, bytes)?;
        self.at_start = false;
        self.previous = Some(record.lsn);
        self.at = end.next_multiple_of(8);
        if record.resource_manager == RM_XLOG && record.operation() == XLOG_SWITCH {
            self.at = end.next_multiple_of(self.segment_bytes);
        }
        Ok(record)
    }

    /// The record's bytes without the page headers between them, and the position after its last byte.
    fn gather(&mut self, start: u64, length: u32) -> Result<(Vec<u8>, u64), Trouble> {
        let mut bytes = Vec::with_capacity((length as usize).min(1 << 20));
        let mut at = start;
        loop {
            let missing = u64::from(length) - bytes.len() as u64;
            let take = missing.min(PAGE - at % PAGE);
            bytes.extend_from_slice(self.slice(at, take)?);
            at += take;
            if take == missing {
                return Ok((bytes, at));
            }
            let header = self.page_header(at)?;
            if header.info & FIRST_OVERWRITES_CONTINUATION != 0 {
                return Err(Trouble::Abandoned(at));
            }
            if header.info & FIRST_IS_CONTINUATION == 0
                || u64::from(header.remaining) != missing - take
            {
                return Err(Trouble::End(format!(
                    "the page at {} does not continue the record",
                    Lsn(at)
                )));
            }
            at += header.bytes;
        }
    }

    fn check_record(&self, at: u64, end: u64, bytes: Vec<u8>) -> Result<Record, Trouble> {
        let stored = u32::from_ne_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        let computed = crc32c::crc32c_append(crc32c::crc32c(&bytes[RECORD_HEADER..]), &bytes[..20]);
        if stored != computed {
            return Err(Trouble::End(format!(
                "the record fails its checksum ({stored:08x}, computed {computed:08x})"
            )));
        }
        let record = Record::new(Lsn(at), Lsn(end), bytes);
        if self
            .previous
            .is_some_and(|previous| previous != record.previous)
        {
            return Err(Trouble::End(format!(
                "the record follows {}, not the one before it",
                record.previous
            )));
        }
        Ok(record)
    }

    fn page_header(&mut self, at: u64) -> Result<PageHeader, Trouble> {
        let magic = u16::from_ne_bytes(self.array(at)?);
        let info = u16::from_ne_bytes(self.array(at + 2)?);
        let timeline = u32::from_ne_bytes(self.array(at + 4)?);
        let address = u64::from_ne_bytes(self.array(at + 8)?);
        let remaining = u32::from_ne_bytes(self.array(at + 16)?);
        let invalid = |what: &str| Err(Trouble::End(format!("the page at {} {what}", Lsn(at))));
        // All versions since 9.x write 0xD0.. or 0xD1..; within one stream it never changes.
        if magic >> 8 != 0xD1 || self.magic.is_some_and(|known| known != magic) {
            return invalid("has no valid header");
        }
        if address != at {
            return invalid("belongs elsewhere (a recycled file)");
        }
        if timeline < self.timeline {
            return invalid("is of an older timeline");
        }
        let is_long = info & HAS_LONG_HEADER != 0;
        if is_long != at.is_multiple_of(self.segment_bytes) {
            return invalid("has a header of the wrong kind");
        }
        if is_long {
            let system_identifier = u64::from_ne_bytes(self.array(at + 24)?);
            let segment_bytes = u32::from_ne_bytes(self.array(at + 32)?);
            if self
                .system_identifier
                .is_some_and(|known| known != system_identifier)
            {
                return invalid("is of another cluster");
            }
            if u64::from(segment_bytes) != self.segment_bytes {
                return invalid("is of another segment size");
            }
            self.system_identifier = Some(system_identifier);
        }
        self.magic = Some(magic);
        self.timeline = timeline;
        Ok(PageHeader {
            bytes: if is_long { LONG_HEADER } else { SHORT_HEADER },
            info,
            remaining,
        })
    }

    fn slice(&self, at: u64, length: u64) -> Result<&[u8], Trouble> {
        let from = at.checked_sub(self.base).ok_or(Trouble::NeedMore)? as usize;
        self.buffer
            .get(from..from + length as usize)
            .ok_or(Trouble::NeedMore)
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Trouble> {
        self.slice(at, N as u64)?
            .try_into()
            .map_err(|_| Trouble::NeedMore)
    }
}

/// All records of `bytes`, which begin at `start`, and why they end: `None` when the bytes ran out.
pub fn records(start: Lsn, segment_bytes: u64, bytes: &[u8]) -> (Vec<Record>, Option<WalEnd>) {
    let mut decoder = Decoder::new(start, segment_bytes);
    decoder.push(bytes);
    let mut found = Vec::new();
    loop {
        match decoder.step() {
            Step::Record(record) => found.push(record),
            Step::NeedMore => return (found, None),
            Step::End(end) => return (found, Some(end)),
        }
    }
}
