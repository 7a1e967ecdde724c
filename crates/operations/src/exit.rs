//! What a shell sees of a command's end: one number for one meaning, the same for every command.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// How a command ended. `bre wal fetch` alone has numbers of its own, which PostgreSQL reads: `commands::wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// Done, and everything that was looked at is sound.
    Done = 0,
    /// It failed, or what was looked at is not sound.
    Failed = 1,
    /// The command line cannot be read. clap itself ends with this number too.
    Usage = 2,
    /// Something stands against it; nothing was changed.
    Refused = 3,
    /// No engine runs, or what it needs cannot be reached.
    NotRunning = 4,
    /// A part of it was done, or it still waits.
    Partial = 5,
    /// Of an audit log: sound to a place, and from there on no head vouches for it.
    SoundUpTo = 6,
    /// Of an audit log: nothing outside the database vouches for it.
    Unanchored = 7,
    /// Of an audit log: entries or heads that were signed are missing.
    Cut = 8,
    /// Of an audit log: something is not what it was.
    Rewritten = 9,
    /// Of an audit log: whole, and signed openings name what is lost.
    KnownLoss = 10,
}

impl Exit {
    /// As `bre --help` lists them.
    pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed, or unsound
  2  usage: the command line cannot be read
  3  refused: something stands against it, nothing was changed
  4  not running, or unreachable
  5  partial, or still waiting
bre verify audit, beside them:
  6  sound up to a place: what follows is older than a minute, and no signed head covers it
  7  unanchored: no signed head and no anchor vouches for the log
  8  cut: entries or heads that were signed are missing
  9  rewritten: something is not what it was
 10  known loss: what is there is whole, and what was lost is named";

    /// What a verification of an audit log ends with.
    pub fn of(verdict: audit::Verdict) -> Exit {
        match verdict {
            audit::Verdict::Sound => Exit::Done,
            audit::Verdict::SoundUpTo => Exit::SoundUpTo,
            audit::Verdict::Unanchored => Exit::Unanchored,
            audit::Verdict::Cut => Exit::Cut,
            audit::Verdict::Rewritten => Exit::Rewritten,
            audit::Verdict::KnownLoss => Exit::KnownLoss,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
