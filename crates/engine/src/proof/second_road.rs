//! The log verified without the server that wrote it: a backup and its WAL, brought back into a scratch folder and asked there.

use std::time::Instant;

use assurance::verification::Verdict;
use audit::SignedHead;
use postgres_physical::lsn::Lsn;
use recovery::database::Target;
use repository::backup::{BackupState, BackupSummary, catalogue};
use services::AuditReport;

use super::{Prover, Record, audited::Audited, chosen, no_verdict};
use crate::{
    error::Error,
    host::{log, progress::Steps},
    scratch::{Claim, ScratchFolder},
};

/// How far the copy is brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To the end of all WAL that the repository holds.
    NewestWal,
    /// To the end of this backup, or of the newest complete one.
    Backup(Option<String>),
}

/// What was verified, and of what.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) report: AuditReport,
    pub(crate) heads: usize,
    pub(crate) backup: String,
    /// Where the replay ended, as PostgreSQL prints it.
    pub(crate) replayed_to: String,
    pub(crate) seconds: f64,
}

impl Prover {
    /// Needs nothing of the running database, and gives no verdict where the copy does not come up.
    pub(crate) fn audit(&self, reach: &Reach, steps: &Steps) -> Result<Copied, Error> {
        let began = Instant::now();
        let backups = catalogue(&self.repository)?.backups;
        let (backup, target) = match reach {
            Reach::Backup(Some(id)) => of_backup(chosen(&backups, id)?),
            Reach::Backup(None) => of_backup(newest(&backups)?),
            Reach::NewestWal => {
                let newest = newest(&backups)?;
                (newest, Target::latest().on_timeline(newest.timeline))
            }
        };
        // Given back after the folder is gone, however this ends: nothing will ever run on that timeline.
        let mut claim = None;
        let scratch = ScratchFolder::claim(&self.work, &self.user, &self.repository)?;
        // Before the plan: whatever was signed by now must be in a restore to the newest WAL.
        let signed = log::stored(&self.repository)?;
        let verified = self.verify_in(&scratch, backup, target, &signed, steps, &mut claim);
        drop(scratch);
        drop(claim);
        let (report, heads, replayed_to) = verified?;
        Ok(Copied {
            report,
            heads,
            backup: backup.id.clone(),
            replayed_to: Lsn(replayed_to).to_string(),
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// The report, how many heads it was held against, and where the replay ended.
    fn verify_in(
        &self,
        scratch: &ScratchFolder,
        backup: &BackupSummary,
        target: Target,
        signed: &[SignedHead],
        steps: &Steps,
        claim: &mut Option<Claim>,
    ) -> Result<(AuditReport, usize, u64), Error> {
        let mut record = Record::begin(backup);
        let came = self.try_to_bring_back(backup, target, scratch, steps, &mut record, claim)?;
        let Some((plan, recovered)) = came else {
            let failed = record
                .checks
                .iter()
                .find(|check| check.verdict == Verdict::Failed);
            let why = failed.and_then(|check| check.why.clone());
            return Err(no_verdict(format!(
                "backup {} does not come back: {}",
                backup.id,
                why.unwrap_or_default()
            )));
        };
        steps.step("starting it privately");
        let server = scratch
            .start(&self.binaries, &self.user)
            .map_err(|error| no_verdict(error.to_string()))?;
        scratch.collations()?;
        let database = scratch.engine_database()?;
        steps.step("verifying the audit log");
        let audited = Audited {
            database: &database,
            scratch,
            trusted: &self.trusted,
            plan: &plan,
            recovered: &recovered,
        };
        let url = scratch.url(&database);
        let verified = crate::host::runtime::wait(audited.report(&url, signed));
        drop(server);
        let (report, heads) = verified?;
        Ok((report, heads, recovered.switch_lsn))
    }
}

fn of_backup(backup: &BackupSummary) -> (&BackupSummary, Target) {
    let end = Target::lsn(backup.stop_lsn).on_timeline(backup.timeline);
    (backup, end)
}

fn newest(backups: &[BackupSummary]) -> Result<&BackupSummary, Error> {
    let complete = |backup: &&BackupSummary| backup.state == BackupState::Complete;
    let newest = backups
        .iter()
        .filter(complete)
        .max_by_key(|backup| (backup.timeline, backup.stop_lsn));
    newest.ok_or_else(|| Error::Refused {
        what: "there is nothing to verify",
        reason: "the repository holds no complete backup".to_owned(),
    })
}
