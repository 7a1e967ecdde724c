//! `bre restore table`: the guide's table-level recovery. The moment is restored beside the database, compared,
//! shown, and merged in one
//! transaction after somebody said yes.

mod report;

use std::{process::ExitCode, time::Instant};

use postgres_physical::{
    lsn::Lsn,
    server::{Binaries, OsUser, sql::Client},
    wire::ConnectOptions,
};
use recovery::table::{Dump, MergeOutcome, Mode, Preview, Request, TableName, Work};

use super::restore;
use host::{
    database::{DATABASE, SUPERUSER},
    instance::Instance,
    progress::Steps,
    record::Event,
    signals::interrupted,
};

use crate::{
    cli::{RepositoryArgs, RestoreTableArgs, RunningArgs, TableMode},
    error::Error,
    question::confirmed_unless,
};
use operations::{
    clusters,
    exit::Exit,
    jobs::settings,
    repository_handle::RepositoryHandle,
    scratch::{ScratchCluster, ScratchRestorer},
};

/// The engine keeps these in memory and asks again when it hears so.
const CHANNELS: [&str; 2] = ["bre_market", "bre_keys"];
/// What guards the engine's append-only tables.
const APPEND_ONLY: &str = "refuse_change";

pub(crate) fn run(
    instance: &Instance,
    json: bool,
    args: &RestoreTableArgs,
) -> Result<ExitCode, Error> {
    let began = Instant::now();
    let mut target = restore::target(&args.target)?;
    target.timeline = args.timeline;
    let tables = names(&args.table)?;
    let live = live(instance, &args.repository, &args.running)?;
    check_append_only(&live, &tables)?;
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let binaries = Binaries::find(
        settings::load(None, instance.root())?
            .database
            .binaries
            .as_deref(),
    )?;
    let user = OsUser::for_server()?;
    let restorer = ScratchRestorer {
        repository: &opened.repository,
        private: &opened.private()?,
        binaries: &binaries,
        user: &user,
        work: args.work.clone().unwrap_or_else(|| instance.beside()),
    };
    let steps = Steps::shown(json, "table").cancelled_by(interrupted()?);
    let mut beside = restorer.restore(target, &steps)?;
    beside.start(&restorer, &steps)?;
    let request = Request {
        backup: beside.connect(&live.database),
        now: live.clone(),
        tables,
        mode: mode(args.mode),
        only: args.only.clone(),
        fire_triggers: args.fire_triggers,
        notify: match is_own(args) {
            true => CHANNELS.to_vec(),
            false => Vec::new(),
        },
        dump: Dump {
            binaries: &binaries,
            user: &user,
        },
    };
    let mut work = Work::open(request)?;
    work.stage(&steps)?;
    let preview = work.preview(&steps)?;
    let merged = agreed(args, &preview, &steps)?
        .then(|| work.merge(&preview, &steps))
        .transpose()?;
    drop(work);
    if let Some(merged) = &merged {
        record(instance, args, &beside, merged);
    }
    drop(steps);
    let shown = report::TableRestoreReport::new(
        &beside,
        &preview,
        merged.as_ref(),
        args.dry_run,
        began.elapsed(),
    );
    terminal::result(json, &shown, || shown.sentences());
    // A commit that strict mode did not confirm is none that may be relied on.
    let sure = merged.is_none_or(|merged| merged.warnings.is_empty());
    let possible = preview
        .tables
        .iter()
        .all(|table| table.obstacles.is_empty());
    Ok(match (sure && possible, beside.missing.is_empty()) {
        (true, true) => ExitCode::SUCCESS,
        // The rows are of an earlier moment than was asked for.
        (true, false) => Exit::Partial.into(),
        (false, _) => ExitCode::FAILURE,
    })
}

/// Shows it and asks. False: there is nothing to do, or only a look was asked for.
fn agreed(args: &RestoreTableArgs, preview: &Preview, steps: &Steps) -> Result<bool, Error> {
    let obstacles = preview
        .tables
        .iter()
        .any(|table| !table.obstacles.is_empty());
    if args.dry_run || preview.is_done() || obstacles {
        return Ok(false);
    }
    let text = report::describe(preview);
    if args.yes {
        steps.hidden_while(|| terminal::note(text.trim_end()));
        return Ok(true);
    }
    let question = format!(
        "{text}This is done in one transaction; until it ends readers read on and writers of these tables wait."
    );
    match steps.hidden_while(|| confirmed_unless(&question, &|| steps.is_cancelled())) {
        true => Ok(true),
        false => Err(Error::refused(
            "nothing was changed",
            "give --yes to do it without asking, --dry-run --json to see all of it",
        )),
    }
}

fn is_own(args: &RestoreTableArgs) -> bool {
    args.repository.cluster.is_none()
}

fn mode(mode: TableMode) -> Mode {
    match mode {
        TableMode::Missing => Mode::Missing,
        TableMode::Changed => Mode::Changed,
        TableMode::Exact => Mode::Exact,
    }
}

fn names(given: &[String]) -> Result<Vec<TableName>, Error> {
    let mut names: Vec<TableName> = Vec::new();
    for text in given {
        let name: TableName = text
            .parse()
            .map_err(|error: recovery::table::ParseNameError| {
                Error::argument("table", text.clone(), error.to_string())
            })?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The database that runs.
pub(super) fn live(
    instance: &Instance,
    repository: &RepositoryArgs,
    running: &RunningArgs,
) -> Result<ConnectOptions, Error> {
    let connect = match &repository.cluster {
        Some(name) => clusters::find(instance, name)?.connect,
        None => ConnectOptions::from_url(&instance.running()?.database_url)
            .map_err(|error| Error::failed(error.to_string()))?
            .with_user(SUPERUSER)
            .with_database(DATABASE),
    };
    let connect = match &running.database {
        Some(database) => connect.with_database(database),
        None => connect,
    };
    Ok(match &running.user {
        Some(user) => connect.with_user(user),
        None => connect,
    })
}

/// The record is never rewritten, not even with what it once held: a row that is put back cannot be told from one that is made up.
fn check_append_only(live: &ConnectOptions, tables: &[TableName]) -> Result<(), Error> {
    let mut client = Client::connect(live)?;
    let guarded = format!(
        "SELECT n.nspname || '.' || c.relname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.proname = '{APPEND_ONLY}'"
    );
    let rows = client.query(&guarded)?.rows;
    let mut guarded: Vec<String> = rows.into_iter().flatten().flatten().collect();
    if !guarded.is_empty()
        || client
            .value(&format!(
                "SELECT 1 FROM pg_proc WHERE proname = '{APPEND_ONLY}'"
            ))?
            .is_some()
    {
        // Dropped tables have no trigger any more.
        guarded.extend(
            ["audit_log", "quotes", "locates", "availability_ledger"]
                .map(|name| format!("public.{name}")),
        );
    }
    match tables
        .iter()
        .find(|table| guarded.contains(&table.to_string()))
    {
        None => Ok(()),
        Some(table) => Err(Error::refused(
            "nothing was changed",
            format!(
                "{table} is a part of the audit record, which is append-only: its entries are chained, signed heads outside the database vouch for them, and rows put \
                 back by hand could not be told from rows made up. Find the extent with bre verify audit; bring the whole database back with \
                 bre restore database --to DIR (a new epoch then names what was lost)"
            ),
        )),
    }
}

/// With an engine running on the instance's own database the merge goes on its record: what, from when, how many; never content.
fn record(
    instance: &Instance,
    args: &RestoreTableArgs,
    beside: &ScratchCluster,
    merged: &MergeOutcome,
) {
    if !is_own(args) || !instance.is_locked() {
        return;
    }
    let sum =
        |of: fn(&recovery::table::MergedTable) -> u64| merged.tables.iter().map(of).sum::<u64>();
    let names: Vec<&str> = merged
        .tables
        .iter()
        .map(|table| table.table.as_str())
        .collect();
    let event = Event::by_person("RestoreRun")
        .with("restore_id", &beside.plan.restore_id)
        .with("backup_id", &beside.plan.backup.id)
        .with("target", Lsn(beside.recovered.switch_lsn))
        .with("timeline", beside.recovered.parent_timeline)
        .with("tables", names.join(","))
        .with("mode", mode(args.mode).name())
        .with("condition", args.only.as_deref().unwrap_or_default())
        .with("inserted", sum(|table| table.inserted))
        .with("updated", sum(|table| table.updated))
        .with("deleted", sum(|table| table.deleted))
        .with("outcome", "merged");
    if let Err(error) = host::runtime::wait(event.record(instance)) {
        terminal::note(&format!(
            "bre: the merge is committed but not in the audit log: {error}"
        ));
    }
}
