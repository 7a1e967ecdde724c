//! One restore, whoever asks for it: plan, bring the files back, replay, leave a plain data folder with the fact of it inside.

use std::path::Path;

use jiff::Timestamp;
use postgres_physical::server::{Binaries, OsUser};
use recovery::database::{
    FetchCommand, Plan, Recover, Recovered, RestoreOptions, Target, plan, recover, restore,
};
use repository::{RecipientPrivate, Repository};
use services::RecoveryFact;

use crate::{commands::progress::Steps, error::Error, up::database::write_fact};

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

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) recovered: Recovered,
}

/// Brings a database back into an empty or new folder. When this returns, PostgreSQL starts on the folder like on any other.
pub(crate) fn bring_back(
    source: &Source<'_>,
    target: Target,
    to: &Path,
    steps: &Steps,
) -> Result<Outcome, Error> {
    let plan = plan(source.repository, source.private, target)?;
    steps.step(&format!(
        "backup {} of {}",
        plan.backup.id,
        at(plan.backup.started_at_micros)
    ));
    restore(
        source.repository,
        source.private,
        &plan,
        to,
        &RestoreOptions::new(source.user.clone()),
        steps,
    )?;
    let program = std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
    let request = Recover {
        repository: source.repository,
        private: source.private,
        plan: &plan,
        dir: to,
        binaries: source.binaries,
        user: source.user,
        fetch: &FetchCommand::Program(program),
        log: source.log,
    };
    let recovered = recover(&request, steps)?;
    let fact = RecoveryFact {
        restore_id: recovered.restore_id.clone(),
        timeline: recovered.timeline,
        target_lsn: recovered.switch_lsn,
    };
    write_fact(to, source.user, &fact)?;
    Ok(Outcome { plan, recovered })
}

fn at(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| at.to_string())
}
