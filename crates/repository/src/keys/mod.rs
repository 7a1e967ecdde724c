//! Keys: recipients to whom data keys are sealed (pairs of ours, or keys of a provider), data keys that seal objects, and the key of chunk
//! ids. Secrets are wiped when dropped and never printed.

mod data_key;
mod files;
mod pair;
mod provider;
mod recipient;
mod ring;
mod rotation;
mod wrap;

pub(crate) use data_key::{DataKey, DataKeyId, new_data_key, new_data_key_in};
pub use provider::{DataKeySecret, KeyError, KeyTrouble, UnwrapKeys, Vault, WrapBinding, WrapKeys};
pub use recipient::{RecipientPrivate, RecipientPublic};
pub(crate) use ring::{KeyRing, SealedTo, few};
pub use rotation::{
    RewrapReport, not_sealed_to, not_sealed_to_in, recipients, recipients_in, retire, retire_in,
    rewrap, rewrap_in, seal_also,
};
pub(crate) use rotation::{Wraps, wraps};
pub use wrap::{NamedWrap, WrapHeader, WrapSuite, named_recipient_id, named_wrap, open_named_wrap};

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The key of chunk ids. It stays the same from backup to backup, so that unchanged chunks are recognised.
#[derive(Clone)]
pub struct ChunkIdKey(Zeroizing<[u8; 32]>);

const CHUNK_ID_PREFIX: &str = "bre-chunk-id-1";

impl ChunkIdKey {
    pub fn generate() -> Result<Self> {
        Ok(Self(random_secret()?))
    }

    pub fn load(path: &Path) -> Result<Self> {
        files::load(path, CHUNK_ID_PREFIX).map(Self)
    }

    /// Writes a new file (mode 0600); refuses to replace one.
    pub fn store(&self, path: &Path) -> Result<()> {
        let line = files::line(CHUNK_ID_PREFIX, self.0.as_slice());
        files::store(path, &line, 0o600)
    }

    pub(crate) fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(self.0.as_slice()))
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(from_hex(text)?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ChunkIdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkIdKey(..)")
    }
}

pub(crate) fn random_secret() -> Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill_random(bytes.as_mut_slice())?;
    Ok(bytes)
}

pub(crate) fn random_hex(len: usize) -> Result<String> {
    let mut bytes = vec![0; len];
    fill_random(&mut bytes)?;
    Ok(hex(&bytes))
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| Error::Key {
        what: "generation".to_owned(),
        reason: "the system gives no random numbers".to_owned(),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|p| Some((digit(*p.first()?)? << 4) | digit(*p.get(1)?)?))
        .collect()
}
