//! Sealed objects: a clear header, then boxes. `seal` and `open` are mirrors, read them side by side.

mod header;
mod open;
mod seal;

pub(crate) use header::{BOX_HEADER, BoxHeader, BoxKind, ObjectHeader, ObjectKind};
pub(crate) use open::{ObjectOpener, OpenedBox, open_single, read_header};
pub(crate) use seal::{ObjectSealer, seal_single};

use aws_lc_rs::aead::{Aad, Nonce};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Stored,
    Zstd(i32),
}

/// Unique within an object because none of its bytes is written twice.
fn nonce(offset: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&offset.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Every clear byte that a reader acts on.
fn additional_data(object_header: &[u8], box_header: &[u8; BOX_HEADER]) -> Aad<Vec<u8>> {
    let mut data = Vec::with_capacity(object_header.len() + BOX_HEADER);
    data.extend_from_slice(object_header);
    data.extend_from_slice(box_header);
    Aad::from(data)
}

fn check(bytes: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    check
}
