//! `bre verify`; here `bre verify database`: the guide's verification scripts as one command, with a verdict for
//! every check.

use std::process::ExitCode;

use assurance::verification::{
    self, Check, Freshness, Options, Verdict, fresh_enough, passed, passed_strictly,
};
use backup::database::{WalStatus, slot_status};
use jiff::Timestamp;
use jobs::schedule::{After, Trigger};
use postgres_physical::wire::ConnectOptions;
use repository::backup::{BackupState, catalogue};
use serde::Serialize;
use serde_json::{Value, json};

use super::{pages, verify_repository};
use host::{control::Control, database::SLOT, instance::Instance, keys};
use terminal::{self, Table};

use crate::{
    cli::{RepositoryArgs, VerifyCommand},
    error::Error,
};
use operations::{
    job_status::JobStatusFile,
    jobs::settings,
    repository_handle::RepositoryHandle,
    schema_check::{SCHEMA, schema_check},
};

#[derive(Debug, Serialize)]
struct VerifyReport {
    /// Every check was made and passed, as far as it applies here; with `--strict` none is inapplicable and none warns.
    passed: bool,
    strict: bool,
    checked_at: String,
    checks: Vec<Check>,
}

pub(crate) fn run(
    instance: &Instance,
    json: bool,
    command: VerifyCommand,
) -> Result<ExitCode, Error> {
    let (database, strict) = match command {
        VerifyCommand::Database { database, strict } => (database, strict),
        VerifyCommand::Repository(args) => return verify_repository::run(instance, json, &args),
        VerifyCommand::Backup { id, repository } => {
            return super::backup::verify(instance, json, id.as_deref(), &repository);
        }
        VerifyCommand::Cluster(args) => return pages::verify(instance, json, &args),
        VerifyCommand::Audit { road, args } => {
            return match super::audit::run_apart(instance, json, &road, &args) {
                Some(ended) => ended,
                None => host::runtime::wait(super::audit::verify(instance, json, &args)),
            };
        }
    };
    let own = database.is_none();
    let url = match database {
        Some(url) => url,
        None => instance.running()?.database_url,
    };
    let connect = ConnectOptions::from_url(&url)
        .map_err(|error| Error::failed(error.to_string()))?
        .with_application_name("bre");
    let trusted = trusted(instance);
    let options = Options {
        scratch: false,
        engine_expected: own,
        trusted: &trusted,
        cancelled: &|| false,
    };
    let mut checks = verification::cluster(&connect, &options);
    checks.push(schema(&url, &checks));
    // What is around a database belongs to the instance that runs it.
    if own {
        checks.push(slot(&connect));
        checks.push(stream(instance));
        checks.extend(ages(instance));
    }
    let report = VerifyReport {
        passed: match strict {
            true => passed_strictly(&checks),
            false => passed(&checks),
        },
        strict,
        checked_at: Timestamp::now().to_string(),
        checks,
    };
    terminal::result(json, &report, || sentences(&report));
    Ok(if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The keys whose word counts under the audit log, as far as they can be known here: none excuses nothing.
fn trusted(instance: &Instance) -> Vec<audit::VerifyingKey> {
    let folder = instance.keys();
    let opened = RepositoryHandle::at(instance, &RepositoryArgs::default());
    let trusted = opened.and_then(|opened| Ok(keys::trusted(&folder, &opened.repository)?));
    // A repository that is away says nothing of keys that were rotated.
    trusted.unwrap_or_else(|_| keys::verifying_key(&folder).into_iter().collect())
}

fn sentences(report: &VerifyReport) -> String {
    let mut text = table(&report.checks) + "\n";
    let warnings: usize = report.checks.iter().map(|it| it.warnings.len()).sum();
    let apply = report.checks.iter().all(|it| !it.not_applicable);
    text.push_str(match (report.passed, apply) {
        (true, true) => "every check passed",
        (true, false) => "every check that applies here passed",
        (false, _) => "NOT every check passed",
    });
    if warnings > 0 {
        text.push_str(&format!(", {warnings} warnings"));
    }
    text + "\n"
}

/// The same for every list of checks: what passed, what did not, and why.
pub(super) fn table(checks: &[Check]) -> String {
    let mut table = Table::new(&["check", "verdict", "why"]);
    for check in checks {
        let verdict = match (check.verdict, check.not_applicable) {
            (Verdict::Passed, _) => "passed",
            (Verdict::Failed, _) => "FAILED",
            (Verdict::Skipped, true) => "does not apply",
            (Verdict::Skipped, false) => "skipped",
        };
        let why = check.why.clone().unwrap_or_default();
        table.row([check.name.clone(), verdict.to_owned(), why]);
        for warning in &check.warnings {
            table.row([check.name.clone(), "warning".to_owned(), warning.clone()]);
        }
    }
    table.text()
}

/// The engine's tables against what the migrations make, and what the serving role may do to them.
fn schema(url: &str, checks: &[Check]) -> Check {
    let engines = checks.iter().find(|check| check.name == "row_counts");
    if let Some(Check {
        not_applicable: true,
        why: Some(why),
        ..
    }) = engines
    {
        return Check::not_applicable(SCHEMA, why);
    }
    let report = async { Ok::<_, Error>(services::check_schema(url).await?) };
    match host::runtime::wait(report) {
        Ok(report) => schema_check(&report),
        Err(error) => Check::failed(SCHEMA, error.to_string(), Value::Null),
    }
}

fn slot(connect: &ConnectOptions) -> Check {
    const NAME: &str = "replication_slot";
    let failed = |why: String| Check::failed(NAME, why, Value::Null);
    let status = match slot_status(connect, SLOT) {
        Ok(Some(status)) => status,
        Ok(None) => {
            return failed(format!(
                "the slot {SLOT} is not there: nothing keeps WAL for the stream"
            ));
        }
        Err(error) => return failed(error.to_string()),
    };
    let detail = json!({
        "active": status.active, "retained_bytes": status.retained_bytes, "limit_bytes": status.limit_bytes,
    });
    match (status.wal_status, status.active) {
        (WalStatus::Lost, _) => Check::failed(
            NAME,
            "PostgreSQL gave up WAL that the repository has not got",
            detail,
        ),
        (_, false) => Check::failed(NAME, format!("nobody reads from the slot {SLOT}"), detail),
        (_, true) => Check::passed(NAME, detail),
    }
}

fn stream(instance: &Instance) -> Check {
    const NAME: &str = "wal_stream";
    let asked = host::runtime::wait(async {
        Control::to(instance)?
            .get::<Value>("/internal/status")
            .await
    });
    let stream = match asked {
        Ok(status) => status["components"]["wal_stream"].clone(),
        Err(error) => return Check::failed(NAME, error.to_string(), Value::Null),
    };
    match (stream["alarm"].as_str(), stream["attached"].as_bool()) {
        (Some(alarm), _) => Check::failed(NAME, alarm, stream.clone()),
        (None, Some(true)) => Check::passed(NAME, stream),
        (None, _) => Check::failed(NAME, "WAL does not reach the repository", stream),
    }
}

fn ages(instance: &Instance) -> Vec<Check> {
    let looked = || {
        let opened = RepositoryHandle::at(instance, &RepositoryArgs::default())?;
        let config = settings::load(None, instance.root())?;
        Ok::<_, Error>((catalogue(&opened.repository)?.backups, config.backup))
    };
    let standing = JobStatusFile::read(&instance.plan_file());
    let (backups, config) = match looked() {
        Ok(looked) => looked,
        Err(error) => {
            let failed = |name| Check::failed(name, error.to_string(), Value::Null);
            return ["backup_age", "proof_age"].map(failed).into();
        }
    };
    // As the running engine has it; its settings may be in another file.
    let plan = |job: &str| {
        let of_settings = || operations::jobs::spec(&config, job).map(|spec| spec.trigger);
        let trigger = standing.trigger(job).or_else(of_settings);
        trigger.unwrap_or(Trigger::Off)
    };
    let complete = || {
        backups
            .iter()
            .filter(|backup| backup.state == BackupState::Complete)
    };
    let now_micros = Timestamp::now().as_microsecond();
    let backup = Freshness {
        last_micros: complete().map(|backup| backup.finished_at_micros).max(),
        now_micros,
        every_seconds: backup_seconds(plan),
    };
    let proof = Freshness {
        last_micros: complete()
            .filter_map(|backup| backup.restored_and_proved_at_micros)
            .max(),
        now_micros,
        every_seconds: match plan("proof") {
            Trigger::After(After::Every(_)) => backup_seconds(plan),
            Trigger::After(After::Jobs(names)) => {
                let periods = names.iter().filter_map(|name| plan(name).period());
                periods.max().map(|period| period.as_secs())
            }
            trigger => trigger.period().map(|period| period.as_secs()),
        },
    };
    let proof = match operations::restore_test::newest_failure(&backups) {
        Some(id) => Check::failed(
            "proof_age",
            format!("the newest restore proof, of backup {id}, failed"),
            json!({}),
        ),
        None => fresh_enough("proof_age", "passed restore proof", proof),
    };
    vec![fresh_enough("backup_age", "complete backup", backup), proof]
}

/// The shortest time between two backups of either kind.
fn backup_seconds(plan: impl Fn(&str) -> Trigger) -> Option<u64> {
    let periods = ["full", "incremental"].map(|job| plan(job).period());
    periods
        .into_iter()
        .flatten()
        .min()
        .map(|period| period.as_secs())
}

#[cfg(test)]
#[path = "screens/verify.rs"]
mod screens;
