//! The writer's side: the state that is needed to add the next entry.

use thiserror::Error;

use crate::encoded::EncodedFields;
use crate::entry::{self, Entry, EntryError, Kind};
use crate::fields::Fields;
use crate::follow::{State, StoredEntry};
use crate::hash::Hash;
use crate::head::Head;
use crate::keys::{SigningKey, VerifyingKey};
use crate::merkle::Frontier;
use crate::opening::{self, EpochOpening};

/// One log's end. Cheap to clone: a writer clones it before a commit and puts the clone back when the commit fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    state: State,
}

/// An entry with its place in the chain, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEntry {
    pub entry: Entry,
    pub bytes: Vec<u8>,
    pub hash: Hash,
}

/// Where an entry is, whose bytes whoever appended it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLink {
    pub log: u16,
    pub epoch: u32,
    pub position: u64,
    pub hash: Hash,
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum ChainError {
    #[error(
        "an EpochOpened entry must be signed: it is written by opening an epoch, not by appending"
    )]
    Unsigned,
    #[error("the entry cannot be written: {0}")]
    Entry(#[from] EntryError),
    #[error("log {0} has no epoch yet: open one before the first entry")]
    NotOpened(u16),
    #[error(
        "log {log} exists already (epoch {epoch}, position {position}) and cannot be created again"
    )]
    Exists { log: u16, epoch: u32, position: u64 },
    #[error(
        "log {0} has no entry, so a recovery has nothing to continue from: create or continue the log instead"
    )]
    NothingRecovered(u16),
    #[error("epoch {epoch}, position {position}: {reason}. Run `bre verify audit`")]
    Damaged {
        epoch: i64,
        position: i64,
        reason: String,
    },
    #[error(
        "a signed head says that log {log} has {size} entries in epoch {epoch}, but the database ends before that or \
         holds another entry there. Run `bre verify audit`; after a restore, open a new epoch"
    )]
    BehindHead { log: u16, epoch: u32, size: u64 },
    #[error("the head of log {log} at size {size} has {peaks} peaks, which do not fit")]
    Peaks { log: u16, size: u64, peaks: usize },
    #[error("the head is of log {found}, this is log {log}")]
    OtherLog { log: u16, found: u16 },
}

impl Chain {
    /// An empty log: the first thing to do with it is [`Chain::open_epoch`] with [`EpochOpening::Created`].
    pub fn new(log: u16) -> Chain {
        Chain {
            state: State::new(log),
        }
    }

    /// From a verified head and the stored entries from the head's own position on (that one included, so that a log
    /// which ends before its head, or differs from it, is refused); without a head, from all entries.
    pub fn resume(
        log: u16,
        head: Option<&Head>,
        entries: impl IntoIterator<Item = StoredEntry>,
        keys: &[VerifyingKey],
    ) -> Result<Chain, ChainError> {
        let mut entries = entries.into_iter();
        let mut chain = match head {
            None => Chain::new(log),
            Some(head) => {
                let chain = Chain::at_head(log, head)?;
                match entries.next() {
                    Some(at_head) if at_head.is_what(head) => chain,
                    _ => {
                        return Err(ChainError::BehindHead {
                            log,
                            epoch: head.epoch,
                            size: head.size,
                        });
                    }
                }
            }
        };
        for stored in entries {
            chain.follow(&stored, keys)?;
        }
        Ok(chain)
    }

    pub(crate) fn from_state(state: State) -> Chain {
        Chain { state }
    }

    fn at_head(log: u16, head: &Head) -> Result<Chain, ChainError> {
        if head.log != log {
            return Err(ChainError::OtherLog {
                log,
                found: head.log,
            });
        }
        let frontier = head.frontier().ok_or(ChainError::Peaks {
            log,
            size: head.size,
            peaks: head.peaks.len(),
        })?;
        Ok(Chain {
            state: State {
                log,
                epoch: head.epoch,
                position: head.size,
                last_hash: head.last_hash,
                frontier,
            },
        })
    }

    /// Checks the next stored entry and moves past it.
    pub fn follow(
        &mut self,
        stored: &StoredEntry,
        keys: &[VerifyingKey],
    ) -> Result<Entry, ChainError> {
        match self.state.step(stored, keys) {
            Ok(step) => Ok(step.entry),
            Err(fault) => Err(ChainError::Damaged {
                epoch: fault.epoch,
                position: fault.position,
                reason: fault.reason,
            }),
        }
    }

    /// Adds an entry. On an error the chain is what it was. Epochs are opened by [`Chain::open_epoch`] only.
    pub fn append(
        &mut self,
        kind: Kind,
        at_micros: i64,
        fields: Fields,
    ) -> Result<SealedEntry, ChainError> {
        self.may_append(kind)?;
        self.seal(self.next(self.state.epoch, kind, at_micros, fields))
    }

    /// The same for fields that are encoded already: the entry as it is kept comes to stand at the end of `into`.
    pub fn append_encoded(
        &mut self,
        kind: Kind,
        at_micros: i64,
        fields: &EncodedFields,
        into: &mut Vec<u8>,
    ) -> Result<ChainLink, ChainError> {
        self.may_append(kind)?;
        let State { log, epoch, .. } = self.state;
        let position = self.state.position + 1;
        let head = entry::Head {
            log,
            epoch,
            position,
            previous: self.state.last_hash,
            recorded_at_micros: at_micros,
            kind,
        };
        let hash = head.put_entry(fields, into)?;
        self.state.advance(epoch, hash);
        Ok(ChainLink {
            log,
            epoch,
            position,
            hash,
        })
    }

    fn may_append(&self, kind: Kind) -> Result<(), ChainError> {
        if kind == Kind::EpochOpened {
            return Err(ChainError::Unsigned);
        }
        if self.state.position == 0 {
            return Err(ChainError::NotOpened(self.state.log));
        }
        Ok(())
    }

    /// Adds the entry that opens an epoch: the first of a log, or the first after a recovery.
    pub fn open_epoch(
        &mut self,
        at_micros: i64,
        opening: &EpochOpening<'_>,
        key: &SigningKey,
    ) -> Result<SealedEntry, ChainError> {
        self.open_epoch_above(0, at_micros, opening, key)
    }

    /// The number that an opening would get, above `claimed`.
    pub fn next_epoch(&self, claimed: u32, opening: &EpochOpening<'_>) -> u32 {
        opening.epoch(self.state.epoch, claimed)
    }

    /// The same in an epoch above `claimed`, of which it is not known whether anything of it came into being.
    pub fn open_epoch_above(
        &mut self,
        claimed: u32,
        at_micros: i64,
        opening: &EpochOpening<'_>,
        key: &SigningKey,
    ) -> Result<SealedEntry, ChainError> {
        let State {
            log,
            epoch,
            position,
            last_hash,
            ..
        } = self.state;
        let peaks = self.state.frontier.peaks();
        match opening.fits(position) {
            true => {}
            false if position == 0 => return Err(ChainError::NothingRecovered(log)),
            false => {
                return Err(ChainError::Exists {
                    log,
                    epoch,
                    position,
                });
            }
        }
        let fields = opening.fields(epoch, (position, last_hash), peaks);
        let mut entry = self.next(
            opening.epoch(epoch, claimed),
            Kind::EpochOpened,
            at_micros,
            fields,
        );
        opening::sign(&mut entry, key)?;
        self.seal(entry)
    }

    fn next(&self, epoch: u32, kind: Kind, recorded_at_micros: i64, fields: Fields) -> Entry {
        Entry {
            log: self.state.log,
            epoch,
            position: self.state.position + 1,
            previous: self.state.last_hash,
            recorded_at_micros,
            kind,
            fields,
        }
    }

    fn seal(&mut self, entry: Entry) -> Result<SealedEntry, ChainError> {
        let bytes = entry.to_bytes()?;
        let hash = Entry::hash_of(&bytes);
        self.state.advance(entry.epoch, hash);
        Ok(SealedEntry { entry, bytes, hash })
    }

    /// What a key may sign once the repository holds the log up to `lsn`. `None` while the log has no entry.
    pub fn head(&self, at_micros: i64, lsn: u64) -> Option<Head> {
        let state = &self.state;
        (state.position > 0).then(|| Head {
            log: state.log,
            epoch: state.epoch,
            size: state.position,
            last_hash: state.last_hash,
            root: state.frontier.root(),
            peaks: state.frontier.peaks().to_vec(),
            at_micros,
            lsn,
        })
    }

    pub fn log(&self) -> u16 {
        self.state.log
    }

    /// The last entry's epoch; 0 while the log has none.
    pub fn epoch(&self) -> u32 {
        self.state.epoch
    }

    /// The last entry's position; 0 while the log has none.
    pub fn position(&self) -> u64 {
        self.state.position
    }

    pub fn last_hash(&self) -> Hash {
        self.state.last_hash
    }

    pub fn frontier(&self) -> &Frontier {
        &self.state.frontier
    }
}

impl StoredEntry {
    /// Whether this row is the entry that the head ends with, by its bytes.
    fn is_what(&self, head: &Head) -> bool {
        Entry::hash_of(&self.bytes) == head.last_hash
            && self.hash == head.last_hash.as_bytes()
            && u64::try_from(self.position) == Ok(head.size)
            && self.epoch == i64::from(head.epoch)
    }
}

impl From<&SealedEntry> for StoredEntry {
    /// Entries that a chain sealed fit the signed types: their limits are those of the format.
    fn from(sealed: &SealedEntry) -> StoredEntry {
        StoredEntry {
            epoch: i64::from(sealed.entry.epoch),
            position: sealed.entry.position as i64,
            bytes: sealed.bytes.clone(),
            hash: sealed.hash.as_bytes().to_vec(),
        }
    }
}
