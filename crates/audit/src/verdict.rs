//! The result of a verification, in one word (format §6).

use serde::Serialize;

use crate::thinning::unexplained;
use crate::verify::{BadEntry, Fault, Report};

/// So long an entry may stand without a head that covers it.
pub const UNSIGNED_MICROS_MAX: i64 = 60_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Sound,
    /// To `covered_to`: what follows is older than a minute, and no head vouches for it.
    SoundUpTo,
    /// Nothing outside the database vouches for it.
    Unanchored,
    /// Entries that were signed for are missing, or a head was taken away.
    Cut,
    /// Something is not what it was.
    Rewritten,
    /// What is there is whole, and signed openings name what is not.
    KnownLoss,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::SoundUpTo => "sound_up_to",
            Verdict::Unanchored => "unanchored",
            Verdict::Cut => "cut",
            Verdict::Rewritten => "rewritten",
            Verdict::KnownLoss => "known_loss",
        }
    }
}

/// What is known besides the entries.
#[derive(Clone, Copy, Debug)]
pub struct Anchoring<'a> {
    /// Heads in the repository, and anchors, whatever became of them.
    pub heads: usize,
    /// [`crate::missing_heads`].
    pub missing: &'a [(u32, u64)],
    pub now_micros: i64,
}

impl Report {
    /// Takes what is known outside the log into account: a head that was taken away is a fault of its own.
    pub fn anchored(&mut self, outside: &Anchoring<'_>) -> Verdict {
        let gone = unexplained(outside.missing, &self.epochs);
        if let (Some((epoch, size)), None) = (gone.first(), self.first_bad) {
            self.fault = Some(Fault::Cut);
            self.first_bad = Some(BadEntry {
                epoch: i64::from(*epoch),
                position: i64::try_from(*size).unwrap_or(i64::MAX),
            });
            self.reason = Some(format!(
                "a head was taken away: the one signed for epoch {epoch} at size {size} is not in the repository, and \
                 neither a thinning nor an opening accounts for it{}. Everything that is left agrees",
                match gone.len() {
                    1 => String::new(),
                    more => format!("; {more} are missing in all"),
                }
            ));
        }
        if self.is_sound() && outside.heads == 0 {
            return Verdict::Unanchored;
        }
        let unsigned = self
            .uncovered_since_micros
            .is_some_and(|since| outside.now_micros.saturating_sub(since) > UNSIGNED_MICROS_MAX);
        match self.plain_verdict() {
            Verdict::Sound | Verdict::KnownLoss if unsigned => Verdict::SoundUpTo,
            other => other,
        }
    }

    /// Of the entries and the heads that were given, whatever else there should be.
    pub fn plain_verdict(&self) -> Verdict {
        match (self.first_bad, self.fault) {
            (Some(_), Some(Fault::Cut)) => Verdict::Cut,
            // Whoever finds a row that belongs to nothing names the place alone.
            (Some(_), _) => Verdict::Rewritten,
            (None, _) if self.has_known_losses() => Verdict::KnownLoss,
            (None, _) => Verdict::Sound,
        }
    }

    fn has_known_losses(&self) -> bool {
        let declared = |epoch: &crate::EpochRecord| !epoch.missing_heads.is_empty();
        !self.known_losses.is_empty() || self.lost_entries > 0 || self.epochs.iter().any(declared)
    }
}
