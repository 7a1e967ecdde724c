//! Jobs of tests: what they do is a function, and whether they can is a flag.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use jobs::{
    Availability, Deadline, FirstRun, History, Job, JobSpec, PausePolicy, RunContext, RunReport,
    Storage,
};

pub(crate) type Does = fn(&RunContext) -> Result<RunReport, String>;

pub(crate) struct Task {
    pub(crate) spec: JobSpec,
    pub(crate) does: Does,
    pub(crate) away: AtomicBool,
    pub(crate) unpausable: AtomicBool,
    pub(crate) untold: AtomicBool,
    /// Elsewhere; never when 0.
    pub(crate) ran_micros: AtomicI64,
}

impl Task {
    pub(crate) fn of(spec: JobSpec, does: Does) -> Arc<Self> {
        let (away, unpausable) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self {
            spec,
            does,
            away,
            unpausable,
            untold: AtomicBool::new(false),
            ran_micros: AtomicI64::new(0),
        })
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

    fn pause_policy(&self) -> PausePolicy {
        match self.unpausable.load(Ordering::Relaxed) {
            true => PausePolicy::Refused("commits wait for it".to_owned()),
            false => PausePolicy::Allowed,
        }
    }

    fn history(&self) -> Result<Option<History>, String> {
        if self.untold.load(Ordering::Relaxed) {
            return Err("the catalogue is away".to_owned());
        }
        let ran = self.ran_micros.load(Ordering::Relaxed);
        Ok((ran > 0).then(|| History {
            started_micros: Some(ran),
            ended_micros: Some(ran),
            ..History::default()
        }))
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
        retention: jobs::Retention::default(),
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
