//! A new recipient: its wraps beside the old ones, and the old ones let go once the new ones are proven. No data are rewritten.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::provider::{UnwrapKeys, WrapKeys, wrap_name};
use super::{DataKeyId, RecipientPrivate, RecipientPublic, from_hex};
use crate::error::{Error, Result, StoreError};
use crate::manifest::manifest_name;
use crate::pipeline::read_header;
use crate::{Progress, Repository};

/// Data keys, with the recipients that each is sealed to.
type Wraps = BTreeMap<DataKeyId, BTreeSet<String>>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rewrapped {
    /// All of the repository.
    pub data_keys: u64,
    /// Of those, sealed to the new recipient just now.
    pub wrapped: u64,
    /// Sealed to neither the old recipient nor the new one.
    pub foreign: u64,
}

fn wraps(repository: &Repository) -> Result<Wraps> {
    let mut wraps = Wraps::new();
    for object in repository.store().list("wraps/")? {
        let mut parts = object.name.split('/').skip(1);
        let id = parts.next().and_then(from_hex);
        let id = id.and_then(|id| id.try_into().ok()).map(DataKeyId);
        if let (Some(id), Some(recipient)) = (id, parts.next()) {
            wraps.entry(id).or_default().insert(recipient.to_owned());
        }
    }
    Ok(wraps)
}

/// Seals every data key to the new recipient as well. Each new wrap is read back and opened before it counts. What was interrupted goes on
/// where it stopped.
pub fn rewrap(
    repository: &Repository,
    old: &RecipientPrivate,
    new: &RecipientPrivate,
    progress: &dyn Progress,
) -> Result<Rewrapped> {
    let (from, to) = (old.recipient_id(), new.recipient_id());
    let all = wraps(repository)?;
    progress.total(all.len() as u64);
    let mut done = Rewrapped {
        data_keys: all.len() as u64,
        ..Rewrapped::default()
    };
    for (id, recipients) in all {
        if progress.cancelled() {
            return Err(Error::Input(
                "interrupted: nothing is lost, repeat it to go on".to_owned(),
            ));
        }
        match (recipients.contains(&to), recipients.contains(&from)) {
            (true, _) => drop(open(repository, new, id)?),
            (false, true) => {
                rewrap_one(repository, old, new, id)?;
                done.wrapped += 1;
            }
            (false, false) => done.foreign += 1,
        }
        progress.advance(1);
    }
    Ok(done)
}

fn rewrap_one(
    repository: &Repository,
    old: &RecipientPrivate,
    new: &RecipientPrivate,
    id: DataKeyId,
) -> Result<()> {
    let key = match open(repository, old, id) {
        // Expired since the listing.
        Err(Error::Store(StoreError::NotFound { .. })) => return Ok(()),
        other => other?,
    };
    let name = wrap_name(id, &new.recipient_id());
    match repository.store().put(&name, &new.public().wrap(&key)?) {
        // Another rotation to the same key; it is opened below like our own.
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if open(repository, new, id)?.secret() == key.secret() {
        return Ok(());
    }
    Err(Error::damaged(
        &name,
        0,
        "read back, it is another key than was sealed",
    ))
}

fn open(repository: &Repository, by: &dyn UnwrapKeys, id: DataKeyId) -> Result<super::DataKey> {
    let name = wrap_name(id, &by.recipient_id());
    let wrap = repository.store().get(&name)?;
    by.unwrap(&name, id, &wrap)
}

/// Deletes the wraps of a recipient that was replaced, once **every** data key opens with the current key; otherwise nothing is deleted.
pub fn retire(
    repository: &Repository,
    old_recipient_id: &str,
    current: &RecipientPrivate,
    progress: &dyn Progress,
) -> Result<u64> {
    let current_id = current.recipient_id();
    if old_recipient_id == current_id {
        return Err(Error::Input(format!(
            "{old_recipient_id} is the current recipient: its wraps are all that opens this repository"
        )));
    }
    let all = wraps(repository)?;
    let old: Vec<DataKeyId> = all
        .iter()
        .filter(|(_, recipients)| recipients.contains(old_recipient_id))
        .map(|(id, _)| *id)
        .collect();
    progress.total(2 * old.len() as u64);
    for id in &old {
        open(repository, current, *id).map_err(|error| Error::Key {
            what: format!("of recipient {old_recipient_id}"),
            reason: format!(
                "cannot be retired: the data key {id} does not open with {current_id} ({error}). Repeat the rotation; nothing was deleted"
            ),
        })?;
        progress.advance(1);
    }
    let mut deleted = 0;
    for id in old {
        match repository.store().delete(&wrap_name(id, old_recipient_id)) {
            Ok(()) => deleted += 1,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        progress.advance(1);
    }
    Ok(deleted)
}

/// Data keys that are not sealed to this recipient. From names only.
pub fn not_sealed_to(repository: &Repository, recipient: &RecipientPublic) -> Result<u64> {
    let id = recipient.id();
    let all = wraps(repository)?;
    Ok(all
        .values()
        .filter(|recipients| !recipients.contains(&id))
        .count() as u64)
}

/// Recipients that have wraps here.
pub fn recipients(repository: &Repository) -> Result<BTreeSet<String>> {
    Ok(wraps(repository)?.into_values().flatten().collect())
}

/// Backups that cannot be read by a recipient, for an error that is told anyway.
pub(super) fn backups_closed_to(
    repository: &Repository,
    recipient_id: &str,
) -> Result<Vec<String>> {
    let all = wraps(repository)?;
    let mut closed = Vec::new();
    for object in repository.store().list("backups/")? {
        let id = object.name.split('/').nth(1).unwrap_or_default();
        if object.name != manifest_name(id) {
            continue;
        }
        let Ok((header, _)) = read_header(repository.store(), &object.name) else {
            continue;
        };
        let recipients = all.get(&header.data_key);
        if !recipients.is_some_and(|recipients| recipients.contains(recipient_id)) {
            closed.push(id.to_owned());
        }
    }
    Ok(closed)
}
