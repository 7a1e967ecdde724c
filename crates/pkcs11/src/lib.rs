//! A key inside a hardware token (smart card, HSM) as a key provider, by PKCS#11. Why it is built this way:
//! `docs/decisions/0056-hardware-tokens-by-pkcs11.md`.
//!
//! Entry points: [`TokenKey::open`], which does not touch the token; [`look`], which finds a key in a token. Sealing
//! needs the public half alone and no token; opening needs the token and its PIN, which comes from a file.
//!
//! Absent: to create keys, and anything that changes a token.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod location;
mod token;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use repository::keys::{
    DataKeySecret, KeyError, KeyTrouble, RecipientPrivate, UnwrapKeys, WrapBinding, WrapHeader,
    WrapKeys, WrapSuite, named_recipient_id, named_wrap, open_named_wrap,
};
use zeroize::Zeroizing;

pub use location::{LocationError, TOKEN_LINE, TokenLocation};
use token::Token;

const SECRET: usize = 32;
const PROOF: usize = 16;

#[derive(Debug)]
pub struct TokenKey {
    location: TokenLocation,
    token: Token,
}

/// What is needed to find a key, before its public half is known.
#[derive(Debug, Clone)]
pub struct KeyLabels {
    /// The library that speaks to the token.
    pub module: std::path::PathBuf,
    /// Labels of the token, and of the key pair in it.
    pub token: String,
    pub object: String,
    /// A file of mode 0600 with the PIN.
    pub pin_file: std::path::PathBuf,
}

/// Reads the public half from the token, which needs no PIN.
pub fn look(wanted: &KeyLabels) -> Result<TokenLocation, KeyError> {
    let location = TokenLocation {
        module: wanted.module.clone(),
        token: wanted.token.clone(),
        object: wanted.object.clone(),
        pin_file: wanted.pin_file.clone(),
        modulus: Vec::new(),
        exponent: Vec::new(),
    };
    let (modulus, exponent) = Token::new(&location).public_half()?;
    let location = TokenLocation {
        modulus,
        exponent,
        ..location
    };
    let line = location.to_string();
    line.parse().map_err(|error: LocationError| KeyError {
        key: location.name(),
        trouble: KeyTrouble::Failed {
            what: error.to_string(),
        },
    })
}

impl TokenKey {
    #[must_use]
    pub fn open(location: TokenLocation) -> Arc<Self> {
        Arc::new(Self {
            token: Token::new(&location),
            location,
        })
    }

    /// As the repository knows keys that read.
    #[must_use]
    pub fn recipient(self: &Arc<Self>) -> RecipientPrivate {
        RecipientPrivate::of(Arc::clone(self))
    }

    fn trouble(&self, trouble: KeyTrouble) -> KeyError {
        KeyError {
            key: self.location.name(),
            trouble,
        }
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, &'static str> {
        let components = PublicKeyComponents {
            n: self.location.modulus.as_slice(),
            e: self.location.exponent.as_slice(),
        };
        let key: PublicEncryptingKey = components
            .try_into()
            .map_err(|_| "its public half is no RSA key")?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| "its public half is refused")?;
        let mut sealed = vec![0; key.ciphertext_size()];
        let sealed = key
            .encrypt(&OAEP_SHA1_MGF1SHA1, plain, &mut sealed, None)
            .map_err(|_| "sealing failed")?;
        Ok(sealed.to_vec())
    }
}

impl WrapKeys for TokenKey {
    fn recipient_id(&self) -> String {
        named_recipient_id(WrapSuite::Pkcs11Rsa, &self.location.name())
    }

    fn name(&self) -> String {
        self.location.name()
    }

    fn line(&self) -> String {
        self.location.to_string()
    }

    /// On any host that has the public half: no token is asked.
    fn wrap(&self, binding: &WrapBinding, secret: &DataKeySecret) -> Result<Vec<u8>, KeyError> {
        let mut plain = Zeroizing::new([0; SECRET + PROOF]);
        plain[..SECRET].copy_from_slice(secret.as_slice());
        plain[SECRET..].copy_from_slice(&proof(binding));
        let sealed = self.seal(plain.as_slice()).map_err(|what| {
            self.trouble(KeyTrouble::Failed {
                what: what.to_owned(),
            })
        })?;
        let name = self.location.name();
        Ok(named_wrap(WrapSuite::Pkcs11Rsa, binding, &name, &sealed))
    }
}

impl UnwrapKeys for TokenKey {
    fn recipient_id(&self) -> String {
        WrapKeys::recipient_id(self)
    }

    fn opens(&self, wrap: &WrapHeader) -> bool {
        wrap.suite == WrapSuite::Pkcs11Rsa && wrap.key_name == self.location.name()
    }

    fn unwrap(&self, binding: &WrapBinding, wrap: &[u8]) -> Result<DataKeySecret, KeyError> {
        let wrap = open_named_wrap(WrapSuite::Pkcs11Rsa, binding, wrap)?;
        let plain = self.token.decrypt(wrap.sealed)?;
        let (secret, found) = plain.split_at_checked(SECRET).unwrap_or((&[], &[]));
        match (secret.try_into(), found == proof(&wrap.binding)) {
            (Ok(secret), true) => Ok(Zeroizing::new(secret)),
            _ => Err(self.trouble(KeyTrouble::Wrong {
                what: "it was sealed for another data key, or is not a data key".to_owned(),
            })),
        }
    }
}

/// Sealed beside the data key, in place of a label that not every token takes.
fn proof(binding: &WrapBinding) -> [u8; PROOF] {
    let text = format!("{}/{}", binding.repository_id, binding.data_key_id);
    let mut proof = [0; PROOF];
    proof.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..PROOF]);
    proof
}
