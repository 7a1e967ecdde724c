//! The log verified without the server that wrote it: a backup and its WAL, brought back into a scratch folder and asked there.

use std::time::Instant;

use assurance::verification::Verdict;
use postgres_physical::lsn::Lsn;
use recovery::database::{Plan, Target, plan};
use repository::backup::{BackupState, BackupSummary, catalogue};
use services::AuditReport;

use super::{
    RestoreTestReport, RestoreTester,
    audited::{LogCheck, Replay},
    chosen, no_verdict,
};
use host::progress::Steps;

use crate::{
    audit_outside::{Outside, OutsideEvidence},
    error::Error,
    scratch::{Claim, ScratchFolder},
};

/// How far the copy is brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the end of all WAL that the repository holds.
    NewestWal,
    /// To the end of this backup, or of the newest complete one.
    Backup(Option<String>),
}

/// What was verified, and of what.
#[derive(Debug)]
pub struct ReplayedLog {
    pub report: AuditReport,
    pub verdict: audit::Verdict,
    pub beside: OutsideEvidence,
    /// How many it was held against.
    pub heads: usize,
    pub backup: String,
    /// Where the replay ended, as PostgreSQL prints it.
    pub replayed_to: String,
    pub seconds: f64,
}

impl RestoreTester {
    /// Needs nothing of the running database, and gives no verdict where the copy does not come up. `outside` was
    /// gathered before.
    pub fn audit(
        &self,
        reach: &Reach,
        outside: &Outside,
        steps: &Steps,
    ) -> Result<ReplayedLog, Error> {
        let began = Instant::now();
        let backups = catalogue(&self.repository)?.backups;
        let (backup, target) = match reach {
            Reach::Backup(Some(id)) => of_backup(chosen(&backups, id)?),
            Reach::Backup(None) => of_backup(newest(&backups)?),
            Reach::NewestWal => (self.on_the_way_to_the_newest(&backups)?, Target::latest()),
        };
        // Given back after the folder is gone, however this ends: nothing will ever run on that timeline.
        let mut claim = None;
        let scratch = ScratchFolder::claim(&self.work, &self.user, &self.repository)?;
        let verified = self.verify_in(&scratch, backup, target, outside, steps, &mut claim);
        drop(scratch);
        drop(claim);
        Ok(ReplayedLog {
            seconds: began.elapsed().as_secs_f64(),
            ..verified?
        })
    }

    /// The backup from which a restore of everything begins, on any timeline.
    fn on_the_way_to_the_newest<'a>(
        &self,
        backups: &'a [BackupSummary],
    ) -> Result<&'a BackupSummary, Error> {
        // Says so where there is none.
        newest(backups)?;
        let plan = plan(&self.repository, &self.private, Target::latest())
            .map_err(|error| no_verdict(error.to_string()))?;
        let backup = backups.iter().find(|backup| backup.id == plan.backup.id);
        backup.ok_or_else(|| no_verdict("backups come and go meanwhile; try again".to_owned()))
    }

    fn verify_in(
        &self,
        scratch: &ScratchFolder,
        backup: &BackupSummary,
        target: Target,
        outside: &Outside,
        steps: &Steps,
        claim: &mut Option<Claim>,
    ) -> Result<ReplayedLog, Error> {
        let is_of_backup = target != Target::latest();
        let mut record = RestoreTestReport::begin(backup);
        let came = self.try_to_restore(backup, target, scratch, steps, &mut record, claim)?;
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
        let audited = LogCheck {
            database: &database,
            scratch,
            repository: &self.repository,
            trusted: &self.trusted,
            plan: &plan,
            recovered: &recovered,
        };
        // WAL behind a hole that is on record does not come back: this copy ends before it by its nature.
        let is_part = is_of_backup || plan.beyond.is_some();
        let url = scratch.url(&database);
        let replay = match is_part {
            true => Replay::ToItsEnd,
            false => Replay::ToTheNewest,
        };
        let judged = host::runtime::wait(audited.judge(&url, outside, replay));
        drop(server);
        let (mut report, heads, extent) = judged?;
        let now_micros = match is_of_backup {
            // What was recorded a minute before its end had a head by then.
            true => backup.finished_at_micros,
            false => jiff::Timestamp::now().as_microsecond(),
        };
        let (verdict, mut beside) = outside.judge(&mut report.log, &extent, now_micros);
        beside.also_not_compared(beyond(&plan));
        if report.schema.is_sound() {
            report.verdict = verdict.name();
        }
        Ok(ReplayedLog {
            report,
            verdict,
            beside,
            heads,
            backup: backup.id.clone(),
            replayed_to: Lsn(recovered.switch_lsn).to_string(),
            seconds: 0.0,
        })
    }
}

/// In words, where there is WAL behind a hole.
fn beyond(plan: &Plan) -> Option<String> {
    plan.beyond
        .as_ref()
        .map(recovery::database::Beyond::describe)
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
    newest.ok_or_else(|| {
        Error::refused(
            "there is nothing to verify",
            "the repository holds no complete backup",
        )
    })
}
