//! `bre job`: how every job of the plan stands, what ran, and what an operator decides about it.

use std::{collections::BTreeMap, process::ExitCode};

use ::jobs::{Pause, PausePolicy, Records, RunRecord, StateFile, Statistics};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    audit_archive, backup,
    plan::{Row, described, job_table, rows},
    restore_test, schema, snapshot,
};
use host::{instance::Instance, person::who};
use terminal::{self, KeyValue, Table, age, duration, moment_and_age, size};

use crate::{
    backup_request::ReadingSelection,
    cli::{JobCommand, RepositoryArgs},
    error::Error,
    exit::Exit,
    job_status::{JobDescription, JobStatusFile},
    jobs::{JobResult, pause_policy, settings},
    run_by_hand::run_by_hand,
};

pub(crate) fn run(instance: &Instance, json: bool, command: JobCommand) -> Result<ExitCode, Error> {
    match command {
        JobCommand::List => list(instance, json),
        JobCommand::Show { job } => show(instance, json, &job),
        JobCommand::Run { job } => run_now(instance, json, &job, ReadingSelection::default()),
        JobCommand::History { job, most } => history(instance, json, job.as_deref(), most),
        JobCommand::Pause { job, reason } => pause(instance, json, &job, reason),
        JobCommand::Resume { job } => resume(instance, json, &job),
    }
}

/// Runs it now, and shows what came of it.
pub(super) fn run_now(
    instance: &Instance,
    json: bool,
    name: &str,
    reading: ReadingSelection,
) -> Result<ExitCode, Error> {
    let said = |job: &str, said: &str, text: String| {
        let machines = serde_json::json!({ "job": job, "said": said });
        terminal::result(json, &machines, || text);
        ExitCode::SUCCESS
    };
    Ok(match run_by_hand(instance, json, name, reading)? {
        None => ExitCode::SUCCESS,
        Some(JobResult::Backup(outcome)) => {
            return backup::show_taken(instance, json, &RepositoryArgs::default(), *outcome);
        }
        Some(JobResult::RestoreTest(record)) => restore_test::show_tested(json, &record),
        Some(JobResult::Expiry(summary)) => said("expire", &summary, summary.clone()),
        Some(JobResult::Definitions { folder, outcome }) => schema::show(json, &folder, &outcome),
        Some(JobResult::AuditArchive(archived)) => {
            return audit_archive::show(json, archived.as_ref());
        }
        Some(JobResult::Snapshot(outcome)) => snapshot::show_taken(json, &outcome),
        Some(JobResult::Copies(summary)) => {
            said("repository.copy", &summary, format!("{summary}\n"))
        }
    })
}

fn list(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let rows = rows(instance)?;
    terminal::result(json, &rows, || job_table(&rows, now_micros()));
    Ok(ExitCode::SUCCESS)
}

/// By either name; from the settings, and from what the running engine says, without the repository.
fn find(instance: &Instance, name: &str) -> Result<JobDescription, Error> {
    let config = settings::load(None, instance.root())?.backup;
    let standing = JobStatusFile::read(&instance.plan_file());
    let mut jobs = described(&config, &standing, instance.is_locked());
    let goes_by = |job: &JobDescription| job.name == name || job.short == name;
    let place = jobs.iter().position(goes_by).ok_or_else(|| {
        let known = jobs.iter().map(|job| job.name.clone()).collect();
        ::jobs::Error::UnknownJob {
            name: name.to_owned(),
            known,
        }
    })?;
    Ok(jobs.swap_remove(place))
}

#[derive(Debug, Serialize)]
struct JobRow {
    #[serde(flatten)]
    row: Row,
    statistics: Statistics,
}

fn show(instance: &Instance, json: bool, name: &str) -> Result<ExitCode, Error> {
    let name = find(instance, name)?.name;
    let mut rows = rows(instance)?;
    rows.retain(|row| row.name == name);
    let Some(row) = rows.pop() else {
        return Err(Error::failed(format!("{name} is not in the plan any more")));
    };
    let records = Records::read(instance.root())?;
    let statistics = records.statistics(&row.name, now_micros());
    let shown = JobRow { row, statistics };
    terminal::result(json, &shown, || shown.text(now_micros()));
    Ok(ExitCode::SUCCESS)
}

impl JobRow {
    fn text(&self, now_micros: i64) -> String {
        let (row, told) = (&self.row, &self.statistics);
        let mut facts = KeyValue::new();
        facts
            .row("job", &row.name)
            .row("component", format!("{}, {}", row.component, row.kind))
            .row("schedule", &row.schedule)
            .row("kept", &row.retention)
            .row("stored in", &row.storage)
            .row("verification", &row.verification)
            .row("state", row.state)
            .row("said", row.said.as_deref().unwrap_or_default());
        let moment = |at: i64| moment_and_age(now_micros, at);
        facts
            .maybe("last run", row.last_started_micros.map(moment))
            .maybe("next run", row.next_micros.map(moment))
            .maybe("last success", told.last_success_started_micros.map(moment))
            .row(
                "in 30 days",
                format!("{} runs, {} of them succeeded", told.runs, told.succeeded),
            )
            .maybe("median duration", told.duration_median_micros.map(duration))
            .maybe("median size", told.bytes_median.map(size));
        if !told.double_runs.is_empty() {
            facts.row("double runs", told.double_runs.join(", "));
        }
        facts.text()
    }
}

#[derive(Debug, Serialize)]
struct History {
    runs: Vec<RunRecord>,
    /// By name, and why.
    unreadable: BTreeMap<String, String>,
}

fn history(
    instance: &Instance,
    json: bool,
    name: Option<&str>,
    most: usize,
) -> Result<ExitCode, Error> {
    let job = name.map(|name| find(instance, name)).transpose()?;
    let records = Records::read(instance.root())?;
    let runs = match job {
        Some(job) => records.of(&job.name).into_iter().rev().take(most).collect(),
        None => records.newest(most),
    };
    let history = History {
        runs,
        unreadable: records.unreadable(),
    };
    terminal::result(json, &history, || history.text(now_micros()));
    for (name, reason) in &history.unreadable {
        terminal::note(&format!(
            "bre: the run record {name} cannot be read: {reason}"
        ));
    }
    Ok(match history.unreadable.is_empty() {
        true => ExitCode::SUCCESS,
        false => Exit::Partial.into(),
    })
}

impl History {
    fn text(&self, now_micros: i64) -> String {
        if self.runs.is_empty() {
            return "nothing ran yet\n".to_owned();
        }
        let mut table = Table::new(&["started", "job", "outcome", "took", "for", "said"]);
        for record in &self.runs {
            let took = record.duration_micros().filter(|took| *took > 0);
            let took = took.map(duration);
            let appointments = record.covers.map(|covers| covers.appointments);
            table.row([
                age(now_micros, record.started_at_micros),
                record.job.clone(),
                record.outcome.name().to_owned(),
                took.unwrap_or_default(),
                match appointments {
                    Some(1) => "1 appointment".to_owned(),
                    Some(many) => format!("{many} appointments"),
                    None => cause_word(record).to_owned(),
                },
                record
                    .reason
                    .clone()
                    .unwrap_or_else(|| record.summary.clone()),
            ]);
        }
        table.text()
    }
}

fn cause_word(record: &RunRecord) -> &'static str {
    use ::jobs::schedule::Cause;
    match record.cause {
        Cause::Appointment | Cause::Retry => "",
        Cause::After => "another job",
        Cause::Change => "a change",
        Cause::Continuous => "all the time",
        Cause::Request => "a person",
    }
}

fn pause(instance: &Instance, json: bool, name: &str, reason: String) -> Result<ExitCode, Error> {
    let name = find(instance, name)?.name;
    let config = settings::load(None, instance.root())?.backup;
    let policy = pause_policy(&config, &name);
    if let PausePolicy::Refused(why) = policy {
        return Err(Error::refused("the job is not paused", why));
    }
    let paused = Pause {
        since_micros: now_micros(),
        by: who(),
        reason,
    };
    let paused = state_file(instance).change(|state| {
        state.pause(&name, paused);
        state.paused(&name).cloned()
    })?;
    let said = serde_json::json!({ "name": name, "paused": paused });
    terminal::result(json, &said, || match &policy {
        PausePolicy::Alarming(why) => format!("{name} is paused, and that is an alarm: {why}"),
        _ => format!("{name} is paused: nothing starts it but bre job run"),
    });
    Ok(ExitCode::SUCCESS)
}

fn resume(instance: &Instance, json: bool, name: &str) -> Result<ExitCode, Error> {
    let name = find(instance, name)?.name;
    state_file(instance).change(|state| state.resume(&name, now_micros()))?;
    let said = serde_json::json!({ "name": name, "paused": null });
    terminal::result(json, &said, || {
        format!("{name} runs again, from its next appointment on")
    });
    Ok(ExitCode::SUCCESS)
}

fn state_file(instance: &Instance) -> StateFile {
    StateFile::at(&instance.root().join("jobs.json"))
}

fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

#[cfg(test)]
#[path = "screens/job.rs"]
mod screens;
