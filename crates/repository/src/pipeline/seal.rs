//! compress → seal → open again and compare → append. Mirror: `open`.

use std::cell::RefCell;

use aws_lc_rs::aead::LessSafeKey;
use zstd::bulk::Compressor;

use super::header::TAG;
use super::{BOX_HEADER, BoxHeader, BoxKind, Compression, ObjectHeader, additional_data, nonce};
use crate::error::{Error, Result};
use crate::keys::DataKey;

pub(crate) struct ObjectSealer {
    name: String,
    header: Vec<u8>,
    key: LessSafeKey,
}

impl ObjectSealer {
    pub(crate) fn new(key: &DataKey, name: &str, header: &ObjectHeader) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            header: header.encode(),
            key: key.object_key(name)?,
        })
    }

    /// The first bytes of the object.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Appends one box to `out`, whose end is byte `offset` of the object.
    pub(crate) fn seal(
        &self,
        out: &mut Vec<u8>,
        offset: u64,
        kind: BoxKind,
        compression: Compression,
        labels: (u64, i64),
        raw: &[u8],
    ) -> Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let compressed = compress(&mut scratch.compressed, compression, raw)
                .map_err(|e| self.failed(&e.to_string()))?;
            let plain = compressed.map_or(raw, |len| &scratch.compressed[..len]);
            let header = BoxHeader {
                sealed_len: u32::try_from(plain.len() + TAG)
                    .map_err(|_| self.failed("a box of over 4 GiB"))?,
                raw_len: u32::try_from(raw.len())
                    .map_err(|_| self.failed("a box of over 4 GiB"))?,
                kind,
                zstd: compressed.is_some(),
                label_a: labels.0,
                label_b: labels.1,
            }
            .encode();
            let start = out.len();
            out.extend_from_slice(&header);
            out.extend_from_slice(plain);
            let aad = additional_data(&self.header, &header);
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce(offset), aad, &mut out[start + BOX_HEADER..])
                .map_err(|_| self.failed("sealing failed"))?;
            out.extend_from_slice(tag.as_ref());
            self.prove(
                &header,
                &out[start + BOX_HEADER..],
                offset,
                plain,
                &mut scratch.opened,
            )
        })
    }

    /// What was sealed opens to what was meant: guards against faults of this machine's memory and processor.
    fn prove(
        &self,
        header: &[u8; BOX_HEADER],
        sealed: &[u8],
        offset: u64,
        meant: &[u8],
        opened: &mut Vec<u8>,
    ) -> Result<()> {
        opened.clear();
        opened.extend_from_slice(sealed);
        let aad = additional_data(&self.header, header);
        match self.key.open_in_place(nonce(offset), aad, opened) {
            Ok(opened) if *opened == *meant => Ok(()),
            _ => {
                Err(self.failed("what was sealed does not open again: check this machine's memory"))
            }
        }
    }

    fn failed(&self, what: &str) -> Error {
        Error::Input(format!("`{}` cannot be sealed: {what}", self.name))
    }
}

/// Kept from box to box: neither is cleared before it is written again.
#[derive(Default)]
struct Scratch {
    compressed: Vec<u8>,
    opened: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
}

/// How long `raw` is in `buffer` when it was compressed; `None` when that is not smaller.
fn compress(
    buffer: &mut Vec<u8>,
    compression: Compression,
    raw: &[u8],
) -> std::io::Result<Option<usize>> {
    let Compression::Zstd(level) = compression else {
        return Ok(None);
    };
    let bound = zstd::zstd_safe::compress_bound(raw.len());
    if buffer.len() < bound {
        buffer.resize(bound, 0);
    }
    let written = COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some((at, compressor)) if *at == level => compressor,
            _ => &mut slot.insert((level, Compressor::new(level)?)).1,
        };
        compressor.compress_to_buffer(raw, &mut buffer[..])
    })?;
    Ok((written < raw.len()).then_some(written))
}

/// A whole object of one box.
pub(crate) fn seal_single(
    key: &DataKey,
    name: &str,
    header: &ObjectHeader,
    kind: BoxKind,
    compression: Compression,
    labels: (u64, i64),
    raw: &[u8],
) -> Result<Vec<u8>> {
    let sealer = ObjectSealer::new(key, name, header)?;
    let mut object = sealer.header().to_vec();
    let offset = object.len() as u64;
    sealer.seal(&mut object, offset, kind, compression, labels, raw)?;
    Ok(object)
}
