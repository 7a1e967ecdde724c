//! Timeline histories, and the claim that a restore lays on its new timeline before it promotes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPublic, new_data_key};
use crate::pipeline::{
    BoxKind, Compression, ObjectHeader, ObjectKind, open_single, read_header, seal_single,
};
use crate::repository::to_json;
use crate::store::now_micros;

/// Where an ancestor was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    pub(crate) timeline: u32,
    pub(crate) lsn: u64,
}

/// The clear part of a history, so that expiry needs no key.
#[derive(Debug, Serialize, Deserialize)]
struct Clear {
    switches: Vec<Switch>,
}

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
        clear: clear(bytes),
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

/// Empty when the file is not what PostgreSQL writes: then only the key tells.
fn clear(history: &[u8]) -> Vec<u8> {
    parse(history).map_or_else(Vec::new, |switches| to_json(&Clear { switches }))
}

/// `<timeline> TAB <X/X> TAB <reason>`, oldest first; empty lines and comments aside.
pub(crate) fn parse(history: &[u8]) -> Option<Vec<Switch>> {
    let text = std::str::from_utf8(history).ok()?;
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let switch = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let timeline = words.next()?.parse().ok()?;
        let (high, low) = words.next()?.split_once('/')?;
        let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
        let lsn = half(high)? << 32 | half(low)?;
        Some(Switch { timeline, lsn })
    };
    lines.map(switch).collect()
}

/// The ancestors of a timeline, oldest first; `None` when its history is not here, or cannot be read without the key.
pub(crate) fn ancestors(
    repository: &Repository,
    keys: Option<&KeyRing>,
    timeline: u32,
) -> Result<Option<Vec<Switch>>> {
    let name = history_name(timeline);
    let header = match read_header(repository.store(), &name) {
        Ok((header, _)) => header,
        Err(error) if error.is_unavailable() => return Err(error),
        Err(_) => return Ok(None),
    };
    if let Ok(Clear { switches }) = serde_json::from_slice(&header.clear) {
        return Ok(Some(switches));
    }
    let Some(keys) = keys else { return Ok(None) };
    match history(keys, timeline) {
        Ok(bytes) => Ok(bytes.as_deref().and_then(parse)),
        Err(error) if error.is_unavailable() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Timelines of which the repository has a history, WAL or a backup; claims by restores are not among them.
pub fn known_timelines(repository: &Repository) -> Result<BTreeSet<u32>> {
    let mut known = BTreeSet::new();
    for object in repository.store().list("timelines/")? {
        if let Some((digits, "history")) = object.name["timelines/".len()..].split_once('.') {
            known.extend(hex_timeline(digits));
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
        if let (Some(restore_id), Some(timeline)) =
            (rest.strip_prefix("reserved."), hex_timeline(digits))
        {
            claims.insert((timeline, restore_id.to_owned()));
        }
    }
    Ok(claims)
}

/// A name that holds none is not of this format: it hides none of the others (repository.md, rules).
fn hex_timeline(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
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
