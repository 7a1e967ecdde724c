//! Why a standby does not follow, or was not promoted, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use postgres_physical::server::ServerError;
use postgres_physical::wire::WireError;

pub type StandbyResult<T> = std::result::Result<T, StandbyError>;

#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    #[error(transparent)]
    Recovery(Box<crate::Error>),
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("the standby's PostgreSQL: {0}")]
    Wire(#[from] WireError),
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    #[error("another process keeps the standby in {0}. Stop that one first")]
    Busy(PathBuf),
    #[error(
        "the standby cannot be promoted: it is {phase}{why}. Wait until `bre standby status` says that it follows, or \
         restore with `bre restore database`"
    )]
    NotFollowing { phase: &'static str, why: String },
    #[error(
        "the standby cannot be promoted: {0}. `bre restore database` decides what can be done without it"
    )]
    Behind(String),
    #[error(
        "WAL still arrives in the repository (from {from} to {to} while the standby was being promoted): the old \
         primary is alive and what it commits from now on would be lost. Stop it, or promote without what it commits: \
         --even-if-alive"
    )]
    StillStreams { from: String, to: String },
    #[error(
        "the standby replayed up to {replayed} and no further although the repository holds whole records up to \
         {end}; nothing was promoted.\nThe end of PostgreSQL's log {log}:\n{tail}"
    )]
    NotReplayed {
        replayed: String,
        end: String,
        log: PathBuf,
        tail: String,
    },
    #[error(
        "the promotion did not finish: {what}. Do not use the folder {folder}; the standby restores itself again at \
         its next start, or use `bre restore database`.\nThe end of PostgreSQL's log:\n{tail}"
    )]
    Promotion {
        what: String,
        folder: PathBuf,
        tail: String,
    },
    #[error("{0} holds no promoted standby")]
    NotPromoted(PathBuf),
    #[error("{0} is there already. Move it aside first; nothing was moved")]
    Taken(PathBuf),
}

impl From<crate::Error> for StandbyError {
    fn from(error: crate::Error) -> Self {
        Self::Recovery(Box::new(error))
    }
}

impl StandbyError {
    pub(super) fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }
}
