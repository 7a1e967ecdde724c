//! How the jobs of the plan stand, as the running engine leaves it for commands to read. It may be deleted: what ran
//! is in the records of runs.

use host::files::write_whole;
use jobs::{JobSpec, Outcome, RunRecord, Statistics, schedule::Trigger};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

use crate::error::Error;

/// As status files, metrics and settings call it.
pub fn short_name(spec: &JobSpec) -> &str {
    spec.aliases.first().unwrap_or(&spec.name)
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatusFile {
    jobs: BTreeMap<String, JobState>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobState {
    pub running: bool,
    /// As the engine that runs has it, whichever file its settings came from.
    pub schedule: Option<String>,
    /// Why it cannot be done on this host.
    #[serde(rename = "cannot")]
    pub unavailable_reason: Option<String>,
    pub last: Option<JobRun>,
    pub next_micros: Option<i64>,
    /// What it does, where it runs and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// What it waits for, where that is more than its time.
    pub waits_for: Option<String>,
    /// What it is, as the engine that runs has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub described: Option<JobDescription>,
}

/// A job for commands that only read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobDescription {
    pub name: String,
    /// As settings, this file and metrics call it.
    pub short: String,
    pub component: String,
    pub kind: String,
    pub group: Option<String>,
    pub schedule: String,
    pub retention: String,
    pub storage: String,
    pub verification: String,
}

impl JobDescription {
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            name: spec.name.clone(),
            short: short_name(spec).to_owned(),
            component: spec.component.clone(),
            kind: spec.kind.clone(),
            group: spec.group.clone(),
            schedule: spec.trigger.to_string(),
            retention: spec.retention.to_string(),
            storage: spec.storage.name().to_owned(),
            verification: spec.verification.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    pub started_micros: i64,
    pub ended_micros: Option<i64>,
    pub succeeded: Option<bool>,
    /// The backup's id, figures, or what went wrong.
    #[serde(rename = "said")]
    pub summary: String,
}

impl JobRun {
    pub fn of(record: &RunRecord) -> Self {
        let reason = record.reason.clone().unwrap_or_default();
        let (succeeded, summary) = match record.outcome {
            Outcome::Succeeded => (Some(true), record.summary.clone()),
            // Told to end, or killed: nothing that failed.
            Outcome::Cancelled | Outcome::Interrupted => (None, reason),
            _ => (Some(false), reason),
        };
        Self {
            started_micros: record.started_at_micros,
            ended_micros: record.ended_at_micros,
            succeeded,
            summary,
        }
    }

    pub fn begun(started_micros: i64) -> Self {
        Self {
            started_micros,
            ended_micros: None,
            succeeded: None,
            summary: String::new(),
        }
    }
}

impl JobStatusFile {
    /// Nothing when there is none, or none that can be understood.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::file("cannot write", path)(error.into()))?;
        Ok(write_whole(path, &text, 0o600)?)
    }

    pub fn set(&mut self, job: &str, state: JobState) {
        self.jobs.insert(job.to_owned(), state);
    }

    /// By its short name.
    pub fn of(&self, job: &str) -> Option<&JobState> {
        self.jobs.get(job)
    }

    /// In the order of their short names.
    pub fn described(&self) -> impl Iterator<Item = &JobDescription> {
        let states = self.jobs.values();
        states.filter_map(|state| state.described.as_ref())
    }

    pub fn trigger(&self, job: &str) -> Option<Trigger> {
        self.of(job)?.schedule.as_ref()?.parse().ok()
    }

    /// For telling whether there is news: the next appointment follows from the clock.
    pub fn without_next(&self) -> Self {
        let mut other = self.clone();
        for state in other.jobs.values_mut() {
            state.next_micros = None;
        }
        other
    }
}

/// As far as its records tell.
pub fn told_of(spec: &JobSpec, told: &Statistics, running: bool) -> services::JobReport {
    services::JobReport {
        name: spec.name.clone(),
        cluster: None,
        component: spec.component.clone(),
        last_success_micros: told.last_success_ended_micros,
        expected_seconds: spec.trigger.period().map(|period| period.as_secs()),
        runs: told.runs,
        succeeded: told.succeeded,
        duration_median_micros: told.duration_median_micros,
        running,
        paused: false,
        // One that runs all the time has no later success that would end it.
        failing: told.failing && !(running && spec.trigger == Trigger::Continuous),
    }
}
