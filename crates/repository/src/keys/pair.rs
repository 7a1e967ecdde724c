//! An X25519 key pair of ours as a recipient: whoever holds the private key can read; a host with the public key can only write.

use std::fmt;
use std::path::Path;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, X25519HkdfSha256};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use zeroize::Zeroizing;

use super::provider::{DataKeySecret, KeyError, KeyTrouble, UnwrapKeys, WrapBinding, WrapKeys};
use super::wrap::{WRAP_HEADER, WrapHeader, WrapSuite, wrap_header};
use super::{files, hex, random_secret};
use crate::error::{Error, Result};

type Kem = X25519HkdfSha256;

pub(super) const PRIVATE_PREFIX: &str = "bre-recipient-private-1";
const PUBLIC_PREFIX: &str = "bre-recipient-public-1";
const WRAP_INFO: &[u8] = b"bre-wrap-1";
const WRAP_BYTES: usize = 120;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct PairPublic([u8; 32]);

#[derive(Clone)]
pub(super) struct PairPrivate {
    secret: Zeroizing<[u8; 32]>,
    public: PairPublic,
}

impl PairPublic {
    pub(super) fn load(path: &Path) -> Result<Self> {
        files::load_public(path, PUBLIC_PREFIX).map(|bytes| Self(*bytes))
    }

    fn id(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        hex(&digest.as_ref()[..16])
    }

    fn seal(
        &self,
        binding: &WrapBinding,
        secret: &DataKeySecret,
    ) -> std::result::Result<Vec<u8>, hpke::HpkeError> {
        let mut wrap = wrap_header(WrapSuite::HpkeX25519, binding, &self.id());
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&self.0)?;
        let (encapsulated, sealed) = single_shot_seal::<AesGcm256, HkdfSha256, Kem>(
            &OpModeS::Base,
            &public,
            WRAP_INFO,
            secret.as_slice(),
            &wrap,
        )?;
        wrap.extend_from_slice(&encapsulated.to_bytes());
        wrap.extend_from_slice(&sealed);
        Ok(wrap)
    }
}

impl PairPrivate {
    pub(super) fn generate() -> Result<Self> {
        Self::from_secret(random_secret()?)
    }

    pub(super) fn load(path: &Path) -> Result<Self> {
        Self::from_secret(files::load(path, PRIVATE_PREFIX)?)
    }

    pub(super) fn line(&self) -> Zeroizing<String> {
        files::line(PRIVATE_PREFIX, self.secret.as_slice())
    }

    pub(super) fn public(&self) -> &PairPublic {
        &self.public
    }

    fn from_secret(secret: Zeroizing<[u8; 32]>) -> Result<Self> {
        let private = hpke_private(&secret).map_err(|error| Error::Key {
            what: "of the recipient".to_owned(),
            reason: error.to_string(),
        })?;
        let public = PairPublic(Kem::sk_to_pk(&private).to_bytes().into());
        Ok(Self { secret, public })
    }

    /// Mirror of [`PairPublic::seal`]. `Err`: why it is damaged.
    fn open(&self, binding: &WrapBinding, wrap: &[u8]) -> Result<DataKeySecret, &'static str> {
        let (header, rest) = wrap.split_at_checked(WRAP_HEADER).unwrap_or((wrap, &[]));
        let promised = wrap_header(WrapSuite::HpkeX25519, binding, &self.public.id());
        if wrap.len() != WRAP_BYTES || header != promised {
            return Err("this is not the wrap that its name promises");
        }
        let (encapsulated, sealed) = rest.split_at(32);
        let open = || {
            let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)?;
            single_shot_open::<AesGcm256, HkdfSha256, Kem>(
                &OpModeR::Base,
                &hpke_private(&self.secret)?,
                &encapsulated,
                WRAP_INFO,
                sealed,
                header,
            )
        };
        let secret = open().map(Zeroizing::new).ok();
        secret
            .and_then(|secret| secret.as_slice().try_into().ok())
            .map(Zeroizing::new)
            .ok_or("it does not open")
    }
}

impl WrapKeys for PairPublic {
    fn recipient_id(&self) -> String {
        self.id()
    }

    fn name(&self) -> String {
        self.id()
    }

    fn line(&self) -> String {
        files::line(PUBLIC_PREFIX, &self.0).to_string()
    }

    fn wrap(
        &self,
        binding: &WrapBinding,
        secret: &DataKeySecret,
    ) -> std::result::Result<Vec<u8>, KeyError> {
        self.seal(binding, secret).map_err(|error| KeyError {
            key: self.id(),
            trouble: KeyTrouble::Failed {
                what: error.to_string(),
            },
        })
    }
}

impl UnwrapKeys for PairPrivate {
    fn recipient_id(&self) -> String {
        self.public.id()
    }

    fn opens(&self, wrap: &WrapHeader) -> bool {
        wrap.suite == WrapSuite::HpkeX25519 && wrap.recipient_id == self.public.id()
    }

    fn unwrap(
        &self,
        binding: &WrapBinding,
        wrap: &[u8],
    ) -> std::result::Result<DataKeySecret, KeyError> {
        self.open(binding, wrap).map_err(|what| KeyError {
            key: self.public.id(),
            trouble: KeyTrouble::Wrong {
                what: what.to_owned(),
            },
        })
    }
}

fn hpke_private(
    secret: &[u8; 32],
) -> std::result::Result<<Kem as hpke::Kem>::PrivateKey, hpke::HpkeError> {
    <Kem as hpke::Kem>::PrivateKey::from_bytes(secret)
}

impl fmt::Debug for PairPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairPublic({})", self.id())
    }
}

impl fmt::Debug for PairPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairPrivate({}, ..)", self.public.id())
    }
}
