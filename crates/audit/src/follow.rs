//! One step along a stored log: each check that an entry alone, and its place after the previous one, allow. Writers
//! that resume and readers that verify take the same step.

use crate::entry::{Entry, Kind};
use crate::hash::Hash;
use crate::keys::VerifyingKey;
use crate::merkle::Frontier;
use crate::opening::{self, EpochRecord, Stretch};

/// A row as the database holds it. Wider types than an entry's, so that whatever somebody wrote into the columns can be
/// shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    pub epoch: i64,
    pub position: i64,
    pub bytes: Vec<u8>,
    pub hash: Vec<u8>,
}

/// Where a log is after its last entry. Epoch and position are 0 for a log without entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) log: u16,
    pub(crate) epoch: u32,
    pub(crate) position: u64,
    pub(crate) last_hash: Hash,
    pub(crate) frontier: Frontier,
}

/// The first thing wrong with a row, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) epoch: i64,
    pub(crate) position: i64,
    pub(crate) reason: String,
    /// It is not there at all.
    pub(crate) missing: bool,
}

/// An entry that passed; when it opens an epoch, what it says.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) entry: Entry,
    pub(crate) opening: Option<EpochRecord>,
}

impl State {
    pub(crate) fn new(log: u16) -> State {
        State {
            log,
            epoch: 0,
            position: 0,
            last_hash: Hash::ZERO,
            frontier: Frontier::new(),
        }
    }

    /// Checks the row and moves past it. After a fault the state is what it was.
    pub(crate) fn step(
        &mut self,
        stored: &StoredEntry,
        keys: &[VerifyingKey],
    ) -> Result<Step, Fault> {
        let (entry, hash) = self.check_row(stored)?;
        let fault = |reason: String| fault_at(stored, reason);
        if entry.previous != self.last_hash {
            return Err(fault(format!(
                "it names {} as the hash of the entry before it, which is {}",
                entry.previous, self.last_hash
            )));
        }
        let opening = match entry.kind {
            Kind::EpochOpened if entry.epoch > self.epoch => match opening::check(&entry, keys) {
                Ok(record) => Some(record),
                Err(e) => return Err(fault(format!("it opens epoch {}, but {e}", entry.epoch))),
            },
            Kind::EpochOpened => {
                let reason = format!(
                    "it opens epoch {}, but the log is in epoch {}",
                    entry.epoch, self.epoch
                );
                return Err(fault(reason));
            }
            _ if self.position == 0 => {
                return Err(fault("the log does not begin with its opening".to_owned()));
            }
            _ if entry.epoch != self.epoch => {
                let reason = format!(
                    "it is of epoch {}, but no opening ends epoch {}",
                    entry.epoch, self.epoch
                );
                return Err(fault(reason));
            }
            _ => None,
        };
        self.advance(entry.epoch, hash);
        Ok(Step { entry, opening })
    }

    pub(crate) fn advance(&mut self, epoch: u32, hash: Hash) {
        self.epoch = epoch;
        self.position += 1;
        self.last_hash = hash;
        self.frontier.push(hash);
    }

    /// Continues behind entries that are missing, right before this row: what it names as the entry before it is
    /// believed until something that is signed agrees or does not. `None`: nothing is missing before it, or it is no
    /// entry. The tree is not known from here on.
    pub(crate) fn pass_over(&mut self, stored: &StoredEntry) -> Option<Stretch> {
        let entry = Entry::parse(&stored.bytes).ok()?;
        let (from, to) = (self.position + 1, entry.position.checked_sub(1)?);
        let is_here = u64::try_from(stored.position) == Ok(entry.position);
        if !is_here || to < from {
            return None;
        }
        // Which epochs began in between is not known; the row's own step looks at its epoch.
        if entry.kind != Kind::EpochOpened {
            self.epoch = self.epoch.max(entry.epoch);
        }
        (self.position, self.last_hash) = (to, entry.previous);
        Some(Stretch { from, to })
    }

    /// What the row says of itself: its place, its bytes, its hash.
    fn check_row(&self, stored: &StoredEntry) -> Result<(Entry, Hash), Fault> {
        let fault = |reason: String| fault_at(stored, reason);
        let expected = i128::from(self.position) + 1;
        let found = i128::from(stored.position);
        if found > expected {
            return Err(Fault {
                epoch: i64::from(self.epoch.max(1)),
                position: expected as i64,
                reason: format!("it is missing: the next entry found is at position {found}"),
                missing: true,
            });
        }
        if found < expected {
            return Err(fault(format!(
                "a second entry at this place: position {expected} was to come"
            )));
        }
        let entry = match Entry::parse(&stored.bytes) {
            Ok(entry) => entry,
            Err(e) => return Err(fault(format!("its bytes are not an entry: {e}"))),
        };
        let hash = Entry::hash_of(&stored.bytes);
        if stored.hash != hash.as_bytes() {
            return Err(fault(format!(
                "its stored hash is not the hash of its bytes, {hash}"
            )));
        }
        let columns = [
            ("log", i128::from(self.log), i128::from(entry.log)),
            ("epoch", i128::from(stored.epoch), i128::from(entry.epoch)),
            ("position", found, i128::from(entry.position)),
        ];
        for (name, column, bytes) in columns {
            if column != bytes {
                return Err(fault(format!(
                    "its {name} is {column}, but its bytes say {bytes}"
                )));
            }
        }
        Ok((entry, hash))
    }
}

fn fault_at(stored: &StoredEntry, reason: String) -> Fault {
    Fault {
        epoch: stored.epoch,
        position: stored.position,
        reason,
        missing: false,
    }
}
