//! How a database stores an entry's bytes (format §10): as they are, or with their fields compressed against a
//! dictionary that is part of the format. A quote repeats its terms, so that it can be priced again from itself alone;
//! compressed against it they take almost no room.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::get_frame_content_size;

use crate::entry::{ENTRY_BYTES_MAX, HEADER_BYTES, MAGIC};

/// In the place of an entry's magic.
pub(crate) const PACKED_MAGIC: &[u8; 4] = b"BREZ";
/// Number 1 of the format. Never changed: another one gets another number.
pub(crate) const DICTIONARY: &[u8] = include_bytes!("dictionary_1.bin");
const DICTIONARY_NUMBER: u8 = 1;
/// The quick end: with the dictionary it finds nearly all that slower levels find.
const LEVEL: i32 = -5;
/// What is before the compressed fields: the entry's own head with the other magic, and the dictionary's number.
const PACKED_HEAD: usize = HEADER_BYTES + 1;

static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// An entry's fields compressed; `None` where that saves nothing.
pub(crate) fn compress(fields: &[u8]) -> Option<Vec<u8>> {
    let compressed = COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = Compressor::with_prepared_dictionary(&ENCODER).ok();
        }
        compressor.as_mut()?.compress(fields).ok()
    })?;
    (compressed.len() < fields.len()).then_some(compressed)
}

/// The entry whose canonical bytes begin with the `HEADER_BYTES` of `entry` at `at`, as it is kept: with `compressed`
/// in place of its fields.
pub(crate) fn pack(entry: &mut Vec<u8>, at: usize, compressed: &[u8]) {
    entry.truncate(at + HEADER_BYTES);
    entry[at..at + MAGIC.len()].copy_from_slice(PACKED_MAGIC);
    entry.push(DICTIONARY_NUMBER);
    entry.extend_from_slice(compressed);
}

/// The canonical bytes of an entry that was read from where it is kept. What cannot be expanded is given as it is, and
/// is no entry: [`crate::Entry::parse`] says why.
pub fn expand(kept: &[u8]) -> Cow<'_, [u8]> {
    expanded(kept).map_or(Cow::Borrowed(kept), Cow::Owned)
}

fn expanded(kept: &[u8]) -> Option<Vec<u8>> {
    let (head, compressed) = kept.split_at_checked(PACKED_HEAD)?;
    if !head.starts_with(PACKED_MAGIC) || head[HEADER_BYTES] != DICTIONARY_NUMBER {
        return None;
    }
    // The length is somebody's claim until the fields are there.
    let length = usize::try_from(get_frame_content_size(compressed).ok()??).ok()?;
    if length > ENTRY_BYTES_MAX - HEADER_BYTES {
        return None;
    }
    let fields = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::with_prepared_dictionary(&DECODER).ok();
        }
        decompressor.as_mut()?.decompress(compressed, length).ok()
    })?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + fields.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&head[MAGIC.len()..HEADER_BYTES]);
    bytes.extend_from_slice(&fields);
    Some(bytes)
}
