//! Runs that a person asks this driver for, and waits for.

use super::{Driver, Running, now};
use crate::{
    error::{Error, Result},
    job::{Availability, JobSpec, RunProgress},
    records::Records,
    registry::Registry,
};

impl Driver {
    /// Now or not at all: also while it is paused, while it waits for something of its own, and while another driver
    /// has the plan. `options` is for the job. The id of the run.
    ///
    /// # Errors
    /// When there is no such job, it cannot run here, it or one that shares a lock with it runs, or its record cannot
    /// be begun.
    pub fn run_now(&mut self, name: &str, by: String, options: Option<String>) -> Result<String> {
        let place = self.place(name)?;
        let spec = self.registry().specs()[place].clone();
        let refused = |reason: String| Error::Refused {
            job: spec.name.clone(),
            reason,
        };
        if let Availability::Unavailable(reason) = self.registry().job(place).availability() {
            return Err(Error::Unavailable {
                job: spec.name,
                reason,
            });
        }
        refuse_beside(self.registry(), &spec, self.records.root())?;
        // Its record may be complete already, and its thread not.
        let is_in_the_way = |run: &&Running| {
            let other = &self.registry().specs()[run.place];
            run.place == place || other.excludes(&spec)
        };
        if let Some(run) = self.running.iter().find(is_in_the_way) {
            return Err(refused(in_the_way(
                &run.record.job,
                &run.record.run_id,
                &spec,
            )));
        }
        let now = now(self.clock);
        self.planner.request(place, now);
        let due = self.planner.due(now, |other| other == place);
        let due = due.ok_or_else(|| refused("it cannot be started now".to_owned()))?;
        self.asked_by.insert(place, (by, options));
        self.start_run(due, now)
    }

    /// How far a run is; none when it has ended.
    #[must_use]
    pub fn progress_of(&self, run_id: &str) -> Option<RunProgress> {
        self.run(run_id).map(|run| run.context.told())
    }

    /// Tells one run to end.
    pub fn cancel_run(&self, run_id: &str) {
        if let Some(run) = self.run(run_id) {
            run.context.cancel();
        }
    }

    /// Whether the next turn brings the end of a run.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.running.iter().any(|run| run.thread.is_finished())
    }

    fn run(&self, run_id: &str) -> Option<&Running> {
        let mut running = self.running.iter();
        running.find(|run| run.open.is_some() && run.record.run_id == run_id)
    }
}

/// By whichever process of this folder.
pub(crate) fn refuse_beside(
    registry: &Registry,
    spec: &JobSpec,
    root: &std::path::Path,
) -> Result<()> {
    for running in Records::running(root)? {
        let other = registry.find(&running.job);
        if other.is_ok_and(|other| other.excludes(spec)) {
            return Err(Error::Refused {
                job: spec.name.clone(),
                reason: in_the_way(&running.job, &running.run_id, spec),
            });
        }
    }
    Ok(())
}

fn in_the_way(job: &str, run_id: &str, spec: &JobSpec) -> String {
    match job == spec.name {
        true => format!("it runs already, as {run_id}"),
        false => format!("{job} runs, and excludes it"),
    }
}
