//! `bre restore-test run|list|show`: a backup restored to a scratch folder, replayed and checked, and the records of
//! that.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use assurance::verification::Check;
use postgres_physical::server::{Binaries, OsUser};
use repository::backup::{RestoreTest, restore_tests};
use serde::Serialize;
use serde_json::Value;

use host::{
    instance::Instance, keys::trusted, progress::Steps, record::Event, signals::interrupted,
};
use terminal::{self, KeyValue, Table, duration, moment, moment_and_age, time};

use crate::{
    cli::{RepositoryArgs, RestoreTestCommand},
    error::Error,
};
use operations::{
    command_output::CommandOutput,
    exit::Exit,
    jobs::settings,
    repository_handle::RepositoryHandle,
    restore_test::{self, RestoreTester, newest_complete},
};

pub(crate) fn command(
    instance: &Instance,
    json: bool,
    command: RestoreTestCommand,
) -> Result<ExitCode, Error> {
    match command {
        RestoreTestCommand::Run {
            id,
            work,
            repository,
        } => run(instance, json, id.as_deref(), work, &repository),
        RestoreTestCommand::List(args) => list(instance, json, &args),
        RestoreTestCommand::Show { id, repository } => {
            show(instance, json, id.as_deref(), &repository)
        }
    }
}

pub(super) fn run(
    instance: &Instance,
    json: bool,
    id: Option<&str>,
    work: Option<PathBuf>,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let private = opened.private()?;
    let config = settings::load(None, instance.root())?;
    let id = match id {
        Some(id) => id.to_owned(),
        None => newest_complete(&opened.repository, &opened.location)?.id,
    };
    let tester = RestoreTester {
        repository: opened.repository.clone(),
        private,
        trusted: trusted(&opened.keys, &opened.repository)?,
        binaries: Binaries::find(config.database.binaries.as_deref())?,
        user: OsUser::for_server()?,
        work: work.unwrap_or_else(|| instance.proofs()),
        instance: instance.clone(),
        keys: opened.keys.clone(),
    };
    let steps = Steps::shown(json, "restore test").cancelled_by(interrupted()?);
    let record = tester.run(&id, &steps)?;
    drop(steps);
    let stored = record.store(&opened.repository)?;
    // On a host without the engine there is no log to write to; the record beside the backup stands by itself.
    if instance.is_locked() && args.repository.is_none() {
        let event = restore_test::event(Event::by_person("BackupRun"), &record, &stored);
        if let Err(error) = host::runtime::wait(event.record(instance)) {
            terminal::note(&format!(
                "bre: the restore test is kept but not in the audit log: {error}"
            ));
        }
    }
    Ok(tested(&record)?.print(json))
}

/// What a person sees of one.
pub(crate) fn tested(
    record: &restore_test::RestoreTestReport,
) -> Result<CommandOutput, operations::Error> {
    let exit = match record.passed {
        true => Exit::Done,
        false => Exit::Failed,
    };
    Ok(CommandOutput::of(record, record_text(record))?.exits(exit))
}

fn record_text(record: &restore_test::RestoreTestReport) -> String {
    let mut facts = KeyValue::new();
    let passed = match (record.passed, record.not_looked_at()) {
        (true, 0) => "passed".to_owned(),
        (true, databases) => format!("passed, but for {databases} databases that nobody can enter"),
        (false, _) => "FAILED".to_owned(),
    };
    facts
        .row("result", passed)
        .row("backup", &record.backup_id)
        .row(
            "took",
            format!("{}.{:03} s", record.millis / 1000, record.millis % 1000),
        );
    format!("{}\n{}", facts.text(), super::verify::table(&record.checks))
}

/// One restore test as a list shows it.
#[derive(Debug, Serialize)]
struct RestoreTestRow {
    backup_id: String,
    tested_at: String,
    passed: bool,
    seconds: Option<f64>,
    /// The first check that failed.
    failed: Option<String>,
    #[serde(skip)]
    at_micros: i64,
}

impl From<&RestoreTest> for RestoreTestRow {
    fn from(test: &RestoreTest) -> Self {
        let millis = test.record.details.get("millis").and_then(Value::as_u64);
        let checks = checks(test);
        let failed = checks
            .iter()
            .find(|check| check.verdict == assurance::verification::Verdict::Failed);
        Self {
            backup_id: test.backup_id.clone(),
            tested_at: time(test.record.proved_at_micros),
            passed: test.record.passed,
            seconds: millis.map(|millis| Duration::from_millis(millis).as_secs_f64()),
            failed: failed.map(|check| match &check.why {
                Some(why) => format!("{}: {why}", check.name),
                None => check.name.clone(),
            }),
            at_micros: test.record.proved_at_micros,
        }
    }
}

/// A record of a newer engine may hold checks that are not understood: those are left out, its verdict is not.
fn checks(test: &RestoreTest) -> Vec<Check> {
    let all = test.record.details.get("checks").and_then(Value::as_array);
    let read = |check: &Value| serde_json::from_value(check.clone()).ok();
    all.into_iter().flatten().filter_map(read).collect()
}

fn list(instance: &Instance, json: bool, args: &RepositoryArgs) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let found = restore_tests(&opened.repository)?;
    let shown: Vec<RestoreTestRow> = found.tests.iter().map(RestoreTestRow::from).collect();
    let now_micros = jiff::Timestamp::now().as_microsecond();
    terminal::result(json, &shown, || match shown.as_slice() {
        [] => format!(
            "no backup of {} was tested yet: bre restore-test run",
            opened.location
        ),
        tests => table(tests, now_micros),
    });
    for damaged in &found.damaged {
        terminal::note(&format!("bre: {damaged}"));
    }
    Ok(match found.damaged.as_slice() {
        [] => Exit::Done,
        _ => Exit::Failed,
    }
    .into())
}

fn table(tests: &[RestoreTestRow], now_micros: i64) -> String {
    let mut table = Table::new(&[
        "tested",
        ">age",
        "backup",
        "result",
        ">took",
        "failed check",
    ]);
    for test in tests {
        let age = duration(now_micros.saturating_sub(test.at_micros));
        table.row([
            moment(test.at_micros),
            age,
            test.backup_id.clone(),
            if test.passed { "passed" } else { "FAILED" }.to_owned(),
            test.seconds
                .map(|seconds| format!("{seconds:.1} s"))
                .unwrap_or_default(),
            test.failed.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

/// A restore test with all that it checked.
#[derive(Debug, Serialize)]
struct Details {
    #[serde(flatten)]
    shown: RestoreTestRow,
    /// The object in the repository.
    object: String,
    engine: Option<String>,
    host: Option<String>,
    checks: Vec<Check>,
}

impl Details {
    fn text(&self, now_micros: i64) -> String {
        let mut facts = KeyValue::new();
        facts
            .row(
                "result",
                if self.shown.passed {
                    "passed"
                } else {
                    "FAILED"
                },
            )
            .row("backup", &self.shown.backup_id)
            .row("tested", moment_and_age(now_micros, self.shown.at_micros))
            .maybe(
                "took",
                self.shown.seconds.map(|seconds| format!("{seconds:.1} s")),
            )
            .maybe("host", self.host.as_ref())
            .maybe("engine", self.engine.as_ref())
            .row("record", &self.object);
        format!("{}\n{}", facts.text(), super::verify::table(&self.checks))
    }
}

fn show(
    instance: &Instance,
    json: bool,
    id: Option<&str>,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let found = restore_tests(&opened.repository)?;
    let test = found
        .tests
        .iter()
        .rfind(|test| id.is_none_or(|id| test.backup_id == id));
    let Some(test) = test else {
        return Err(Error::argument(
            "backup",
            id.unwrap_or("the newest").to_owned(),
            "no restore test of it is here; see: bre restore-test list",
        ));
    };
    let text = |name: &str| {
        let text = test.record.details.get(name).and_then(Value::as_str);
        text.map(str::to_owned)
    };
    let details = Details {
        shown: test.into(),
        object: test.object.clone(),
        engine: text("engine"),
        host: text("host"),
        checks: checks(test),
    };
    let now_micros = jiff::Timestamp::now().as_microsecond();
    terminal::result(json, &details, || details.text(now_micros));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
#[path = "screens/restore_test.rs"]
mod screens;
