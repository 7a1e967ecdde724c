//! New keys in the place of old ones: what a rotation does, and which keys are due for one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use host::{
    instance::Instance,
    keys::{
        age, offline_key,
        rotation::{AUDIT, BACKUPS, Pair, Rotation, finish, seal_to_offline},
        settings::{KeyProvider, RepositoryKey},
    },
    progress::Steps,
};
use repository::{
    Repository,
    keys::{RecipientPrivate, not_sealed_to},
};
use serde::Serialize;

use crate::error::Error;

/// How long a running engine may take to seal to the new key; it looks once a second.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Before the guide's 90 days are over.
pub const DAYS: i64 = 85;

/// What came of one.
#[derive(Debug, Serialize)]
pub struct KeyRotation {
    pub recipient_id: String,
    /// Whose wraps are still beside the new ones.
    pub replaced: Vec<String>,
    /// It went on with one that had been interrupted.
    pub resumed: bool,
    pub data_keys: u64,
    pub not_sealed: u64,
    /// Why some could not be opened, in the words of the key's provider.
    pub closed_because: Option<String>,
    /// Sealed just now to the key that is kept offline; absent where there is none.
    pub sealed_offline: Option<u64>,
    /// The running engine writes with the new key; absent when none runs here.
    pub engine_took_it: Option<bool>,
}

/// Of backups, WAL and snapshots.
pub fn rotate_repository_key(
    instance: &Instance,
    keys: &Path,
    repository: &Repository,
    wanted: &RepositoryKey,
    steps: &Steps,
) -> Result<KeyRotation, Error> {
    let rotation = Rotation::look(&BACKUPS, keys, repository)?;
    let resumed = !matches!(rotation, Rotation::Fresh { .. });
    let (current, replaced) = rotation.advance(&BACKUPS, keys, repository, wanted, steps)?;
    let engine_took_it = wait_for_engine(instance, keys, &current, steps);
    // What writers sealed to the old key until they took the new one.
    steps.step("sealing what came meanwhile");
    let done = finish(&BACKUPS, repository, &current, &replaced, steps)?;
    let offline = seal_to_offline(keys, repository, &current, steps)?;
    Ok(KeyRotation {
        recipient_id: current.public().id(),
        replaced: replaced.iter().map(|key| key.public().id()).collect(),
        resumed,
        data_keys: done.data_keys,
        not_sealed: not_sealed_to(repository, current.public())?,
        closed_because: done.closed_because,
        sealed_offline: offline.map(|sealed| sealed.wrapped),
        engine_took_it,
    })
}

/// No writer has this key for longer than one pass: what a pass that runs just now seals to the old key is sealed to
/// the new one by the second round here, or by the next rotation, which says so.
pub fn rotate_archive_key(
    keys: &Path,
    repository: &Repository,
    wanted: &RepositoryKey,
    steps: &Steps,
) -> Result<KeyRotation, Error> {
    let rotation = Rotation::look(&AUDIT, keys, repository)?;
    let resumed = !matches!(rotation, Rotation::Fresh { .. });
    let (current, replaced) = rotation.advance(&AUDIT, keys, repository, wanted, steps)?;
    let done = finish(&AUDIT, repository, &current, &replaced, steps)?;
    Ok(KeyRotation {
        recipient_id: current.public().id(),
        replaced: replaced.iter().map(|key| key.public().id()).collect(),
        resumed,
        data_keys: done.data_keys,
        not_sealed: AUDIT.not_sealed_to(repository, current.public())?,
        closed_because: done.closed_because,
        sealed_offline: None,
        engine_took_it: None,
    })
}

/// A running engine writes down whose key it seals to.
fn wait_for_engine(
    instance: &Instance,
    keys: &Path,
    current: &RecipientPrivate,
    steps: &Steps,
) -> Option<bool> {
    if keys != instance.keys() || !instance.is_locked() {
        return None;
    }
    steps.step("waiting for the running engine to take the new key");
    let (wanted, deadline) = (current.public().id(), Instant::now() + TAKEN_TIMEOUT);
    while Instant::now() < deadline && instance.is_locked() {
        if instance.recipient_in_use().as_deref() == Some(&wanted) {
            return Some(true);
        }
        std::thread::sleep(LOOK);
    }
    instance.is_locked().then_some(false)
}

/// Whether a key is to be replaced now, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCondition {
    Fresh {
        days: i64,
    },
    /// Its provider replaces the key's material by itself, often enough.
    ByProvider {
        every_days: u32,
    },
    /// This host may replace it without a person.
    Due {
        days: i64,
    },
    /// A person has to: why not this host.
    NeedsPerson {
        days: i64,
        why: &'static str,
    },
}

/// What decides about it.
#[derive(Clone, Copy, Debug)]
struct KeyFacts {
    days: i64,
    provider_days: Option<u32>,
    can_read: bool,
    /// Something else opens all that the new key will be for: no copy of it has to be brought away first.
    has_second_way: bool,
}

const NOT_HERE: &str = "its private key is not on this host";
const NO_SECOND_WAY: &str =
    "the new private key would be on this host alone until a copy of it is in a safe place";

impl KeyCondition {
    fn of(facts: KeyFacts) -> Self {
        let days = facts.days;
        match facts.provider_days {
            Some(every_days) if i64::from(every_days) <= age::DAYS_MAX => {
                Self::ByProvider { every_days }
            }
            _ if days < DAYS => Self::Fresh { days },
            _ if !facts.can_read => Self::NeedsPerson {
                days,
                why: NOT_HERE,
            },
            _ if !facts.has_second_way => Self::NeedsPerson {
                days,
                why: NO_SECOND_WAY,
            },
            _ => Self::Due { days },
        }
    }

    /// None of the audit archive's before its first pass made it.
    pub fn look(pair: &Pair, keys: &Path, wanted: &RepositoryKey) -> Result<Option<Self>, Error> {
        if !pair.is_here(keys) {
            return Ok(None);
        }
        let is_sealed_offline = pair.vault == BACKUPS.vault && offline_key(keys)?.is_some();
        Ok(Some(Self::of(KeyFacts {
            days: age::of_pair(pair, keys)?.days,
            provider_days: pair.provider_rotation_days(keys)?,
            can_read: pair.can_read(keys),
            has_second_way: is_sealed_offline || wanted.provider != KeyProvider::File,
        })))
    }

    /// Past the guide's days, and nothing replaces it by itself.
    pub fn is_overdue(&self) -> bool {
        matches!(self, Self::NeedsPerson { days, .. } | Self::Due { days } if *days > age::DAYS_MAX)
    }

    pub fn sentence(&self, pair: &Pair) -> String {
        let key = pair.title;
        match self {
            Self::Fresh { days } => format!("{key} is {days} days old"),
            Self::ByProvider { every_days } => {
                format!("the provider replaces the material of {key} every {every_days} days")
            }
            Self::Due { days } => format!("{key} is {days} days old and due"),
            Self::NeedsPerson { days, why } => format!(
                "{key} is {days} days old, and this host does not replace it: {why}. {}, then keep a copy of the \
                 new key elsewhere",
                pair.command
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_by_this_host_only_where_that_loses_nothing() {
        let facts = KeyFacts {
            days: DAYS,
            provider_days: None,
            can_read: true,
            has_second_way: true,
        };
        let of = KeyCondition::of;
        let days = DAYS;
        assert_eq!(of(facts), KeyCondition::Due { days });
        let young = KeyFacts {
            days: days - 1,
            ..facts
        };
        assert_eq!(of(young), KeyCondition::Fresh { days: days - 1 });
        let alone = KeyFacts {
            has_second_way: false,
            ..facts
        };
        let why = NO_SECOND_WAY;
        assert_eq!(of(alone), KeyCondition::NeedsPerson { days, why });
        let away = KeyFacts {
            can_read: false,
            ..facts
        };
        let why = NOT_HERE;
        assert_eq!(of(away), KeyCondition::NeedsPerson { days, why });
        let provided = |every| KeyFacts {
            provider_days: Some(every),
            ..away
        };
        assert_eq!(
            of(provided(90)),
            KeyCondition::ByProvider { every_days: 90 }
        );
        assert_eq!(of(provided(91)), KeyCondition::NeedsPerson { days, why });
    }

    #[test]
    fn past_ninety_days_it_is_an_alarm_with_the_command() {
        let at = |days| KeyCondition::NeedsPerson {
            days,
            why: NOT_HERE,
        };
        assert!(!at(90).is_overdue());
        assert!(at(91).is_overdue());
        assert!(!KeyCondition::ByProvider { every_days: 90 }.is_overdue());
        assert_eq!(
            at(91).sentence(&BACKUPS),
            "the repository's key is 91 days old, and this host does not replace it: its private key is not on this \
             host. bre repository key rotate, then keep a copy of the new key elsewhere"
        );
        assert!(at(91).sentence(&AUDIT).contains("bre audit key rotate"));
    }
}
