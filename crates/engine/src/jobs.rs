//! How the jobs of the plan stand, as the running engine leaves it for commands to read, and for its own next start. It may be
//! deleted: what backups and proofs there are is in the repository.

use std::{collections::BTreeMap, path::Path};

use backup::schedule::{Cadence, Job};
use serde::{Deserialize, Serialize};

use crate::{error::Error, host::instance::write_whole};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    jobs: BTreeMap<String, JobState>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct JobState {
    pub(crate) running: bool,
    /// As the engine that runs has it, whichever file its settings came from.
    pub(crate) schedule: Option<String>,
    /// Why it cannot be done on this host.
    pub(crate) cannot: Option<String>,
    pub(crate) last: Option<Ran>,
    pub(crate) next_micros: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) started_micros: i64,
    pub(crate) ended_micros: Option<i64>,
    pub(crate) succeeded: Option<bool>,
    /// The backup's id, figures, or what went wrong.
    pub(crate) said: String,
}

impl Ran {
    pub(crate) fn begun(started_micros: i64) -> Self {
        Self {
            started_micros,
            ended_micros: None,
            succeeded: None,
            said: String::new(),
        }
    }
}

impl Standing {
    /// Nothing when there is none, or none that can be understood.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::file("cannot write", path)(error.into()))?;
        write_whole(path, &text, 0o600)
    }

    pub(crate) fn job(&mut self, job: Job) -> &mut JobState {
        self.jobs.entry(job.name().to_owned()).or_default()
    }

    pub(crate) fn of(&self, job: Job) -> Option<&JobState> {
        self.jobs.get(job.name())
    }

    pub(crate) fn cadence(&self, job: Job) -> Option<Cadence> {
        self.of(job)?.schedule.as_ref()?.parse().ok()
    }

    pub(crate) fn last_start(&self, job: Job) -> Option<i64> {
        Some(self.of(job)?.last.as_ref()?.started_micros)
    }

    /// For telling whether there is news: the next appointment follows from the clock.
    pub(crate) fn without_next(&self) -> Self {
        let mut other = self.clone();
        for state in other.jobs.values_mut() {
            state.next_micros = None;
        }
        other
    }
}
