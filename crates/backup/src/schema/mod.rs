//! The schema as plain SQL in a git repository: one commit for every change, none where nothing changed.
//!
//! [`backup_schema`] dumps the definitions of every database and the cluster's roles with PostgreSQL's own programs, takes out what differs
//! from run to run, and commits what is different from the newest commit under a message that names it. With a remote the commit is pushed;
//! one that could not be pushed stays and goes with the next.
//!
//! Absent on purpose: rows, passwords, and any deletion: git keeps the history.

mod changes;
mod dump;
mod git;

use std::path::{Path, PathBuf};

use postgres_physical::server::{Binaries, OsUser};
use postgres_physical::wire::{ConnectOptions, WireError};

use crate::Progress;
use git::Git;

pub use git::without_credentials;

const GLOBALS: &str = "globals.sql";
const DATABASES: &str = "databases";

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "{program} cannot be run: {source}. Install it (Debian: apt-get install {package}); the schema is not backed up without it"
    )]
    ProgramMissing {
        program: &'static str,
        package: &'static str,
        source: std::io::Error,
    },
    #[error("{program} of {what} failed: {said}")]
    Dump {
        program: &'static str,
        what: String,
        said: String,
    },
    #[error("git {doing} in {folder} failed: {said}")]
    Git {
        doing: String,
        folder: PathBuf,
        said: String,
    },
    #[error(
        "{0} is neither empty nor a git repository, and nothing of it is touched. Name another folder, or run git init there"
    )]
    NotOurs(PathBuf),
    #[error(
        "the schema is committed in {folder} but not pushed: {said}. It goes with the next backup that reaches the remote"
    )]
    NotPushed { folder: PathBuf, said: String },
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Postgres(#[from] WireError),
    #[error("interrupted; nothing was committed")]
    Cancelled,
}

impl SchemaError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

#[derive(Debug)]
pub struct SchemaBackup<'a> {
    /// A role that may read every definition.
    pub connect: &'a ConnectOptions,
    pub binaries: &'a Binaries,
    pub user: &'a OsUser,
    /// A git repository with a working tree; made when it is not there.
    pub folder: &'a Path,
    /// Where its commits are pushed: whatever git understands, a bare repository's folder too.
    pub remote: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaOutcome {
    /// `None`: nothing had changed.
    pub commit: Option<String>,
    /// What did, one line each, as in the commit's message.
    pub changes: Vec<String>,
    pub pushed: bool,
    /// Those whose definitions were read.
    pub databases: Vec<String>,
    /// The others: what was read of them before stays.
    pub not_read: Vec<NotRead>,
}

/// A database whose definitions were not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRead {
    pub database: String,
    /// With the statement that mends it, where there is one.
    pub why: String,
    /// False where nobody can look into it by its own state: it takes no connections, or is half dropped.
    pub failed: bool,
}

impl std::fmt::Display for NotRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.database, self.why)
    }
}

/// Whether both programs are here; for who plans.
pub fn cannot_back_up(binaries: Option<&Binaries>) -> Option<String> {
    if let Err(source) = git::present() {
        let missing = SchemaError::ProgramMissing {
            program: "git",
            package: "git",
            source,
        };
        return Some(missing.to_string());
    }
    match binaries {
        Some(binaries) if binaries.program("pg_dump").exists() => None,
        _ => Some(
            "pg_dump is not on this host (Debian: apt-get install postgresql-client)".to_owned(),
        ),
    }
}

pub fn backup_schema(
    request: &SchemaBackup<'_>,
    progress: &dyn Progress,
) -> Result<SchemaOutcome, SchemaError> {
    progress.message("opening the git repository");
    let git = Git::open(request.folder, request.remote)?;
    git.catch_up()?;
    progress.message("reading definitions");
    let mut dump = dump::dump(request, progress)?;
    if progress.cancelled() {
        return Err(SchemaError::Cancelled);
    }
    let before = git.newest_files()?;
    for path in dump.not_read.iter().map(NotRead::path) {
        if let Some(text) = before.get(&path) {
            dump.files.insert(path, text.clone());
        }
    }
    let changes = changes::changes(&before, &dump.files);
    dump::write(request.folder, &before, &dump.files)?;
    let commit = match changes.is_empty() {
        true => None,
        false => Some(git.commit(&changes::message(&changes))?),
    };
    let pushed = git.push()?;
    Ok(SchemaOutcome {
        commit,
        changes,
        pushed,
        databases: dump.databases,
        not_read: dump.not_read,
    })
}
