//! One restore, whoever asks for it: plan, bring the files back, replay, leave a plain data folder with the fact of it inside.

use host::progress::Steps;
use postgres_physical::server::{Binaries, OsUser};
use recovery::database::{
    FetchCommand, Plan, Recover, RecoveryReport, RestoreOptions, RestoreReport, Survey, Target,
    plan_watched, recover, restore, restore_over,
};
use repository::{Repository, keys::RecipientPrivate};
use services::RecoveryFact;
use std::path::Path;

use crate::recovery_fact::write_fact;
use terminal::time;

use crate::{error::Error, missing};

/// Where to restore from, and with what.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) private: &'a RecipientPrivate,
    pub(crate) binaries: &'a Binaries,
    pub(crate) user: &'a OsUser,
    /// PostgreSQL's messages during the replay.
    pub(crate) log: &'a Path,
}

impl Source<'_> {
    /// Replays WAL into the plan's restored files, on a timeline that is taken for it in the repository.
    pub(crate) fn replay(
        &self,
        plan: &Plan,
        to: &Path,
        fetch: &FetchCommand,
        steps: &Steps,
    ) -> recovery::Result<RecoveryReport> {
        let request = Recover {
            repository: self.repository,
            private: self.private,
            plan,
            dir: to,
            binaries: self.binaries,
            user: self.user,
            fetch,
            log: self.log,
        };
        recover(&request, steps)
    }
}

/// `restore_command` of every replay: this program.
pub(crate) fn fetched_by_this_program() -> Result<FetchCommand, Error> {
    let program = std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
    Ok(FetchCommand::Program(program))
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct RestoreOutcome {
    pub(crate) plan: Plan,
    pub(crate) files: RestoreReport,
    pub(crate) recovered: RecoveryReport,
}

impl RestoreOutcome {
    /// What to know before the copy is used, in sentences: settings without effect, what this machine has not.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &String> {
        let omissions = self.files.omissions.sentences.iter();
        omissions.chain(&self.recovered.notes)
    }
}

/// What a restore has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Planned,
    FilesRestored,
}

/// Brings a database back into an empty or new folder. When this returns, PostgreSQL starts on the folder like on any other.
pub(crate) fn restore_and_replay(
    source: &Source<'_>,
    target: Target,
    to: &Path,
    steps: &Steps,
    passed: &dyn Fn(Stage),
) -> Result<RestoreOutcome, Error> {
    let known = missing::known_by_heads(source.repository, &target)?;
    let plan = find(source, target, steps)?;
    passed(Stage::Planned);
    for missing in missing::from(source.repository, &plan, &known)? {
        tracing::error!(seconds = missing.seconds, "{}", missing.sentence);
    }
    let options = RestoreOptions::new(source.user.clone());
    let files = fresh(source, &plan, to, &options, steps)?;
    passed(Stage::FilesRestored);
    let outcome = replay(source, plan, files, to, steps)?;
    for sentence in outcome.notes() {
        tracing::warn!("{sentence}");
    }
    Ok(outcome)
}

/// The backup and the place in the WAL that the target means.
pub(crate) fn find(source: &Source<'_>, target: Target, steps: &Steps) -> Result<Plan, Error> {
    let plan = plan_watched(source.repository, source.private, target, steps)?;
    steps.step(&format!(
        "backup {} of {}",
        plan.backup.id,
        time(plan.backup.started_at_micros)
    ));
    Ok(plan)
}

/// The files of the plan's backup, in an empty or new folder.
pub(crate) fn fresh(
    source: &Source<'_>,
    plan: &Plan,
    to: &Path,
    options: &RestoreOptions,
    steps: &Steps,
) -> Result<RestoreReport, Error> {
    let Source {
        repository,
        private,
        ..
    } = source;
    Ok(restore(repository, private, plan, to, options, steps)?)
}

/// The same over a folder that was looked at.
pub(crate) fn over(
    survey: &Survey,
    options: &RestoreOptions,
    steps: &Steps,
) -> Result<RestoreReport, Error> {
    Ok(restore_over(survey, options, steps)?)
}

/// Replays WAL into the restored files.
pub(crate) fn replay(
    source: &Source<'_>,
    plan: Plan,
    files: RestoreReport,
    to: &Path,
    steps: &Steps,
) -> Result<RestoreOutcome, Error> {
    let recovered = source.replay(&plan, to, &fetched_by_this_program()?, steps)?;
    let fact = RecoveryFact {
        restore_id: recovered.restore_id.clone(),
        timeline: recovered.timeline,
        target_lsn: recovered.switch_lsn,
    };
    write_fact(to, source.user, &fact)?;
    Ok(RestoreOutcome {
        plan,
        files,
        recovered,
    })
}
