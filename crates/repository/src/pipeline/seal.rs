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
        let start = out.len();
        out.resize(start + BOX_HEADER, 0);
        let zstd = compress_onto(out, compression, raw).map_err(|e| self.failed(&e.to_string()))?;
        let payload = out.len() - start - BOX_HEADER;
        let header = BoxHeader {
            sealed_len: u32::try_from(payload + TAG)
                .map_err(|_| self.failed("a box of over 4 GiB"))?,
            raw_len: u32::try_from(raw.len()).map_err(|_| self.failed("a box of over 4 GiB"))?,
            kind,
            zstd,
            label_a: labels.0,
            label_b: labels.1,
        }
        .encode();
        out[start..start + BOX_HEADER].copy_from_slice(&header);

        let before = blake3::hash(&out[start + BOX_HEADER..]);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                nonce(offset),
                additional_data(&self.header, &header),
                &mut out[start + BOX_HEADER..],
            )
            .map_err(|_| self.failed("sealing failed"))?;
        out.extend_from_slice(tag.as_ref());
        self.prove(&out[start..], offset, before)
    }

    /// What was sealed opens to what was meant: guards against faults of this machine's memory and processor.
    fn prove(&self, sealed: &[u8], offset: u64, before: blake3::Hash) -> Result<()> {
        thread_local! { static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; }
        let (header, payload) = sealed
            .split_first_chunk::<BOX_HEADER>()
            .ok_or_else(|| self.failed("the box is too short"))?;
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.extend_from_slice(payload);
            let aad = additional_data(&self.header, header);
            match self.key.open_in_place(nonce(offset), aad, scratch) {
                Ok(opened) if blake3::hash(opened) == before => Ok(()),
                _ => {
                    Err(self
                        .failed("what was sealed does not open again: check this machine's memory"))
                }
            }
        })
    }

    fn failed(&self, what: &str) -> Error {
        Error::Input(format!("`{}` cannot be sealed: {what}", self.name))
    }
}

/// Appends `raw`, compressed when that is smaller; says whether it was.
fn compress_onto(out: &mut Vec<u8>, compression: Compression, raw: &[u8]) -> std::io::Result<bool> {
    thread_local! { static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) }; }
    let start = out.len();
    if let Compression::Zstd(level) = compression {
        out.resize(start + zstd::zstd_safe::compress_bound(raw.len()), 0);
        let written = COMPRESSOR.with_borrow_mut(|slot| {
            let compressor = match slot {
                Some((at, compressor)) if *at == level => compressor,
                _ => &mut slot.insert((level, Compressor::new(level)?)).1,
            };
            compressor.compress_to_buffer(raw, &mut out[start..])
        })?;
        out.truncate(start + written);
        if written < raw.len() {
            return Ok(true);
        }
        out.truncate(start);
    }
    out.extend_from_slice(raw);
    Ok(false)
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
