//! A new recipient: its wraps beside the old ones, and the old ones let go once the new ones are proven. No data are rewritten.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::provider::{DataKeySecret, Vault, WrapBinding, WrapKeys, opened_by};
use super::ring::{Opening, open_data_key};
use super::wrap::WrapHeader;
use super::{DataKey, DataKeyId, RecipientPrivate, RecipientPublic, from_hex};
use crate::error::{Error, Result, StoreError};
use crate::manifest::manifest_name;
use crate::pipeline::read_header;
use crate::{Progress, Repository};

/// Data keys, with the recipients that each is sealed to.
pub(crate) type Wraps = BTreeMap<DataKeyId, BTreeSet<String>>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RewrapReport {
    /// All of the repository.
    pub data_keys: u64,
    /// Of those, sealed to the new recipient just now.
    pub wrapped: u64,
    /// Sealed to neither the old recipient nor the new one.
    pub foreign: u64,
    /// Sealed to keys that do not open now, and what the first of them answered.
    pub closed: u64,
    pub closed_because: Option<String>,
}

pub(crate) fn wraps(repository: &Repository, vault: Vault) -> Result<Wraps> {
    let mut wraps = Wraps::new();
    for object in repository.store().list(vault.wraps())? {
        let name = object.name.strip_prefix(vault.wraps()).unwrap_or_default();
        let mut parts = name.split('/');
        let id = parts.next().and_then(from_hex);
        let id = id.and_then(|id| id.try_into().ok()).map(DataKeyId);
        if let (Some(id), Some(recipient)) = (id, parts.next()) {
            wraps.entry(id).or_default().insert(recipient.to_owned());
        }
    }
    Ok(wraps)
}

/// Seals every data key that the old key opens to the new recipient as well. Each new wrap is read back and opened before it counts. What
/// was interrupted goes on where it stopped; what does not open is counted and left as it is.
pub fn rewrap_in(
    repository: &Repository,
    vault: Vault,
    old: &RecipientPrivate,
    new: &RecipientPrivate,
    progress: &dyn Progress,
) -> Result<RewrapReport> {
    let to = new.public().id();
    each_data_key(repository, vault, progress, |id, recipients| {
        if recipients.contains(&to) {
            open(repository, vault, new, &to, id)?;
            return Ok(Outcome::Was);
        }
        let secret = match secret_of(repository, vault, old, id)? {
            Ok(secret) => secret,
            Err(outcome) => return Ok(outcome),
        };
        put_wrap(repository, vault, new.public().first(), id, &secret)?;
        if *open(repository, vault, new, &to, id)? == *secret {
            return Ok(Outcome::Sealed);
        }
        Err(Error::damaged(
            &vault.wrap_name(id, &to),
            0,
            "read back, it is another key than was sealed",
        ))
    })
}

/// Seals every data key to one more recipient, whose private key is elsewhere: its wraps cannot be opened here.
pub fn seal_also(
    repository: &Repository,
    by: &RecipientPrivate,
    also: &RecipientPublic,
    progress: &dyn Progress,
) -> Result<RewrapReport> {
    let vault = Vault::Backups;
    let to = also.id();
    each_data_key(repository, vault, progress, |id, recipients| {
        if recipients.contains(&to) {
            return Ok(Outcome::Was);
        }
        match secret_of(repository, vault, by, id)? {
            Ok(secret) => put_wrap(repository, vault, also.first(), id, &secret)?,
            Err(outcome) => return Ok(outcome),
        }
        Ok(Outcome::Sealed)
    })
}

enum Outcome {
    Was,
    Sealed,
    Foreign,
    Closed(String),
    /// Since the listing.
    Expired,
}

fn each_data_key(
    repository: &Repository,
    vault: Vault,
    progress: &dyn Progress,
    mut one: impl FnMut(DataKeyId, &BTreeSet<String>) -> Result<Outcome>,
) -> Result<RewrapReport> {
    let all = wraps(repository, vault)?;
    progress.total(all.len() as u64);
    let mut done = RewrapReport {
        data_keys: all.len() as u64,
        ..RewrapReport::default()
    };
    for (id, recipients) in all {
        if progress.cancelled() {
            return Err(Error::Input(
                "interrupted: nothing is lost, repeat it to go on".to_owned(),
            ));
        }
        match one(id, &recipients)? {
            Outcome::Was | Outcome::Expired => {}
            Outcome::Sealed => done.wrapped += 1,
            Outcome::Foreign => done.foreign += 1,
            Outcome::Closed(because) => {
                done.closed += 1;
                done.closed_because.get_or_insert(because);
            }
        }
        progress.advance(1);
    }
    Ok(done)
}

fn secret_of(
    repository: &Repository,
    vault: Vault,
    by: &RecipientPrivate,
    id: DataKeyId,
) -> Result<Result<DataKeySecret, Outcome>> {
    Ok(match open_data_key(repository, vault, by, id)? {
        Opening::Opened(key) => Ok(DataKey::into_secret(key)),
        Opening::NotForUs(wraps) if wraps.is_empty() => Err(Outcome::Expired),
        Opening::NotForUs(_) => Err(Outcome::Foreign),
        Opening::Closed(keys) => {
            let told = keys.first().map(ToString::to_string);
            Err(Outcome::Closed(told.unwrap_or_default()))
        }
    })
}

fn put_wrap(
    repository: &Repository,
    vault: Vault,
    to: &dyn WrapKeys,
    id: DataKeyId,
    secret: &DataKeySecret,
) -> Result<()> {
    let wrap = to.wrap(&WrapBinding::new(repository.id(), id), secret)?;
    match repository
        .store()
        .put(&vault.wrap_name(id, &to.recipient_id()), &wrap)
    {
        // Another rotation to the same key; where it can be, it is opened like our own.
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The wrap for exactly this recipient, opened.
fn open(
    repository: &Repository,
    vault: Vault,
    by: &RecipientPrivate,
    recipient_id: &str,
    id: DataKeyId,
) -> Result<DataKeySecret> {
    let name = vault.wrap_name(id, recipient_id);
    let wrap = repository.store().get(&name)?;
    let not_it = || Error::damaged(&name, 0, "this is not the wrap that its name promises");
    let header = WrapHeader::read(&wrap).ok_or_else(not_it)?;
    let opener = by.opener(&header).ok_or_else(not_it)?;
    opened_by(opener, &WrapBinding::new(repository.id(), id), &name, &wrap)
}

/// Deletes the wraps of a recipient that was replaced, once **every** data key opens with the current key; otherwise nothing is deleted.
pub fn retire_in(
    repository: &Repository,
    vault: Vault,
    old_recipient_id: &str,
    current: &RecipientPrivate,
    progress: &dyn Progress,
) -> Result<u64> {
    let current_id = current.public().id();
    if old_recipient_id == current_id {
        return Err(Error::Input(format!(
            "{old_recipient_id} is the current recipient: its wraps are all that opens this repository"
        )));
    }
    let all = wraps(repository, vault)?;
    let old: Vec<DataKeyId> = all
        .iter()
        .filter(|(_, recipients)| recipients.contains(old_recipient_id))
        .map(|(id, _)| *id)
        .collect();
    progress.total(2 * old.len() as u64);
    for id in &old {
        open(repository, vault, current, &current_id, *id).map_err(|error| Error::Key {
            what: format!("of recipient {old_recipient_id}"),
            reason: format!(
                "cannot be retired: the data key {id} does not open with {current_id} ({error}). Repeat the rotation; nothing was deleted"
            ),
        })?;
        progress.advance(1);
    }
    let mut deleted = 0;
    for id in old {
        match repository
            .store()
            .delete(&vault.wrap_name(id, old_recipient_id))
        {
            Ok(()) => deleted += 1,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        progress.advance(1);
    }
    Ok(deleted)
}

/// [`rewrap_in`] of what seals backups.
pub fn rewrap(
    repository: &Repository,
    old: &RecipientPrivate,
    new: &RecipientPrivate,
    progress: &dyn Progress,
) -> Result<RewrapReport> {
    rewrap_in(repository, Vault::Backups, old, new, progress)
}

/// [`retire_in`] of what seals backups.
pub fn retire(
    repository: &Repository,
    old_recipient_id: &str,
    current: &RecipientPrivate,
    progress: &dyn Progress,
) -> Result<u64> {
    retire_in(
        repository,
        Vault::Backups,
        old_recipient_id,
        current,
        progress,
    )
}

pub fn not_sealed_to(repository: &Repository, recipient: &RecipientPublic) -> Result<u64> {
    not_sealed_to_in(repository, Vault::Backups, recipient)
}

pub fn recipients(repository: &Repository) -> Result<BTreeSet<String>> {
    recipients_in(repository, Vault::Backups)
}

/// Data keys that are not sealed to this recipient. From names only.
pub fn not_sealed_to_in(
    repository: &Repository,
    vault: Vault,
    recipient: &RecipientPublic,
) -> Result<u64> {
    let id = recipient.id();
    let all = wraps(repository, vault)?;
    Ok(all
        .values()
        .filter(|recipients| !recipients.contains(&id))
        .count() as u64)
}

/// Recipients that have wraps here.
pub fn recipients_in(repository: &Repository, vault: Vault) -> Result<BTreeSet<String>> {
    Ok(wraps(repository, vault)?.into_values().flatten().collect())
}

/// Backups that cannot be read by a recipient, for an error that is told anyway.
pub(super) fn backups_closed_to(
    repository: &Repository,
    recipient_id: &str,
) -> Result<Vec<String>> {
    let all = wraps(repository, Vault::Backups)?;
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
