//! The recipient: whoever holds the private key can read; a host with the public key can only write.

use std::fmt;
use std::path::Path;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, X25519HkdfSha256};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use zeroize::Zeroizing;

use super::provider::{UnwrapKeys, WrapKeys};
use super::{DATA_KEY_BYTES, DataKey, DataKeyId, files, hex, random_secret};
use crate::error::{Error, Result};

type Kem = X25519HkdfSha256;

const PRIVATE_PREFIX: &str = "bre-recipient-private-1";
const PUBLIC_PREFIX: &str = "bre-recipient-public-1";
const WRAP_MAGIC: &[u8; 4] = b"BREW";
const WRAP_VERSION: u16 = 1;
const SUITE_HPKE_X25519: u16 = 1;
const WRAP_INFO: &[u8] = b"bre-wrap-1";
const WRAP_HEADER: usize = 40;
const WRAP_BYTES: usize = 120;

#[derive(Clone, PartialEq, Eq)]
pub struct RecipientPublic([u8; 32]);

#[derive(Clone)]
pub struct RecipientPrivate {
    secret: Zeroizing<[u8; 32]>,
    public: RecipientPublic,
}

impl RecipientPublic {
    pub fn load(path: &Path) -> Result<Self> {
        files::load(path, PUBLIC_PREFIX).map(|bytes| Self(*bytes))
    }

    /// Writes a new file; refuses to replace one.
    pub fn store(&self, path: &Path) -> Result<()> {
        files::store(path, PUBLIC_PREFIX, &self.0, 0o644)
    }

    /// 32 hex digits that name this recipient in `wraps/`.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        hex(&digest.as_ref()[..16])
    }

    /// Seals a data key so that only the private key opens it.
    fn seal(&self, key: &DataKey) -> Result<Vec<u8>> {
        let mut wrap = wrap_header(key.id(), &self.id());
        let public =
            <Kem as hpke::Kem>::PublicKey::from_bytes(&self.0).map_err(|e| self.failed(e))?;
        let (encapsulated, sealed) = single_shot_seal::<AesGcm256, HkdfSha256, Kem>(
            &OpModeS::Base,
            &public,
            WRAP_INFO,
            key.secret(),
            &wrap,
        )
        .map_err(|e| self.failed(e))?;
        wrap.extend_from_slice(&encapsulated.to_bytes());
        wrap.extend_from_slice(&sealed);
        Ok(wrap)
    }

    fn failed(&self, error: hpke::HpkeError) -> Error {
        Error::Key {
            what: format!("of recipient {}", self.id()),
            reason: error.to_string(),
        }
    }
}

impl RecipientPrivate {
    pub fn generate() -> Result<Self> {
        Self::from_secret(random_secret()?)
    }

    pub fn load(path: &Path) -> Result<Self> {
        Self::from_secret(files::load(path, PRIVATE_PREFIX)?)
    }

    /// Writes a new file (mode 0600); refuses to replace one.
    pub fn store(&self, path: &Path) -> Result<()> {
        files::store(path, PRIVATE_PREFIX, self.secret.as_slice(), 0o600)
    }

    #[must_use]
    pub fn public(&self) -> &RecipientPublic {
        &self.public
    }

    fn from_secret(secret: Zeroizing<[u8; 32]>) -> Result<Self> {
        let private = hpke_private(&secret)?;
        let public = Kem::sk_to_pk(&private).to_bytes();
        let public = RecipientPublic(public.into());
        Ok(Self { secret, public })
    }

    /// Mirror of [`RecipientPublic::seal`].
    fn open(&self, object: &str, id: DataKeyId, wrap: &[u8]) -> Result<DataKey> {
        let (header, rest) = wrap.split_at_checked(WRAP_HEADER).unwrap_or((wrap, &[]));
        if wrap.len() != WRAP_BYTES || header != wrap_header(id, &self.public.id()) {
            return Err(Error::damaged(
                object,
                0,
                "this is not the wrap that its name promises",
            ));
        }
        let (encapsulated, sealed) = rest.split_at(32);
        let open = || {
            let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)?;
            single_shot_open::<AesGcm256, HkdfSha256, Kem>(
                &OpModeR::Base,
                &hpke_private(&self.secret).map_err(|_| hpke::HpkeError::ValidationError)?,
                &encapsulated,
                WRAP_INFO,
                sealed,
                header,
            )
        };
        let secret = open().map(Zeroizing::new);
        let secret: Option<[u8; DATA_KEY_BYTES]> = secret
            .ok()
            .and_then(|secret| secret.as_slice().try_into().ok());
        match secret {
            Some(secret) => Ok(DataKey::from_parts(id, Zeroizing::new(secret))),
            None => Err(Error::damaged(
                object,
                WRAP_HEADER as u64,
                "it does not open",
            )),
        }
    }
}

impl WrapKeys for RecipientPublic {
    fn recipient_id(&self) -> String {
        self.id()
    }

    fn wrap(&self, key: &DataKey) -> Result<Vec<u8>> {
        self.seal(key)
    }
}

impl UnwrapKeys for RecipientPrivate {
    fn recipient_id(&self) -> String {
        self.public.id()
    }

    fn unwrap(&self, object: &str, id: DataKeyId, wrap: &[u8]) -> Result<DataKey> {
        self.open(object, id, wrap)
    }
}

fn hpke_private(secret: &[u8; 32]) -> Result<<Kem as hpke::Kem>::PrivateKey> {
    <Kem as hpke::Kem>::PrivateKey::from_bytes(secret).map_err(|error| Error::Key {
        what: "of the recipient".to_owned(),
        reason: error.to_string(),
    })
}

fn wrap_header(id: DataKeyId, recipient: &str) -> Vec<u8> {
    let mut header = Vec::with_capacity(WRAP_BYTES);
    header.extend_from_slice(WRAP_MAGIC);
    header.extend_from_slice(&WRAP_VERSION.to_be_bytes());
    header.extend_from_slice(&SUITE_HPKE_X25519.to_be_bytes());
    header.extend_from_slice(&id.0);
    header.extend(super::from_hex(recipient).unwrap_or_default());
    header
}

impl fmt::Debug for RecipientPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientPublic({})", self.id())
    }
}

impl fmt::Debug for RecipientPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientPrivate({}, ..)", self.public.id())
    }
}
