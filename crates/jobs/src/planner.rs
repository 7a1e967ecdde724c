//! The plan without its threads and disks: what is known of jobs, and what follows. Clocks, records and claims are
//! fed.

use std::time::Duration;

use crate::{
    job::{FirstRun, History, PausePolicy},
    known::JobHistory,
    record::{End, Origin, Outcome, RunRecord},
    registry::Registry,
    schedule::{Cause, Due, MissedAppointments, Now, Past, ScheduledJob, Scheduler, Trigger},
    state::PlanState,
};

const PAUSED: &str = "the job was paused";
const BY_HAND: &str = "a run by hand did it";
const UNKNOWN_THERE: &str = "another driver of this plan took over, and did not know of it";

#[derive(Debug)]
pub struct Planner {
    registry: Registry,
    scheduler: Scheduler,
    driver: String,
}

impl Planner {
    /// `known` and `history` say what ran before. The state is brought up to date: jobs that are new in it, schedules
    /// that changed.
    #[must_use]
    pub fn new(
        registry: Registry,
        state: &mut PlanState,
        known: impl Fn(&str) -> JobHistory,
        history: &[Option<History>],
        now: Now,
        driver: String,
    ) -> Self {
        let wall = now.wall_micros;
        let knowns: Vec<JobHistory> = registry
            .specs()
            .iter()
            .map(|spec| known(&spec.name))
            .collect();
        let newest = |place: usize| {
            let shown = history
                .get(place)
                .and_then(|history| history.as_ref()?.started_micros);
            shown
                .max(knowns[place].started_micros)
                .filter(|started| *started <= wall)
        };
        let mut plan = Vec::new();
        let (mut edited, mut gaps) = (Vec::new(), Vec::new());
        for (place, spec) in registry.specs().iter().enumerate() {
            let text = spec.trigger.to_string();
            let of_state = state.job(&spec.name);
            // It may have been paused before it was ever in force.
            let is_new = of_state.schedule.is_none();
            let shown = history.get(place).and_then(Option::as_ref);
            let ran =
                knowns[place].any || shown.is_some_and(|shown| shown.started_micros.is_some());
            if is_new && !ran && spec.first_run == FirstRun::NextAppointment {
                of_state.since_micros = Some(wall);
            }
            // A moment that has not come yet by this clock was one of a clock that was wrong.
            let since = of_state.since_micros.filter(|since| *since <= wall);
            let known = &knowns[place];
            let own = of_state.schedule.replace(text.clone());
            // What another driver had since this one learnt its own.
            let in_force = known.in_force.as_ref().filter(|in_force| {
                own.is_none() || since.is_none_or(|since| in_force.newest_micros > since)
            });
            let since = since.or(in_force.map(|in_force| in_force.from_micros));
            let last = in_force.map(|in_force| &in_force.schedule).or(own.as_ref());
            let before: Option<Trigger> = last.and_then(|last| last.parse().ok());
            let is_other = |known: &&String| **known != text;
            let is_edited = own.as_ref().is_some_and(|own| is_other(&own))
                || last.is_some_and(|last| is_other(&last));
            if is_edited {
                edited.push(place);
            }
            let mut missed = Vec::new();
            // One schedule after the other, each while it was in force.
            let newest_one = before.as_ref().unwrap_or(&spec.trigger);
            if let (Some(own), Some(in_force)) = (&own, in_force)
                && *own != in_force.schedule
                && let Ok(own) = own.parse()
            {
                let from = in_force.from_micros;
                missed.extend(known.gaps(&own, since, Some(from)));
                missed.extend(known.gaps(newest_one, Some(from), None));
            } else {
                missed.extend(known.gaps(newest_one, since, None));
            }
            missed.extend(since.map_or_else(Vec::new, |since| known.left_open(since)));
            gaps.extend(missed.into_iter().map(|covers| (place, covers)));
            let pending = match shown {
                Some(shown) => shown.pending,
                None => {
                    let after = registry.after(place).iter();
                    let ended = after
                        .filter_map(|other| newest(*other).max(knowns[*other].ended_micros))
                        .max();
                    ended.is_some_and(|ended| newest(place).max(since) < Some(ended))
                }
            };
            plan.push(ScheduledJob {
                trigger: match is_edited {
                    true => before.unwrap_or(Trigger::Off),
                    false => spec.trigger.clone(),
                },
                after: registry.after(place).to_vec(),
                covered_by: registry.covered_by(place).to_vec(),
                locks: spec.locks.clone(),
                priority: spec.priority,
                past: Past {
                    last_start_micros: newest(place),
                    settled_micros: since.max(knowns[place].settled_micros),
                    pending,
                    kept_until_micros: knowns[place].later_micros,
                },
            });
        }
        let mut scheduler = Scheduler::new(now, plan);
        for (place, covers) in gaps {
            scheduler.pass(place, covers, UNKNOWN_THERE);
        }
        for (place, spec) in registry.specs().iter().enumerate() {
            if edited.contains(&place) {
                scheduler.edit(place, spec.trigger.clone(), now);
                state.job(&spec.name).since_micros = Some(wall);
            }
            let of_state = state.job(&spec.name);
            if let Some(resumed) = of_state
                .resumed_micros
                .take()
                .filter(|resumed| *resumed <= wall)
            {
                scheduler.pass_until(place, resumed, PAUSED);
                of_state.since_micros = of_state.since_micros.max(Some(resumed));
            }
            if of_state.paused.is_some() && may_pause(&registry, place) {
                scheduler.pause(place);
            }
            if spec.first_run == FirstRun::SoonAtEachStart {
                scheduler.wish(place, Cause::Change, now);
            }
        }
        Self {
            registry,
            scheduler,
            driver,
        }
    }

    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The next one to start, of those that `can` be. Say so with [`begin`](Self::begin), then ask again.
    pub fn due(&mut self, now: Now, can: impl Fn(usize) -> bool) -> Option<Due> {
        self.scheduler.due(now, can)
    }

    /// The record of a run that starts.
    pub fn begin(&mut self, due: &Due, claims: &[String], now: Now) -> RunRecord {
        self.scheduler.started(due, now);
        let mut record = self.record(due.job, due.cause, due.planned_at_micros, claims, now);
        record.covers = due.covers;
        if due.clock_went_back {
            record.reason =
                Some("a clock was set back past an appointment that had been kept".to_owned());
        }
        record
    }

    /// It could not be begun: its appointments stay open, and it is tried again after a pause.
    pub fn put_back(&mut self, due: Due, now: Now, pause: Duration) {
        self.scheduler.put_back(due, now, pause);
    }

    fn record(
        &self,
        place: usize,
        cause: Cause,
        planned_at: i64,
        claims: &[String],
        now: Now,
    ) -> RunRecord {
        let spec = &self.registry.specs()[place];
        let origin = Origin {
            job: &spec.name,
            component: &spec.component,
            driver: &self.driver,
            schedule: self.scheduler.trigger(place).to_string(),
            claims: claims.to_vec(),
        };
        RunRecord::begun(origin, cause, planned_at, now.wall_micros)
    }

    /// Completes the record of a run.
    pub fn end(&mut self, place: usize, record: &mut RunRecord, end: End, now: Now) {
        record.end(end, now.wall_micros);
        self.scheduler.ended(place, now, record.outcome.settles());
    }

    /// Of a run whose record had been completed before its thread ended.
    pub(crate) fn left(&mut self, place: usize, record: &RunRecord, now: Now) {
        self.scheduler.ended(place, now, record.outcome.settles());
    }

    /// Records of what was passed over since this was last asked.
    pub fn passed(&mut self, claims: &[String], now: Now) -> Vec<RunRecord> {
        let passed = self.scheduler.take_passed();
        let record = |passed: MissedAppointments| {
            let mut record = self.record(
                passed.job,
                Cause::Appointment,
                passed.covers.last_micros,
                claims,
                now,
            );
            record.ended_at_micros = Some(now.wall_micros);
            record.outcome = Outcome::Skipped;
            record.covers = Some(passed.covers);
            record.reason = Some(passed.reason);
            record
        };
        passed.into_iter().map(record).collect()
    }

    /// Of another driver of this plan.
    pub fn learn(&mut self, record: &RunRecord, now: Now) {
        let Some(place) = self
            .registry
            .place(&record.job)
            .filter(|_| record.driver != self.driver)
        else {
            return;
        };
        if let Some(covers) = record.covers.filter(|_| record.outcome.settles()) {
            // It did not know of what was missed before: nothing will be started for that any more.
            self.scheduler
                .pass_until(place, covers.first_micros - 1, UNKNOWN_THERE);
        }
        if record.cause == Cause::Request && record.covers.is_none() && record.outcome.settles() {
            // A person's process knows of no appointments; what was open is done by it all the same.
            let started = record.started_at_micros;
            self.scheduler.pass_until(place, started, BY_HAND);
        }
        match record.outcome {
            Outcome::Succeeded | Outcome::Unsound | Outcome::Partial => {
                self.scheduler.seen(place, record.started_at_micros);
                for job in 0..self.registry.specs().len() {
                    if self.registry.after(job).contains(&place) {
                        self.scheduler.wish(job, Cause::After, now);
                    }
                }
            }
            Outcome::Skipped => {
                if let Some(covers) = record.covers {
                    self.scheduler.settled(place, covers.last_micros);
                }
            }
            _ => {}
        }
    }

    /// The thing itself shows that somebody did it then.
    pub fn seen(&mut self, place: usize, started_micros: i64) {
        self.scheduler.seen(place, started_micros);
    }

    /// It shall run as soon as nothing is in its way, also while it is paused.
    pub fn request(&mut self, place: usize, now: Now) {
        self.scheduler.wish(place, Cause::Request, now);
    }

    /// What it looks after changed.
    pub fn changed(&mut self, place: usize, now: Now) {
        self.scheduler.wish(place, Cause::Change, now);
    }

    /// As the state says, which may have been changed by another process. True when the state has to be written
    /// again, once what was passed over is recorded.
    pub fn follow(&mut self, state: &mut PlanState, now: Now) -> bool {
        let mut changed = false;
        for place in 0..self.registry.specs().len() {
            let Some(of_state) = state.jobs.get_mut(&self.registry.specs()[place].name) else {
                continue;
            };
            match (&of_state.paused, self.scheduler.is_paused(place)) {
                (Some(_), false) if may_pause(&self.registry, place) => {
                    self.scheduler.pause(place);
                }
                (None, true) => self.scheduler.resume(place, now),
                _ => {}
            }
            if of_state.resumed_micros.take().is_some() {
                of_state.since_micros = of_state.since_micros.max(Some(now.wall_micros));
                changed = true;
            }
        }
        changed
    }
}

fn may_pause(registry: &Registry, place: usize) -> bool {
    !matches!(registry.job(place).pause_policy(), PausePolicy::Refused(_))
}
