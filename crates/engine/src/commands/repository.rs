//! `bre repository`: its keys, legal holds, and a second repository with the same backups and WAL.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use postgres_physical::lsn::Lsn;
use repository::{
    copying::{CopyOptions, copy},
    retention::{Hold, HoldSize, clear_hold, holds, set_hold},
};
use serde::Serialize;

use super::repository_keys;
use host::{instance::Instance, keys, lock::lock, progress::Steps, signals::interrupted};
use terminal::{self, KeyValue, Table, moment, size};

use crate::{
    cli::{CopyArgs, HoldCommand, RepositoryArgs, RepositoryCommand},
    error::Error,
    question::confirmed,
};
use operations::{
    copies::{self, ReplicaRepository},
    jobs::settings,
    repository_handle::RepositoryHandle,
};

/// For a backup or an expiry that runs.
const TIMEOUT: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn run(
    instance: &Instance,
    json: bool,
    command: RepositoryCommand,
) -> Result<ExitCode, Error> {
    match command {
        RepositoryCommand::Key(command) => return repository_keys::run(instance, json, command),
        RepositoryCommand::Hold(command) => hold(instance, json, command)?,
        RepositoryCommand::Copy(args) => copied(instance, json, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct HoldChange<'a> {
    backup_id: &'a str,
    held: bool,
    #[serde(flatten)]
    what: HoldSize,
}

fn hold(instance: &Instance, json: bool, command: HoldCommand) -> Result<(), Error> {
    match command {
        HoldCommand::List(args) => {
            let opened = RepositoryHandle::at(instance, &args)?;
            let all = holds(&opened.repository)?;
            terminal::result(json, &all, || shown(&all));
        }
        HoldCommand::Set {
            backup,
            reason,
            repository,
        } => {
            let opened = RepositoryHandle::at(instance, &repository)?;
            // Expiry must not go on with a plan that was made before.
            let _alone = alone(instance, &repository)?;
            let private = keys::reading_key_if_here(&opened.keys)?;
            let what = set_hold(&opened.repository, private.as_ref(), &backup, &reason)?;
            tell(json, &backup, true, what);
        }
        HoldCommand::Clear {
            backup,
            reason,
            yes,
            repository,
        } => {
            let opened = RepositoryHandle::at(instance, &repository)?;
            let question = format!("From then on {backup} expires as its age and the rules say.");
            if !yes && !confirmed(&question) {
                return Err(Error::refused(
                    "the hold stands",
                    "give --yes to clear it without asking",
                ));
            }
            let _alone = alone(instance, &repository)?;
            let private = keys::reading_key_if_here(&opened.keys)?;
            let what = clear_hold(&opened.repository, private.as_ref(), &backup, &reason)?;
            tell(json, &backup, false, what);
        }
    }
    Ok(())
}

/// A backup or an expiry that runs is waited for: a hold is not to be refused because of it.
fn alone(
    instance: &Instance,
    args: &RepositoryArgs,
) -> Result<Option<repository::FileLock>, Error> {
    if args.repository.is_some() || args.cluster.is_some() {
        return Ok(None);
    }
    let deadline = Instant::now() + TIMEOUT;
    let mut told = false;
    loop {
        match lock(&instance.backup_lock()) {
            Ok(alone) => return Ok(Some(alone)),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) if told => std::thread::sleep(LOOK),
            Err(_) => {
                terminal::note("a backup or an expiry runs; waiting for its end");
                told = true;
            }
        }
    }
}

fn tell(json: bool, backup_id: &str, held: bool, what: HoldSize) {
    let changed = HoldChange {
        backup_id,
        held,
        what,
    };
    terminal::result(json, &changed, || {
        format!(
            "{backup_id} is {}: {} objects, {}",
            if held { "on hold" } else { "on hold no more" },
            what.objects,
            size(what.bytes)
        )
    });
}

fn shown(all: &[Hold]) -> String {
    if all.is_empty() {
        return "nothing is on hold".to_owned();
    }
    let mut table = Table::new(&["backup", "since", "reason"]);
    for hold in all {
        table.row([
            hold.backup_id.clone(),
            moment(hold.since_micros),
            hold.reason.clone(),
        ]);
    }
    table.text()
}

fn copied(instance: &Instance, json: bool, args: &CopyArgs) -> Result<(), Error> {
    let named = |repository: &Option<String>| RepositoryArgs {
        repository: repository.clone(),
        keys: args.keys.clone(),
        cluster: None,
    };
    let from = RepositoryHandle::at(instance, &named(&args.from))?;
    let ReplicaRepository {
        repository: to,
        rules,
        ..
    } = copies::other(&settings::load(None, instance.root())?, &args.to)?;
    let private = keys::reading_key_if_here(&from.keys)?;
    let steps = Steps::shown(json, "copy").cancelled_by(interrupted()?);
    let options = CopyOptions {
        backup: args.backup.as_deref(),
        rules,
        private: private.as_ref(),
        now_micros: jiff::Timestamp::now().as_microsecond(),
    };
    let done = copy(&from.repository, &to, &options, &steps)?;
    drop(steps);
    terminal::result(json, &done, || {
        let mut facts = KeyValue::new();
        facts
            .row("copied to", to.describe())
            .row("backups", done.backups.to_string())
            .row("objects", format!("{}, {}", done.objects, size(done.bytes)))
            .row("WAL there", format!("up to LSN {}", Lsn(done.wal_end_lsn)))
            .rows("note", &done.notes);
        facts.text()
    });
    Ok(())
}
