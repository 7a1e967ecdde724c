//! `bre plan show|check`: the table of jobs, and whether settings make one.

use std::process::ExitCode;

use ::jobs::{Pause, Records, StateFile, schedule::Trigger};
use host::instance::Instance;
use jiff::Timestamp;
use serde::Serialize;
use terminal::{self, KeyValue, Table, age, moment, time};

use crate::{
    cli::PlanCheckArgs,
    config,
    error::Error,
    job_status::{JobDescription, JobRun, JobState, JobStatusFile},
    jobs::{self, settings},
    schema,
};

/// No run that a person's own process began takes as long: one that began before the file was written and ended after
/// it is found.
const RUN_MICROS_MAX: i64 = 86_400_000_000;

/// One row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// As settings and metrics of older engines call it.
    pub(super) job: String,
    pub(super) name: String,
    pub(super) component: String,
    pub(super) kind: String,
    pub(super) schedule: String,
    pub(super) retention: String,
    pub(super) storage: String,
    pub(super) verification: String,
    /// `running`, `waiting`, `failed`, `paused`, `off`, `cannot`, or `not running` when no engine keeps the plan.
    pub(super) state: &'static str,
    /// Why it cannot, why it is paused, what it waits for, or what its last run said.
    pub(super) said: Option<String>,
    pub(super) last_started_at: Option<String>,
    pub(super) last_ended_at: Option<String>,
    pub(super) last_succeeded: Option<bool>,
    pub(super) next_at: Option<String>,
    /// The same for people.
    #[serde(skip)]
    pub(super) last_started_micros: Option<i64>,
    #[serde(skip)]
    pub(super) next_micros: Option<i64>,
}

/// The plan: what is meant to happen.
pub(crate) fn show(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let rows = rows(instance)?;
    terminal::result(json, &rows, || plan_table(&rows));
    Ok(ExitCode::SUCCESS)
}

/// Reading the settings is what refuses those that make no plan.
pub(crate) fn check(
    instance: &Instance,
    json: bool,
    args: &PlanCheckArgs,
) -> Result<ExitCode, Error> {
    let config = settings::load(args.config.as_deref(), instance.root())?;
    let names = jobs::names(&config.backup);
    let said = serde_json::json!({ "jobs": names });
    terminal::result(json, &said, || {
        format!("{} jobs, and nothing is wrong with them\n", names.len())
    });
    Ok(ExitCode::SUCCESS)
}

/// What ran before this is in the file that the engine leaves: only what has ended since is looked for among the
/// records.
fn not_told_from_micros(instance: &Instance) -> i64 {
    let told_at = std::fs::metadata(instance.plan_file()).and_then(|it| it.modified());
    let told_at = told_at.ok().and_then(|at| Timestamp::try_from(at).ok());
    told_at.map_or(0, |at| at.as_microsecond() - RUN_MICROS_MAX)
}

/// From the settings, the records of runs and what the running engine says of itself: the store is not asked.
pub(crate) fn rows(instance: &Instance) -> Result<Vec<Row>, Error> {
    let config = settings::load(None, instance.root())?;
    let location = match instance.announced() {
        Some(running) => running.repository,
        None => (config.repository.path.clone()).unwrap_or_else(|| instance.repository().into()),
    };
    let names = jobs::names(&config.backup);
    let newest = Records::newest_runs(instance.root(), names, not_told_from_micros(instance))?;
    let state = StateFile::at(&instance.root().join("jobs.json")).read()?;
    let table = Jobs {
        config: &config.backup,
        storage: format!("{location} (encrypted)"),
        schema: schema::place(instance, config.backup.schema_to.as_ref()),
        recorded: &|name| newest.get(name).map(JobRun::of),
        standing: JobStatusFile::read(&instance.plan_file()),
        paused: &|name| state.paused(name).cloned(),
        is_kept: instance.is_locked(),
        now: Timestamp::now().as_microsecond(),
    };
    Ok(table.rows())
}

/// Those of the settings; where an engine runs as it has them, and those that only it has.
pub(super) fn described(
    config: &config::Backup,
    standing: &JobStatusFile,
    is_kept: bool,
) -> Vec<JobDescription> {
    let mut jobs: Vec<JobDescription> =
        jobs::specs(config).iter().map(JobDescription::of).collect();
    for job in standing.described().filter(|_| is_kept) {
        match jobs.iter_mut().find(|known| known.name == job.name) {
            Some(known) => known.clone_from(job),
            None => jobs.push(job.clone()),
        }
    }
    jobs
}

pub(crate) struct Jobs<'a> {
    pub(crate) config: &'a config::Backup,
    pub(crate) storage: String,
    pub(crate) schema: String,
    /// The newest run of a job, by its records.
    pub(crate) recorded: &'a dyn Fn(&str) -> Option<JobRun>,
    pub(crate) standing: JobStatusFile,
    pub(crate) paused: &'a dyn Fn(&str) -> Option<Pause>,
    /// An engine runs.
    pub(crate) is_kept: bool,
    pub(crate) now: i64,
}

impl Jobs<'_> {
    pub(crate) fn rows(&self) -> Vec<Row> {
        let jobs = described(self.config, &self.standing, self.is_kept);
        jobs.into_iter().map(|job| self.row(job)).collect()
    }

    fn row(&self, job: JobDescription) -> Row {
        let known = self.standing.of(&job.short).cloned().unwrap_or_default();
        let paused = (self.paused)(&job.name);
        let trigger: Trigger = job.schedule.parse().unwrap_or(Trigger::Off);
        // What was done by hand just now is on record only.
        let last = match known.running && self.is_kept {
            true => known.last.clone(),
            false => [known.last.clone(), (self.recorded)(&job.name)]
                .into_iter()
                .flatten()
                .max_by_key(|ran| ran.started_micros),
        };
        let state = self.state(&trigger, &known, last.as_ref(), paused.is_some());
        let next_micros = self.next(&trigger, known.next_micros, state);
        let last = last.as_ref();
        let in_a_zone = job.schedule.contains('/');
        Row {
            schedule: match trigger.period() {
                Some(_) if !in_a_zone => format!("{trigger} UTC"),
                _ => trigger.to_string(),
            },
            storage: match job.storage.as_str() {
                "repository" => self.storage.clone(),
                "git" => self.schema.clone(),
                other => other.to_owned(),
            },
            job: job.short,
            name: job.name,
            component: job.component,
            kind: job.kind,
            retention: job.retention,
            verification: job.verification,
            state,
            said: paused
                .map(|paused| paused_words(&paused))
                .or(known.progress.filter(|_| state == "running"))
                .or(known.unavailable_reason)
                .or(known.waits_for.filter(|_| state == "waiting"))
                .or_else(|| last.map(|last| last.summary.clone())),
            last_started_at: last.map(|last| time(last.started_micros)),
            last_ended_at: last.and_then(|last| last.ended_micros).map(time),
            last_succeeded: last.and_then(|last| last.succeeded),
            next_at: next_micros.map(time),
            last_started_micros: last.map(|last| last.started_micros),
            next_micros,
        }
    }

    fn state(
        &self,
        trigger: &Trigger,
        known: &JobState,
        last: Option<&JobRun>,
        paused: bool,
    ) -> &'static str {
        match (trigger, last.and_then(|last| last.succeeded)) {
            _ if known.running && self.is_kept => "running",
            _ if paused => "paused",
            (Trigger::Off, _) => "off",
            _ if known.unavailable_reason.is_some() => "cannot",
            _ if !self.is_kept => "not running",
            (_, Some(false)) => "failed",
            _ => "waiting",
        }
    }

    fn next(&self, trigger: &Trigger, kept: Option<i64>, state: &str) -> Option<i64> {
        match state {
            "waiting" => trigger.next_appointment(self.now).or(kept),
            "failed" => kept.map(|kept| kept.max(self.now)),
            _ => None,
        }
    }
}

fn paused_words(paused: &Pause) -> String {
    let since = moment(paused.since_micros);
    match paused.reason.as_str() {
        "" => format!("by {} since {since}", paused.by),
        reason => format!("{reason} (by {} since {since})", paused.by),
    }
}

pub(crate) fn plan_table(rows: &[Row]) -> String {
    let mut table = Table::new(&["job", "component", "schedule", "kept", "verification"]);
    for row in rows {
        table.row([
            row.job.clone(),
            row.component.clone(),
            row.schedule.clone(),
            row.retention.clone(),
            row.verification.clone(),
        ]);
    }
    // Each place once: most jobs write to the same one.
    let mut places: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        match places.iter_mut().find(|(place, _)| *place == row.storage) {
            Some((_, jobs)) => jobs.push(&row.job),
            None => places.push((&row.storage, vec![&row.job])),
        }
    }
    let mut stored = KeyValue::new();
    for (place, jobs) in places {
        stored.row("stored in", format!("{place}: {}", jobs.join(", ")));
    }
    format!("{}\n{}", table.text(), stored.text())
}

pub(crate) fn job_table(rows: &[Row], now_micros: i64) -> String {
    let mut table = Table::new(&["job", "state", "last run", "next run", "said"]);
    for row in rows {
        let ago = |at: Option<i64>| at.map(|at| age(now_micros, at)).unwrap_or_default();
        let last = ago(row.last_started_micros);
        let last = match row.last_succeeded {
            Some(false) => format!("FAILED {last}"),
            _ => last,
        };
        table.row([
            row.job.clone(),
            row.state.to_owned(),
            last,
            ago(row.next_micros),
            row.said.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

#[cfg(test)]
#[path = "screens/plan.rs"]
pub(crate) mod screens;
