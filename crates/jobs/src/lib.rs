//! The plan and its driver: when each job runs, what it may run beside, and the record of each run. It knows no job:
//! adding one is a type that is a [`Job`] and a line in a [`Registry`].
//!
//! Entry points: [`Job`] and [`JobSpec`] to describe one, [`Registry`] for all of them, [`Driver`] to run them,
//! [`Records`] for what ran. The record's format is `docs/formats/job_runs.md`.
//!
//! Absent: PostgreSQL, the repository (it is an [`Archive`] here), settings files, async.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod schedule;

mod claims;
mod driver;
mod error;
mod job;
mod known;
mod once;
mod planner;
mod record;
mod records;
mod registry;
mod state;

pub use claims::{Claim, ClaimStatus, Claims};
pub use driver::{BeforeLook, Driver, FinishedRun, JobStatus, Settings};
pub use error::{Error, Result};
pub use job::{
    Availability, Deadline, FirstRun, History, Job, JobSpec, PausePolicy, Retention, RunContext,
    RunProgress, RunReport, Storage,
};
pub use known::JobHistory;
pub use once::OneRun;
pub use planner::Planner;
pub use record::{End, Outcome, RunRecord};
pub use records::{Archive, CompactionReport, OpenRun, Records, Statistics};
pub use registry::Registry;
pub use state::{JobState, Pause, PlanState, RunRequest, StateFile};
