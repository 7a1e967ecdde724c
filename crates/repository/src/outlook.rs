//! Which keys open what here, and what a closed one takes with it. `bre repository key show` and the error of a
//! restore that meets a closed
//! key both tell this.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Error, Result, StoreError};
use crate::keys::{DataKeyId, RecipientPrivate, Vault, WrapBinding, WrapHeader, Wraps, few, wraps};
use crate::manifest::manifest_name;
use crate::pack::pack_name;
use crate::pipeline::read_header;
use crate::references::pack_list::listed as listed_packs;
use crate::wal::{closed_stretches, wal_inventory};
use crate::{
    Repository,
    backup::{BackupState, catalogue},
};

/// As the keys at hand are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyOutlook {
    pub keys: Vec<KeyState>,
    /// What none of the keys at hand opens.
    pub closed: Reach,
    /// What can be restored with them.
    pub left: Reach,
}

/// One recipient that has wraps here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyState {
    pub recipient_id: String,
    /// `file`, `kms`, `pkcs11`.
    pub provider: &'static str,
    /// The provider's name of it, or the recipient's id.
    pub name: String,
    /// `opens`, `not here`, or what its provider answered: `disabled`, `pending deletion`, `deleted`, `denied`, `away` …
    pub state: &'static str,
    pub detail: Option<String>,
    pub data_keys: u64,
    /// What is sealed to this one alone: it goes with it.
    pub only: Reach,
}

impl KeyState {
    #[must_use]
    pub fn opens(&self) -> bool {
        self.state == "opens"
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    pub backups: Vec<String>,
    pub wal: Vec<WalReach>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WalReach {
    pub timeline: u32,
    pub start_lsn: u64,
    pub end_lsn: u64,
}

/// Asks each recipient's key to open one wrap, and looks up what hangs on those that do not.
pub fn key_outlook(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
) -> Result<KeyOutlook> {
    let wraps = wraps(repository, Vault::Backups)?;
    let mut keys = keys(repository, private, &wraps)?;
    let opening: BTreeSet<&String> = keys
        .iter()
        .filter(|key| key.opens())
        .map(|key| &key.recipient_id)
        .collect();
    let users = Users::find(repository, &wraps)?;
    let is_closed = |id: &DataKeyId| {
        !wraps
            .get(id)
            .is_some_and(|to| to.iter().any(|to| opening.contains(to)))
    };
    let closed = users.reach(repository, &is_closed)?;
    let left = users.rest(repository, &closed)?;
    for key in &mut keys {
        let only = |id: &DataKeyId| {
            wraps
                .get(id)
                .is_some_and(|to| to.len() == 1 && to.contains(&key.recipient_id))
        };
        key.only = users.reach(repository, &only)?;
    }
    Ok(KeyOutlook { keys, closed, left })
}

fn keys(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    wraps: &Wraps,
) -> Result<Vec<KeyState>> {
    let mut samples: BTreeMap<&String, Vec<DataKeyId>> = BTreeMap::new();
    for (id, recipients) in wraps {
        for recipient in recipients {
            samples.entry(recipient).or_default().push(*id);
        }
    }
    let mut keys = Vec::new();
    for (recipient_id, ids) in samples {
        let mut key = KeyState {
            recipient_id: recipient_id.clone(),
            provider: "unknown",
            name: recipient_id.clone(),
            state: "not here",
            detail: None,
            data_keys: ids.len() as u64,
            only: Reach::default(),
        };
        for id in ids {
            match probe(repository, private, recipient_id, id, &mut key) {
                // Expired since the listing, or damaged: another one tells as much.
                Err(Error::Store(StoreError::NotFound { .. }) | Error::Damaged { .. }) => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Opens one wrap, or notes why it does not open.
fn probe(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    recipient_id: &str,
    id: DataKeyId,
    key: &mut KeyState,
) -> Result<()> {
    let name = Vault::Backups.wrap_name(id, recipient_id);
    let wrap = repository.store().get(&name)?;
    let header =
        WrapHeader::read(&wrap).ok_or_else(|| Error::damaged(&name, 0, "it is no wrap"))?;
    key.provider = header.suite.provider();
    key.name = header.describe();
    let Some(opener) = private.and_then(|private| private.opener(&header)) else {
        return Ok(());
    };
    match opener.unwrap(&WrapBinding::new(repository.id(), id), &wrap) {
        Ok(_) => key.state = "opens",
        Err(error) => {
            key.state = error.trouble.word();
            key.detail = Some(error.to_string());
        }
    }
    Ok(())
}

/// Who needs which data keys.
struct Users {
    /// Backups that count, oldest first.
    backups: Vec<(String, BTreeSet<DataKeyId>)>,
    known: Vec<DataKeyId>,
}

impl Users {
    fn find(repository: &Repository, wraps: &Wraps) -> Result<Self> {
        // Where all data keys are sealed to the same recipients, whatever a backup refers to has the fate of its manifest.
        let all_alike = {
            let mut sets = wraps.values();
            let first = sets.next();
            sets.all(|set| Some(set) == first)
        };
        let mut packs = BTreeMap::new();
        let mut backups = Vec::new();
        for backup in catalogue(repository)?.backups {
            if backup.state == BackupState::Expiring {
                continue;
            }
            let mut needs = BTreeSet::new();
            let name = manifest_name(&backup.id);
            needs.extend(data_key_of(repository, &name)?);
            if !all_alike {
                for pack in listed_packs(repository, &backup.id)?.unwrap_or_default() {
                    let key = match packs.get(&pack) {
                        Some(key) => *key,
                        None => {
                            let key = data_key_of(repository, &pack_name(&pack))?;
                            packs.insert(pack, key);
                            key
                        }
                    };
                    needs.extend(key);
                }
            }
            backups.push((backup.id, needs));
        }
        let known = wraps.keys().copied().collect();
        Ok(Self { backups, known })
    }

    /// What needs a data key of which this is true.
    fn reach(&self, repository: &Repository, lost: &dyn Fn(&DataKeyId) -> bool) -> Result<Reach> {
        let backups = self
            .backups
            .iter()
            .filter(|(_, needs)| needs.iter().any(lost))
            .map(|(id, _)| id.clone())
            .collect();
        let wal = closed_stretches(repository, &self.known, lost)?;
        let wal = wal
            .into_iter()
            .map(|(timeline, start_lsn, end_lsn)| WalReach {
                timeline,
                start_lsn,
                end_lsn,
            })
            .collect();
        Ok(Reach { backups, wal })
    }

    /// Everything but that.
    fn rest(&self, repository: &Repository, closed: &Reach) -> Result<Reach> {
        let backups = self.backups.iter().map(|(id, _)| id);
        let backups = backups
            .filter(|id| !closed.backups.contains(id))
            .cloned()
            .collect();
        let mut wal = Vec::new();
        for (timeline, found) in wal_inventory(repository)?.timelines {
            for interval in found.intervals {
                let mut start = interval.start;
                for gap in closed.wal.iter().filter(|gap| gap.timeline == timeline) {
                    let (from, to) = (gap.start_lsn.max(start), gap.end_lsn.min(interval.end));
                    if from < to {
                        push(&mut wal, timeline, start, from);
                        start = to;
                    }
                }
                push(&mut wal, timeline, start, interval.end);
            }
        }
        Ok(Reach { backups, wal })
    }
}

fn push(wal: &mut Vec<WalReach>, timeline: u32, start_lsn: u64, end_lsn: u64) {
    if start_lsn < end_lsn {
        wal.push(WalReach {
            timeline,
            start_lsn,
            end_lsn,
        });
    }
}

/// Which data key an object names in its clear header; none when it went or cannot be read.
fn data_key_of(repository: &Repository, name: &str) -> Result<Option<DataKeyId>> {
    match read_header(repository.store(), name) {
        Ok((header, _)) => Ok(Some(header.data_key)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

impl KeyOutlook {
    /// For an error: which keys, what goes with them, what is left.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "With the keys at hand these cannot be read: {}. What is left: {}. `bre repository key show` lists it by key",
            self.closed.sentence(),
            self.left.sentence()
        )
    }
}

impl Reach {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.wal.is_empty()
    }

    /// `no backup`, or the first few by name; and the WAL.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = few(&self.backups);
        let wal: Vec<String> = self.wal.iter().map(WalReach::sentence).collect();
        if let Some((first, rest)) = wal.split_first() {
            text.push_str(&format!(", WAL {first}"));
            match rest {
                [] => {}
                [last] => text.push_str(&format!(" and {last}")),
                _ => text.push_str(&format!(" and {} more stretches", rest.len())),
            }
        }
        text
    }
}

impl WalReach {
    fn sentence(&self) -> String {
        let lsn = |lsn: u64| format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
        format!(
            "of timeline {} from {} to {}",
            self.timeline,
            lsn(self.start_lsn),
            lsn(self.end_lsn)
        )
    }
}
