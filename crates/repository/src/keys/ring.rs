//! Opens data keys with the keys at hand, each once; where none opens, says which key is wanted and what it takes with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::provider::{KeyError, KeyTrouble, Vault, WrapBinding, opened_by};
use super::rotation::backups_closed_to;
use super::wrap::WrapHeader;
use super::{DataKey, DataKeyId, RecipientPrivate};
use crate::Repository;
use crate::error::{ClosedKey, Error, Result, StoreError, WrongKey};
use crate::outlook::key_outlook;

const ARCHIVE_ALONE: &str = "what is sealed to it of the audit archive, which has a key of its own, apart from that of the backups";

pub(crate) struct KeyRing {
    repository: Repository,
    private: RecipientPrivate,
    opened: Mutex<HashMap<DataKeyId, Arc<DataKey>>>,
    /// What a closed key takes with it, for errors; looked up once.
    consequences: OnceLock<String>,
}

impl KeyRing {
    pub(crate) fn new(repository: &Repository, private: &RecipientPrivate) -> Self {
        Self {
            repository: repository.clone(),
            private: private.clone(),
            opened: Mutex::new(HashMap::new()),
            consequences: OnceLock::new(),
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
        match open_data_key(&self.repository, Vault::of(object), &self.private, id)? {
            Opening::Opened(key) => {
                let key = Arc::new(key);
                opened.insert(id, Arc::clone(&key));
                Ok(key)
            }
            Opening::NotForUs(wraps) => Err(self.not_for_us(object, id, &wraps)?),
            Opening::Closed(troubles) => Err(self.closed(object, id, troubles)),
        }
    }

    /// The same for whoever goes on without the key. What else is closed is not looked up.
    pub(crate) fn try_key(&self, object: &str, id: DataKeyId) -> Result<SealedTo> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.contains_key(&id) {
            return Ok(SealedTo::Us);
        }
        match open_data_key(&self.repository, Vault::of(object), &self.private, id)? {
            Opening::Opened(key) => {
                opened.insert(id, Arc::new(key));
                Ok(SealedTo::Us)
            }
            Opening::NotForUs(wraps) if wraps.is_empty() => {
                self.not_for_us(object, id, &wraps).and_then(Err)
            }
            Opening::NotForUs(wraps) => {
                let to: Vec<String> = wraps.iter().map(WrapHeader::describe).collect();
                Ok(SealedTo::Others(to.join(", ")))
            }
            Opening::Closed(troubles) => {
                let told: Vec<String> = troubles.iter().map(ToString::to_string).collect();
                Ok(SealedTo::ClosedKey(told.join("; ")))
            }
        }
    }

    fn not_for_us(&self, object: &str, id: DataKeyId, wraps: &[WrapHeader]) -> Result<Error> {
        let given = self.private.public().id();
        if wraps.is_empty() {
            return Ok(Error::Missing {
                object: Vault::of(object).wrap_name(id, &given),
                needed_by: format!("`{object}`"),
                remedy: crate::error::REMEDY_COPY,
            });
        }
        let sealed_for: Vec<String> = wraps.iter().map(WrapHeader::describe).collect();
        let closed = match Vault::of(object) {
            Vault::Backups => few(&backups_closed_to(&self.repository, &given)?),
            Vault::Audit => ARCHIVE_ALONE.to_owned(),
        };
        Ok(Error::WrongKey(Box::new(WrongKey {
            object: object.to_owned(),
            data_key: id.to_string(),
            sealed_for: sealed_for.join(", "),
            given,
            closed,
        })))
    }

    fn closed(&self, object: &str, id: DataKeyId, keys: Vec<KeyError>) -> Error {
        let consequences = self.consequences.get_or_init(|| {
            if Vault::of(object) == Vault::Audit {
                return format!("It closes {ARCHIVE_ALONE}");
            }
            key_outlook(&self.repository, Some(&self.private)).map_or_else(
                |error| format!("What else is closed could not be found out: {error}"),
                |outlook| outlook.sentence(),
            )
        });
        let told: Vec<String> = keys.iter().map(ToString::to_string).collect();
        Error::KeyClosed(Box::new(ClosedKey {
            object: object.to_owned(),
            data_key: id.to_string(),
            told: told.join("; "),
            keys,
            consequences: consequences.clone(),
        }))
    }
}

/// Whether the keys at hand open a data key.
pub(crate) enum SealedTo {
    Us,
    /// By name.
    Others(String),
    /// It is ours, and its provider does not open it: what it says.
    ClosedKey(String),
}

/// What came of trying every wrap of a data key that the keys at hand may open.
pub(super) enum Opening {
    Opened(DataKey),
    /// What its wraps say; none of the keys at hand is asked for.
    NotForUs(Vec<WrapHeader>),
    /// Each key that was tried, and why it did not open.
    Closed(Vec<KeyError>),
}

pub(super) fn open_data_key(
    repository: &Repository,
    vault: Vault,
    private: &RecipientPrivate,
    id: DataKeyId,
) -> Result<Opening> {
    // The usual case: one read.
    let direct = vault.wrap_name(id, &private.public().id());
    let mut tried = Attempts::default();
    match repository.store().get(&direct) {
        Ok(wrap) => {
            if let Some(key) = tried.with(repository, private, id, &direct, &wrap)? {
                return Ok(Opening::Opened(key));
            }
        }
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for object in repository.store().list(&vault.wraps_of(id))? {
        if object.name == direct {
            continue;
        }
        let wrap = match repository.store().get(&object.name) {
            // Retired since the listing.
            Err(StoreError::NotFound { .. }) => continue,
            other => other?,
        };
        if let Some(key) = tried.with(repository, private, id, &object.name, &wrap)? {
            return Ok(Opening::Opened(key));
        }
    }
    tried.outcome()
}

#[derive(Default)]
struct Attempts {
    foreign: Vec<WrapHeader>,
    troubles: Vec<KeyError>,
    damage: Option<Error>,
}

impl Attempts {
    fn with(
        &mut self,
        repository: &Repository,
        private: &RecipientPrivate,
        id: DataKeyId,
        object: &str,
        wrap: &[u8],
    ) -> Result<Option<DataKey>> {
        let header = WrapHeader::read(wrap).filter(|header| {
            header.data_key_id == id.to_string()
                && Vault::of(object).wrap_name(id, &header.recipient_id) == object
        });
        let Some(header) = header else {
            let what = "this is not the wrap that its name promises";
            self.damage.get_or_insert(Error::damaged(object, 0, what));
            return Ok(None);
        };
        let Some(opener) = private.opener(&header) else {
            self.foreign.push(header);
            return Ok(None);
        };
        let binding = WrapBinding::new(repository.id(), id);
        match opened_by(opener, &binding, object, wrap) {
            Ok(secret) => return Ok(Some(DataKey::from_parts(id, secret))),
            Err(Error::Provider(error)) => self.troubles.push(error),
            Err(error) => {
                self.damage.get_or_insert(error);
            }
        }
        Ok(None)
    }

    fn outcome(self) -> Result<Opening> {
        // What may pass is worth another try; everything else is final until somebody acts.
        let passing = |error: &KeyError| error.trouble.may_pass();
        if let Some(error) = self.troubles.iter().find(|error| passing(error)) {
            return Err(error.clone().into());
        }
        match (self.damage, self.troubles.is_empty()) {
            (Some(damage), true) => Err(damage),
            (damage, false) => {
                let mut troubles = self.troubles;
                troubles.extend(damage.map(|error| KeyError {
                    key: "of a damaged wrap".to_owned(),
                    trouble: KeyTrouble::Failed {
                        what: error.to_string(),
                    },
                }));
                Ok(Opening::Closed(troubles))
            }
            (None, true) => Ok(Opening::NotForUs(self.foreign)),
        }
    }
}

/// For an error: the first few by name.
pub(crate) fn few(backups: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = backups.get(..SHOWN).unwrap_or(backups).join(", ");
    match backups.len() {
        0 => "no backup".to_owned(),
        all if all > SHOWN => format!("{all} backups: {shown}, ..."),
        _ => shown,
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({:?})", self.private)
    }
}
