//! `bre job`: how every job of the plan stands, what ran, and what an operator decides about it.

use std::{collections::BTreeMap, process::ExitCode};

use ::jobs::{Pause, PausePolicy, Records, RunRecord, StateFile, Statistics};
use jiff::Timestamp;
use serde::Serialize;

use super::plan::{PlanOwner, Row, by_cluster, described, job_table, rows_of};
use super::{audit_archive, backup, cluster_state, restore_cache, restore_test, schema, snapshot};
use host::{instance::Instance, person::who};
use terminal::{self, KeyValue, Table, age, duration, moment_and_age, size};

use crate::{
    cli::{ClusterArgs, JobCommand},
    error::Error,
};
use operations::{
    backup_request::ReadingSelection,
    command_output::CommandOutput,
    exit::Exit,
    job_status::{JobDescription, JobStatusFile},
    jobs::{JobResult, pause_policy},
    run_by_hand::run_by_hand,
};

pub(crate) fn run(instance: &Instance, json: bool, command: JobCommand) -> Result<ExitCode, Error> {
    let of = |args: &ClusterArgs| PlanOwner::of(instance, args.cluster.as_deref());
    match command {
        JobCommand::List { of: args } => list(instance, json, args.cluster.as_deref()),
        JobCommand::Show { job, of: args } => show(&of(&args)?, json, &job),
        JobCommand::Run { job, of: args } => {
            let reading = ReadingSelection::default();
            run_now(instance, json, &job, reading, args.cluster.as_deref())
        }
        JobCommand::History {
            job,
            most,
            of: args,
        } => history(&of(&args)?, json, job.as_deref(), most),
        JobCommand::Pause {
            job,
            reason,
            of: args,
        } => pause(&of(&args)?, json, &job, reason),
        JobCommand::Resume { job, of: args } => resume(&of(&args)?, json, &job),
    }
}

/// What a person sees of a run.
pub(super) fn screens(result: JobResult) -> Result<CommandOutput, operations::Error> {
    match result {
        JobResult::Backup(repository, outcome) => backup::taken(&repository, *outcome),
        JobResult::RestoreTest(record) => restore_test::tested(&record),
        JobResult::Definitions { folder, outcome } => schema::shown(&folder, &outcome),
        JobResult::AuditArchive(archived) => audit_archive::shown(archived.as_ref()),
        JobResult::Compliance(report) => CommandOutput::of(&report, report.sentences()),
        JobResult::Logs(shipped) => CommandOutput::of(&shipped, shipped.sentences()),
        JobResult::CacheCopy(copy) => restore_cache::copied(&copy),
        JobResult::Snapshot { component, outcome } => snapshot::taken(component, &outcome),
        JobResult::State {
            component,
            place,
            outcome,
            report,
        } => cluster_state::committed(component, &place, &outcome, &report),
        JobResult::Secrets { outcome, report } => cluster_state::sealed(&outcome, &report),
    }
}

/// Runs it now, and shows what came of it.
pub(super) fn run_now(
    instance: &Instance,
    json: bool,
    name: &str,
    reading: ReadingSelection,
    cluster: Option<&str>,
) -> Result<ExitCode, Error> {
    let shown = run_by_hand(instance, json, name, reading, cluster, screens)?;
    Ok(shown.print(json))
}

fn list(instance: &Instance, json: bool, cluster: Option<&str>) -> Result<ExitCode, Error> {
    let rows = rows_of(instance, cluster)?;
    let now = now_micros();
    terminal::result(json, &rows, || {
        by_cluster(&rows, |rows| job_table(rows, now))
    });
    Ok(ExitCode::SUCCESS)
}

/// By either name; from the settings, and from what the running engine says, without the repository.
fn find(owner: &PlanOwner, name: &str) -> Result<JobDescription, Error> {
    let standing = JobStatusFile::read(&owner.home.plan_file());
    let mut jobs = described(&owner.config, &standing, owner.home.is_locked());
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

fn show(owner: &PlanOwner, json: bool, name: &str) -> Result<ExitCode, Error> {
    let name = find(owner, name)?.name;
    let mut rows = owner.rows()?;
    rows.retain(|row| row.name == name);
    let Some(row) = rows.pop() else {
        return Err(Error::failed(format!("{name} is not in the plan any more")));
    };
    let records = Records::read(owner.home.root())?;
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
    owner: &PlanOwner,
    json: bool,
    name: Option<&str>,
    most: usize,
) -> Result<ExitCode, Error> {
    let job = name.map(|name| find(owner, name)).transpose()?;
    let records = Records::read(owner.home.root())?;
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

fn pause(owner: &PlanOwner, json: bool, name: &str, reason: String) -> Result<ExitCode, Error> {
    let name = find(owner, name)?.name;
    let policy = pause_policy(&owner.config, &name);
    if let PausePolicy::Refused(why) = policy {
        return Err(Error::refused("the job is not paused", why));
    }
    let paused = Pause {
        since_micros: now_micros(),
        by: who(),
        reason,
    };
    let paused = state_file(owner).change(|state| {
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

fn resume(owner: &PlanOwner, json: bool, name: &str) -> Result<ExitCode, Error> {
    let name = find(owner, name)?.name;
    state_file(owner).change(|state| state.resume(&name, now_micros()))?;
    let said = serde_json::json!({ "name": name, "paused": null });
    terminal::result(json, &said, || {
        format!("{name} runs again, from its next appointment on")
    });
    Ok(ExitCode::SUCCESS)
}

fn state_file(owner: &PlanOwner) -> StateFile {
    StateFile::at(&owner.home.root().join("jobs.json"))
}

fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

#[cfg(test)]
#[path = "screens/job.rs"]
mod screens;
