//! The schema as plain SQL in a git repository: one commit for every change, none where nothing changed.
//!
//! [`backup_schema`] dumps the definitions of every database and the cluster's roles with PostgreSQL's own programs, takes out what differs
//! from run to run, and commits what is different from the newest commit under a message that names it. With a remote the commit is pushed;
//! one that could not be pushed stays and goes with the next.
//!
//! Absent on purpose: rows, passwords, and any deletion: git keeps the history.

mod changes;
mod dump;

use std::path::Path;

use postgres_physical::server::{Binaries, OsUser};
use postgres_physical::wire::{ConnectOptions, WireError};

use crate::Progress;
use crate::documents::{
    Collection, Document, DocumentSource, Documents, GitDocuments, GitError, GitOutcome,
    Interruption, present, take,
};
use dump::Files;

pub use crate::documents::without_credentials;

const GLOBALS: &str = "globals.sql";
const DATABASES: &str = "databases";
const THE_SCHEMA: &str = "the schema";

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
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Postgres(#[from] WireError),
    #[error("interrupted; nothing was committed")]
    Cancelled,
}

impl From<Interruption> for SchemaError {
    fn from(_: Interruption) -> Self {
        Self::Cancelled
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
    pub not_read: Vec<UnreadDatabase>,
}

/// A database whose definitions were not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadDatabase {
    pub database: String,
    /// With the statement that mends it, where there is one.
    pub why: String,
    /// False where nobody can look into it by its own state: it takes no connections, or is half dropped.
    pub failed: bool,
}

impl std::fmt::Display for UnreadDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.database, self.why)
    }
}

/// Whether both programs are here; for who plans.
pub fn cannot_back_up(binaries: Option<&Binaries>) -> Option<String> {
    if let Err(source) = present() {
        let missing = GitError::ProgramMissing {
            what: THE_SCHEMA,
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

/// Definitions as PostgreSQL's own programs write them.
struct SchemaSource<'a> {
    connect: &'a ConnectOptions,
    binaries: &'a Binaries,
    user: &'a OsUser,
}

/// What was read, and what was not.
struct SchemaReport {
    databases: Vec<String>,
    not_read: Vec<UnreadDatabase>,
}

impl DocumentSource for SchemaSource<'_> {
    type Error = SchemaError;
    type Report = SchemaReport;

    fn component(&self) -> &'static str {
        "schema"
    }

    /// In canonical form already: what differs from run to run is taken out line by line.
    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, SchemaReport), SchemaError> {
        progress.message("reading definitions");
        let dump = dump::dump(self, progress)?;
        let document = |text: String| Document {
            content: zeroize::Zeroizing::new(text.into_bytes()),
            ..Document::default()
        };
        let documents = dump.files.into_iter();
        let collection = Collection {
            documents: documents
                .map(|(name, text)| (name, document(text)))
                .collect(),
            not_read: dump.not_read.iter().map(UnreadDatabase::path).collect(),
        };
        let report = SchemaReport {
            databases: dump.databases,
            not_read: dump.not_read,
        };
        Ok((collection, report))
    }

    /// Passwords never were in it.
    fn redacted(&self, _: &str, content: &[u8]) -> String {
        String::from_utf8_lossy(content).into_owned()
    }

    fn changes(&self, before: &Documents, after: &Documents) -> Vec<String> {
        changes::changes(&texts(before), &texts(after))
    }
}

fn texts(documents: &Documents) -> Files {
    let text = |document: &Document| String::from_utf8_lossy(&document.content).into_owned();
    let documents = documents.iter();
    documents
        .map(|(name, document)| (name.clone(), text(document)))
        .collect()
}

pub fn backup_schema(
    request: &SchemaBackup<'_>,
    progress: &dyn Progress,
) -> Result<SchemaOutcome, SchemaError> {
    let source = SchemaSource {
        connect: request.connect,
        binaries: request.binaries,
        user: request.user,
    };
    let mut sink = GitDocuments {
        what: THE_SCHEMA,
        folder: request.folder,
        remote: request.remote,
        paths: &[GLOBALS, DATABASES],
        ending: ".sql",
        git: None,
    };
    let (outcome, report): (GitOutcome, SchemaReport) =
        take::<_, _, SchemaError>(&source, &mut sink, progress)?;
    Ok(SchemaOutcome {
        commit: outcome.commit,
        changes: outcome.changes,
        pushed: outcome.pushed,
        databases: report.databases,
        not_read: report.not_read,
    })
}
