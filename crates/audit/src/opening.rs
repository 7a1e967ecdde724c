//! The entry that opens an epoch: written by a recovery, signed, and the only excuse for a loss (format §4).

use serde::Serialize;
use thiserror::Error;

use crate::entry::{Entry, EntryError};
use crate::fields::Fields;
use crate::hash::Hash;
use crate::head::Head;
use crate::hex;
use crate::keys::{KeyId, SigningKey, VerifyingKey};
use crate::signed_head::lsn_text;

/// What a writer knows when it opens an epoch.
#[derive(Clone, Debug)]
pub enum EpochOpening<'a> {
    /// A new log.
    Created { timeline: u32 },
    /// The log came back from a restore, perhaps shorter than it was.
    Recovery {
        /// The timeline that the restore reserved.
        timeline: u32,
        /// Every verified head there is of this log, in any order.
        known_heads: &'a [Head],
        restore_id: &'a str,
        /// Where the replay ended.
        target_lsn: u64,
        /// Acknowledged entries that did not come back, when that is known.
        known_lost: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Created,
    Recovery,
}

/// A head that a recovery left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LostHead {
    pub epoch: u32,
    pub size: u64,
    pub hash: Hash,
}

/// An opening as found in a log, its signature checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EpochRecord {
    pub epoch: u32,
    pub position: u64,
    pub reason: Reason,
    pub timeline: u32,
    pub key_id: KeyId,
    /// Entries that the epoch found; 0 for a new log.
    pub recovered_size: u64,
    /// The newest head that was known, and further ones that were left behind. Empty for a new log.
    pub old_heads: Vec<LostHead>,
    pub restore_id: Option<String>,
    pub target_lsn: Option<String>,
    /// `None`: unknown, or a new log.
    pub known_lost: Option<u64>,
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum OpeningError {
    #[error("it has no valid field '{0}'")]
    Field(&'static str),
    #[error("it is signed by key {0}, which is not among the trusted keys")]
    UnknownKey(KeyId),
    #[error("it is signed by key {0}, which is revoked from position {1} on")]
    Revoked(KeyId, u64),
    #[error("its signature is false: nobody with key {0} opened this epoch")]
    Signature(KeyId),
    #[error("its {0} is not what precedes it in the log")]
    Recovered(&'static str),
    #[error("'created' may stand at position 1 only, in epoch 1, and 'recovery' only after it")]
    Place,
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl EpochOpening<'_> {
    /// The number of the epoch to open after `last_epoch` (0: the log is new).
    pub(crate) fn epoch(&self, last_epoch: u32) -> u32 {
        match self {
            EpochOpening::Created { .. } => 1,
            EpochOpening::Recovery {
                timeline,
                known_heads,
                ..
            } => {
                let newest = known_heads.iter().map(|head| head.epoch).max().unwrap_or(0);
                last_epoch.max(newest).saturating_add(1).max(*timeline)
            }
        }
    }

    /// The entry's fields but for the signature.
    pub(crate) fn fields(&self, last_epoch: u32, size: u64, last_hash: Hash) -> Fields {
        let mut fields = Fields::new();
        match self {
            EpochOpening::Created { timeline } => {
                fields
                    .set("reason", "created")
                    .set("timeline", timeline.to_string());
            }
            EpochOpening::Recovery {
                timeline,
                known_heads,
                restore_id,
                target_lsn,
                known_lost,
            } => {
                let (old, abandoned) = left_behind(known_heads, last_epoch, size);
                fields
                    .set("reason", "recovery")
                    .set("timeline", timeline.to_string())
                    .set("old_epoch", old.epoch.to_string())
                    .set("old_head_size", old.size.to_string())
                    .set("old_head_hash", old.hash.to_string())
                    .set("recovered_size", size.to_string())
                    .set("recovered_hash", last_hash.to_string())
                    .set("restore_id", *restore_id)
                    .set("target_lsn", lsn_text(*target_lsn))
                    .set(
                        "known_lost",
                        known_lost.map_or("unknown".to_owned(), |n| n.to_string()),
                    );
                if !abandoned.is_empty() {
                    let list: Vec<String> = abandoned
                        .iter()
                        .map(|h| format!("{}:{}:{}", h.epoch, h.size, h.hash))
                        .collect();
                    fields.set("abandoned", list.join(" "));
                }
            }
        }
        fields
    }
}

/// The newest head known, and each further epoch's newest head that the recovered log does not hold.
fn left_behind(heads: &[Head], last_epoch: u32, size: u64) -> (LostHead, Vec<LostHead>) {
    let mut newest: Vec<LostHead> = Vec::new();
    for head in heads {
        let lost = LostHead {
            epoch: head.epoch,
            size: head.size,
            hash: head.last_hash,
        };
        match newest.iter_mut().find(|other| other.epoch == head.epoch) {
            Some(other) if other.size < head.size => *other = lost,
            Some(_) => {}
            None => newest.push(lost),
        }
    }
    newest.sort_by_key(|head| std::cmp::Reverse(head.epoch));
    let mut newest = newest.into_iter();
    let none = LostHead {
        epoch: last_epoch,
        size: 0,
        hash: Hash::ZERO,
    };
    let old = newest.next().unwrap_or(none);
    (
        old,
        newest
            .filter(|head| head.size > size || head.epoch > last_epoch)
            .collect(),
    )
}

/// Adds `key_id` and `signature` to an opening's fields.
pub(crate) fn sign(entry: &mut Entry, key: &SigningKey) -> Result<(), EntryError> {
    entry.fields.set("key_id", key.key_id().to_string());
    let signature = key.sign_bytes(&entry.to_bytes()?);
    entry.fields.set("signature", hex::encode(&signature));
    Ok(())
}

impl EpochRecord {
    /// What an opening says, its signature checked; whether it fits the log before it is the chain's affair.
    pub fn of(entry: &Entry, keys: &[VerifyingKey]) -> Result<EpochRecord, OpeningError> {
        check(entry, keys)
    }
}

/// Reads an opening and checks its signature and what it says of the log before it.
pub(crate) fn check(entry: &Entry, keys: &[VerifyingKey]) -> Result<EpochRecord, OpeningError> {
    let fields = &entry.fields;
    let key_id = parsed(fields, "key_id")?;
    check_signature(entry, key_id, keys)?;
    let mut record = EpochRecord {
        epoch: entry.epoch,
        position: entry.position,
        reason: Reason::Created,
        timeline: number(fields, "timeline")?,
        key_id,
        recovered_size: 0,
        old_heads: Vec::new(),
        restore_id: None,
        target_lsn: None,
        known_lost: None,
    };
    match (fields.get("reason"), entry.position, entry.epoch) {
        (Some("created"), 1, 1) => Ok(record),
        (Some("recovery"), 2.., _) => {
            read_recovery(entry, &mut record)?;
            Ok(record)
        }
        (Some("created" | "recovery"), ..) => Err(OpeningError::Place),
        _ => Err(OpeningError::Field("reason")),
    }
}

fn read_recovery(entry: &Entry, record: &mut EpochRecord) -> Result<(), OpeningError> {
    let fields = &entry.fields;
    let text = |name: &'static str| fields.get(name).ok_or(OpeningError::Field(name));
    record.reason = Reason::Recovery;
    record.recovered_size = number(fields, "recovered_size")?;
    if record.recovered_size != entry.position - 1 {
        return Err(OpeningError::Recovered("recovered_size"));
    }
    if parsed::<Hash>(fields, "recovered_hash")? != entry.previous {
        return Err(OpeningError::Recovered("recovered_hash"));
    }
    record.old_heads.push(LostHead {
        epoch: number(fields, "old_epoch")?,
        size: number(fields, "old_head_size")?,
        hash: parsed(fields, "old_head_hash")?,
    });
    for item in fields
        .get("abandoned")
        .into_iter()
        .flat_map(|list| list.split(' '))
    {
        record
            .old_heads
            .push(lost_head(item).ok_or(OpeningError::Field("abandoned"))?);
    }
    if record
        .old_heads
        .iter()
        .any(|head| head.epoch >= entry.epoch)
    {
        return Err(OpeningError::Field("old_epoch"));
    }
    record.restore_id = Some(text("restore_id")?.to_owned());
    record.target_lsn = Some(text("target_lsn")?.to_owned());
    record.known_lost = match text("known_lost")? {
        "unknown" => None,
        _ => Some(number(fields, "known_lost")?),
    };
    Ok(())
}

fn check_signature(
    entry: &Entry,
    key_id: KeyId,
    keys: &[VerifyingKey],
) -> Result<(), OpeningError> {
    let text = entry
        .fields
        .get("signature")
        .ok_or(OpeningError::Field("signature"))?;
    let signature = hex::decode_array(text).map_err(|_| OpeningError::Field("signature"))?;
    let mut unsigned = entry.clone();
    unsigned.fields.remove("signature");
    let key = keys.iter().find(|key| key.key_id() == key_id);
    let key = key.ok_or(OpeningError::UnknownKey(key_id))?;
    if !key.signed(&unsigned.to_bytes()?, &signature) {
        return Err(OpeningError::Signature(key_id));
    }
    if let Some(from) = key
        .revoked_from()
        .filter(|_| !key.vouches_for(entry.position))
    {
        return Err(OpeningError::Revoked(key_id, from));
    }
    Ok(())
}

fn parsed<T: std::str::FromStr>(fields: &Fields, name: &'static str) -> Result<T, OpeningError> {
    let text = fields.get(name).ok_or(OpeningError::Field(name))?;
    text.parse().map_err(|_| OpeningError::Field(name))
}

/// A number in its only decimal form: no sign, no leading zero.
fn number<T: std::str::FromStr + ToString>(
    fields: &Fields,
    name: &'static str,
) -> Result<T, OpeningError> {
    let value: T = parsed(fields, name)?;
    if fields.get(name) != Some(value.to_string().as_str()) {
        return Err(OpeningError::Field(name));
    }
    Ok(value)
}

fn lost_head(item: &str) -> Option<LostHead> {
    let mut parts = item.split(':');
    let (epoch, size, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let head = LostHead {
        epoch: epoch.parse().ok()?,
        size: size.parse().ok()?,
        hash: hash.parse().ok()?,
    };
    (format!("{}:{}:{}", head.epoch, head.size, head.hash) == item).then_some(head)
}
