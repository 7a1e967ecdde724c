//! What a shell sees of a command's end: one number for one meaning, the same for every command.

use std::process::ExitCode;

/// How a command ended. `bre wal fetch` alone has numbers of its own, which PostgreSQL reads: `commands::wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
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
}

impl Exit {
    /// As `bre --help` lists them.
    pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed, or unsound
  2  usage: the command line cannot be read
  3  refused: something stands against it, nothing was changed
  4  not running, or unreachable
  5  partial, or still waiting";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_lists_every_exit_code() {
        let help = crate::cli::Cli::command().render_long_help().to_string();
        let all = [
            (Exit::Done, "done"),
            (Exit::Failed, "failed"),
            (Exit::Usage, "usage"),
            (Exit::Refused, "refused"),
            (Exit::NotRunning, "not running"),
            (Exit::Partial, "partial"),
        ];
        for (number, (exit, word)) in all.into_iter().enumerate() {
            assert_eq!(exit as usize, number);
            let line = format!("  {number}  {word}");
            assert!(help.contains(&line), "{line:?} is not in:\n{help}");
        }
    }
}
