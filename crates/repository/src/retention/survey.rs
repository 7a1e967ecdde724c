//! What is here, as far as expiry cares. Pack lists and histories are readable in the clear, so it needs no key; with one, old
//! objects that lack them are read too.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Plan;
use super::snapshots::SnapshotSurvey;
use crate::Repository;
use crate::backup::{BackupState, BackupSummary, catalogue};
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPrivate};
use crate::pipeline::read_header;
use crate::references::pack_list;
use crate::references::tombstones::{self, Kind, StoredTombstone};
use crate::store::{Lock, ObjectInfo};
use crate::timelines::{Switch, ancestors};
use crate::wal::{Hole, Inventory, WalName, wal_inventory};

/// Everything that a plan is made from.
#[derive(Debug, Default)]
pub struct Survey {
    /// Without a tombstone.
    pub(super) backups: Vec<BackupSummary>,
    /// Backups with a manifest that cannot be read.
    pub(super) unreadable: BTreeSet<String>,
    /// What each backup without a tombstone refers to; `None` where nobody can tell here.
    pub(crate) references: BTreeMap<String, Option<BTreeSet<String>>>,
    pub(super) inventory: Inventory,
    pub(super) wal: Vec<WalObject>,
    /// Of each timeline that is not the first; `None` where nobody can tell here.
    pub(super) ancestors: BTreeMap<u32, Option<Vec<Switch>>>,
    pub(super) packs: Vec<ObjectInfo>,
    pub(super) wraps: Vec<ObjectInfo>,
    /// Data keys whose objects are here; `None` when an object does not tell its own.
    pub(super) keys_in_use: Option<KeysInUse>,
    pub(super) holes: Vec<(ObjectInfo, Hole)>,
    /// Below `backups/` without a manifest, and probes.
    pub(super) leftovers: Vec<ObjectInfo>,
    /// All objects below `backups/`, by backup.
    pub(super) below_backups: BTreeMap<String, Vec<ObjectInfo>>,
    pub(super) snapshots: SnapshotSurvey,
    pub(super) tombstones: Vec<StoredTombstone>,
    /// Backups on legal hold, and since when.
    pub(super) held: BTreeMap<String, i64>,
    /// What the store says of objects that would go; asked for those alone.
    pub(super) locks: BTreeMap<String, Lock>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WalObject {
    pub(super) timeline: u32,
    pub(super) segment: u64,
    pub(super) info: ObjectInfo,
}

#[derive(Debug, Default)]
pub(super) struct KeysInUse {
    ids: BTreeSet<String>,
    /// WAL names hold the first 8 digits only: all keys that begin so count as used.
    prefixes: BTreeSet<String>,
}

impl KeysInUse {
    pub(super) fn contains(&self, data_key: &str) -> bool {
        let prefix = data_key.get(..8).unwrap_or_default();
        self.ids.contains(data_key) || self.prefixes.contains(prefix)
    }
}

impl Survey {
    /// Everything is listed first and read then; what goes meanwhile is left out.
    pub fn read(repository: &Repository, private: Option<&RecipientPrivate>) -> Result<Self> {
        let mut survey = Self::default();
        // Tombstones before manifests: a backup that gets one meanwhile is only kept longer.
        let (tombstones, damaged) = tombstones::all(repository)?;
        survey.tombstones = tombstones;
        survey.warn(damaged);
        let held = super::holds::held(repository)?;
        survey.held = held.into_iter().map(|(id, (at, _))| (id, at)).collect();
        survey.read_backups(repository, private)?;
        survey.snapshots = SnapshotSurvey::read(
            repository,
            private,
            &survey.tombstones,
            &mut survey.warnings,
        )?;
        survey.read_wal(repository, private)?;
        survey.packs = repository.store().list("packs/")?;
        survey.wraps = repository.store().list("wraps/")?;
        survey.read_keys_in_use(repository)?;
        Ok(survey)
    }

    /// Asks the store about everything that this plan would mark or delete. True when something is locked: decide again.
    pub(super) fn read_locks(&mut self, repository: &Repository, plan: &Plan) -> Result<bool> {
        for name in plan.goes() {
            match repository.store().lock_of(name) {
                Ok(Some(lock)) => drop(self.locks.insert(name.to_owned(), lock)),
                Ok(None) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(!self.locks.is_empty())
    }

    pub(super) fn lock_of(&self, name: &str) -> Option<&Lock> {
        self.locks.get(name)
    }

    fn warn(&mut self, errors: Vec<Error>) {
        self.warnings.extend(errors.iter().map(ToString::to_string));
    }

    fn read_backups(
        &mut self,
        repository: &Repository,
        private: Option<&RecipientPrivate>,
    ) -> Result<()> {
        let objects = repository.store().list("backups/")?;
        let all = catalogue(repository)?;
        for error in &all.damaged {
            let id = error.object().and_then(backup_of);
            self.unreadable.extend(id.map(str::to_owned));
        }
        self.warn(all.damaged);
        let expiring: BTreeSet<String> = all
            .backups
            .iter()
            .filter(|backup| backup.state == BackupState::Expiring)
            .map(|backup| backup.id.clone())
            .collect();
        self.backups = all.backups;
        self.backups
            .retain(|backup| backup.state != BackupState::Expiring);
        let ids: Vec<String> = self
            .backups
            .iter()
            .map(|backup| backup.id.clone())
            .chain(self.unreadable.iter().cloned())
            .collect();
        for id in &ids {
            let packs = packs_of(repository, private, id)?;
            self.references.insert(id.clone(), packs);
        }
        for object in objects {
            let Some(id) = backup_of(&object.name) else {
                continue;
            };
            let has_manifest = self.references.contains_key(id) || expiring.contains(id);
            if !has_manifest && !self.has_tombstone(id) {
                self.leftovers.push(object.clone());
            }
            let below = self.below_backups.entry(id.to_owned()).or_default();
            below.push(object);
        }
        self.leftovers.extend(repository.store().list("probes/")?);
        Ok(())
    }

    fn has_tombstone(&self, backup_id: &str) -> bool {
        let mut ids = self
            .tombstones
            .iter()
            .filter_map(StoredTombstone::backup_id);
        ids.any(|id| id == backup_id)
    }

    fn read_wal(
        &mut self,
        repository: &Repository,
        private: Option<&RecipientPrivate>,
    ) -> Result<()> {
        let tails = repository.store().list("tail/")?;
        let segments = repository.store().list("wal/")?;
        for info in tails.into_iter().chain(segments) {
            // What has no timeline and segment in its name is nobody's to delete.
            if let Ok(WalName { timeline, segment }) = WalName::parse(&info.name) {
                self.wal.push(WalObject {
                    timeline,
                    segment,
                    info,
                });
            }
        }
        self.wal
            .sort_by_key(|object| (object.timeline, object.segment));
        self.inventory = wal_inventory(repository)?;
        let damaged = std::mem::take(&mut self.inventory.damaged);
        self.warn(damaged);
        let keys = private.map(|private| KeyRing::new(repository, private));
        for timeline in self.inventory.timelines.keys() {
            if *timeline > 1 {
                let switches = ancestors(repository, keys.as_ref(), *timeline)?;
                self.ancestors.insert(*timeline, switches);
            }
        }
        for info in repository.store().list("holes/")? {
            let bytes = match repository.store().get(&info.name) {
                Err(StoreError::NotFound { .. }) => continue,
                other => other?,
            };
            if let Ok(hole) = serde_json::from_slice(&bytes) {
                self.holes.push((info, hole));
            }
        }
        Ok(())
    }

    fn read_keys_in_use(&mut self, repository: &Repository) -> Result<()> {
        let mut keys = KeysInUse::default();
        for object in &self.wal {
            let span = object.info.name.split('.').next_back().unwrap_or_default();
            keys.prefixes
                .extend(span.split('-').skip(1).map(str::to_owned));
        }
        let histories = repository.store().list("timelines/")?;
        let below = self.below_backups.values().flatten();
        let manifests = below.chain(self.snapshots.below.values().flatten());
        let sealed = self
            .packs
            .iter()
            .chain(histories.iter().filter(|o| o.name.ends_with(".history")))
            .chain(manifests.filter(|o| o.name.ends_with("/manifest")));
        let mut unknown = Vec::new();
        for object in sealed {
            match read_header(repository.store(), &object.name) {
                Ok((header, _)) => drop(keys.ids.insert(header.data_key.to_string())),
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_unavailable() => return Err(error),
                Err(error) => unknown.push(error),
            }
        }
        self.keys_in_use = unknown.is_empty().then_some(keys);
        self.warn(unknown);
        Ok(())
    }

    /// Of a backup or a snapshot.
    pub(super) fn newest_manifest_micros(&self) -> Option<i64> {
        let newest = self.backups.iter().map(|b| b.finished_at_micros).max();
        newest.max(self.snapshots.newest_micros())
    }

    pub(super) fn newest_tombstone_micros(&self) -> Option<i64> {
        let written = |found: &StoredTombstone| found.tombstone.written_at_micros;
        self.tombstones.iter().map(written).max()
    }

    /// Names that have a tombstone already.
    pub(super) fn named(&self, kind: Kind) -> BTreeSet<&str> {
        let of_kind = self.tombstones.iter().filter(|found| found.kind == kind);
        of_kind
            .flat_map(|found| found.tombstone.objects.iter().map(String::as_str))
            .collect()
    }

    /// The newest moment that the repository can prove, or now when that is earlier: a stream that stands still, or a clock that
    /// runs ahead, moves no window. Nor does a backup whose WAL is not all here: nothing restores it yet.
    pub(super) fn until_micros(&self, now_micros: i64) -> i64 {
        let intervals = self
            .inventory
            .timelines
            .values()
            .flat_map(|wal| &wal.intervals);
        let confirmed = intervals.map(|interval| interval.end_time_micros).max();
        let complete = self.backups.iter();
        let complete = complete.filter(|backup| backup.state == BackupState::Complete);
        let newest = confirmed.max(complete.map(|backup| backup.finished_at_micros).max());
        newest
            .filter(|at| *at > 0)
            .map_or(now_micros, |at| at.min(now_micros))
    }
}

fn backup_of(object: &str) -> Option<&str> {
    object.strip_prefix("backups/")?.split('/').next()
}

/// From its list; from the sealed manifest where there is none and the key is here.
pub(crate) fn packs_of(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    id: &str,
) -> Result<Option<BTreeSet<String>>> {
    if let Some(packs) = pack_list::listed(repository, id)? {
        return Ok(Some(packs));
    }
    let Some(private) = private else {
        return Ok(None);
    };
    match pack_list::sealed(repository, private, id) {
        Ok(packs) => Ok(Some(packs)),
        Err(error) if error.is_unavailable() => Err(error),
        Err(_) => Ok(None),
    }
}
