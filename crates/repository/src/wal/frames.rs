//! The inside of a tail: frames, and how its end is found after a crash (repository.md §9).

use super::WalFacts;
use crate::error::{Error, Result};
use crate::keys::DataKey;
use crate::pipeline::{BOX_HEADER, BoxHeader, BoxKind, ObjectHeader, ObjectKind, ObjectOpener};
use crate::store::Store;

/// Of the object: a tail's clear part always has the same length.
const HEADER: usize = 36 + super::CLEAR;
const SECTOR: usize = 512;
/// What sealing adds.
const TAG: u32 = 16;
/// A frame's first four bytes are its length and never all zero; fewer of them, alone in their sector, may be. Its last are of a tag:
/// zeros there are what lay ahead of a write that was cut.
const ZEROS_MIN: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Frame {
    offset: usize,
    end: usize,
    header: BoxHeader,
}

/// One to three zeros in the last sector of a frame: it never arrived, or, once in some hundred, that is what the tag ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// For whoever acts on it, or opens the frame anyway: it may be torn.
    Counts,
    /// For whoever only looks.
    IsIgnored,
}

/// A tail by its clear bytes.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    name: &'a str,
    bytes: &'a [u8],
    header: ObjectHeader,
    pub(crate) facts: WalFacts,
    frames: Vec<Frame>,
}

/// What a tail covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoveredRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) server_time_micros: i64,
}

/// Reads a tail that may be written to just now: half of a frame is no damage, and the next look finds all of it.
pub(super) fn read_growing<T>(
    store: &dyn Store,
    name: &str,
    mut read: impl FnMut(&[u8]) -> Result<T>,
) -> Result<T> {
    let mut bytes = store.get(name)?;
    // Damage stays, also while others write behind it.
    for _ in 0..8 {
        match read(&bytes) {
            Err(error) if error.is_damage() => {
                let again = store.get(name)?;
                if again == bytes {
                    return Err(error);
                }
                bytes = again;
            }
            other => return other,
        }
    }
    read(&bytes)
}

impl<'a> Tail<'a> {
    /// `None` when nothing in it was ever acknowledged.
    pub(crate) fn scan(name: &'a str, bytes: &'a [u8]) -> Result<Option<Self>> {
        let (header, mut at) = match ObjectHeader::decode(name, bytes) {
            Ok(decoded) => decoded,
            // The very first write was torn.
            Err(Error::Damaged { .. })
                if end_of_data(bytes) < HEADER || is_torn(bytes, 0, end_of_data(bytes)) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if header.kind != ObjectKind::WalTail {
            return Err(Error::damaged(name, 6, "it is no WAL tail"));
        }
        let facts = WalFacts::decode(name, &header.clear)?;
        let mut tail = Self {
            name,
            bytes,
            header,
            facts,
            frames: Vec::new(),
        };
        while let Some(frame) = tail.frame_at(at)? {
            at = frame.end;
            tail.frames.push(frame);
        }
        tail.check_sequence()?;
        Ok((!tail.frames.is_empty()).then_some(tail))
    }

    fn frame_at(&self, at: usize) -> Result<Option<Frame>> {
        let rest = &self.bytes[at..];
        if is_zero(rest) {
            return Ok(None);
        }
        let header = rest.first_chunk::<BOX_HEADER>().map(BoxHeader::decode);
        match header {
            None => Ok(None),
            Some(None) if is_torn(self.bytes, at, end_of_data(self.bytes)) => Ok(None),
            Some(None) => Err(Error::damaged(
                self.name,
                at as u64,
                "a frame's header does not match its check",
            )),
            Some(Some(header))
                if !matches!(header.kind, BoxKind::WalFrame | BoxKind::WalHeartbeat) =>
            {
                Err(Error::damaged(
                    self.name,
                    at as u64,
                    "it holds something that is not WAL",
                ))
            }
            Some(Some(header)) if header.box_len() > rest.len() => Ok(None),
            Some(Some(header)) => Ok(Some(Frame {
                offset: at,
                end: at + header.box_len(),
                header,
            })),
        }
    }

    /// Frames follow each other without a gap and stay in their segment.
    fn check_sequence(&self) -> Result<()> {
        let mut expected = self.facts.start_lsn;
        for frame in &self.frames {
            if frame.header.label_a != expected {
                return Err(Error::damaged(
                    self.name,
                    frame.offset as u64,
                    "a frame does not follow the one before it",
                ));
            }
            expected += u64::from(frame.header.raw_len);
        }
        if self.facts.start_lsn < self.facts.segment_start() || expected > self.facts.segment_end()
        {
            return Err(Error::damaged(
                self.name,
                28,
                "it reaches beyond its segment",
            ));
        }
        Ok(())
    }

    pub(crate) fn data_key(&self) -> crate::keys::DataKeyId {
        self.header.data_key
    }

    /// Where in the object the last of its frames ends.
    pub(crate) fn frames_end(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.end as u64)
    }

    pub(crate) fn covered(&self) -> CoveredRange {
        let start = self.facts.start_lsn;
        let length: u64 = self
            .frames
            .iter()
            .map(|frame| u64::from(frame.header.raw_len))
            .sum();
        let server_time_micros = self
            .frames
            .iter()
            .map(|frame| frame.header.label_b)
            .max()
            .unwrap_or(0);
        CoveredRange {
            start,
            end: start + length,
            server_time_micros,
        }
    }

    /// Without a key: a last frame that a crash cut short does not count.
    pub(crate) fn without_torn_end(mut self, doubt: Doubt) -> Option<Self> {
        if let Some(frame) = self.frames.last()
            && self.is_torn(frame, doubt)
        {
            self.frames.pop();
        }
        (!self.frames.is_empty()).then_some(self)
    }

    /// Opens every frame; afterwards `covered` counts only what opened.
    pub(crate) fn open(&mut self, key: &DataKey) -> Result<Vec<u8>> {
        let opener = ObjectOpener::new(key, self.name, &self.header)?;
        // Frames are a little longer than what is in them: nothing moves while it grows.
        let mut wal = Vec::with_capacity(self.bytes.len());
        for number in 0..self.frames.len() {
            let frame = self.frames[number];
            match opener.open(frame.offset as u64, &self.bytes[frame.offset..frame.end]) {
                Ok(opened) => wal.extend_from_slice(&opened.raw),
                Err(Error::Damaged { .. }) if self.is_torn_last(number) => {
                    self.frames.truncate(number);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(wal)
    }

    /// Opens the frames that end behind `from` only: where the first of them starts, and their bytes.
    pub(crate) fn open_from(&mut self, key: &DataKey, from: u64) -> Result<(u64, Vec<u8>)> {
        let opener = ObjectOpener::new(key, self.name, &self.header)?;
        let (mut start, mut wal) = (None, Vec::new());
        for number in 0..self.frames.len() {
            let frame = self.frames[number];
            let frame_start = frame.header.label_a;
            if frame_start + u64::from(frame.header.raw_len) <= from && !self.is_torn_last(number) {
                continue;
            }
            match opener.open(frame.offset as u64, &self.bytes[frame.offset..frame.end]) {
                Ok(opened) => {
                    start.get_or_insert(frame_start);
                    wal.extend_from_slice(&opened.raw);
                }
                Err(Error::Damaged { .. }) if self.is_torn_last(number) => {
                    self.frames.truncate(number);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((start.unwrap_or(from), wal))
    }

    fn is_torn_last(&self, number: usize) -> bool {
        number + 1 == self.frames.len() && self.is_torn(&self.frames[number], Doubt::Counts)
    }

    fn is_torn(&self, frame: &Frame, doubt: Doubt) -> bool {
        has_zero_sector(self.bytes, frame.offset, frame.end, doubt)
            || is_zero(&self.bytes[frame.end - ZEROS_MIN..frame.end])
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// Zeros behind it may have been there before the first frame: they say nothing of the last write.
fn end_of_data(bytes: &[u8]) -> usize {
    let blocks = bytes.chunks(4096).rposition(|block| !is_zero(block));
    let last = blocks.map_or(0, |block| ((block + 1) * 4096).min(bytes.len()));
    bytes[..last]
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// Bytes from `from` on look like a write that a crash cut short: too few of them, or sectors that never arrived, and
/// no good frame behind them.
fn is_torn(bytes: &[u8], from: usize, end: usize) -> bool {
    let unfinished = end.saturating_sub(from) < BOX_HEADER
        || has_zero_sector(bytes, from, end, Doubt::Counts)
        || lost_only_its_first_bytes(&bytes[from..end], SECTOR - from % SECTOR);
    unfinished && !(from + 1..end).any(|at| is_frame(&bytes[at..end]))
}

fn is_frame(bytes: &[u8]) -> bool {
    let header = bytes.first_chunk::<BOX_HEADER>();
    header.is_some_and(|header| header[10..16] == [0; 6] && BoxHeader::decode(header).is_some())
}

/// Up to three bytes of the length lay at the end of a sector that never arrived. In a tail the length follows from the raw length,
/// and the header's check says whether that is all.
fn lost_only_its_first_bytes(frame: &[u8], lost: usize) -> bool {
    let Some(mut header) = frame.first_chunk::<BOX_HEADER>().copied() else {
        return false;
    };
    if lost >= ZEROS_MIN || header[..lost].iter().any(|byte| *byte != 0) {
        return false;
    }
    let raw = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    header[..4].copy_from_slice(&raw.saturating_add(TAG).to_be_bytes());
    BoxHeader::decode(&header).is_some()
}

/// Sealed bytes hold no runs of zeros; a sector of them was allocated and never written. Of the last one any length counts.
fn has_zero_sector(bytes: &[u8], from: usize, end: usize, doubt: Doubt) -> bool {
    let mut at = from;
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        let is_last = next == end && at.is_multiple_of(SECTOR);
        if (next - at >= ZEROS_MIN || is_last && doubt == Doubt::Counts)
            && bytes[at..next].iter().all(|byte| *byte == 0)
        {
            return true;
        }
        at = next;
    }
    false
}
