//! Reads WAL objects to see whether they are whole, and keeps nothing of them.

use std::sync::Arc;

use super::WalFacts;
use super::frames::{Tail, read_growing};
use super::segment_boxes::SegmentObject;
use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::{DataKey, DataKeyId, KeyRing};
use crate::pipeline::{BOX_HEADER, BoxHeader, BoxKind, ObjectKind, read_header};

/// Every box opens, and together they are one whole segment.
pub(crate) fn check_segment(keys: &KeyRing, name: &str) -> Result<()> {
    SegmentObject::in_parts(keys, name)
        .open(|_, _| {})
        .map(drop)
}

/// The same by the headers of its boxes, for which no key is needed.
pub(crate) fn check_clear_segment(repository: &Repository, name: &str) -> Result<()> {
    let store = repository.store();
    let (header, len) = read_header(store, name)?;
    if header.kind != ObjectKind::WalSegment {
        return Err(Error::damaged(name, 6, "it is no WAL segment"));
    }
    let facts = WalFacts::decode(name, &header.clear)?;
    repository.expect_cluster(facts.system_identifier, name)?;
    let (size, mut at, mut lsn) = (store.size(name)?, len as u64, facts.segment_start());
    while at < size {
        let damaged = |what: &str| Error::damaged(name, at, what);
        let bytes = store.get_range(name, at, BOX_HEADER)?;
        let header = bytes.first_chunk().and_then(BoxHeader::decode);
        let header = header.ok_or_else(|| damaged("a box header does not match its check"))?;
        if header.kind != BoxKind::WalSegment || header.label_a != lsn {
            return Err(damaged("a box does not follow the one before it"));
        }
        at += header.box_len() as u64;
        lsn += u64::from(header.raw_len);
    }
    match at == size && lsn == facts.segment_end() {
        true => Ok(()),
        false => Err(Error::damaged(
            name,
            0,
            "it does not hold one whole segment",
        )),
    }
}

/// False when `key` has none for it: then its frames were only followed. A tail may be written to meanwhile.
pub(crate) fn check_tail(
    repository: &Repository,
    name: &str,
    key: &dyn Fn(DataKeyId) -> Result<Option<Arc<DataKey>>>,
) -> Result<bool> {
    read_growing(repository.store(), name, |bytes| {
        let Some(mut tail) = Tail::scan(name, bytes)? else {
            return Ok(true);
        };
        repository.expect_cluster(tail.facts.system_identifier, name)?;
        match key(tail.data_key())? {
            None => Ok(false),
            Some(key) => tail.open(&key).map(|_| true),
        }
    })
}
