//! Tombstones: write-once objects that name what expires and when it may be swept.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::random_hex;
use crate::repository::to_json;
use crate::snapshot::prefix_of;
use crate::store::now_micros;

const PREFIX: &str = "tombstones/";
const BACKUP: &str = "tombstones/backup.";
const SNAPSHOT: &str = "tombstones/snapshot.";
const VERSION: u64 = 1;
/// So many names a tombstone: a first expiry of years of WAL stays readable.
pub(crate) const OBJECTS_MAX: usize = 10_000;

/// What a tombstone is about. It is the first part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Backup,
    Snapshot,
    Packs,
    Wal,
    Rest,
}

impl Kind {
    pub(crate) const SWEPT_IN_THIS_ORDER: [Self; 5] = [
        Self::Backup,
        Self::Snapshot,
        Self::Packs,
        Self::Wal,
        Self::Rest,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Snapshot => "snapshot",
            Self::Packs => "packs",
            Self::Wal => "wal",
            Self::Rest => "rest",
        }
    }

    fn of(name: &str) -> Option<Self> {
        let word = name.strip_prefix(PREFIX)?.split('.').next()?;
        Self::SWEPT_IN_THIS_ORDER
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    version: u64,
    pub(crate) written_at_micros: i64,
    pub(crate) sweep_after_micros: i64,
    /// Why, for people.
    pub(crate) reason: String,
    pub(crate) objects: Vec<String>,
}

/// A tombstone as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTombstone {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) tombstone: Tombstone,
}

impl StoredTombstone {
    pub(crate) fn backup_id(&self) -> Option<&str> {
        self.name.strip_prefix(BACKUP)
    }

    /// Component and id.
    pub(crate) fn snapshot(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix(SNAPSHOT)?.split_once('.')
    }

    /// All objects of its subject lie below this.
    pub(crate) fn folder(&self) -> Option<String> {
        match (self.backup_id(), self.snapshot()) {
            (Some(id), _) => Some(format!("backups/{id}/")),
            (_, Some((component, id))) => Some(prefix_of(component, id)),
            _ => None,
        }
    }
}

impl Tombstone {
    pub(crate) fn new(
        written_at_micros: i64,
        grace_micros: i64,
        reason: &str,
        objects: Vec<String>,
    ) -> Self {
        Self {
            version: VERSION,
            written_at_micros,
            sweep_after_micros: written_at_micros.saturating_add(grace_micros),
            reason: reason.to_owned(),
            objects,
        }
    }

    /// New references are taken for the first half of the grace only, so that no writer races with the sweep.
    fn accepts_references_at(&self, now: i64) -> bool {
        let half = (self.sweep_after_micros - self.written_at_micros) / 2;
        now < self.written_at_micros.saturating_add(half)
    }
}

/// Durable when it returns. A backup or a snapshot (its `subject`) has one tombstone, whoever writes it first; others
/// get names of their own.
pub(crate) fn put(
    repository: &Repository,
    kind: Kind,
    subject: Option<&str>,
    tombstone: &Tombstone,
) -> Result<()> {
    let name = match subject {
        Some(subject) => format!("{PREFIX}{}.{subject}", kind.word()),
        None => {
            let at = u64::try_from(tombstone.written_at_micros).unwrap_or(0);
            format!("{PREFIX}{}.{at:016x}-{}", kind.word(), random_hex(4)?)
        }
    };
    match repository.store().put(&name, &to_json(tombstone)) {
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Backups that have a tombstone: readers leave them alone. From names only.
pub(crate) fn expiring(repository: &Repository) -> Result<BTreeSet<String>> {
    let objects = repository.store().list(BACKUP)?;
    Ok(objects
        .into_iter()
        .filter_map(|object| object.name.strip_prefix(BACKUP).map(str::to_owned))
        .collect())
}

/// Snapshots that have a tombstone: component and id. From names only.
pub(crate) fn expiring_snapshots(repository: &Repository) -> Result<BTreeSet<(String, String)>> {
    let objects = repository.store().list(SNAPSHOT)?;
    let places = objects.iter().filter_map(|object| {
        let (component, id) = object.name.strip_prefix(SNAPSHOT)?.split_once('.')?;
        Some((component.to_owned(), id.to_owned()))
    });
    Ok(places.collect())
}

/// All of them, and those that cannot be read. What a damaged one names is never swept by it, and is found again.
pub(crate) fn read_all(
    repository: &Repository,
    prefix: &str,
) -> Result<(Vec<StoredTombstone>, Vec<Error>)> {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for object in repository.store().list(prefix)? {
        let Some(kind) = Kind::of(&object.name) else {
            continue;
        };
        let bytes = match repository.store().get(&object.name) {
            // Swept meanwhile.
            Err(StoreError::NotFound { .. }) => continue,
            other => other?,
        };
        match serde_json::from_slice::<Tombstone>(&bytes) {
            Ok(tombstone) if tombstone.version == VERSION => found.push(StoredTombstone {
                name: object.name,
                kind,
                tombstone,
            }),
            Ok(tombstone) => damaged.push(Error::Version {
                object: object.name,
                found: tombstone.version,
            }),
            Err(_) => damaged.push(Error::damaged(&object.name, 0, "it cannot be parsed")),
        }
    }
    Ok((found, damaged))
}

/// Whether it can be read, without acting on it.
pub(crate) fn check_tombstone(name: &str, bytes: &[u8]) -> Result<()> {
    let bad = |what: &str| Error::damaged(name, 0, what);
    if Kind::of(name).is_none() {
        return Err(bad("its name is of no kind of mark"));
    }
    match serde_json::from_slice::<Tombstone>(bytes) {
        Ok(tombstone) if tombstone.version == VERSION => Ok(()),
        Ok(tombstone) => Err(Error::Version {
            object: name.to_owned(),
            found: tombstone.version,
        }),
        Err(_) => Err(bad("it cannot be parsed")),
    }
}

pub(crate) fn all(repository: &Repository) -> Result<(Vec<StoredTombstone>, Vec<Error>)> {
    read_all(repository, PREFIX)
}

/// Ids of packs that a new backup must not refer to, because they may be gone before its manifest is there.
pub fn packs_marked_for_deletion(repository: &Repository) -> Result<BTreeSet<String>> {
    let prefix = format!("{PREFIX}{}.", Kind::Packs.word());
    let (found, _) = read_all(repository, &prefix)?;
    let now = now_micros();
    let mut marked = BTreeMap::new();
    for tombstone in found.iter().map(|found| &found.tombstone) {
        let is_marked = !tombstone.accepts_references_at(now);
        for pack in &tombstone.objects {
            let id = pack.trim_start_matches("packs/").to_owned();
            *marked.entry(id).or_insert(false) |= is_marked;
        }
    }
    Ok(marked
        .into_iter()
        .filter_map(|(id, is_marked)| is_marked.then_some(id))
        .collect())
}
