//! The entry that opens an epoch: written by a recovery, signed, and the only valid reason for a loss (format §4).

use serde::Serialize;
use thiserror::Error;

use crate::entry::{Entry, EntryError};
use crate::fields::Fields;
use crate::hash::Hash;
use crate::head::Head;
use crate::hex;
use crate::keys::{self, KeyId, Refusal, SignedPlace, SigningKey, VerifyingKey};
use crate::merkle::Frontier;
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
        /// Heads that are gone from the repository.
        missing_heads: &'a [HeadRange],
    },
    /// All of the log is lost, and another takes its place: positions count from 1 again, in an epoch above all that
    /// are known.
    Continued {
        timeline: u32,
        known_heads: &'a [Head],
        restore_id: &'a str,
        target_lsn: u64,
        known_lost: Option<u64>,
        missing_heads: &'a [HeadRange],
    },
    /// Something of the log or of its heads disappeared while nobody restored anything, and a person lets writing go
    /// on.
    Reopened {
        timeline: u32,
        known_heads: &'a [Head],
        known_lost: Option<u64>,
        why: &'a str,
        actor: &'a str,
        missing_heads: &'a [HeadRange],
        /// Entries before this one that are gone.
        missing_entries: &'a [Stretch],
    },
}

/// Positions from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stretch {
    pub from: u64,
    pub to: u64,
}

impl Stretch {
    pub fn holds(&self, position: u64) -> bool {
        (self.from..=self.to).contains(&position)
    }

    pub fn entries(&self) -> u64 {
        (self.to - self.from).saturating_add(1)
    }

    fn parse(item: &str) -> Option<Stretch> {
        let (from, to) = item.split_once('-')?;
        let stretch = Stretch {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
        };
        let is_one = (1..=stretch.to).contains(&stretch.from);
        (stretch.to_string() == item && is_one).then_some(stretch)
    }
}

impl std::fmt::Display for Stretch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Created,
    Recovery,
    Continued,
    Reopened,
}

impl Reason {
    const ALL: [(Reason, &'static str); 4] = [
        (Reason::Created, "created"),
        (Reason::Recovery, "recovery"),
        (Reason::Continued, "continued"),
        (Reason::Reopened, "reopened"),
    ];

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or("", |row| row.1)
    }

    fn of(name: &str) -> Option<Reason> {
        Self::ALL.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// Heads of one epoch with sizes from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HeadRange {
    pub epoch: u32,
    pub from: u64,
    pub to: u64,
}

impl HeadRange {
    pub fn holds(&self, epoch: u32, size: u64) -> bool {
        epoch == self.epoch && (self.from..=self.to).contains(&size)
    }

    fn parse(item: &str) -> Option<HeadRange> {
        let (epoch, sizes) = item.split_once(':')?;
        let (from, to) = sizes.split_once('-')?;
        let range = HeadRange {
            epoch: epoch.parse().ok()?,
            from: from.parse().ok()?,
            to: to.parse().ok()?,
        };
        (range.to_string() == item && range.from <= range.to).then_some(range)
    }
}

impl std::fmt::Display for HeadRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}-{}", self.epoch, self.from, self.to)
    }
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
    /// Of a reopening: what the person said, and who it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Heads that are gone from the repository, and known to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_heads: Vec<HeadRange>,
    /// Of a reopening: entries before it that are gone, and known to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_entries: Vec<Stretch>,
    /// Of a reopening that names missing entries: the tree over all entries before it, those included.
    #[serde(skip)]
    pub recovered_tree: Option<Frontier>,
}

impl EpochRecord {
    /// Of an entry that opens an epoch, its signature checked.
    pub fn read(entry: &Entry, keys: &[VerifyingKey]) -> Result<EpochRecord, OpeningError> {
        check(entry, keys)
    }
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum OpeningError {
    #[error("it has no valid field '{0}'")]
    Field(&'static str),
    #[error("it is signed by key {0}, which is not among the trusted keys")]
    UnknownKey(KeyId),
    #[error("it is signed by key {0}, which is revoked from epoch {1}, position {2} on")]
    Revoked(KeyId, u32, u64),
    #[error("its signature is false: key {0} did not sign this opening")]
    Signature(KeyId),
    #[error("its {0} is not what precedes it in the log")]
    Recovered(&'static str),
    #[error(
        "'created' may stand at position 1 of epoch 1 only, 'continued' at position 1 of a later one, and other \
         reasons only after it"
    )]
    Place,
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// What all openings but the first of a log say.
struct After<'a> {
    reason: Reason,
    timeline: u32,
    known_heads: &'a [Head],
    restore_id: &'a str,
    target_lsn: u64,
    known_lost: Option<u64>,
    missing_heads: &'a [HeadRange],
}

impl<'a> EpochOpening<'a> {
    fn after(&self) -> Option<After<'a>> {
        Some(match *self {
            EpochOpening::Created { .. } => return None,
            EpochOpening::Recovery {
                timeline,
                known_heads,
                restore_id,
                target_lsn,
                known_lost,
                missing_heads,
            } => After {
                reason: Reason::Recovery,
                timeline,
                known_heads,
                restore_id,
                target_lsn,
                known_lost,
                missing_heads,
            },
            EpochOpening::Continued {
                timeline,
                known_heads,
                restore_id,
                target_lsn,
                known_lost,
                missing_heads,
            } => After {
                reason: Reason::Continued,
                timeline,
                known_heads,
                restore_id,
                target_lsn,
                known_lost,
                missing_heads,
            },
            EpochOpening::Reopened {
                timeline,
                known_heads,
                known_lost,
                missing_heads,
                ..
            } => After {
                reason: Reason::Reopened,
                timeline,
                known_heads,
                restore_id: "",
                target_lsn: 0,
                known_lost,
                missing_heads,
            },
        })
    }

    /// The number of the epoch to open after `last_epoch` (0: the log is new), above every one that was claimed.
    pub(crate) fn epoch(&self, last_epoch: u32, claimed: u32) -> u32 {
        let Some(after) = self.after() else { return 1 };
        let newest = after.known_heads.iter().map(|head| head.epoch).max();
        last_epoch
            .max(newest.unwrap_or(0))
            .max(claimed)
            .max(1)
            .saturating_add(1)
            .max(after.timeline)
    }

    /// Whether it may stand after so many entries.
    pub(crate) fn fits(&self, size: u64) -> bool {
        match self {
            EpochOpening::Created { .. } | EpochOpening::Continued { .. } => size == 0,
            EpochOpening::Recovery { .. } | EpochOpening::Reopened { .. } => size > 0,
        }
    }

    /// The entry's fields but for the signature.
    pub(crate) fn fields(
        &self,
        last_epoch: u32,
        (size, last_hash): (u64, Hash),
        peaks: &[Hash],
    ) -> Fields {
        let mut fields = Fields::new();
        let Some(after) = self.after() else {
            if let EpochOpening::Created { timeline } = self {
                fields
                    .set("reason", Reason::Created.name())
                    .set("timeline", timeline.to_string());
            }
            return fields;
        };
        let (old, abandoned) = left_behind(after.known_heads, last_epoch, size);
        fields
            .set("reason", after.reason.name())
            .set("timeline", after.timeline.to_string())
            .set("old_epoch", old.epoch.to_string())
            .set("old_head_size", old.size.to_string())
            .set("old_head_hash", old.hash.to_string())
            .set("recovered_size", size.to_string())
            .set("recovered_hash", last_hash.to_string())
            .set("restore_id", after.restore_id)
            .set("target_lsn", lsn_text(after.target_lsn))
            .set(
                "known_lost",
                after
                    .known_lost
                    .map_or("unknown".to_owned(), |n| n.to_string()),
            );
        if !abandoned.is_empty() {
            fields.set(
                "abandoned",
                joined(
                    abandoned
                        .iter()
                        .map(|h| format!("{}:{}:{}", h.epoch, h.size, h.hash)),
                ),
            );
        }
        if !after.missing_heads.is_empty() {
            let ranges = after.missing_heads.iter().map(HeadRange::to_string);
            fields.set("missing_heads", joined(ranges));
        }
        if let EpochOpening::Reopened {
            why,
            actor,
            missing_entries,
            ..
        } = self
        {
            fields.set("why", *why).set("actor", *actor);
            if !missing_entries.is_empty() {
                let stretches = missing_entries.iter().map(Stretch::to_string);
                fields.set("missing_entries", joined(stretches));
                // A reader without all hashes continues the tree from here.
                fields.set("recovered_peaks", joined(peaks.iter().map(Hash::to_string)));
            }
        }
        fields
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
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
        why: None,
        actor: None,
        missing_heads: Vec::new(),
        missing_entries: Vec::new(),
        recovered_tree: None,
    };
    let reason = fields.get("reason").and_then(Reason::of);
    record.reason = reason.ok_or(OpeningError::Field("reason"))?;
    match (record.reason, entry.position, entry.epoch) {
        (Reason::Created, 1, 1) => {}
        (Reason::Continued, 1, 2..) | (Reason::Recovery, 2.., _) => {
            read_after(entry, &mut record)?;
        }
        (Reason::Reopened, 2.., _) => {
            read_after(entry, &mut record)?;
            read_reopening(fields, &mut record)?;
        }
        _ => return Err(OpeningError::Place),
    }
    Ok(record)
}

fn read_reopening(fields: &Fields, record: &mut EpochRecord) -> Result<(), OpeningError> {
    let text = |name: &'static str| fields.get(name).ok_or(OpeningError::Field(name));
    record.why = Some(text("why")?.to_owned());
    record.actor = Some(text("actor")?.to_owned());
    let list = fields.get("missing_entries").into_iter();
    for item in list.flat_map(|list| list.split(' ')) {
        let stretch = Stretch::parse(item).filter(|it| it.to < record.position);
        let stretch = stretch.ok_or(OpeningError::Field("missing_entries"))?;
        record.missing_entries.push(stretch);
    }
    if let Some(list) = fields.get("recovered_peaks") {
        let wrong = || OpeningError::Field("recovered_peaks");
        let peaks = list.split(' ').map(|peak| peak.parse::<Hash>().ok());
        let peaks = peaks.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let tree = Frontier::from_peaks(record.recovered_size, peaks).ok_or_else(wrong)?;
        record.recovered_tree = Some(tree);
    }
    Ok(())
}

fn read_after(entry: &Entry, record: &mut EpochRecord) -> Result<(), OpeningError> {
    let fields = &entry.fields;
    let text = |name: &'static str| fields.get(name).ok_or(OpeningError::Field(name));
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
    let list = fields.get("missing_heads").into_iter();
    for item in list.flat_map(|list| list.split(' ')) {
        let range = HeadRange::parse(item).ok_or(OpeningError::Field("missing_heads"))?;
        record.missing_heads.push(range);
    }
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
    let place = SignedPlace::Log {
        epoch: entry.epoch,
        position: entry.position,
    };
    keys::accept(keys, key_id, &unsigned.to_bytes()?, &signature, place).map_err(|refusal| {
        match refusal {
            Refusal::UnknownKey => OpeningError::UnknownKey(key_id),
            Refusal::False => OpeningError::Signature(key_id),
            Refusal::Revoked((epoch, position)) => OpeningError::Revoked(key_id, epoch, position),
        }
    })
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
