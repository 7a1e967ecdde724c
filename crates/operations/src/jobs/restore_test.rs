//! The newest backup is restored to scratch, replayed and checked.

use jobs::{
    Availability, Deadline, FirstRun, History, JobSpec, Retention, RunContext, RunReport, Storage,
};
use repository::backup::{BackupState, BackupSummary};

use super::{JobDefinition, JobEnvironment, Moment, Task, answer, answer::JobResult, late};
use host::keys;

use crate::{
    config::{self, OlderSettings},
    error::Error,
    restore_test::{self, NewestTest, RestoreTester, failed_proof, newest_complete},
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(RestoreTest),
    for_clusters: true,
    older_settings: |backup| OlderSettings {
        schedule: Some(&mut backup.proof),
        keep_days: None,
    },
};

struct RestoreTest;

fn spec(config: &config::Backup) -> JobSpec {
    let periods = [&config.proof, &config.incremental, &config.full];
    let mut periods = periods.into_iter().filter_map(|it| it.0.period());
    JobSpec {
        name: "database.restore_test".to_owned(),
        aliases: vec!["proof".to_owned()],
        component: "database".to_owned(),
        kind: "restore test".to_owned(),
        group: None,
        trigger: config.proof.0.clone(),
        retention: Retention::in_words("as long as its backup"),
        storage: Storage::Repository,
        // Each has a scratch folder of its own.
        locks: Vec::new(),
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::None,
        objective: periods.next().map(late),
        verification: "its record is in the audit log".to_owned(),
        first_run: FirstRun::Soon,
    }
}

/// Why restores cannot be tested here.
fn lacks(moment: &Moment) -> Option<&'static str> {
    match (&moment.private, &moment.binaries, &moment.user) {
        (None, ..) => Some(
            "the repository's private key is not on this host: run bre restore-test run where it is",
        ),
        (_, None, _) | (_, _, None) => Some("PostgreSQL's programs are not on this host"),
        _ => None,
    }
}

impl Task for RestoreTest {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match lacks(&environment.moment()) {
            Some(reason) => Availability::Unavailable(reason.to_owned()),
            None => Availability::Ready,
        }
    }

    fn history(&self, environment: &JobEnvironment) -> Option<History> {
        let backups = environment.backups();
        let last = NewestTest::of(backups.iter());
        let is_tested = |backup: &BackupSummary| {
            backup.restored_and_proved_at_micros.is_some()
                || backup.proof_failed_at_micros.is_some()
        };
        let newest = backups
            .iter()
            .rfind(|backup| backup.state == BackupState::Complete);
        Some(History {
            started_micros: last.map(|test| test.at_micros),
            ended_micros: last.map(|test| test.at_micros),
            unsound: last.is_some_and(|test| test.failed),
            summary: last
                .map(|test| test.backup_id.to_owned())
                .unwrap_or_default(),
            pending: newest.is_some_and(|newest| !is_tested(newest)),
        })
    }

    /// From repository and keys alone.
    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let moment = environment.moment();
        let not_here = || Error::failed(lacks(&moment).unwrap_or("not on this host").to_owned());
        let tester = RestoreTester {
            repository: moment.repository.clone(),
            private: moment.private.clone().ok_or_else(not_here)?,
            trusted: keys::trusted(&environment.instance.keys(), &moment.repository)?,
            binaries: moment.binaries.clone().ok_or_else(not_here)?,
            user: moment.user.clone().ok_or_else(not_here)?,
            work: environment.instance.proofs(),
            instance: environment.instance.clone(),
            keys: environment.instance.keys(),
        };
        let newest = newest_complete(&moment.repository, &moment.repository.describe())?.id;
        let record = tester.run(&newest, &environment.steps(context, "restore test"))?;
        let stored = record.store(&tester.repository)?;
        environment.tell(restore_test::event(
            environment.event(context),
            &record,
            &stored,
        ));
        let unsound = record
            .failure()
            .map(|why| failed_proof(&record.backup_id, &why));
        if unsound.is_none() {
            tracing::info!(backup = %record.backup_id, millis = record.millis, "restored and proved");
            environment.protected().last_proof_micros = Some(record.proved_at_micros);
        }
        environment.protected().proof_failed.clone_from(&unsound);
        let report = RunReport {
            unsound,
            ..RunReport::said(record.backup_id.clone())
        };
        answer::give(context, || {
            (environment.screens)(JobResult::RestoreTest(Box::new(record)))
        });
        Ok(report)
    }
}
