//! `bre restore database --to DIR`: a plain, cleanly stopped data folder of the chosen moment. What exists is touched
//! only with `--delta`,
//! after it was looked at, shown, and agreed to.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use postgres_physical::{
    lsn::Lsn,
    server::{Binaries, OsUser},
};
use recovery::database::{
    Plan, Point, RestoreOptions, RestoreReport as Files, Start, Target, is_occupied, named_points,
    outlook, survey,
};
use serde::Serialize;

use super::restore_preview as preview;
use host::{instance::Instance, progress::Steps, record::Event, signals::interrupted};
use terminal::{self, KeyValue, size};

use crate::{
    cli::{RestoreDatabaseArgs, TargetArgs},
    error::Error,
    question::confirmed_unless,
};
use operations::{
    exit::Exit,
    jobs::settings,
    missing::{self, Missing},
    repository_handle::RepositoryHandle,
    restored::{self, RestoreOutcome, Source},
    stream_evidence::known_elsewhere,
};

#[derive(Debug, Serialize)]
struct RestoreSummary<'a> {
    restore_id: String,
    dir: &'a Path,
    backup_id: String,
    timeline: u32,
    parent_timeline: u32,
    end_lsn: String,
    wal_bytes: u64,
    bytes: u64,
    bytes_written: u64,
    /// WAL and logs of the folder that was restored over.
    aside: Option<&'a Path>,
    damaged_pages: &'a [repository::backup::DamagedPage],
    /// Its settings in postgresql.auto.conf: the local socket only.
    listen_addresses: &'static str,
    port: u16,
    /// What was asked for and is not there.
    not_restored: Vec<&'a str>,
    /// For how long, of the server's time; null when nothing is missing or nobody can tell.
    missing_seconds: Option<u64>,
    /// Who knows that there was more.
    missing_known_by: Option<&'a str>,
    warnings: &'a [String],
}

pub(crate) fn run(
    instance: &Instance,
    json: bool,
    args: &RestoreDatabaseArgs,
) -> Result<ExitCode, Error> {
    let mut target = target(&args.target)?;
    target.timeline = args.timeline;
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let private = opened.private()?;
    let steps = Steps::shown(json, "restore").cancelled_by(interrupted()?);
    if args.list_points {
        let points = named_points(&opened.repository, &private, args.timeline, &steps)?;
        drop(steps);
        preview::show_points(json, &points);
        return Ok(ExitCode::SUCCESS);
    }
    let config = settings::load(None, instance.root())?;
    let binaries = Binaries::find(config.database.binaries.as_deref())?;
    let user = OsUser::for_server()?;
    let Some(to) = &args.to else {
        return Err(Error::failed("--to DIR is missing"));
    };
    let to = std::path::absolute(to).map_err(Error::file("cannot find", to))?;
    // Beside the folder: inside it would have to be empty, and the log outlives a failure.
    let log = to.with_extension("restore.log");
    let source = Source {
        repository: &opened.repository,
        private: &private,
        binaries: &binaries,
        user: &user,
        log: &log,
    };
    let mut options = RestoreOptions::new(user.clone());
    options.locations = mappings(&args.tablespace_mapping)?;
    options.copy_across = args.copy_across;
    options.set = settings(&args.set)?;
    let elsewhere = match target.point {
        Point::Latest => known_elsewhere(instance, &(&args.repository).into()),
        _ => Vec::new(),
    };
    let known = missing::known(&opened.repository, &target, elsewhere)?;
    let start = match &args.backup {
        Some(id) => Start::Backup(id),
        None => Start::Newest,
    };
    let plan = restored::find(&source, target, start, &steps)?;
    let missing = missing::from(&opened.repository, &plan, &known)?;
    let not_restored: Vec<String> = missing.iter().map(|it| it.sentence.clone()).collect();
    for warning in &not_restored {
        terminal::note(&format!("bre: WARNING: {warning}"));
    }
    let named = |error| name_older(error, &source, &plan, &steps);
    let files = files(&source, &plan, &to, &options, args, &steps, json).map_err(named)?;
    let Some(files) = files else {
        return Ok(complete(&not_restored));
    };
    let outcome = restored::replay(&source, plan.clone(), files, &to, &steps);
    let outcome = outcome.map_err(|error| named(error.into()))?;
    drop(steps);
    let _ = std::fs::remove_file(&log);
    record(instance, &outcome);
    let mut warnings = not_restored.clone();
    for note in outcome.notes() {
        terminal::note(&format!("bre: WARNING: {note}"));
        warnings.push(note.clone());
    }
    show(json, &to, &user, &outcome, &missing, &warnings);
    Ok(complete(&not_restored))
}

/// Where the reason is in the backup: which other one leads to the same place.
fn name_older(error: Error, source: &Source<'_>, plan: &Plan, steps: &Steps) -> Error {
    let is_of_backup = matches!(&error, Error::Operations(error) if error.is_of_backup());
    if !is_of_backup {
        return error;
    }
    let id = &plan.backup.id;
    let other = restored::find(source, plan.target.clone(), Start::OlderThan(id), steps);
    Error::OfBackup {
        next: match other {
            Ok(other) => format!(
                "The reason is in backup {id}. The next older one, {0}, leads to the same place: give \
                 --backup {0} (with --delta, over what is in the folder now)",
                other.backup.id
            ),
            Err(_) => {
                format!("The reason is in backup {id}, and no older one leads to this place")
            }
        },
        error: Box::new(error),
    }
}

/// A restored cluster keeps to itself until its operator has looked at it.
const LISTENS: &str = "on its local socket alone, at port 5432, wherever it listened before: postgresql.auto.conf says \
    so. To let its clients in: ALTER SYSTEM RESET listen_addresses; ALTER SYSTEM RESET port; and restart it";

/// A script must see that there was more.
fn complete(not_restored: &[String]) -> ExitCode {
    match not_restored {
        [] => ExitCode::SUCCESS,
        _ => Exit::Partial.into(),
    }
}

/// Brings the files back; `None` when only a look was asked for.
fn files(
    source: &Source<'_>,
    plan: &Plan,
    to: &Path,
    options: &RestoreOptions,
    args: &RestoreDatabaseArgs,
    steps: &Steps,
    json: bool,
) -> Result<Option<Files>, Error> {
    if !(args.delta && is_occupied(to)?) {
        if args.dry_run {
            let outlook = outlook(source.repository, source.private, plan, to, options)?;
            preview::show(json, &preview::Preview::fresh(plan, to, &outlook.rooms));
            return Ok(None);
        }
        let files = restored::fresh(source, plan, to, options, steps)?;
        return Ok(Some(files));
    }
    let found = survey(source.repository, source.private, plan, to, options, steps)?;
    let shown = preview::Preview::over(plan, &found);
    if args.dry_run {
        preview::show(json, &shown);
        return Ok(None);
    }
    let asked = || confirmed_unless(&shown.question(), &|| steps.is_cancelled());
    if !args.yes && !steps.hidden_while(asked) {
        return Err(Error::refused(
            "nothing was changed",
            "give --yes to do it without asking, --dry-run to see all of it",
        ));
    }
    Ok(Some(restored::over(&found, options, steps)?))
}

fn show(
    json: bool,
    to: &Path,
    user: &OsUser,
    outcome: &RestoreOutcome,
    missing: &[Missing],
    warnings: &[String],
) {
    let RestoreOutcome {
        plan,
        files,
        recovered,
    } = outcome;
    let restored = RestoreSummary {
        restore_id: recovered.restore_id.clone(),
        dir: to,
        backup_id: plan.backup.id.clone(),
        timeline: recovered.timeline,
        parent_timeline: recovered.parent_timeline,
        end_lsn: Lsn(recovered.switch_lsn).to_string(),
        wal_bytes: recovered.wal_bytes,
        bytes: files.bytes,
        bytes_written: files.bytes_written,
        aside: files.aside.as_deref(),
        damaged_pages: &files.damaged,
        listen_addresses: "",
        port: 5432,
        not_restored: missing.iter().map(|it| it.sentence.as_str()).collect(),
        missing_seconds: missing.iter().find_map(|it| it.seconds),
        missing_known_by: missing.first().map(|it| it.known_by.as_str()),
        warnings,
    };
    terminal::result(json, &restored, || {
        let mut facts = KeyValue::new();
        facts
            .row("restored", recovered.describe(plan))
            .row(
                "written",
                format!("{} of {}", size(files.bytes_written), size(files.bytes)),
            )
            .row(
                "folder",
                format!("{}, complete and stopped cleanly", to.display()),
            )
            .row(
                "start it",
                format!("as user {}: pg_ctl -D {} start", user.name, to.display()),
            )
            .row("listens", LISTENS)
            .rows(
                "NOT RESTORED",
                missing.iter().map(|missing| &missing.sentence),
            );
        if let Some(aside) = &files.aside {
            facts.row(
                "kept",
                format!(
                    "WAL and logs of the folder as it was: {}; delete that when nobody needs them",
                    aside.display()
                ),
            );
        }
        for page in &files.damaged {
            facts.row(
                "DAMAGED",
                format!(
                    "when the backup was taken: {} block {} of {}: {}",
                    page.path,
                    page.block,
                    page.relation.as_deref().unwrap_or("an unknown relation"),
                    page.what
                ),
            );
        }
        facts.text()
    });
}

/// With an engine running, the restore goes on its record; without one there is no log to write to.
fn record(instance: &Instance, outcome: &RestoreOutcome) {
    if !instance.is_locked() {
        return;
    }
    let event = Event::by_person("RestoreRun")
        .with("restore_id", &outcome.recovered.restore_id)
        .with("backup_id", &outcome.plan.backup.id)
        .with("target", Lsn(outcome.recovered.switch_lsn))
        .with("timeline", outcome.recovered.timeline)
        .with("outcome", "restored");
    if let Err(error) = host::runtime::wait(event.record(instance)) {
        terminal::note(&format!(
            "bre: the restore is complete but not in the audit log: {error}"
        ));
    }
}

pub(super) fn target(args: &TargetArgs) -> Result<Target, Error> {
    if let Some(text) = &args.time {
        return super::moment(text).map(Target::time);
    }
    if let Some(text) = &args.lsn {
        let lsn: Lsn = text.parse().map_err(|_| {
            Error::argument("WAL position", text.clone(), "it looks like 0/3000148")
        })?;
        return Ok(Target::lsn(lsn.0));
    }
    if let Some(text) = &args.xid {
        // pg_current_xact_id() gives 64 bits, of which WAL holds the lower half.
        let xid: Option<u64> = text.parse().ok();
        let low = xid.and_then(|xid| u32::try_from(xid & u64::from(u32::MAX)).ok());
        return match low {
            Some(xid) if xid >= 3 => Ok(Target::xid(xid)),
            _ => Err(Error::argument(
                "transaction",
                text.clone(),
                "it is a number from 3 on, as pg_current_xact_id() gives it",
            )),
        };
    }
    Ok(args
        .name
        .as_deref()
        .map_or_else(Target::latest, Target::name))
}

/// `NAME=VALUE`, as PostgreSQL's own `-c` takes it.
fn settings(given: &[String]) -> Result<Vec<(String, String)>, Error> {
    let parse = |text: &String| {
        let (name, value) = text.split_once('=')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        let good =
            !name.is_empty() && name.chars().all(plain) && !value.contains(['\n', '\r', '\0']);
        good.then(|| (name.to_ascii_lowercase(), value.to_owned()))
    };
    let parsed = given.iter().map(|text| {
        parse(text).ok_or_else(|| {
            Error::argument("setting", text.clone(), "it looks like shared_buffers=1GB")
        })
    });
    parsed.collect()
}

/// `OLD=NEW`; a `=` in a path is written `\=`, as for pg_basebackup.
fn mappings(given: &[String]) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut mappings = BTreeMap::new();
    for text in given {
        let escaped = text.replace("\\=", "\0");
        let parts: Vec<String> = escaped
            .split('=')
            .map(|part| part.replace('\0', "="))
            .collect();
        match parts.as_slice() {
            [old, new] if !old.is_empty() && !new.is_empty() => {
                mappings.insert(old.clone(), PathBuf::from(new));
            }
            _ => {
                return Err(Error::argument(
                    "tablespace mapping",
                    text.clone(),
                    "it looks like /old/place=/new/place, or 16385=/new/place",
                ));
            }
        }
    }
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(kind: &str, value: &str) -> TargetArgs {
        let given = |name: &str| (name == kind).then(|| value.to_owned());
        TargetArgs {
            latest: false,
            time: given("time"),
            lsn: given("lsn"),
            name: given("name"),
            xid: given("xid"),
        }
    }

    #[test]
    fn targets() {
        let check = |kind: &str, value: &str, expected: Option<Target>| {
            assert_eq!(target(&args(kind, value)).ok(), expected, "{kind} {value}");
        };
        check("", "", Some(Target::latest()));
        check(
            "time",
            "1970-01-01T01:00:01+01:00",
            Some(Target::time(1_000_000)),
        );
        check("lsn", "1/10", Some(Target::lsn(0x1_0000_0010)));
        check(
            "name",
            "before the release",
            Some(Target::name("before the release")),
        );
        check("xid", "4294968034", Some(Target::xid(738)));
        check("time", "2026-04-01 10:31", None);
        check("time", "yesterday", None);
        check("lsn", "12", None);
        check("xid", "2", None);
        check("xid", "0x10", None);
    }

    #[test]
    fn tablespace_mappings() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(old, new)| (old.to_owned(), PathBuf::from(new)));
            let found = mappings(&[text.to_owned()]).ok();
            assert_eq!(
                found.and_then(|found| found.into_iter().next()),
                expected,
                "{text}"
            );
        };
        check("/a/b=/c", Some(("/a/b", "/c")));
        check(r"/a\=b=/c", Some(("/a=b", "/c")));
        check("16385=/c", Some(("16385", "/c")));
        check("/a", None);
        check("=/c", None);
        check("/a=/b=/c", None);
    }
}
