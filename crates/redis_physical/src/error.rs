//! What can go wrong with a Redis, by what an operator has to do about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::scratch::LoadFault;
use crate::settings::RedisSettingsError;

pub type Result<T, E = RedisError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error(transparent)]
    Settings(#[from] RedisSettingsError),
    #[error("Redis at {place} does not answer: {reason}. Start it, or correct [cache] url")]
    Away { place: String, reason: String },
    #[error(
        "Redis at {place} does not allow {command} ({word}). Give the user of [cache] url the right to it (ACL SETUSER \
         NAME +{}), or do this where the provider does",
        command_lower(command)
    )]
    NotAllowed {
        place: String,
        command: String,
        word: String,
    },
    #[error("Redis at {place} refuses {command}: {word}")]
    Refused {
        place: String,
        command: String,
        word: String,
    },
    #[error("Redis at {place} answers {command} with something else than expected: {what}")]
    Answer {
        place: String,
        command: String,
        what: String,
    },
    #[error(
        "Redis at {place} is version {version}; this needs Redis 7.0 or later, or Valkey, whose append-only file is a \
         folder with a manifest. Upgrade it, or use the RDB file (cache.rdb)"
    )]
    Version { place: String, version: String },
    #[error(
        "Redis at {place} is a replica of {primary}: what it holds may be behind. Name the primary in [cache] url"
    )]
    Replica { place: String, primary: String },
    #[error(
        "Redis at {place} did not end {what} within {seconds} s; look at its log and at INFO persistence"
    )]
    Timeout {
        place: String,
        what: &'static str,
        seconds: u64,
    },
    #[error("it was interrupted; what was there before is untouched")]
    Cancelled,
    #[error(
        "no {0} on this host (it is looked for in PATH, /usr/bin, /usr/local/bin, /usr/sbin); Debian: apt-get install \
         {0}"
    )]
    NoProgram(&'static str),
    #[error("a Redis that was started to load {} did not: {fault}", files.display())]
    Load { files: PathBuf, fault: LoadFault },
    #[error("{}: {fault}", path.display())]
    Manifest { path: PathBuf, fault: String },
    #[error(
        "{} is damaged at byte {offset}: {fault}. No server loads it: take an earlier copy, or write a new file from \
         memory (BGREWRITEAOF)", path.display()
    )]
    Damaged {
        path: PathBuf,
        offset: u64,
        fault: String,
    },
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A signal came while an answer was waited for: the server is not at fault.
fn is_interruption(error: &redis::RedisError) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let of_system = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    of_system.is_some_and(|error| error.kind() == io::ErrorKind::Interrupted)
}

fn command_lower(command: &str) -> String {
    command.to_lowercase().replace(' ', "|")
}

impl RedisError {
    pub fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RedisError {
        let path = path.to_owned();
        move |source| RedisError::File { what, path, source }
    }

    /// Of an answer to a command.
    pub(crate) fn of(error: &redis::RedisError, place: &str, command: &str) -> RedisError {
        let (place, command) = (place.to_owned(), command.to_owned());
        if is_interruption(error) {
            return RedisError::Cancelled;
        }
        let is_answer = error.code().is_some()
            || matches!(
                error.kind(),
                redis::ErrorKind::Server(_) | redis::ErrorKind::AuthenticationFailed
            );
        if !is_answer {
            return match error.kind() {
                redis::ErrorKind::UnexpectedReturnType | redis::ErrorKind::Parse => {
                    RedisError::Answer {
                        place,
                        command,
                        what: error.to_string(),
                    }
                }
                _ => RedisError::Away {
                    place,
                    reason: error.to_string(),
                },
            };
        }
        let worded = |code: &str, detail: Option<&str>| match detail {
            Some(detail) => format!("{code} {}", detail.trim()),
            None => code.to_owned(),
        };
        // A transaction is aborted because of a command of it, which says why.
        let causes = error.clone().into_server_errors();
        let word = match (causes.as_deref().and_then(<[_]>::first), error.code()) {
            (Some((_, cause)), _) => worded(cause.code(), cause.details()),
            (None, Some(code)) => worded(code, error.detail()),
            (None, None) => error.to_string(),
        };
        let forbidden = word.starts_with("NOPERM") || word.contains("unknown command");
        match forbidden {
            true => RedisError::NotAllowed {
                place,
                command,
                word,
            },
            false => RedisError::Refused {
                place,
                command,
                word,
            },
        }
    }

    /// What the environment has to provide first, as opposed to what went wrong.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            RedisError::Version { .. } | RedisError::Replica { .. } | RedisError::NoProgram(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_from_a_server_that_does_not_answer() {
        let of = |kind: io::ErrorKind| {
            RedisError::of(&io::Error::from(kind).into(), "localhost:6379", "PING")
        };
        assert!(matches!(
            of(io::ErrorKind::Interrupted),
            RedisError::Cancelled
        ));
        assert!(matches!(
            of(io::ErrorKind::BrokenPipe),
            RedisError::Away { .. }
        ));
    }
}
