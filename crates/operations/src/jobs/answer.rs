//! What the person who asked for a run gets to see of its end, whichever process ran it.

use std::path::PathBuf;

use backup::{
    application_state::StateReport,
    database::BackupOutcome,
    documents::{GitOutcome, SealedOutcome},
    schema::SchemaOutcome,
};
use jobs::{Outcome, RunContext, RunRecord};
use redis_physical::aof::AofCopy;
use repository::Repository;
use serde::{Deserialize, Serialize};

use crate::{
    audit_archive::ArchiveReport, audit_compliance::ComplianceReport, audit_logs::LogsReport,
    command_output::CommandOutput, error::Error, exit::Exit, restore_test::RestoreTestReport,
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Shown(CommandOutput),
    Failed { words: String, exit: Exit },
}

impl Answer {
    fn give(&self, context: &RunContext) {
        match serde_json::to_string(self) {
            Ok(text) => context.answer(text),
            Err(error) => tracing::warn!(%error, "what came of a run cannot be passed on"),
        }
    }
}

/// What came of a run that a person asked for.
#[derive(Debug)]
pub enum JobResult {
    /// And the repository that holds it.
    Backup(Repository, Box<BackupOutcome>),
    RestoreTest(Box<RestoreTestReport>),
    Definitions {
        folder: PathBuf,
        outcome: SchemaOutcome,
    },
    CacheCopy(Box<AofCopy>),
    /// None: there is no signed head yet.
    AuditArchive(Option<ArchiveReport>),
    Logs(LogsReport),
    Compliance(ComplianceReport),
    Snapshot {
        component: &'static str,
        outcome: Box<SealedOutcome>,
    },
    /// Of a cluster, into git.
    State {
        component: &'static str,
        /// Where git is.
        place: String,
        outcome: GitOutcome,
        report: StateReport,
    },
    Secrets {
        outcome: Box<SealedOutcome>,
        report: StateReport,
    },
}

/// Puts it into words, for the person who asked.
pub type Screens = fn(JobResult) -> Result<CommandOutput, Error>;

/// The first one that a run gives counts.
pub(super) fn give(context: &RunContext, shown: impl FnOnce() -> Result<CommandOutput, Error>) {
    if context.asked_by().is_none() {
        return;
    }
    match shown() {
        Ok(shown) => Answer::Shown(shown).give(context),
        Err(error) => give_failure(context, &error),
    }
}

pub(super) fn give_failure(context: &RunContext, error: &Error) {
    if context.asked_by().is_none() {
        return;
    }
    let failed = Answer::Failed {
        words: error.to_string(),
        exit: error.exit(),
    };
    failed.give(context);
}

/// For the person who asked.
pub fn read(record: &RunRecord, answer: Option<String>) -> Result<CommandOutput, Error> {
    let answer = answer.and_then(|text| serde_json::from_str(&text).ok());
    match answer {
        Some(Answer::Shown(shown)) => Ok(shown),
        Some(Answer::Failed { words, exit }) => Err(Error::OfRun { words, exit }),
        // A job that has no screen of its own.
        None if record.outcome == Outcome::Succeeded => {
            let machines = serde_json::json!({
                "job": record.job,
                "summary": record.summary,
                "bytes": record.bytes,
                "figures": record.figures,
            });
            CommandOutput::of(&machines, format!("{}\n", record.summary))
        }
        None => {
            let words = record.reason.as_ref().unwrap_or(&record.summary);
            Err(Error::failed(words.clone()))
        }
    }
}
