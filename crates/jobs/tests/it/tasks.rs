//! Jobs of tests: what they do is a function, and whether they can is a flag.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jobs::{Availability, Deadline, FirstRun, Job, JobSpec, RunContext, RunReport, Storage};

pub(crate) type Does = fn(&RunContext) -> Result<RunReport, String>;

pub(crate) struct Task {
    pub(crate) spec: JobSpec,
    pub(crate) does: Does,
    pub(crate) away: AtomicBool,
}

impl Task {
    pub(crate) fn of(spec: JobSpec, does: Does) -> Arc<Self> {
        let away = AtomicBool::new(false);
        Arc::new(Self { spec, does, away })
    }
}

impl Job for Task {
    fn spec(&self) -> JobSpec {
        self.spec.clone()
    }

    fn availability(&self) -> Availability {
        match self.away.load(Ordering::Relaxed) {
            true => Availability::Unavailable("not on this host".to_owned()),
            false => Availability::Ready,
        }
    }

    fn run(&self, context: &RunContext) -> Result<RunReport, String> {
        (self.does)(context)
    }
}

pub(crate) fn spec(name: &str, schedule: &str) -> JobSpec {
    JobSpec {
        name: name.to_owned(),
        aliases: Vec::new(),
        component: "test".to_owned(),
        kind: String::new(),
        group: None,
        trigger: schedule.parse().unwrap(),
        retention: String::new(),
        storage: Storage::Local,
        locks: Vec::new(),
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::None,
        objective: None,
        verification: String::new(),
        first_run: FirstRun::NextAppointment,
    }
}

pub(crate) fn done(_: &RunContext) -> Result<RunReport, String> {
    Ok(RunReport::said("done"))
}
