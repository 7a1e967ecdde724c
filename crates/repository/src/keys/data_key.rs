//! Data keys: random, one per backup and per WAL span, stored only wrapped.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::provider::{UnwrapKeys, WrapKeys, wrap_name};
use super::rotation::backups_closed_to;
use super::{RecipientPrivate, fill_random, hex, random_secret};
use crate::Repository;
use crate::error::{Error, Result, StoreError};

pub(crate) const DATA_KEY_BYTES: usize = 32;
const OBJECT_KEY_INFO: &[u8] = b"bre-object-1\0";

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DataKeyId(pub(crate) [u8; 16]);

pub(crate) struct DataKey {
    id: DataKeyId,
    secret: Zeroizing<[u8; DATA_KEY_BYTES]>,
}

impl DataKey {
    pub(crate) fn from_parts(id: DataKeyId, secret: Zeroizing<[u8; DATA_KEY_BYTES]>) -> Self {
        Self { id, secret }
    }

    pub(crate) fn id(&self) -> DataKeyId {
        self.id
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.secret.as_slice()
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

/// A fresh data key whose wrap for `recipient` is durable in the repository.
pub(crate) fn new_data_key(
    repository: &Repository,
    recipient: &impl WrapKeys,
) -> Result<Arc<DataKey>> {
    let mut id = [0; 16];
    fill_random(&mut id)?;
    let key = DataKey {
        id: DataKeyId(id),
        secret: random_secret()?,
    };
    let name = wrap_name(key.id, &recipient.recipient_id());
    repository.store().put(&name, &recipient.wrap(&key)?)?;
    Ok(Arc::new(key))
}

/// Opens wraps with a private key, each once.
pub(crate) struct KeyRing {
    repository: Repository,
    private: Arc<dyn UnwrapKeys>,
    opened: Mutex<HashMap<DataKeyId, Arc<DataKey>>>,
}

impl KeyRing {
    pub(crate) fn new(repository: &Repository, private: &RecipientPrivate) -> Self {
        Self {
            repository: repository.clone(),
            private: Arc::new(private.clone()),
            opened: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The data key `id`, which `object` names.
    pub(crate) fn key(&self, object: &str, id: DataKeyId) -> Result<Arc<DataKey>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = opened.get(&id) {
            return Ok(Arc::clone(key));
        }
        let recipient = self.private.recipient_id();
        let name = wrap_name(id, &recipient);
        let wrap = match self.repository.store().get(&name) {
            Err(StoreError::NotFound { .. }) => return Err(self.not_for_us(object, id, recipient)?),
            other => other?,
        };
        let key = Arc::new(self.private.unwrap(&name, id, &wrap)?);
        opened.insert(id, Arc::clone(&key));
        Ok(key)
    }

    fn not_for_us(&self, object: &str, id: DataKeyId, given: String) -> Result<Error> {
        let prefix = format!("wraps/{id}/");
        let wraps = self.repository.store().list(&prefix)?;
        let sealed_for: Vec<&str> = wraps
            .iter()
            .filter_map(|w| w.name.strip_prefix(&prefix))
            .collect();
        if sealed_for.is_empty() {
            return Ok(Error::Missing {
                object: format!("{prefix}{given}"),
                needed_by: format!("`{object}`"),
                remedy: crate::error::REMEDY_COPY,
            });
        }
        let closed = backups_closed_to(&self.repository, &given)?;
        Ok(Error::WrongKey {
            object: object.to_owned(),
            data_key: id.to_string(),
            sealed_for: sealed_for.join(", "),
            given,
            closed: few(&closed),
        })
    }
}

/// For an error: the first few by name.
fn few(backups: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = backups.get(..SHOWN).unwrap_or(backups).join(", ");
    match backups.len() {
        0 => "no backup".to_owned(),
        all if all > SHOWN => format!("{all} backups: {shown}, ..."),
        _ => shown,
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

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({:?})", self.private)
    }
}
