//! The audit log that the engine writes, and its signed heads in a repository.

use std::collections::BTreeMap;

use audit::SignedHead;
use repository::Repository;

use crate::error::Error;

const EPOCH_DIGITS: usize = 8;

/// The name of the engine's log in `heads/`.
pub(crate) const LOG: u16 = 1;

pub(crate) fn log_name() -> String {
    LOG.to_string()
}

/// Every head that the repository holds, oldest first.
pub(crate) fn stored(repository: &Repository) -> Result<Vec<SignedHead>, Error> {
    repository::heads::heads(repository, &log_name())?
        .iter()
        .map(|head| SignedHead::from_json(&head.bytes).map_err(Into::into))
        .collect()
}

/// The newest head of each epoch: all that a start needs, however many years of heads there are.
pub(crate) fn newest(repository: &Repository) -> Result<Vec<SignedHead>, Error> {
    let prefix = format!("heads/{}/", log_name());
    let objects = repository
        .store()
        .list(&prefix)
        .map_err(repository::Error::from)?;
    // Names are `<epoch>-<size>` in hex of fixed width, and listed in order: the last of an epoch is its newest.
    let mut newest = BTreeMap::new();
    for object in &objects {
        if let Some(epoch) = object.name.get(..prefix.len() + EPOCH_DIGITS) {
            newest.insert(epoch, &object.name);
        }
    }
    newest
        .values()
        .map(|name| {
            let bytes = repository
                .store()
                .get(name)
                .map_err(repository::Error::from)?;
            Ok(SignedHead::from_json(&bytes)?)
        })
        .collect()
}
