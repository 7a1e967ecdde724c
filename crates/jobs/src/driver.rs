//! The one driver of a plan: it knows none of the jobs. It starts each when it is due, in a thread of its own, tells
//! it to end at its deadline, and makes its record durable.

mod on_request;

pub(crate) use on_request::refuse_beside;

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    claims::{ClaimStatus, Claims},
    error::{Error, Result},
    job::{Availability, History, JobSpec, PausePolicy, RunContext, RunReport},
    known::JobHistory,
    planner::Planner,
    record::{End, RunRecord},
    records::{Archive, OpenRun, Records, Statistics},
    registry::Registry,
    schedule::{Cause, Due, Now, Trigger},
    state::{Pause, PlanState, StateFile},
};

/// Between two looks at what others (a person, another host) did.
const LOOK_PAUSE: Duration = Duration::from_secs(60);
/// And while records wait for it, because the archive does not take them for instance: the alarm is to end soon after
/// the trouble.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// Before a run is tried again whose record could not be begun.
const DISK_PAUSE: Duration = Duration::from_secs(30);
const JOIN_LOOK: Duration = Duration::from_millis(10);
/// How long a run may take to end that was told so at its deadline.
const DEADLINE_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a driver keeps what it knows, and what it shares.
pub struct Settings<'a> {
    /// Records lie below it, in `runs/`.
    pub root: &'a Path,
    pub archive: Option<Arc<dyn Archive>>,
    pub claims: Vec<Box<dyn Claims>>,
    /// Goes into records: the host for instance.
    pub host: &'a str,
    /// Called before jobs are asked for their history, in the background: what they have in common is read once.
    pub before_look: Option<BeforeLook>,
}

pub type BeforeLook = Arc<dyn Fn() + Send + Sync>;

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

struct Running {
    place: usize,
    record: RunRecord,
    /// None: its record is complete, and its thread has not ended.
    open: Option<OpenRun>,
    context: RunContext,
    /// By the steady clock.
    began: Duration,
    thread: JoinHandle<Result<RunReport, String>>,
    timed_out: bool,
}

/// What a look in the background brought; none of a job of which it cannot be told now.
type Look = Vec<Option<Option<History>>>;

pub struct Driver {
    planner: Planner,
    records: Arc<Records>,
    state_file: StateFile,
    state: PlanState,
    /// Why the state could not be read, if it could not.
    state_trouble: Option<String>,
    archive: Option<Arc<dyn Archive>>,
    archive_trouble: Option<String>,
    claims: Vec<Box<dyn Claims>>,
    standing: ClaimStatus,
    clock: Instant,
    running: Vec<Running>,
    before_look: Option<BeforeLook>,
    /// With it: whether records are left that wait for the next look.
    look: Option<JoinHandle<(Look, Result<bool>)>>,
    look_at: Instant,
    /// What the things themselves showed last.
    history: Vec<Option<History>>,
    /// What ran before could be told since the start: a job of which it could not be might be done already.
    told: Vec<bool>,
    /// What other drivers did was asked for since this one may start jobs.
    looked: bool,
    available: Vec<Availability>,
    /// By place: the person who asked for the run that is to come, and what was given with the request.
    asked_by: BTreeMap<usize, (String, Option<String>)>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("planner", &self.planner)
            .finish_non_exhaustive()
    }
}

/// A run that came to its end.
#[derive(Debug)]
pub struct FinishedRun {
    pub record: RunRecord,
    /// For the person who asked for it.
    pub answer: Option<String>,
}

/// How one job is.
#[derive(Clone, Debug)]
pub struct JobStatus {
    pub spec: JobSpec,
    pub available: Availability,
    /// Since when, and what it does.
    pub running: Option<(RunRecord, String)>,
    pub paused: Option<Pause>,
    pub pause_policy: PausePolicy,
    /// The newest run; what was skipped is none.
    pub last: Option<RunRecord>,
    /// What the thing itself shows of earlier runs, made here or elsewhere.
    pub shown: Option<History>,
    pub statistics: Statistics,
    pub next_micros: Option<i64>,
}

impl Driver {
    /// Reads what ran before, and continues from there. Nothing is due within the first minute.
    ///
    /// # Errors
    /// When the folder of records cannot be read or made.
    pub fn start(registry: Registry, settings: Settings<'_>) -> Result<Self> {
        let records = Arc::new(Records::open(settings.root)?);
        let state_file = StateFile::at(&settings.root.join("jobs.json"));
        let (mut state, state_trouble) = match state_file.read() {
            Ok(state) => (state, None),
            Err(error) => {
                tracing::error!(%error, "the state of the plan is not readable: nothing is paused");
                (PlanState::default(), Some(error.to_string()))
            }
        };
        let clock = Instant::now();
        let now = now(clock);
        let look = looked_at(&registry, settings.before_look.as_ref());
        let told = look.iter().map(Option::is_some).collect();
        let history: Vec<Option<History>> = look.into_iter().map(Option::flatten).collect();
        let driver = format!("{}-{:08x}", settings.host, rand::random::<u32>());
        let known = |job: &str| JobHistory::from_records(&records, job, now.wall_micros);
        let available = vec![Availability::Ready; registry.specs().len()];
        let planner = Planner::new(registry, &mut state, known, &history, now, driver);
        let mut driver = Self {
            planner,
            records,
            state_file,
            state,
            state_trouble,
            archive: settings.archive,
            archive_trouble: None,
            claims: settings.claims,
            standing: ClaimStatus::default(),
            clock,
            running: Vec::new(),
            before_look: settings.before_look,
            look: None,
            look_at: clock,
            looked: false,
            history,
            told,
            available,
            asked_by: BTreeMap::new(),
        };
        // What was passed over is recorded before the state forgets it.
        driver.record_passed(now);
        driver.keep_state();
        Ok(driver)
    }

    #[must_use]
    pub fn records(&self) -> Arc<Records> {
        Arc::clone(&self.records)
    }

    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.planner.registry()
    }

    /// Once a second: takes note of what ended, starts what is due. What ended since the last turn.
    pub fn turn(&mut self) -> Vec<FinishedRun> {
        self.turn_at(now(self.clock))
    }

    /// The same, at a moment that is not before the last one.
    pub fn turn_at(&mut self, now: Now) -> Vec<FinishedRun> {
        self.follow_state(now);
        self.ask_claims();
        let mut ended = self.collect(now);
        ended.extend(self.end_at_deadlines(now));
        self.end_paused();
        self.take_look(now);
        self.ask_jobs(now);
        self.start_due(now);
        self.record_passed(now);
        ended
    }

    fn follow_state(&mut self, now: Now) {
        match self.state_file.read() {
            Ok(state) => (self.state, self.state_trouble) = (state, None),
            Err(error) => self.state_trouble = Some(error.to_string()),
        }
        let mut changed = self.planner.follow(&mut self.state, now);
        let specs = self.planner.registry().specs().to_vec();
        for spec in specs {
            let of_state = self.state.jobs.get_mut(&spec.name);
            let Some(requested) = of_state.and_then(|job| job.requested.take()) else {
                continue;
            };
            changed = true;
            tracing::info!(job = spec.name, by = requested.by, "a run was asked for");
            match self.request(&spec.name) {
                Ok(()) => {
                    let place = self.planner.registry().place(&spec.name);
                    let asked_by = place.map(|place| (place, (requested.by, None)));
                    self.asked_by.extend(asked_by);
                }
                Err(error) => tracing::warn!(%error, "what was asked for is not started"),
            }
        }
        if changed {
            self.record_passed(now);
            self.keep_state();
        }
    }

    /// What this driver knows of schedules; pauses belong to the operator.
    fn keep_state(&mut self) {
        if self.state_trouble.is_some() {
            return;
        }
        let known = self.state.clone();
        let kept = self.state_file.change(|state| {
            for (name, job) in &known.jobs {
                let kept = state.job(name);
                kept.schedule = job.schedule.clone();
                kept.since_micros = job.since_micros;
                if job.resumed_micros.is_none() {
                    kept.resumed_micros = None;
                }
                if job.requested.is_none() {
                    kept.requested = None;
                }
            }
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "the state of the plan could not be written");
        }
    }

    fn record_passed(&mut self, now: Now) {
        for record in self.planner.passed(&self.standing.held, now) {
            if let Err(error) = self.records.write(&record) {
                tracing::error!(%error, job = record.job, "what was passed over could not be recorded");
            }
        }
    }

    fn collect(&mut self, now: Now) -> Vec<FinishedRun> {
        let mut ended = Vec::new();
        for place in (0..self.running.len()).rev() {
            if self.running[place].thread.is_finished() {
                let run = self.running.swap_remove(place);
                ended.extend(self.end(run, now));
            }
        }
        ended
    }

    fn end(&mut self, run: Running, now: Now) -> Option<FinishedRun> {
        let Running {
            place,
            mut record,
            open,
            context,
            thread,
            timed_out,
            ..
        } = run;
        let came = thread
            .join()
            .unwrap_or_else(|_| Err("its thread panicked".to_owned()));
        // A look that began before this knows nothing of it.
        (self.look, self.look_at) = (None, Instant::now());
        let Some(open) = open else {
            self.planner.left(place, &record, now);
            return None;
        };
        let end = match came {
            Ok(report) => End::of(report, &context),
            Err(reason) if timed_out => End::TimedOut(reason),
            Err(reason) if context.is_cancelled() => End::Cancelled(reason),
            Err(reason) => End::Failed(reason),
        };
        if let End::Failed(reason) | End::TimedOut(reason) = &end {
            tracing::error!(
                job = record.job,
                error = reason,
                "a job of the plan failed; it is tried again"
            );
        }
        self.planner.end(place, &mut record, end, now);
        Some(finished(&self.records, open, record, &context))
    }

    /// It is told to end. What does not is recorded all the same, and nothing of its job is started beside it.
    fn end_at_deadlines(&mut self, now: Now) -> Vec<FinishedRun> {
        let mut ended = Vec::new();
        for run in &mut self.running {
            let Some(limit) = run.context.deadline() else {
                continue;
            };
            let took = now.steady.saturating_sub(run.began);
            if took > limit && !run.timed_out {
                tracing::error!(
                    job = run.record.job,
                    ?limit,
                    "a job is told to end at its deadline"
                );
                run.timed_out = true;
                run.context.cancel();
            }
            if took > limit + DEADLINE_TIMEOUT
                && let Some(open) = run.open.take()
            {
                let reason = format!(
                    "it was told to end at its deadline of {} s, and did not; what it does continues",
                    limit.as_secs()
                );
                tracing::error!(job = run.record.job, reason, "a job passed its deadline");
                run.record.end(End::TimedOut(reason), now.wall_micros);
                let record = run.record.clone();
                ended.push(finished(&self.records, open, record, &run.context));
            }
        }
        ended
    }

    /// What runs all the time has no end of its own that a pause could wait for.
    fn end_paused(&self) {
        for run in &self.running {
            let is_continuous = run.record.cause == Cause::Continuous;
            if is_continuous && self.planner.scheduler().is_paused(run.place) {
                run.context.cancel();
            }
        }
    }

    fn take_look(&mut self, now: Now) {
        if self.look.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(Ok((history, kept))) = self.look.take().map(JoinHandle::join)
        {
            for (place, history) in history.into_iter().enumerate() {
                let Some(history) = history else { continue };
                self.told[place] = true;
                self.history[place].clone_from(&history);
                if let Some(History {
                    started_micros: Some(started),
                    pending: false,
                    ..
                }) = history
                {
                    self.planner.seen(place, started);
                }
            }
            self.looked |= self.standing.may_start();
            let are_left = *kept.as_ref().unwrap_or(&true);
            self.archive_trouble = kept.err().map(|error| error.to_string());
            if are_left || self.told.contains(&false) {
                self.look_at = self.look_at.min(Instant::now() + TROUBLE_PAUSE);
            }
            for record in self.records.take_learnt() {
                self.planner.learn(&record, now);
            }
        }
        if self.look.is_none() && self.look_at <= Instant::now() {
            self.look_at = Instant::now() + LOOK_PAUSE;
            let registry = self.planner.registry().clone();
            let (records, archive) = (Arc::clone(&self.records), self.archive.clone());
            let (wall, before_look) = (now.wall_micros, self.before_look.clone());
            // In the background: a store that hangs must not hold up anybody.
            self.look = Some(std::thread::spawn(move || {
                let kept = records.keep(archive.as_deref(), wall);
                (looked_at(&registry, before_look.as_ref()), kept)
            }));
        }
    }

    fn ask_claims(&mut self) {
        let standing = ClaimStatus::of(&mut self.claims);
        let before = std::mem::replace(&mut self.standing, standing);
        // A run has what was held from its beginning to its end.
        for run in &mut self.running {
            run.record
                .claims
                .retain(|claim| self.standing.kept.contains(claim));
        }
        let may_start = self.standing.may_start();
        let gap = self.standing.kept.len() < self.standing.held.len();
        self.looked &= may_start && !gap;
        if may_start && (gap || !before.may_start()) {
            // The other driver may have done what is due: that is looked at before anything is started, and a look
            // that began while it could is none.
            (self.look, self.look_at) = (None, Instant::now());
        }
    }

    fn ask_jobs(&mut self, now: Now) {
        for place in 0..self.available.len() {
            let job = self.planner.registry().job(place);
            self.available[place] = job.availability();
            if *self.planner.scheduler().trigger(place) == Trigger::OnChange && job.has_changed() {
                self.planner.changed(place, now);
            }
        }
    }

    fn start_due(&mut self, now: Now) {
        if !self.standing.may_start() || !self.looked {
            return;
        }
        let mut ready: Vec<bool> = (self.available.iter())
            .map(|available| *available == Availability::Ready)
            .collect();
        for place in self.excluded_by_other_processes() {
            ready[place] = false;
        }
        for (ready, told) in ready.iter_mut().zip(&self.told) {
            *ready &= told;
        }
        while let Some(due) = self.planner.due(now, |place| ready[place]) {
            if let Err(error) = self.start_run(due, now) {
                tracing::error!(%error, "a run is not started without a record of it");
            }
        }
    }

    /// A person may run one by hand.
    fn excluded_by_other_processes(&self) -> Vec<usize> {
        let running = match Records::running(self.records.root()) {
            Ok(running) => running,
            Err(error) => {
                tracing::debug!(%error, "what other processes run cannot be told now");
                return Vec::new();
            }
        };
        let own = |record: &RunRecord| {
            let mut own = self.running.iter();
            own.any(|run| run.record.run_id == record.run_id)
        };
        let specs = self.planner.registry().specs();
        let others = running.iter().filter(|record| !own(record));
        let others: Vec<&JobSpec> = others
            .filter_map(|record| self.planner.registry().find(&record.job).ok())
            .collect();
        let excluded = |spec: &JobSpec| {
            let mut others = others.iter();
            others.any(|other| other.name == spec.name || other.excludes(spec))
        };
        (0..specs.len())
            .filter(|place| excluded(&specs[*place]))
            .collect()
    }

    /// One that cannot be put on record is not started: it is tried again.
    fn start_run(&mut self, due: Due, now: Now) -> Result<String> {
        let place = due.job;
        let asked = match due.cause {
            Cause::Request => self.asked_by.remove(&place),
            _ => None,
        };
        let record = self.planner.begin(&due, &self.standing.held, now);
        let open = match self.records.begin(&record) {
            Ok(open) => open,
            Err(error) => {
                self.planner.put_back(due, now, DISK_PAUSE);
                return Err(error);
            }
        };
        let (asked_by, options) = asked.unzip();
        let context =
            RunContext::new(self.limit(place, now), asked_by).with_options(options.flatten());
        let (job, of_run) = (
            Arc::clone(self.planner.registry().job(place)),
            context.clone(),
        );
        let run_id = record.run_id.clone();
        self.running.push(Running {
            place,
            record,
            open: Some(open),
            context,
            began: now.steady,
            thread: std::thread::spawn(move || job.run(&of_run)),
            timed_out: false,
        });
        Ok(run_id)
    }

    fn limit(&self, place: usize, now: Now) -> Option<Duration> {
        let spec = &self.planner.registry().specs()[place];
        let median = self
            .records
            .statistics(&spec.name, now.wall_micros)
            .duration_median();
        spec.deadline.limit(median)
    }

    /// It runs as soon as nothing is in its way, also while it is paused.
    ///
    /// # Errors
    /// When there is no such job, or it cannot run here.
    pub fn request(&mut self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        if let Availability::Unavailable(reason) = self.planner.registry().job(place).availability()
        {
            return Err(Error::Refused {
                job: self.registry().specs()[place].name.clone(),
                reason,
            });
        }
        self.planner.request(place, now(self.clock));
        Ok(())
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.registry().find(name)?;
        Ok(self.registry().place(name).unwrap_or_default())
    }

    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        let place = self.registry().place(name);
        self.running.iter().any(|run| Some(run.place) == place)
    }

    #[must_use]
    pub fn is_paused(&self, name: &str) -> bool {
        let place = self.registry().place(name);
        place.is_some_and(|place| self.planner.scheduler().is_paused(place))
    }

    /// All jobs, in the order of the registry.
    #[must_use]
    pub fn status(&self) -> Vec<JobStatus> {
        let now = now(self.clock);
        let specs = self.registry().specs().iter().enumerate();
        let status = |(place, spec): (usize, &JobSpec)| {
            let is_open = |run: &&Running| run.place == place && run.open.is_some();
            let running = self.running.iter().find(is_open);
            JobStatus {
                available: self.available[place].clone(),
                running: running.map(|run| (run.record.clone(), run.context.told().step)),
                paused: self.state.paused(&spec.name).cloned(),
                pause_policy: self.registry().job(place).pause_policy(),
                last: self.records.newest_run(&spec.name),
                shown: self.history.get(place).cloned().flatten(),
                statistics: self.records.statistics(&spec.name, now.wall_micros),
                next_micros: self.planner.scheduler().next_micros(place, now),
                spec: spec.clone(),
            }
        };
        specs.map(status).collect()
    }

    /// What an operator must know about the driver itself.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self.state_trouble.iter().cloned().collect();
        for (place, spec) in self.registry().specs().iter().enumerate() {
            if let (Some(_), PausePolicy::Refused(why)) = (
                self.state.paused(&spec.name),
                self.registry().job(place).pause_policy(),
            ) {
                troubles.push(format!("the pause of {} has no effect: {why}", spec.name));
            }
        }
        troubles.extend(
            self.archive_trouble
                .iter()
                .map(|trouble| format!("run records are not in the repository: {trouble}")),
        );
        let unreadable = self.records.unreadable();
        if let Some((name, reason)) = unreadable.iter().next() {
            troubles.push(format!(
                "{} run records cannot be read, the first of them {name}: {reason}",
                unreadable.len()
            ));
        }
        troubles
    }

    /// Who runs the jobs of this plan, where it is not this driver.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&str> {
        self.standing.elsewhere.as_deref()
    }

    pub fn cancel(&self) {
        for run in &self.running {
            run.context.cancel();
        }
    }

    /// Tells what runs to end, and waits for it that long. What does not end is left to itself: its record says
    /// interrupted from the next start on.
    pub fn stop(&mut self, timeout: Duration) -> Vec<FinishedRun> {
        self.cancel();
        let began = Instant::now();
        let mut ended = Vec::new();
        loop {
            ended.extend(self.collect(now(self.clock)));
            if self.running.is_empty() || began.elapsed() >= timeout {
                break;
            }
            std::thread::sleep(JOIN_LOOK);
        }
        for run in &self.running {
            tracing::warn!(
                job = run.record.job,
                "a job does not end; it is left to itself"
            );
        }
        ended
    }
}

/// Its record is complete: it goes where the next driver finds it.
fn finished(
    records: &Records,
    open: OpenRun,
    record: RunRecord,
    context: &RunContext,
) -> FinishedRun {
    if let Err(error) = records.end(open, &record) {
        tracing::error!(%error, job = record.job, "how a run ended could not be recorded");
    }
    let answer = context.take_answer();
    FinishedRun { record, answer }
}

fn looked_at(registry: &Registry, before: Option<&BeforeLook>) -> Look {
    if let Some(before) = before {
        before();
    }
    let places = 0..registry.specs().len();
    let history = |place: usize| match registry.job(place).history() {
        Ok(history) => Some(history),
        Err(reason) => {
            tracing::debug!(
                job = registry.specs()[place].name,
                reason,
                "what ran before cannot be told now"
            );
            None
        }
    };
    places.map(history).collect()
}

fn now(clock: Instant) -> Now {
    Now {
        wall_micros: jiff::Timestamp::now().as_microsecond(),
        steady: clock.elapsed(),
    }
}
