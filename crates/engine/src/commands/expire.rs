//! `bre backup expire`: what may go by the rules, why, and then that it goes.

use std::process::ExitCode;

use postgres_physical::wire::ConnectOptions;
use repository::retention::{Action, Decision, ExpiryOutcome, Plan, Rules, Subject};
use serde::Serialize;

use host::{
    database::BACKUP, instance::Instance, keys, lock::lock, progress::Steps, record::Event,
    signals::interrupted,
};
use terminal::{self, KeyValue, Table, moment_from, size, time};

use crate::{cli::ExpireArgs, error::Error, question::confirmed};
use operations::{
    clusters,
    exit::Exit,
    expiry::{Log, carry_out, decide, sentence},
    jobs::settings,
    repository_handle::RepositoryHandle,
};

#[derive(Debug, Serialize)]
struct ExpireReport<'a> {
    dry_run: bool,
    /// From here on every moment of the newest timeline can be restored.
    window_from: Option<String>,
    /// False: no PostgreSQL could be asked for its clock.
    compared_with_postgres: bool,
    decisions: &'a [Decision],
    warnings: &'a [String],
    done: Option<ExpiryOutcome>,
}

pub(super) fn run(instance: &Instance, json: bool, args: &ExpireArgs) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let config = settings::load(args.config.as_deref(), instance.root())?;
    let named = args.repository.repository.as_ref();
    let cluster = args.repository.cluster.as_deref();
    let plan = match cluster.and_then(|name| config.backup.clusters.get(name)) {
        Some(plan) => plan,
        None => &config.backup,
    };
    let rules = match named.and_then(|name| config.repositories.get(name)) {
        Some(further) => further.rules(&config.backup),
        None => plan.rules(),
    };
    let rules = Rules {
        wal_at_once: args.now,
        ..rules
    };
    // A host that cannot read expires what it can judge.
    let private = keys::reading_key_if_here(&opened.keys)?;
    let own = args.repository.repository.is_none();
    let further = named.filter(|name| config.repositories.contains_key(*name));
    let connect = if own {
        clock_of_running(instance)?
    } else {
        None
    };
    let plan = decide(
        &opened.repository,
        private.as_ref(),
        connect.as_ref(),
        &rules,
    )?;
    let go = !args.dry_run && plan.changes_anything();
    if go && !args.yes {
        terminal::note(&explained(&plan));
        if !confirmed(
            "This marks what is named above to expire, and deletes what has been marked for longer than the grace.",
        ) {
            return Err(Error::refused(
                "nothing was expired",
                "give --yes to do it without asking, or --dry-run to look",
            ));
        }
    }
    let mut done = None;
    if go {
        let _alone = if own {
            let home = cluster.map(|name| clusters::find(instance, name));
            let home = home.transpose()?.map(|cluster| cluster.instance);
            Some(lock(&home.as_ref().unwrap_or(instance).backup_lock())?)
        } else {
            None
        };
        let steps = Steps::shown(json, "expire").cancelled_by(interrupted()?);
        // Without a running engine there is no log to write to; a folder that the settings do not name is none of its repositories.
        let recorded = instance.is_locked() && (own || further.is_some());
        let by = Event::by_person("BackupRun");
        let log = Log {
            asked_by: match further {
                Some(name) => by.with("repository", name),
                None => by,
            },
            record: &|event| match recorded {
                true => Ok(host::runtime::wait(event.record(instance))?),
                false => Ok(()),
            },
        };
        done = Some(carry_out(&opened.repository, &plan, &steps, &log)??);
    }
    let shown = ExpireReport {
        dry_run: args.dry_run,
        window_from: plan.window_from_micros.map(time),
        compared_with_postgres: connect.is_some(),
        decisions: &plan.decisions,
        warnings: &plan.warnings,
        done,
    };
    terminal::result(json, &shown, || {
        let mut text = match go && !args.yes {
            true => String::new(),
            false => explained(&plan),
        };
        text.push_str(&match &shown.done {
            Some(done) => sentence(done),
            None if args.dry_run => "nothing was changed: a dry run".to_owned(),
            None => "nothing is due".to_owned(),
        });
        text
    });
    let is_partial = shown.done.as_ref().is_some_and(|done| done.refused > 0);
    Ok(if is_partial {
        Exit::Partial
    } else {
        Exit::Done
    }
    .into())
}

/// None when the engine does not run: then the store's clock and what is in the repository have to do.
fn clock_of_running(instance: &Instance) -> Result<Option<ConnectOptions>, Error> {
    if !instance.is_locked() {
        return Ok(None);
    }
    let running = instance.running()?;
    let connect = ConnectOptions::from_url(&running.database_url)
        .map_err(|error| Error::failed(error.to_string()))?;
    Ok(Some(connect.with_user(BACKUP).with_database("postgres")))
}

/// Every decision; what goes comes last, where it is read.
fn explained(plan: &Plan) -> String {
    let order = |action: Action| match action {
        Action::Keep => 0,
        Action::Wait => 1,
        Action::Expire => 2,
        Action::Sweep => 3,
    };
    let mut decisions: Vec<&Decision> = plan.decisions.iter().collect();
    decisions.sort_by_key(|decision| order(decision.action));
    let mut table = Table::new(&["decision", "what", "which", ">objects", ">size", "why"]);
    for decision in decisions {
        let action = match decision.action {
            Action::Keep => "keep",
            Action::Wait => "wait",
            Action::Expire => "EXPIRE",
            Action::Sweep => "DELETE",
        };
        table.row([
            action.to_owned(),
            subject(decision.subject).to_owned(),
            decision.which.clone(),
            decision.objects.to_string(),
            size(decision.bytes),
            decision.reason.clone(),
        ]);
    }
    let mut facts = KeyValue::new();
    facts.rows("warning", &plan.warnings);
    if let Some(from) = plan.window_from_micros {
        facts.row(
            "restorable",
            format!("every moment from {} on", moment_from(from)),
        );
    }
    format!("{}\n{}", table.text(), facts.text())
}

fn subject(subject: Subject) -> &'static str {
    match subject {
        Subject::Backup => "backup",
        Subject::Snapshot => "snapshot",
        Subject::Wal => "WAL",
        Subject::Packs => "packs",
        Subject::Wraps => "key wraps",
        Subject::Holes => "hole records",
        Subject::Leftovers => "leftovers",
        Subject::Tombstone => "tombstone",
    }
}

#[cfg(test)]
#[path = "screens/expire.rs"]
mod screens;
