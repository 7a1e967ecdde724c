//! Data keys: random, one per backup and per WAL span, stored only wrapped.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::provider::{DataKeySecret, Vault, WrapBinding};
use super::{RecipientPublic, fill_random, from_hex, hex};
use crate::Repository;
use crate::error::{Error, Result};

const OBJECT_KEY_INFO: &[u8] = b"bre-object-1\0";

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DataKeyId(pub(crate) [u8; 16]);

pub(crate) struct DataKey {
    id: DataKeyId,
    secret: DataKeySecret,
}

impl DataKey {
    pub(crate) fn from_parts(id: DataKeyId, secret: DataKeySecret) -> Self {
        Self { id, secret }
    }

    pub(crate) fn id(&self) -> DataKeyId {
        self.id
    }

    pub(super) fn into_secret(self) -> DataKeySecret {
        self.secret
    }

    /// The key of one object: bound to its name, so that an object under another name does not open.
    pub(crate) fn object_key(&self, name: &str) -> Result<LessSafeKey> {
        let derived = Salt::new(HKDF_SHA256, &self.id.0).extract(self.secret.as_slice());
        let info = [OBJECT_KEY_INFO, name.as_bytes()];
        match derived.expand(&info, &AES_256_GCM) {
            Ok(key) => Ok(LessSafeKey::new(UnboundKey::from(key))),
            Err(_) => Err(Error::Key {
                what: format!("of `{name}`"),
                reason: "cannot be derived".to_owned(),
            }),
        }
    }
}

/// A fresh data key whose wraps for all of `recipient` are durable in the repository before anything is sealed with it.
pub(crate) fn new_data_key(
    repository: &Repository,
    recipient: &RecipientPublic,
) -> Result<Arc<DataKey>> {
    new_data_key_in(repository, Vault::Backups, recipient)
}

pub(crate) fn new_data_key_in(
    repository: &Repository,
    vault: Vault,
    recipient: &RecipientPublic,
) -> Result<Arc<DataKey>> {
    let mut id = [0; 16];
    fill_random(&mut id)?;
    let id = DataKeyId(id);
    let binding = WrapBinding::new(repository.id(), id);
    let (secret, wrap) = recipient.first().generate(&binding)?;
    let put = |recipient_id: &str, wrap: &[u8]| {
        let name = vault.wrap_name(id, recipient_id);
        repository.store().put(&name, wrap)
    };
    put(&recipient.first().recipient_id(), &wrap)?;
    for other in recipient.also() {
        put(&other.recipient_id(), &other.wrap(&binding, &secret)?)?;
    }
    Ok(Arc::new(DataKey { id, secret }))
}

impl DataKeyId {
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        from_hex(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyId({self})")
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, ..)", self.id)
    }
}
