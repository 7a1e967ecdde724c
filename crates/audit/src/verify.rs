//! The reader's side: a whole log against itself and against its signed heads (format §6).

use serde::Serialize;

use crate::chain::Chain;
use crate::entry::Entry;
use crate::follow::{Fault as Found, State, StoredEntry};
use crate::head::Head;
use crate::keys::VerifyingKey;
use crate::merkle::Frontier;
use crate::opening::{EpochRecord, LostHead, Stretch};

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows seen.
    pub entries: u64,
    /// Entries vouched for: all, or those before the first bad one.
    pub verified: u64,
    pub first_bad: Option<BadEntry>,
    pub reason: Option<String>,
    #[serde(skip)]
    pub fault: Option<Fault>,
    /// Heads that agreed with the log.
    pub heads_agreed: u64,
    /// Size of the newest head that agreed: entries above it are chained, but not yet signed for.
    pub covered_to: u64,
    /// When the first entry above that was recorded.
    pub uncovered_since_micros: Option<i64>,
    /// Every opening in the log, with what it says was lost.
    pub epochs: Vec<EpochRecord>,
    /// Heads beyond what a recovery found, and named by it: signed ones, and the newest that a recovery with a loss
    /// names.
    pub known_losses: Vec<LostHead>,
    /// Entries that were answered and did not come back, by what the recoveries say. Of some it may not be known.
    pub lost_entries: u64,
}

/// What kind of fault the first one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Entries or heads that were signed are missing.
    Cut,
    /// What is there is not what was there.
    Rewritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BadEntry {
    pub epoch: i64,
    pub position: i64,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.first_bad.is_none()
    }

    /// [`Report::plain_verdict`] by name.
    pub fn verdict(&self) -> &'static str {
        self.plain_verdict().name()
    }
}

/// Verifies entries as they come, in the order of their positions, without keeping them.
#[derive(Debug)]
pub struct Verifier {
    state: State,
    keys: Vec<VerifyingKey>,
    /// By size; those before `next_head` have been met.
    heads: Vec<Head>,
    next_head: usize,
    /// Heads whose size was met by an entry of another epoch.
    unmatched: Vec<Head>,
    /// Entries that are missing, until an opening names them.
    missing: Vec<Missing>,
    /// Behind missing entries the tree is not known until a head brings its peaks.
    treeless: bool,
    /// Epoch of the first entry after the newest head that agreed.
    epoch_uncovered: u32,
    report: Report,
}

/// A stretch that is not there.
#[derive(Debug)]
struct Missing {
    stretch: Stretch,
    /// What it is unless an opening names it.
    fault: Found,
    is_named: bool,
}

/// The whole in one go.
pub fn verify(
    log: u16,
    entries: impl IntoIterator<Item = StoredEntry>,
    heads: &[Head],
    keys: &[VerifyingKey],
) -> Report {
    let mut verifier = Verifier::new(log, heads, keys);
    for stored in entries {
        verifier.push(&stored);
    }
    verifier.finish()
}

impl Verifier {
    /// `heads` have had their signatures verified; those of other logs are left aside.
    pub fn new(log: u16, heads: &[Head], keys: &[VerifyingKey]) -> Verifier {
        let mut heads: Vec<Head> = heads
            .iter()
            .filter(|head| head.log == log)
            .cloned()
            .collect();
        heads.sort_by_key(|head| (head.size, head.epoch));
        Verifier {
            state: State::new(log),
            keys: keys.to_vec(),
            heads,
            next_head: 0,
            unmatched: Vec::new(),
            missing: Vec::new(),
            treeless: false,
            epoch_uncovered: 1,
            report: Report::default(),
        }
    }

    /// Takes the next row. Hands out the entry if it and all before it are sound, so that the caller can compare
    /// further columns with it and [`Verifier::reject`] it.
    pub fn push(&mut self, stored: &StoredEntry) -> Option<Entry> {
        self.report.entries += 1;
        if self.report.first_bad.is_some() {
            return None;
        }
        let mut step = self.state.step(stored, &self.keys);
        if let Err(fault) = &step
            && fault.missing
            && self.pass_over(stored, fault.clone())
        {
            step = self.state.step(stored, &self.keys);
        }
        let step = match step {
            Ok(step) => step,
            Err(fault) => {
                self.fail(self.state.position, fault);
                return None;
            }
        };
        if self.report.uncovered_since_micros.is_none() {
            self.epoch_uncovered = self.state.epoch;
            self.report.uncovered_since_micros = Some(step.entry.recorded_at_micros);
        }
        if let Some(opening) = step.opening {
            let named = &opening.missing_entries;
            for missing in &mut self.missing {
                missing.is_named |= named.contains(&missing.stretch);
            }
            let tree = opening.recovered_tree.clone();
            self.report.epochs.push(opening);
            self.meet_tree(tree, &step.entry);
        }
        self.meet_heads();
        if self.report.covered_to == self.state.position {
            self.report.uncovered_since_micros = None;
        }
        self.report.first_bad.is_none().then_some(step.entry)
    }

    /// Declares an entry bad for a reason that only the caller can see.
    pub fn reject(&mut self, epoch: i64, position: i64, reason: impl Into<String>) {
        let fault = Found {
            epoch,
            position,
            reason: reason.into(),
            missing: false,
        };
        self.fail(
            u64::try_from(position).unwrap_or(1).saturating_sub(1),
            fault,
        );
    }

    /// The report, after the last row.
    pub fn finish(mut self) -> Report {
        if self.report.first_bad.is_some() {
            return self.report;
        }
        if let Some(missing) = self.unnamed() {
            let (verified, fault) = (missing.stretch.from - 1, missing.fault.clone());
            self.fail(verified, fault);
            return self.report;
        }
        let size = self.state.position;
        let beyond = self.heads.split_off(self.next_head);
        let unmet: Vec<Head> = self.unmatched.drain(..).chain(beyond).collect();
        for head in unmet {
            if !self.excuse(&head) {
                break;
            }
        }
        if self.report.first_bad.is_none() && size == 0 {
            let reason = "the log is empty: not even the entry that opened it is there".to_owned();
            let (epoch, position) = (1, 1);
            self.fail(
                0,
                Found {
                    epoch,
                    position,
                    reason,
                    missing: true,
                },
            );
        }
        if self.report.first_bad.is_none() {
            let missing = self.missing.iter().map(|missing| missing.stretch.entries());
            self.report.verified = size.saturating_sub(missing.sum());
        }
        self.note_unsigned_losses();
        self.report
    }

    /// What was lost before any head of it was signed shows in the recovery's own words alone.
    fn note_unsigned_losses(&mut self) {
        for opening in &self.report.epochs {
            let signed = opening.old_heads.first().map_or(0, |old| old.size);
            // Where nobody knows, at least what was signed for.
            let at_least = signed.saturating_sub(opening.recovered_size);
            let lost = opening.known_lost.unwrap_or(at_least);
            self.report.lost_entries += lost;
            let is_lost = |old: &&LostHead| lost > 0 && old.size > opening.recovered_size;
            let Some(old) = opening.old_heads.first().filter(is_lost) else {
                continue;
            };
            let known = &mut self.report.known_losses;
            if !known.iter().any(|known| known.epoch == old.epoch) {
                known.push(*old);
            }
        }
    }

    /// The writer's state at the end of the log, to continue from. `None` after a fault.
    pub fn chain(&self) -> Option<Chain> {
        let is_whole =
            self.report.first_bad.is_none() && !self.treeless && self.unnamed().is_none();
        is_whole.then(|| Chain::from_state(self.state.clone()))
    }

    fn unnamed(&self) -> Option<&Missing> {
        self.missing.iter().find(|missing| !missing.is_named)
    }

    /// Continues behind entries that are missing: an opening that names them may come.
    fn pass_over(&mut self, stored: &StoredEntry, fault: Found) -> bool {
        let Some(stretch) = self.state.pass_over(stored) else {
            return false;
        };
        self.treeless = true;
        self.report.uncovered_since_micros = None;
        self.missing.push(Missing {
            stretch,
            fault,
            is_named: false,
        });
        // Those before the last missing entry meet no entry; one of that entry itself says what it was.
        while let Some(head) = self.heads.get(self.next_head) {
            if head.size >= stretch.to {
                break;
            }
            self.unmatched.push(head.clone());
            self.next_head += 1;
        }
        self.meet_heads();
        true
    }

    /// An opening that names missing entries has the tree of all before it.
    fn meet_tree(&mut self, tree: Option<Frontier>, opening: &Entry) {
        let Some(mut tree) = tree else { return };
        tree.push(self.state.last_hash);
        if self.treeless {
            self.state.frontier = tree;
            self.treeless = false;
        } else if self.state.frontier != tree {
            let (epoch, position) = (i64::from(opening.epoch), opening.position as i64);
            self.reject(
                epoch,
                position,
                "it names another tree than the entries before it make",
            );
        }
    }

    /// Compares the log with the heads of its present size.
    fn meet_heads(&mut self) {
        while let Some(head) = self.heads.get(self.next_head) {
            if head.size != self.state.position {
                return;
            }
            self.next_head += 1;
            if head.epoch != self.state.epoch {
                self.unmatched.push(head.clone());
                continue;
            }
            let is_rooted = || self.treeless || head.root == self.state.frontier.root();
            if head.last_hash != self.state.last_hash || !is_rooted() {
                let fault = self.disagreement(head);
                self.fail(self.report.covered_to, fault);
                return;
            }
            if let Some(frontier) = head.frontier().filter(|_| self.treeless) {
                self.state.frontier = frontier;
                self.treeless = false;
            }
            self.report.heads_agreed += 1;
            self.report.covered_to = head.size;
        }
    }

    fn disagreement(&self, head: &Head) -> Found {
        let first = self.report.covered_to + 1;
        let reason = format!(
            "rewritten: the head signed for epoch {} at size {} does not fit the entries {first} to {}",
            head.epoch, head.size, head.size
        );
        Found {
            epoch: i64::from(self.epoch_uncovered),
            position: first as i64,
            reason,
            missing: false,
        }
    }

    /// Whether a recovery in the log accounts for a head that the log does not hold; if not, that is the fault.
    fn excuse(&mut self, head: &Head) -> bool {
        let lost = LostHead {
            epoch: head.epoch,
            size: head.size,
            hash: head.last_hash,
        };
        let named = |old: &LostHead| {
            old.epoch == head.epoch
                && (old.size > head.size || (old.size == head.size && old.hash == head.last_hash))
        };
        let is_missing = |missing: &Missing| missing.is_named && missing.stretch.holds(head.size);
        if self.missing.iter().any(is_missing) {
            self.report.known_losses.push(lost);
            return true;
        }
        let mut later = self
            .report
            .epochs
            .iter()
            .filter(|record| record.epoch > head.epoch);
        if later.any(|record| record.old_heads.iter().any(named)) {
            self.report.known_losses.push(lost);
            return true;
        }
        let size = self.state.position;
        let (epoch, signed) = (head.epoch, head.size);
        let missing = signed > size || epoch > self.state.epoch;
        let (verified, reason) = if missing {
            let reason = format!(
                "the tail was cut: a head of epoch {epoch} was signed at size {signed}, the log ends at {size} in \
                 epoch {}, and no recovery accounts for the difference",
                self.state.epoch
            );
            (size, reason)
        } else {
            let reason = format!(
                "rewritten: a head was signed for epoch {epoch} at size {signed}, the log has another epoch there, \
                 and no recovery accounts for it"
            );
            (signed - 1, reason)
        };
        let fault = Found {
            epoch: i64::from(epoch),
            position: verified as i64 + 1,
            reason,
            missing,
        };
        self.fail(verified, fault);
        false
    }

    /// The first fault counts.
    fn fail(&mut self, verified: u64, fault: Found) {
        if self.report.first_bad.is_some() {
            return;
        }
        // What is missing before it, and no opening has named so far, comes first.
        let (verified, fault) = match self.unnamed() {
            Some(missing) => (missing.stretch.from - 1, missing.fault.clone()),
            None => (verified, fault),
        };
        self.report.verified = verified;
        self.report.first_bad = Some(BadEntry {
            epoch: fault.epoch,
            position: fault.position,
        });
        self.report.reason = Some(fault.reason);
        self.report.fault = Some(match fault.missing {
            true => Fault::Cut,
            false => Fault::Rewritten,
        });
    }
}
