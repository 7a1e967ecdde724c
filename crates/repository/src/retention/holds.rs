//! Legal holds: on record as objects of their own, set and cleared, so that they work on every store and tell who held what when.
//! A store with locks of its own gets told as well.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Repository;
use crate::backup::{BackupState, BackupSummary, catalogue};
use crate::error::{Error, Result, StoreError};
use crate::keys::RecipientPrivate;
use crate::log_stretches::{hold_of, stretches_held};
use crate::manifest::manifest_name;
use crate::pack::pack_name;
use crate::references::pack_list;
use crate::repository::to_json;
use crate::store::now_micros;
use crate::wal::WalName;

const PREFIX: &str = "holds/";
const SET: &str = "set";
const CLEARED: &str = "cleared";
const VERSION: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct HoldRecord {
    version: u64,
    backup_id: String,
    reason: String,
}

/// A hold that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub backup_id: String,
    pub since_micros: i64,
    pub reason: String,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HoldSize {
    pub objects: u64,
    pub bytes: u64,
}

/// What a hold covers.
#[derive(Debug)]
pub(super) struct HeldObjects {
    pub(super) is_expiring: bool,
    pub(super) names: BTreeSet<String>,
}

/// Backups and snapshots that are held, with the name of the record that says so. From names only: a record that
/// cannot be read holds too.
pub(crate) fn held(repository: &Repository) -> Result<BTreeMap<String, (i64, String)>> {
    let mut newest: BTreeMap<String, (i64, bool, String)> = BTreeMap::new();
    for object in repository.store().list(PREFIX)? {
        let Some((id, at, what)) = parse(&object.name) else {
            continue;
        };
        // In ascending order, and at the same moment `set` comes after `cleared`.
        newest.insert(id.to_owned(), (at, what == SET, object.name.clone()));
    }
    let set = newest.into_iter().filter(|(_, (_, set, _))| *set);
    Ok(set.map(|(id, (at, _, name))| (id, (at, name))).collect())
}

/// What is held, by name.
pub(crate) fn held_names(repository: &Repository) -> Result<Vec<String>> {
    Ok(held(repository)?.into_keys().collect())
}

fn parse(name: &str) -> Option<(&str, i64, &str)> {
    let (id, rest) = name.strip_prefix(PREFIX)?.split_once('/')?;
    let (at, what) = rest.split_once('-')?;
    Some((id, i64::from_str_radix(at, 16).ok()?, what))
}

/// For people: each with its reason.
pub fn holds(repository: &Repository) -> Result<Vec<Hold>> {
    let mut all = Vec::new();
    for (backup_id, (since_micros, name)) in held(repository)? {
        let record = repository.store().get(&name)?;
        let record: Option<HoldRecord> = serde_json::from_slice(&record).ok();
        all.push(Hold {
            backup_id,
            since_micros,
            reason: record.map_or_else(
                || format!("`{name}` cannot be read"),
                |record| record.reason,
            ),
        });
    }
    Ok(all)
}

/// The record first: from then on expiry lets nothing of it go. Repeating it finishes what was interrupted.
pub fn set_hold(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    backup_id: &str,
    reason: &str,
) -> Result<HoldSize> {
    if all_of(repository, private, backup_id)?.is_expiring {
        return Err(Error::Input(format!(
            "{backup_id} expires already: parts of it may be gone. Hold one that does not"
        )));
    }
    record(repository, backup_id, SET, reason)?;
    let names = all_of(repository, private, backup_id)?.names;
    repository
        .store()
        .set_hold(&names.iter().cloned().collect::<Vec<_>>(), true)?;
    count(repository, &names)
}

/// The store's own holds first, except where another hold needs the object too; then the record.
pub fn clear_hold(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    backup_id: &str,
    reason: &str,
) -> Result<HoldSize> {
    let mut others = held(repository)?;
    if others.remove(backup_id).is_none() {
        return Err(Error::Input(format!("backup {backup_id} is not on hold")));
    }
    let mut names = all_of(repository, private, backup_id)?.names;
    for other in others.keys() {
        for name in all_of(repository, private, other)?.names {
            names.remove(&name);
        }
    }
    repository
        .store()
        .set_hold(&names.iter().cloned().collect::<Vec<_>>(), false)?;
    record(repository, backup_id, CLEARED, reason)?;
    count(repository, &names)
}

/// Of a backup, of a snapshot (their ids are alike and never the same), or of a period of logs.
fn all_of(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    id: &str,
) -> Result<HeldObjects> {
    if let Some(hold) = hold_of(id) {
        let held = stretches_held(repository, &hold)?.into_iter();
        return Ok(HeldObjects {
            is_expiring: false,
            names: held.map(|stretch| stretch.name).collect(),
        });
    }
    let all = catalogue(repository)?.backups;
    if let Some(backup) = all.iter().find(|backup| backup.id == id) {
        return Ok(HeldObjects {
            is_expiring: backup.state == BackupState::Expiring,
            names: all_of_backup(repository, private, backup)?,
        });
    }
    let snapshot = super::snapshots::held_objects(repository, private, id)?;
    snapshot.ok_or_else(|| Error::Input(format!("there is no backup and no snapshot {id}")))
}

fn record(repository: &Repository, backup_id: &str, what: &str, reason: &str) -> Result<()> {
    let before = repository.store().list(&format!("{PREFIX}{backup_id}/"))?;
    let newest = before
        .iter()
        .filter_map(|o| parse(&o.name))
        .map(|(_, at, _)| at)
        .max();
    // Later than the newest also on a clock that went back.
    let at = now_micros().max(newest.unwrap_or(0) + 1);
    let record = HoldRecord {
        version: VERSION,
        backup_id: backup_id.to_owned(),
        reason: reason.to_owned(),
    };
    let name = format!("{PREFIX}{backup_id}/{at:016x}-{what}");
    match repository.store().put(&name, &to_json(&record)) {
        Err(StoreError::AlreadyExists { .. }) => Err(Error::Input(format!(
            "somebody else set or cleared the hold on {backup_id} at this moment. Look at it, and do it again if need be"
        ))),
        other => Ok(other?),
    }
}

/// Its own objects, the packs that it refers to, and the WAL that makes it consistent.
fn all_of_backup(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    backup: &BackupSummary,
) -> Result<BTreeSet<String>> {
    let packs = match (pack_list::listed(repository, &backup.id)?, private) {
        (Some(packs), _) => packs,
        (None, Some(private)) => pack_list::sealed(repository, private, &backup.id)?,
        (None, None) => {
            return Err(Error::Missing {
                object: format!("backups/{}/packs-…", backup.id),
                needed_by: "the hold".to_owned(),
                remedy: "Do it where the private key is: the manifest says it too",
            });
        }
    };
    let mut names: BTreeSet<String> = packs.iter().map(|pack| pack_name(pack)).collect();
    names.insert(manifest_name(&backup.id));
    let bytes = backup.wal_segment_bytes.max(1);
    let segments = backup.start_lsn / bytes..=backup.stop_lsn / bytes;
    for object in repository
        .store()
        .list(&format!("wal/{:08x}/", backup.timeline))?
    {
        if WalName::parse(&object.name).is_ok_and(|name| segments.contains(&name.segment)) {
            names.insert(object.name);
        }
    }
    Ok(names)
}

fn count(repository: &Repository, names: &BTreeSet<String>) -> Result<HoldSize> {
    let mut held = HoldSize {
        objects: 0,
        bytes: 0,
    };
    for prefix in ["backups/", "snapshots/", "packs/", "wal/", "logs/"] {
        for object in repository.store().list(prefix)? {
            if names.contains(&object.name) {
                held.objects += 1;
                held.bytes += object.size;
            }
        }
    }
    Ok(held)
}
