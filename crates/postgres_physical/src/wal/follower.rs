//! Checks that arriving WAL is valid, at the speed at which it arrives.

use super::decoder::{
    FIRST_IS_CONTINUATION, FIRST_OVERWRITES_CONTINUATION, LONG_HEADER, PAGE, RECORD_BYTES_MAX,
    RECORD_HEADER, SHORT_HEADER, WalEnd,
};
use super::{RM_XLOG, XLOG_SWITCH};
use crate::lsn::Lsn;

/// Goes over the bytes of WAL in order, from the start of a segment, and checks each page's place and each record's
/// checksum. It keeps a header at most, regardless of the length of a record, so that a stream can ask it before it
/// promises anything.
///
/// A server whose files are removed under it continues: it makes a segment again, and its sender reads the zeros of it.
/// They are no WAL.
#[derive(Debug)]
pub struct Follower {
    segment_bytes: u64,
    at: u64,
    /// The position after the last whole record.
    whole_to: u64,
    state: State,
    page: Header<{ LONG_HEADER as usize }>,
}

#[derive(Debug)]
enum State {
    /// The rest of a record that began before our start, if there is one; nothing of it can be checked.
    Start {
        remaining: u64,
    },
    Between,
    Record(Part),
    /// Behind a switch: the rest of the segment says nothing.
    Unused,
}

/// A record as far as it is here.
#[derive(Debug, Default)]
struct Part {
    header: Header<RECORD_HEADER>,
    taken: u64,
    crc: u32,
}

#[derive(Debug)]
struct Header<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Default for Header<N> {
    fn default() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }
}

impl<const N: usize> Header<N> {
    /// Takes until `length` are there; what is left of `bytes` comes back.
    fn fill<'a>(&mut self, length: usize, bytes: &'a [u8]) -> &'a [u8] {
        let missing = length.saturating_sub(self.length).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.bytes[self.length..self.length + missing].copy_from_slice(taken);
        self.length += missing;
        rest
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_ne_bytes(word)
    }

    fn long(&self, at: usize) -> u64 {
        let mut long = [0; 8];
        long.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_ne_bytes(long)
    }
}

impl Follower {
    /// `start` is the start of a segment.
    pub fn new(start: Lsn, segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            at: start.0,
            whole_to: start.0,
            state: State::Start { remaining: 0 },
            page: Header::default(),
        }
    }

    /// The position after the last whole record, or where it all began.
    pub fn whole_to(&self) -> Lsn {
        Lsn(self.whole_to)
    }

    /// Takes the next bytes. After an error no byte from its position on is worth keeping, and nothing more can be
    /// taken.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), WalEnd> {
        while !bytes.is_empty() {
            let before = bytes.len();
            bytes = self.step(bytes).map_err(|reason| WalEnd {
                at: Lsn(self.whole_to),
                reason,
            })?;
            self.at += (before - bytes.len()) as u64;
            if self.at.is_multiple_of(PAGE) {
                self.page.length = 0;
                if self.at.is_multiple_of(self.segment_bytes) && matches!(self.state, State::Unused)
                {
                    self.state = State::Between;
                    self.whole_to = self.at;
                }
            }
        }
        Ok(())
    }

    /// Consumes some of `bytes`, never beyond the end of a page.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let in_page = self.at % PAGE;
        let left_in_page = usize::try_from(PAGE - in_page).unwrap_or(usize::MAX);
        let here = &bytes[..bytes.len().min(left_in_page)];
        let skip = |count: usize| Ok(&bytes[count.min(here.len())..]);
        if matches!(self.state, State::Unused) {
            return skip(here.len());
        }
        let page_start = self.at - in_page;
        let header_bytes = if page_start.is_multiple_of(self.segment_bytes) {
            LONG_HEADER as usize
        } else {
            SHORT_HEADER as usize
        };
        if self.page.length < header_bytes {
            let rest = self.page.fill(header_bytes, here);
            if self.page.length == header_bytes {
                self.enter_page(page_start)?;
            }
            return skip(here.len() - rest.len());
        }
        match &mut self.state {
            State::Unused => skip(here.len()),
            State::Start { remaining } if *remaining > 0 => {
                let take = here
                    .len()
                    .min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= take as u64;
                if *remaining == 0 {
                    self.state = State::Between;
                }
                skip(take)
            }
            // Records begin at multiples of eight.
            State::Between | State::Start { .. } if !self.at.is_multiple_of(8) => {
                skip(usize::try_from(8 - self.at % 8).unwrap_or(0))
            }
            State::Between | State::Start { .. } => {
                self.state = State::Record(Part::default());
                Ok(bytes)
            }
            State::Record(part) => {
                let rest = part.take(here)?;
                let taken = here.len() - rest.len();
                if part.is_whole() {
                    let is_switch = part.check()?;
                    let end = self.at + taken as u64;
                    self.whole_to = end.next_multiple_of(8);
                    self.state = if is_switch && !end.is_multiple_of(self.segment_bytes) {
                        State::Unused
                    } else {
                        State::Between
                    };
                }
                skip(taken)
            }
        }
    }

    /// What the header of a page says must agree with what came before it.
    fn enter_page(&mut self, page_start: u64) -> Result<(), String> {
        let at = Lsn(page_start);
        let info = self.page.word(0) >> 16;
        let (address, remaining) = (self.page.long(8), u64::from(self.page.word(16)));
        if self.page.word(0) == 0 {
            return Err(format!("the page at {at} is empty"));
        }
        if address != page_start {
            return Err(format!(
                "the page at {at} says that it belongs to {}",
                Lsn(address)
            ));
        }
        let is_continuation = info & u32::from(FIRST_IS_CONTINUATION) != 0;
        match &mut self.state {
            State::Start { remaining: skipped } => {
                *skipped = if is_continuation { remaining } else { 0 };
            }
            State::Record(part) => {
                let missing = part.missing();
                if info & u32::from(FIRST_OVERWRITES_CONTINUATION) != 0 {
                    // The server crashed while it wrote that record, and went on here.
                    self.state = State::Between;
                } else if !is_continuation || missing != Some(remaining) {
                    return Err(format!("the page at {at} does not continue the record"));
                }
            }
            State::Between if is_continuation => {
                return Err(format!(
                    "the page at {at} continues a record that never began"
                ));
            }
            State::Between | State::Unused => {}
        }
        Ok(())
    }
}

impl Part {
    /// Its own length, once that is here.
    fn length(&self) -> Option<u64> {
        (self.header.length >= 4).then(|| u64::from(self.header.word(0)))
    }

    fn missing(&self) -> Option<u64> {
        self.length().map(|length| length - self.taken)
    }

    fn is_whole(&self) -> bool {
        self.missing() == Some(0)
    }

    fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        if self.header.length < RECORD_HEADER {
            let rest = self.header.fill(RECORD_HEADER, bytes);
            self.taken += (bytes.len() - rest.len()) as u64;
            return match self.length() {
                Some(0) => Err("there are zeros where a record should be".to_owned()),
                Some(length)
                    if length < RECORD_HEADER as u64 || length > u64::from(RECORD_BYTES_MAX) =>
                {
                    Err(format!("the record has an impossible length, {length}"))
                }
                _ => Ok(rest),
            };
        }
        let missing = usize::try_from(self.missing().unwrap_or(0)).unwrap_or(usize::MAX);
        let (data, rest) = bytes.split_at(bytes.len().min(missing));
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.taken += data.len() as u64;
        Ok(rest)
    }

    /// Whether it leaves the rest of the segment unused.
    fn check(&self) -> Result<bool, String> {
        let stored = self.header.word(20);
        let computed = crc32c::crc32c_append(self.crc, &self.header.bytes[..20]);
        if stored != computed {
            return Err(format!(
                "the record fails its checksum ({stored:08x}, computed {computed:08x})"
            ));
        }
        let (info, manager) = (self.header.bytes[16], self.header.bytes[17]);
        Ok(manager == RM_XLOG && info & 0xF0 == XLOG_SWITCH)
    }
}
