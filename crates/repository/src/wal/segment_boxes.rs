//! The inside of a segment object: boxes of [`box_bytes`] each, one after the other, so that memory does not grow with the size of
//! the server's segments (repository.md §8). [`Wal`] and [`seal_segment`] write them, [`SegmentObject`] reads them.

use std::borrow::Cow;
use std::sync::Arc;

use super::frames::Tail;
use super::sealer::REMEDY_TAILS;
use super::writer::span;
use super::{WalFacts, segment_name};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{DataKey, DataKeyId, KeyRing};
use crate::pipeline::{
    BOX_HEADER, BoxHeader, BoxKind, Compression, ObjectHeader, ObjectKind, ObjectOpener,
    ObjectSealer, read_header,
};
use crate::store::Store;

/// A segment of PostgreSQL's usual size is one box, and one tail.
pub(super) const WHOLE_BYTES_MAX: u64 = 16 << 20;
/// Of a larger one.
const PART_BYTES: u64 = 4 << 20;

/// Of WAL in one box, and in one tail: whoever seals, reads or compares one has all of it in memory, some of them several times.
pub(super) fn box_bytes(segment_bytes: u64) -> u64 {
    match segment_bytes {
        ..=WHOLE_BYTES_MAX => segment_bytes,
        _ => PART_BYTES,
    }
}
const SEGMENT_ZSTD_LEVEL: i32 = 1;

/// The bytes of one whole segment.
#[derive(Clone, Copy)]
pub(super) enum Wal<'a> {
    Kept(&'a [u8]),
    /// Tails that cover it, in the order of their beginnings.
    Tails {
        names: &'a [String],
        key: &'a dyn Fn(&str, DataKeyId) -> Result<Arc<DataKey>>,
    },
}

/// What is read of it, a box at a time.
struct Boxes<'a> {
    repository: &'a Repository,
    facts: &'a WalFacts,
    wal: Wal<'a>,
    /// Handed out so far.
    at: u64,
    tails_read: usize,
    /// Of tails, from `at` on.
    read: Vec<u8>,
}

impl Boxes<'_> {
    /// `None` behind the end of the segment.
    fn next(&mut self) -> Result<Option<Cow<'_, [u8]>>> {
        let left = self.facts.segment_end() - self.at;
        if left == 0 {
            return Ok(None);
        }
        let len = left.min(box_bytes(self.facts.segment_bytes));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let start = usize::try_from(self.at - self.facts.segment_start()).unwrap_or(usize::MAX);
        if let Wal::Kept(wal) = self.wal {
            let bytes = wal
                .get(start..start + len)
                .ok_or_else(|| self.hole(self.facts.segment_start() + wal.len() as u64))?;
            self.at += len as u64;
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        while self.read.len() < len {
            self.read_tail()?;
        }
        let rest = self.read.split_off(len);
        self.at += len as u64;
        Ok(Some(Cow::Owned(std::mem::replace(&mut self.read, rest))))
    }

    /// Through the same code that a restore uses.
    fn read_tail(&mut self) -> Result<()> {
        let end = self.at + self.read.len() as u64;
        let Wal::Tails { names, key } = self.wal else {
            return Err(self.hole(end));
        };
        let name = names.get(self.tails_read).ok_or_else(|| self.hole(end))?;
        self.tails_read += 1;
        let bytes = self.repository.store().get(name)?;
        let Some(mut tail) = Tail::scan(name, &bytes)? else {
            return Ok(());
        };
        let opened = tail.open(&*key(name, tail.data_key())?)?;
        // A tail whose last append failed may hold bytes that its successor repeats.
        let known = end.checked_sub(tail.covered().start);
        let known = known.ok_or_else(|| self.hole(end))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.read
            .extend_from_slice(opened.get(known..).unwrap_or(&[]));
        Ok(())
    }

    fn hole(&self, from: u64) -> Error {
        Error::WalHole {
            timeline: self.facts.timeline,
            from,
            to: self.facts.segment_end(),
            remedy: REMEDY_TAILS,
        }
    }
}

/// What was sealed, to compare with what is read back.
struct SealDigests {
    len: usize,
    object: blake3::Hash,
    raw: blake3::Hash,
}

/// Seals a whole segment, puts it, reads it back and compares.
pub(super) fn seal_segment(
    repository: &Repository,
    key: &DataKey,
    facts: &WalFacts,
    streamer_id: &str,
    wal: Wal<'_>,
) -> Result<()> {
    let name = segment_name(facts.timeline, facts.segment, &span(streamer_id, key));
    let header = ObjectHeader {
        kind: ObjectKind::WalSegment,
        data_key: key.id(),
        clear: facts.encode(),
    };
    let sealer = ObjectSealer::new(key, &name, &header)?;
    let mut boxes = Boxes {
        repository,
        facts,
        wal,
        at: facts.segment_start(),
        tails_read: 0,
        read: Vec::new(),
    };
    let (mut sealed, mut offset) = (Vec::new(), 0);
    let mut seal_next = || -> Result<Option<Vec<u8>>> {
        let lsn = boxes.at;
        let Some(raw) = boxes.next()? else {
            return Ok(None);
        };
        let mut piece = match offset {
            0 => sealer.header().to_vec(),
            _ => Vec::new(),
        };
        let header_len = piece.len();
        let labels = (lsn, facts.server_time_micros);
        let level = Compression::Zstd(SEGMENT_ZSTD_LEVEL);
        let at = offset + header_len as u64;
        sealer.seal(&mut piece, at, BoxKind::WalSegment, level, labels, &raw)?;
        sealed.push(SealDigests {
            len: piece.len() - header_len,
            object: blake3::hash(&piece[header_len..]),
            raw: blake3::hash(&raw),
        });
        offset += piece.len() as u64;
        Ok(Some(piece))
    };
    let mut failed = None;
    let mut next = || {
        seal_next().map_err(|error| {
            let what = StoreError::Io {
                store: repository.store().describe(),
                object: name.clone(),
                source: std::io::Error::other(error.to_string()),
            };
            failed = Some(error);
            what
        })
    };
    let put = repository.store().put_pieces(&name, &mut next);
    if let Some(error) = failed {
        return Err(error);
    }
    match put {
        Ok(()) => {}
        // An earlier attempt got further than it could tell; the same bytes under the same key are the same object.
        Err(StoreError::AlreadyExists { .. }) => while seal_next()?.is_some() {},
        Err(error) => return Err(error.into()),
    }
    match is_as_sealed(repository.store(), &name, &header, key, &sealed)? {
        true => Ok(()),
        false => Err(Error::damaged(
            &name,
            0,
            "read back, it is not what was written",
        )),
    }
}

fn is_as_sealed(
    store: &dyn Store,
    name: &str,
    header: &ObjectHeader,
    key: &DataKey,
    sealed: &[SealDigests],
) -> Result<bool> {
    let opener = ObjectOpener::new(key, name, header)?;
    let header = header.encode();
    let len: usize = header.len() + sealed.iter().map(|sealed| sealed.len).sum::<usize>();
    let object = match sealed {
        [_] => Object::Whole(store.get(name)?),
        _ => Object::InParts { store, name },
    };
    if object.size()? != len as u64 || *object.range(0, header.len())? != header {
        return Ok(false);
    }
    let mut at = header.len() as u64;
    for sealed in sealed {
        let bytes = object.range(at, sealed.len)?;
        if blake3::hash(&bytes) != sealed.object {
            return Ok(false);
        }
        if blake3::hash(&opener.open(at, &bytes)?.raw) != sealed.raw {
            return Ok(false);
        }
        at += sealed.len as u64;
    }
    Ok(true)
}

/// An object in memory, or one that is read box by box.
enum Object<'a> {
    Whole(Vec<u8>),
    InParts { store: &'a dyn Store, name: &'a str },
}

impl Object<'_> {
    fn size(&self) -> Result<u64> {
        Ok(match self {
            Object::Whole(bytes) => bytes.len() as u64,
            Object::InParts { store, name } => store.size(name)?,
        })
    }

    /// Fewer bytes where it ends earlier.
    fn range(&self, at: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        Ok(match self {
            Object::Whole(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Cow::Borrowed(&bytes[start..start.saturating_add(len).min(bytes.len())])
            }
            Object::InParts { store, name } => Cow::Owned(store.get_range(name, at, len)?),
        })
    }
}

/// A segment object, opened box by box.
pub(super) struct SegmentObject<'a> {
    keys: &'a KeyRing,
    name: &'a str,
    object: Object<'a>,
}

impl<'a> SegmentObject<'a> {
    /// In as few requests as possible.
    pub(super) fn whole(keys: &'a KeyRing, name: &'a str) -> Result<Self> {
        let object = Object::Whole(keys.repository().store().get(name)?);
        Ok(Self { keys, name, object })
    }

    /// In as little memory as possible.
    pub(super) fn in_parts(keys: &'a KeyRing, name: &'a str) -> Self {
        let store = keys.repository().store();
        let object = Object::InParts { store, name };
        Self { keys, name, object }
    }

    /// Hands out the WAL of each box; an error when it is not exactly one whole segment.
    pub(super) fn open(&self, mut take: impl FnMut(&WalFacts, Vec<u8>)) -> Result<WalFacts> {
        let take = |facts: &WalFacts, _, raw| take(facts, raw);
        self.open_stretch(0, u64::MAX, take).map(|(facts, _)| facts)
    }

    /// The same from the box on that holds `from`, with the LSN of each, until so many bytes were handed out. `true`:
    /// to the segment's end.
    pub(super) fn open_stretch(
        &self,
        from: u64,
        bytes_max: u64,
        mut take: impl FnMut(&WalFacts, u64, Vec<u8>),
    ) -> Result<(WalFacts, bool)> {
        let name = self.name;
        let (header, mut at) = match &self.object {
            Object::Whole(bytes) => ObjectHeader::decode(name, bytes)?,
            Object::InParts { store, name } => read_header(*store, name)?,
        };
        if header.kind != ObjectKind::WalSegment {
            return Err(Error::damaged(name, 6, "it is no WAL segment"));
        }
        let facts = WalFacts::decode(name, &header.clear)?;
        self.keys
            .repository()
            .expect_cluster(facts.system_identifier, name)?;
        let key = self.keys.key(name, header.data_key)?;
        let opener = ObjectOpener::new(&key, name, &header)?;
        let (size, mut lsn, mut handed) = (self.object.size()?, facts.segment_start(), 0);
        while (at as u64) < size {
            let damaged = |what: &str| Error::damaged(name, at as u64, what);
            let left = usize::try_from(size - at as u64).unwrap_or(usize::MAX);
            let head = self.object.range(at as u64, BOX_HEADER.min(left))?;
            let head = head.first_chunk().and_then(BoxHeader::decode);
            let head = head.ok_or_else(|| damaged("a box header does not match its check"))?;
            if head.kind != BoxKind::WalSegment || head.label_a != lsn {
                return Err(damaged("a box does not follow the one before it"));
            }
            let end = lsn + u64::from(head.raw_len);
            // Others were opened when what is before `from` was asked for.
            if end > from {
                let bytes = self.object.range(at as u64, head.box_len().min(left))?;
                let opened = opener.open(at as u64, &bytes)?;
                if end > facts.segment_end() {
                    break;
                }
                handed += opened.raw.len() as u64;
                take(&facts, lsn, opened.raw);
            }
            at += head.box_len();
            lsn = end;
            if handed >= bytes_max && lsn < facts.segment_end() {
                return Ok((facts, false));
            }
        }
        match lsn == facts.segment_end() {
            true => Ok((facts, true)),
            false => Err(Error::damaged(
                name,
                0,
                "it does not hold one whole segment",
            )),
        }
    }
}
