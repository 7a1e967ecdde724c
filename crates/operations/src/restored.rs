//! One restore, whoever asks for it: plan, bring the files back, replay, leave a plain data folder with the fact of it inside.

use host::{database::DATABASE, progress::Steps};
use postgres_physical::server::{Binaries, OsUser};
use recovery::database::{
    FetchCommand, Plan, Recover, RecoveryReport, RestoreOptions, RestoreReport, Start, Survey,
    Target, plan_starting, recover, restore, restore_over,
};
use repository::{Repository, keys::RecipientPrivate, read_back::Evidence};
use services::RecoveryFact;
use std::path::Path;
use terminal::time;

use crate::{error::Error, missing, passed_over::PassedOverBackups, recovery_fact::write_fact};

/// Where to restore from, and with what.
#[derive(Debug)]
pub struct Source<'a> {
    pub repository: &'a Repository,
    pub private: &'a RecipientPrivate,
    pub binaries: &'a Binaries,
    pub user: &'a OsUser,
    /// PostgreSQL's messages during the replay.
    pub log: &'a Path,
}

impl Source<'_> {
    /// Replays WAL into the plan's restored files, on a timeline that is taken for it in the repository.
    pub fn replay(
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
pub fn fetched_by_this_program() -> Result<FetchCommand, Error> {
    let program = std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
    Ok(FetchCommand::Program(program))
}

/// What came of it.
#[derive(Debug)]
pub struct RestoreOutcome {
    pub plan: Plan,
    pub files: RestoreReport,
    pub recovered: RecoveryReport,
}

impl RestoreOutcome {
    /// What to know before the copy is used, in sentences: settings without effect, what this machine has not.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        let omissions = self.files.omissions.sentences.iter();
        omissions.chain(&self.recovered.notes)
    }
}

/// What a restore has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Planned,
    FilesRestored,
}

/// Restores the engine's database into an empty or new folder. When this returns, PostgreSQL starts on the folder like
/// on any other. A backup that cannot be used is passed over, and so are those that could not be used before, as long
/// as another one leads to the same place.
pub fn restore_and_replay(
    source: &Source<'_>,
    target: &Target,
    passed_over: &mut PassedOverBackups,
    to: &Path,
    steps: &Steps,
    passed: &dyn Fn(Stage),
) -> Result<RestoreOutcome, Error> {
    let known = missing::known_by_heads(source.repository, target)?;
    let mut without = passed_over.ids();
    let (mut tried, mut last): (Vec<String>, Option<Error>) = (Vec::new(), None);
    loop {
        let start = match without.as_slice() {
            [] => Start::Newest,
            without => Start::Without(without),
        };
        let plan = match (find(source, target.clone(), start, steps), last.take()) {
            (Err(Error::Recovery(recovery::Error::NoOtherBackup { .. })), failed) => {
                // What a backup lacked before this recovery may be there again.
                if without.len() > tried.len() {
                    (without, last) = (tried.clone(), failed);
                    continue;
                }
                // Each was tried: what the oldest of them said, and which they are.
                let reason = failed.map(|error| error.to_string()).unwrap_or_default();
                return Err(Error::refused(
                    "the database cannot be restored from any backup that leads to the newest WAL",
                    format!("{} were tried, the last one: {reason}", tried.join(", ")),
                ));
            }
            (plan, _) => plan?,
        };
        passed(Stage::Planned);
        let backup = plan.backup.id.clone();
        match restore_planned(source, plan, &known, to, steps, passed) {
            Err(error) if error.is_of_backup() => {
                passed_over.add(&backup, &error);
                remove_restored(to)?;
                without.retain(|id| *id != backup);
                without.push(backup.clone());
                tried.push(backup);
                last = Some(error);
            }
            Ok(outcome) => {
                passed_over.remove(&backup);
                return Ok(outcome);
            }
            Err(error) => return Err(error),
        }
    }
}

fn restore_planned(
    source: &Source<'_>,
    plan: Plan,
    known: &[Evidence],
    to: &Path,
    steps: &Steps,
    passed: &dyn Fn(Stage),
) -> Result<RestoreOutcome, Error> {
    for missing in missing::from(source.repository, &plan, known)? {
        tracing::error!(seconds = missing.seconds, "{}", missing.sentence);
    }
    let options = RestoreOptions::new(source.user.clone());
    let files = fresh(source, &plan, to, &options, steps)?;
    passed(Stage::FilesRestored);
    let outcome = replay(source, plan, files, to, steps)?;
    for sentence in outcome.notes() {
        tracing::warn!("{sentence}");
    }
    let recovered = &outcome.recovered;
    if recovered.incomplete.iter().any(|name| name == DATABASE) {
        // Nothing will ever run on its timeline. When it cannot be given back it stays taken, which harms nothing.
        let (timeline, id) = (recovered.timeline, &recovered.restore_id);
        let _ = repository::timelines::release(source.repository, timeline, id);
        return Err(Error::IncompleteCopy(outcome.recovered.notes.join("; ")));
    }
    Ok(outcome)
}

/// Deletes what a restore made, in the folder and beside it.
pub fn remove_restored(folder: &Path) -> Result<(), Error> {
    let mut tablespaces = folder.as_os_str().to_owned();
    tablespaces.push(".tablespaces");
    for path in [folder, Path::new(&tablespaces)] {
        if path.symlink_metadata().is_ok() {
            postgres_physical::server::remove_tree(path)?;
        }
    }
    Ok(())
}

/// The backup and the place in the WAL that the target means.
pub fn find(
    source: &Source<'_>,
    target: Target,
    start: Start<'_>,
    steps: &Steps,
) -> Result<Plan, Error> {
    let plan = plan_starting(source.repository, source.private, target, start, steps)?;
    steps.step(&format!(
        "backup {} of {}",
        plan.backup.id,
        time(plan.backup.started_at_micros)
    ));
    Ok(plan)
}

/// The files of the plan's backup, in an empty or new folder.
pub fn fresh(
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
pub fn over(
    survey: &Survey,
    options: &RestoreOptions,
    steps: &Steps,
) -> Result<RestoreReport, Error> {
    Ok(restore_over(survey, options, steps)?)
}

/// Replays WAL into the restored files.
pub fn replay(
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
