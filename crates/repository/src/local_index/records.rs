//! Rows of checked records in a local file (local_cache.md). `Records` and `append_record` are mirrors.

use std::io::{self, Read};

use crate::keys::ChunkIdKey;

pub(super) const MAGIC_INDEX: &[u8; 4] = b"BREK";
pub(super) const MAGIC_JOURNAL: &[u8; 4] = b"BREJ";
pub(super) const MAGIC_SNAPSHOT: &[u8; 4] = b"BRES";
pub(super) const FILE_HEADER: usize = 8;
const RECORD_HEADER: usize = 21;
const VERSION: u16 = 1;
const CONTEXT: &str = "bre local cache 1";
/// Longer than any record of ours; a damaged length must not take all memory.
const BODY_BYTES_MAX: u32 = 1 << 30;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    File = 1,
    Packs = 2,
    Blobs = 3,
    End = 4,
    JournalHead = 5,
    CompletedPack = 6,
    Documents = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::File,
            Self::Packs,
            Self::Blobs,
            Self::End,
            Self::JournalHead,
            Self::CompletedPack,
            Self::Documents,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Makes and proves the checks: of no use with another chunk id key.
#[derive(Clone)]
pub(super) struct CheckKey([u8; 32]);

impl CheckKey {
    pub(super) fn new(key: &ChunkIdKey) -> Self {
        Self(blake3::derive_key(CONTEXT, key.bytes()))
    }

    fn check(&self, header: &[u8], body: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(header).update(body);
        let mut check = [0; 16];
        check.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        check
    }
}

pub(super) fn file_header(magic: &[u8; 4]) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..4].copy_from_slice(magic);
    header[4..6].copy_from_slice(&VERSION.to_be_bytes());
    header
}

pub(super) fn append_record(out: &mut Vec<u8>, key: &CheckKey, kind: Kind, body: &[u8]) {
    let start = out.len();
    // No body of ours comes near 4 GiB; one that did would be refused when it is read.
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.push(kind as u8);
    let check = key.check(&out[start..], body);
    out.extend_from_slice(&check);
    out.extend_from_slice(body);
}

/// Reads one record after the other.
pub(super) struct Records<R> {
    input: R,
    key: CheckKey,
    /// Where the next record begins.
    pub(super) offset: u64,
    pub(super) body: Vec<u8>,
}

impl<R: Read> Records<R> {
    /// `None` when the file is of another kind or version.
    pub(super) fn begin(mut input: R, key: CheckKey, magic: &[u8; 4]) -> io::Result<Option<Self>> {
        let mut header = [0; FILE_HEADER];
        if !read_all(&mut input, &mut header)? || header != file_header(magic) {
            return Ok(None);
        }
        Ok(Some(Self {
            input,
            key,
            offset: FILE_HEADER as u64,
            body: Vec::new(),
        }))
    }

    /// The next record's kind, its bytes in `body`. `End` of input and damage are told apart.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        let mut header = [0; RECORD_HEADER];
        let mut first = [0; 1];
        if !read_all(&mut self.input, &mut first)? {
            return Ok(Next::NoMore);
        }
        header[0] = first[0];
        if !read_all(&mut self.input, &mut header[1..])? {
            return Ok(Next::Damaged);
        }
        let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let Some(kind) = Kind::of(header[4]).filter(|_| len <= BODY_BYTES_MAX) else {
            return Ok(Next::Damaged);
        };
        self.body.clear();
        let read = (&mut self.input)
            .take(u64::from(len))
            .read_to_end(&mut self.body)?;
        if read != len as usize || header[5..] != self.key.check(&header[..5], &self.body) {
            return Ok(Next::Damaged);
        }
        self.offset += (RECORD_HEADER + read) as u64;
        Ok(Next::Record(kind))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Record(Kind),
    NoMore,
    Damaged,
}

/// False at the end of the input.
fn read_all(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes fields off the front of a body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}
