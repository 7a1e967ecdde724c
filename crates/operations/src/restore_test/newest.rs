//! What the catalogue says of restore tests: which was the newest, and which backup comes next.

use repository::{
    Repository,
    backup::{BackupState, BackupSummary, catalogue},
};

use crate::error::Error;

/// The newest one of some backups. By when it was made; ordered as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewestTest<'a> {
    pub at_micros: i64,
    pub failed: bool,
    pub backup_id: &'a str,
}

impl<'a> NewestTest<'a> {
    pub fn of(backups: impl IntoIterator<Item = &'a BackupSummary>) -> Option<Self> {
        let tests = backups.into_iter().flat_map(|backup| {
            let test = |at: Option<i64>, failed| {
                at.map(|at_micros| Self {
                    at_micros,
                    failed,
                    backup_id: &backup.id,
                })
            };
            [
                test(backup.restored_and_proved_at_micros, false),
                test(backup.proof_failed_at_micros, true),
            ]
        });
        tests.flatten().max()
    }
}

/// The backup whose restore test is the newest one of all, if that test failed.
pub fn newest_failure(backups: &[BackupSummary]) -> Option<&str> {
    let kept = backups
        .iter()
        .filter(|backup| backup.state == BackupState::Complete);
    let newest = NewestTest::of(kept)?;
    newest.failed.then_some(newest.backup_id)
}

pub fn failed_proof(backup_id: &str, why: &str) -> String {
    format!("the restore proof of backup {backup_id} FAILED: {why}")
}

/// The backup that a restore test takes unless one is given. `named`: the name that the repository was asked for by.
pub fn newest_complete(
    repository: &Repository,
    named: &dyn std::fmt::Display,
) -> Result<BackupSummary, Error> {
    let backups = catalogue(repository)?.backups;
    let newest = backups
        .into_iter()
        .rfind(|backup| backup.state == BackupState::Complete);
    newest.ok_or_else(|| {
        Error::refused(
            "there is nothing to test",
            format!("{named} holds no complete backup"),
        )
    })
}
