//! check → open → decompress → compare. Mirror: `seal`.

use aws_lc_rs::aead::LessSafeKey;

use super::header::TAG;
use super::{BOX_HEADER, BoxHeader, BoxKind, ObjectHeader, ObjectKind, additional_data, nonce};
use crate::error::{Error, Result};
use crate::keys::{DataKey, KeyRing};
use crate::store::Store;

#[derive(Debug)]
pub(crate) struct OpenedBox {
    pub(crate) header: BoxHeader,
    pub(crate) raw: Vec<u8>,
}

pub(crate) struct ObjectOpener {
    name: String,
    header: Vec<u8>,
    key: LessSafeKey,
}

impl ObjectOpener {
    pub(crate) fn new(key: &DataKey, name: &str, header: &ObjectHeader) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            header: header.encode(),
            key: key.object_key(name)?,
        })
    }

    /// Opens the box that starts with `bytes`, which are byte `offset` of the object and on.
    pub(crate) fn open(&self, offset: u64, bytes: &[u8]) -> Result<OpenedBox> {
        let damaged = |what: &str| Error::damaged(&self.name, offset, what);
        let (header_bytes, rest) = bytes
            .split_first_chunk::<BOX_HEADER>()
            .ok_or_else(|| damaged("it ends inside a box header"))?;
        let header = BoxHeader::decode(header_bytes)
            .ok_or_else(|| damaged("a box header does not match its check"))?;
        let sealed = rest
            .get(..header.sealed_len as usize)
            .filter(|sealed| sealed.len() >= TAG)
            .ok_or_else(|| damaged("it ends inside a box"))?;
        let mut payload = sealed.to_vec();
        let aad = additional_data(&self.header, header_bytes);
        let opened_len = self
            .key
            .open_in_place(nonce(offset), aad, &mut payload)
            .map(|opened| opened.len())
            .map_err(|_| damaged("a box is not what was sealed"))?;
        payload.truncate(opened_len);
        let raw = if header.zstd {
            zstd::bulk::decompress(&payload, header.raw_len as usize)
                .map_err(|_| damaged("a box does not decompress"))?
        } else {
            payload
        };
        if raw.len() != header.raw_len as usize {
            return Err(damaged("a box has another length than its header says"));
        }
        Ok(OpenedBox { header, raw })
    }
}

/// The header of an object, without its boxes.
pub(crate) fn read_header(store: &dyn Store, name: &str) -> Result<(ObjectHeader, usize)> {
    let size = usize::try_from(store.size(name)?).unwrap_or(usize::MAX);
    let start = store.get_range(name, 0, size.min(4096))?;
    let len = ObjectHeader::encoded_len(name, &start)?;
    if len <= start.len() || size <= start.len() {
        return ObjectHeader::decode(name, &start);
    }
    ObjectHeader::decode(name, &store.get_range(name, 0, len.min(size))?)
}

/// Mirror of `seal_single`: the header and the only box of an object.
pub(crate) fn open_single(
    keys: &KeyRing,
    name: &str,
    bytes: &[u8],
    kinds: (ObjectKind, BoxKind),
) -> Result<(ObjectHeader, OpenedBox)> {
    let (header, len) = ObjectHeader::decode(name, bytes)?;
    if header.kind != kinds.0 {
        return Err(Error::damaged(
            name,
            6,
            "it is of another kind than its name says",
        ));
    }
    let key = keys.key(name, header.data_key)?;
    let opened = ObjectOpener::new(&key, name, &header)?.open(len as u64, &bytes[len..])?;
    if opened.header.kind != kinds.1 {
        return Err(Error::damaged(
            name,
            len as u64,
            "its box is of another kind than its name says",
        ));
    }
    let end = len + opened.header.box_len();
    if end != bytes.len() {
        return Err(Error::damaged(
            name,
            end as u64,
            "bytes follow where it should end",
        ));
    }
    Ok((header, opened))
}
