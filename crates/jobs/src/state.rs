//! What an operator decided about the plan, in one file (`docs/formats/job_runs.md` §6).

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanState {
    version: u32,
    #[serde(default)]
    pub jobs: BTreeMap<String, JobState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// As it was last in force.
    #[serde(default)]
    pub schedule: Option<String>,
    /// Appointments before this do not count.
    #[serde(default)]
    pub since_micros: Option<i64>,
    #[serde(default)]
    pub paused: Option<Pause>,
    /// A pause ended then, and what was missed in it is not recorded yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_micros: Option<i64>,
    /// An operator asked for a run, and the driver has not seen it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<RunRequest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    pub at_micros: i64,
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub since_micros: i64,
    pub by: String,
    #[serde(default)]
    pub reason: String,
}

impl Default for PlanState {
    fn default() -> Self {
        Self {
            version: VERSION,
            jobs: BTreeMap::new(),
        }
    }
}

impl PlanState {
    pub fn job(&mut self, name: &str) -> &mut JobState {
        self.jobs.entry(name.to_owned()).or_insert(JobState {
            schedule: None,
            since_micros: None,
            paused: None,
            resumed_micros: None,
            requested: None,
        })
    }

    #[must_use]
    pub fn paused(&self, name: &str) -> Option<&Pause> {
        self.jobs.get(name)?.paused.as_ref()
    }

    pub fn pause(&mut self, name: &str, paused: Pause) {
        self.job(name).paused.get_or_insert(paused);
    }

    /// Appointments before this moment do not count any more.
    pub fn resume(&mut self, name: &str, now_micros: i64) {
        let job = self.job(name);
        if job.paused.take().is_some() {
            job.resumed_micros = Some(now_micros);
        }
    }
}

/// The file, for whichever process of the instance wants to know or to change it.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Empty where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be understood.
    pub fn read(&self) -> Result<PlanState> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(PlanState::default());
            }
            other => other.map_err(Error::io("cannot read", &self.path))?,
        };
        let unreadable = |reason: String| Error::State {
            path: self.path.clone(),
            reason,
        };
        let state: PlanState =
            serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        match state.version {
            VERSION => Ok(state),
            other => Err(unreadable(format!(
                "it is of version {other}; this engine reads version {VERSION}"
            ))),
        }
    }

    /// One change at a time, whichever processes make them; nothing is written where nothing changed.
    ///
    /// # Errors
    /// When it cannot be read or made durable.
    pub fn change<T>(&self, change: impl FnOnce(&mut PlanState) -> T) -> Result<T> {
        let lock = self.path.with_extension("lock");
        let held = File::options()
            .create(true)
            .append(true)
            .open(&lock)
            .map_err(Error::io("cannot open", &lock))?;
        flock(&held, FlockOperation::LockExclusive)
            .map_err(|error| Error::io("cannot lock", &lock)(error.into()))?;
        let before = self.read()?;
        let mut after = before.clone();
        let told = change(&mut after);
        if after != before {
            self.write(&after)?;
        }
        Ok(told)
    }

    fn write(&self, state: &PlanState) -> Result<()> {
        let new = self.path.with_extension("new");
        let written = (|| {
            let text = serde_json::to_vec_pretty(state)?;
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            match self.path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
                _ => Ok(()),
            }
        })();
        written.map_err(Error::io("cannot write", &self.path))
    }
}
