//! Timeline histories, and the claim that a restore lays on its new timeline before it promotes.

use std::collections::BTreeSet;

use serde_json::json;

use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPublic, new_data_key};
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, open_single, seal_single};
use crate::repository::to_json;
use crate::store::now_micros;

fn history_name(timeline: u32) -> String {
    format!("timelines/{timeline:08x}.history")
}

/// Stores the history file of a timeline once; a later call for the same timeline changes nothing.
pub fn put_history(
    repository: &Repository,
    public: &RecipientPublic,
    timeline: u32,
    bytes: &[u8],
) -> Result<()> {
    let name = history_name(timeline);
    match repository.store().size(&name) {
        Ok(_) => return Ok(()),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let key = new_data_key(repository, public)?;
    let header = ObjectHeader {
        kind: ObjectKind::History,
        data_key: key.id(),
        clear: Vec::new(),
    };
    let object = seal_single(
        &key,
        &name,
        &header,
        BoxKind::History,
        Compression::Stored,
        (0, 0),
        bytes,
    )?;
    match repository.store().put(&name, &object) {
        Err(StoreError::AlreadyExists { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Mirror of [`put_history`]; `None` when the repository has none.
pub(crate) fn history(keys: &KeyRing, timeline: u32) -> Result<Option<Vec<u8>>> {
    let name = history_name(timeline);
    let bytes = match keys.repository().store().get(&name) {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    let (_, opened) = open_single(keys, &name, &bytes, (ObjectKind::History, BoxKind::History))?;
    Ok(Some(opened.raw))
}

/// Timelines of which the repository has a history, WAL or a backup; claims by restores are not among them.
pub fn known_timelines(repository: &Repository) -> Result<BTreeSet<u32>> {
    let mut known = BTreeSet::new();
    for object in repository.store().list("timelines/")? {
        if let Some((digits, "history")) = object.name["timelines/".len()..].split_once('.') {
            known.insert(hex_timeline(&object.name, digits)?);
        }
    }
    known.extend(crate::wal::wal_inventory(repository)?.timelines.keys());
    Ok(known)
}

fn claims(repository: &Repository) -> Result<BTreeSet<(u32, String)>> {
    let mut claims = BTreeSet::new();
    for object in repository.store().list("timelines/")? {
        let (digits, rest) = object.name["timelines/".len()..]
            .split_once('.')
            .unwrap_or_default();
        if let Some(restore_id) = rest.strip_prefix("reserved.") {
            claims.insert((hex_timeline(&object.name, digits)?, restore_id.to_owned()));
        }
    }
    Ok(claims)
}

fn hex_timeline(name: &str, digits: &str) -> Result<u32> {
    u32::from_str_radix(digits, 16)
        .map_err(|_| Error::damaged(name, 0, "its name holds no timeline"))
}

/// Claims a timeline that nobody has, durably. Two restores at once never get the same one.
pub fn reserve(repository: &Repository, restore_id: &str) -> Result<u32> {
    for _ in 0..64 {
        let taken = claims(repository)?
            .last()
            .map_or(0, |(timeline, _)| *timeline);
        let known = known_timelines(repository)?.last().copied().unwrap_or(1);
        let timeline = taken.max(known) + 1;
        let claim = json!({"restore_id": restore_id, "reserved_at_micros": now_micros()});
        let name = format!("timelines/{timeline:08x}.reserved.{restore_id}");
        repository.store().put(&name, &to_json(&claim))?;
        let alone = claims(repository)?
            .iter()
            .filter(|(claimed, _)| *claimed == timeline)
            .count()
            == 1;
        if alone {
            return Ok(timeline);
        }
        // Somebody else claimed it too: both go on to a higher number, and this one is lost.
    }
    Err(Error::Input(
        "other restores keep claiming timelines: let them finish, then restore again".to_owned(),
    ))
}

/// Gives a claim back when the restore did not promote.
pub fn release(repository: &Repository, timeline: u32, restore_id: &str) -> Result<()> {
    let name = format!("timelines/{timeline:08x}.reserved.{restore_id}");
    match repository.store().delete(&name) {
        Err(StoreError::NotFound { .. }) => Ok(()),
        other => Ok(other?),
    }
}
