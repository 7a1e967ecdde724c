//! Which job is due. Both clocks are fed, nothing is started here.
//!
//! The wall clock says which appointment was the last one; a clock that only goes forward says how long ago a job
//! really started. A job whose last appointment is after its last start is due: what was missed while the engine was
//! stopped is caught up once, however many appointments it was. The wall clock may be set: back, and the last start
//! counts as now; forward, and an appointment that comes much too soon after the last real start is passed over. So
//! no jump makes a storm, and none silences a job for longer than one period. All that is passed over is told, with
//! the reason.

use std::{cmp::Reverse, time::Duration};

use serde::{Deserialize, Serialize};

use super::Trigger;

/// A start has better things to do than to catch up.
const START_PAUSE: Duration = Duration::from_secs(60);
/// Between two attempts at a job that failed: doubled each time, up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_LAST: Duration = Duration::from_secs(1800);

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since 1970 UTC, as the machine believes.
    pub wall_micros: i64,
    /// Since any fixed moment of this process; never goes back.
    pub steady: Duration,
}

/// What is known of a job from before this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// None: it never ran, and is due at once.
    pub last_start_micros: Option<i64>,
    /// Appointments up to here are accounted for; the last start when absent.
    pub settled_micros: Option<i64>,
    /// What it comes after has happened since it last ran.
    pub pending: bool,
    /// It ran later than now, by a clock that was wrong then or is now: up to this moment.
    pub kept_until_micros: Option<i64>,
}

/// One job as the scheduler sees it. Other jobs go by their place in the plan.
#[derive(Clone, Debug)]
pub struct ScheduledJob {
    pub trigger: Trigger,
    /// Runs after each of these.
    pub after: Vec<usize>,
    /// A start of one of these is also what this one would have been for.
    pub covered_by: Vec<usize>,
    /// No two jobs run at once that have one of these in common.
    pub locks: Vec<String>,
    /// The greatest goes first; of equal ones the one that started longest ago.
    pub priority: u8,
    pub past: Past,
}

/// Why a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Appointment,
    /// The last attempt failed or was interrupted.
    Retry,
    After,
    Change,
    Continuous,
    /// A person asked, or a part of the engine that needs it now.
    Request,
}

/// The appointments that a run covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covers {
    pub appointments: u64,
    pub first_micros: i64,
    pub last_micros: i64,
}

impl Covers {
    fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            appointments: self.appointments.saturating_add(other.appointments),
            first_micros: self.first_micros.min(other.first_micros),
            last_micros: self.last_micros.max(other.last_micros),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub job: usize,
    pub planned_at_micros: i64,
    pub cause: Cause,
    pub covers: Option<Covers>,
    /// The wall clock was set back past an appointment that was kept before.
    pub clock_went_back: bool,
}

/// Appointments that nothing will be started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedAppointments {
    pub job: usize,
    pub covers: Covers,
    pub reason: String,
}

#[derive(Clone, Debug)]
struct Wish {
    at_micros: i64,
    cause: Cause,
    /// Of the attempt that failed.
    covers: Option<Covers>,
    clock_went_back: bool,
}

#[derive(Clone, Debug)]
struct State {
    planned: ScheduledJob,
    last_start_micros: Option<i64>,
    settled_micros: Option<i64>,
    started_at: Option<Duration>,
    running: Option<Due>,
    /// Wanted even without an appointment: its trigger came, or its last attempt failed.
    wish: Option<Wish>,
    /// Came while it ran.
    again: Option<Wish>,
    failures: u32,
    retry_at: Option<Duration>,
    /// Up to here appointments were kept, and come again because the clock was set back.
    kept_until_micros: Option<i64>,
    paused: bool,
    /// Why the run that is under way is not repeated if it fails.
    not_repeated: Option<&'static str>,
}

impl State {
    fn new(planned: ScheduledJob, now: Now) -> Self {
        let past = planned.past;
        let follows = matches!(planned.trigger, Trigger::After(_) | Trigger::OnChange);
        let wish = Wish::new(now.wall_micros, Cause::After);
        Self {
            last_start_micros: past.last_start_micros,
            settled_micros: past.settled_micros.max(past.last_start_micros),
            started_at: None,
            running: None,
            wish: (past.pending && follows).then_some(wish),
            again: None,
            failures: 0,
            retry_at: (planned.trigger != Trigger::Continuous).then_some(now.steady + START_PAUSE),
            kept_until_micros: past.kept_until_micros,
            paused: false,
            not_repeated: None,
            planned,
        }
    }

    /// The clock was set back: what happened "later" than now happened now.
    fn follow_clock(&mut self, now_micros: i64) {
        if let Some(settled) = self.settled_micros.filter(|settled| *settled > now_micros) {
            self.kept_until_micros = self.kept_until_micros.max(Some(settled));
            self.settled_micros = Some(now_micros);
        }
        self.last_start_micros = self.last_start_micros.map(|last| last.min(now_micros));
    }

    /// By a clock that was set back since.
    fn was_kept(&self, appointment: i64) -> bool {
        self.kept_until_micros >= Some(appointment)
    }

    /// Appointments that have come and are not accounted for.
    fn outstanding(&self, now_micros: i64) -> Option<Covers> {
        let last = self.planned.trigger.last_appointment(now_micros)?;
        let Some(settled) = self.settled_micros else {
            return Some(Covers {
                appointments: 1,
                first_micros: last,
                last_micros: last,
            });
        };
        let (appointments, first_micros) = self.planned.trigger.appointments(settled, last)?;
        Some(Covers {
            appointments,
            first_micros,
            last_micros: last,
        })
    }

    /// Nothing before its next appointment. What is given up by that.
    fn drop_all(&mut self, now_micros: i64) -> Option<Covers> {
        let failed = self.wish.take().and_then(|wish| wish.covers);
        let known = self.settled_micros.is_some();
        let outstanding = self.outstanding(now_micros).filter(|_| known);
        self.settled_micros = Some(
            self.settled_micros
                .map_or(now_micros, |settled| settled.max(now_micros)),
        );
        (self.failures, self.retry_at, self.again) = (0, None, None);
        match (outstanding, failed) {
            (Some(outstanding), failed) => Some(outstanding.and(failed)),
            (None, failed) => failed,
        }
    }
}

impl Wish {
    fn new(at_micros: i64, cause: Cause) -> Self {
        Self {
            at_micros,
            cause,
            covers: None,
            clock_went_back: false,
        }
    }
}

/// Decides; the caller starts the job and says so.
#[derive(Clone, Debug)]
pub struct Scheduler {
    states: Vec<State>,
    passed: Vec<MissedAppointments>,
}

impl Scheduler {
    /// Nothing is due within the first minute.
    #[must_use]
    pub fn new(now: Now, plan: Vec<ScheduledJob>) -> Self {
        let states = plan.into_iter().map(|planned| State::new(planned, now));
        Self {
            states: states.collect(),
            passed: Vec::new(),
        }
    }

    /// The job to start now, if any, of those that `can` be started. Ask again after starting it: another one may be
    /// due beside it.
    pub fn due(&mut self, now: Now, can: impl Fn(usize) -> bool) -> Option<Due> {
        for state in &mut self.states {
            state.follow_clock(now.wall_micros);
        }
        // Of equal ones the one that has waited longest: a job that is always due starves no other.
        let mut order: Vec<usize> = (0..self.states.len()).collect();
        order.sort_by_key(|job| {
            let state = &self.states[*job];
            (Reverse(state.planned.priority), state.last_start_micros)
        });
        for job in order {
            if !self.is_busy(job)
                && can(job)
                && let Some(due) = self.wanted(job, now)
            {
                return Some(due);
            }
        }
        None
    }

    /// It runs, or another one holds a resource that it needs.
    #[must_use]
    pub fn is_busy(&self, job: usize) -> bool {
        let own = &self.states[job].planned.locks;
        let in_common = |other: &State| other.planned.locks.iter().any(|lock| own.contains(lock));
        let mut others = self.states.iter().enumerate();
        others.any(|(place, other)| other.running.is_some() && (place == job || in_common(other)))
    }

    fn wanted(&mut self, job: usize, now: Now) -> Option<Due> {
        self.pass_what_others_covered(job);
        let state = &mut self.states[job];
        let requested = |wish: &Wish| wish.cause == Cause::Request;
        if !state.wish.as_ref().is_some_and(requested)
            && (state.paused || state.retry_at.is_some_and(|at| now.steady < at))
        {
            return None;
        }
        let outstanding = state.outstanding(now.wall_micros);
        if let Some(wish) = &state.wish {
            // An attempt that failed is made for what has come since, too.
            let covers = match (outstanding, wish.covers) {
                (Some(outstanding), failed) if state.settled_micros.is_some() => {
                    Some(outstanding.and(failed))
                }
                (_, failed) => failed,
            };
            let planned_at_micros = match (wish.cause, covers) {
                (Cause::Retry, Some(covers)) => covers.last_micros,
                _ => wish.at_micros,
            };
            return Some(Due {
                job,
                planned_at_micros,
                cause: wish.cause,
                covers,
                clock_went_back: wish.clock_went_back || state.was_kept(planned_at_micros),
            });
        }
        if state.planned.trigger == Trigger::Continuous {
            return Some(Due {
                job,
                planned_at_micros: now.wall_micros,
                cause: Cause::Continuous,
                covers: None,
                clock_went_back: false,
            });
        }
        let covers = outstanding?;
        let half = state.planned.trigger.period().unwrap_or_default() / 2;
        let since = |started| now.steady.saturating_sub(started);
        if let Some(ago) = state.started_at.map(since).filter(|ago| *ago < half) {
            // By the steady clock it ran just now: the wall clock was set. This appointment counts as kept.
            state.settled_micros = Some(covers.last_micros);
            self.passed.push(MissedAppointments {
                job,
                covers,
                reason: format!(
                    "the clock was set: it had started {} s before",
                    ago.as_secs()
                ),
            });
            return None;
        }
        Some(Due {
            job,
            planned_at_micros: covers.last_micros,
            cause: Cause::Appointment,
            covers: Some(covers),
            clock_went_back: state.was_kept(covers.last_micros),
        })
    }

    /// A full backup is also what an incremental one would have been for.
    fn pass_what_others_covered(&mut self, job: usize) {
        let others = self.states[job].planned.covered_by.clone();
        for other in others {
            let Some(started) = self.states[other].last_start_micros else {
                continue;
            };
            let state = &mut self.states[job];
            if state
                .settled_micros
                .is_some_and(|settled| settled >= started)
            {
                continue;
            }
            let known = state.settled_micros.is_some();
            let covers = state.outstanding(started).filter(|_| known);
            state.settled_micros = Some(started);
            if let Some(covers) = covers {
                let reason = "another job that ran covers it".to_owned();
                self.passed.push(MissedAppointments {
                    job,
                    covers,
                    reason,
                });
            }
        }
    }

    pub fn started(&mut self, due: &Due, now: Now) {
        let state = &mut self.states[due.job];
        state.wish = None;
        state.last_start_micros = Some(now.wall_micros);
        state.settled_micros = Some(now.wall_micros);
        state.started_at = Some(now.steady);
        state.running = Some(due.clone());
        state.not_repeated = None;
    }

    /// A job that failed is tried again with back-off; what follows a backup follows only one that succeeded.
    pub fn ended(&mut self, job: usize, now: Now, succeeded: bool) {
        let state = &mut self.states[job];
        let ran = state.running.take();
        state.wish = state.again.take();
        if succeeded {
            (state.failures, state.retry_at) = (0, None);
            self.follow(job, now);
            return;
        }
        let pause = RETRY_FIRST * 2_u32.saturating_pow(state.failures.min(10));
        let pause = pause.min(RETRY_LAST);
        // What runs all the time and ran for longer than that is not one that fails again and again.
        let ran_for = state.started_at.map(|at| now.steady.saturating_sub(at));
        let is_new = state.planned.trigger == Trigger::Continuous && ran_for > Some(pause);
        (state.failures, state.retry_at) = match is_new {
            true => (0, None),
            false => (state.failures.saturating_add(1), Some(now.steady + pause)),
        };
        let Some(ran) = ran else { return };
        let not_repeated = match state.planned.trigger {
            Trigger::Off | Trigger::Manual | Trigger::Continuous => Some("nothing repeats it"),
            _ => state.not_repeated,
        };
        match (not_repeated, ran.covers) {
            (None, covers) if state.wish.is_none() => {
                state.wish = Some(Wish {
                    at_micros: ran.planned_at_micros,
                    cause: Cause::Retry,
                    covers,
                    clock_went_back: ran.clock_went_back,
                });
            }
            (None, covers) => {
                if let Some(wish) = &mut state.wish {
                    wish.covers = covers;
                }
            }
            (Some(reason), Some(covers)) => {
                let reason = format!("its run failed, and {reason}");
                self.passed.push(MissedAppointments {
                    job,
                    covers,
                    reason,
                });
            }
            (Some(_), None) => {}
        }
    }

    /// It did not run: its appointments stay open.
    pub fn put_back(&mut self, due: Due, now: Now, pause: Duration) {
        let state = &mut self.states[due.job];
        state.running = None;
        state.retry_at = Some(now.steady + pause);
        state.wish = Some(Wish {
            at_micros: due.planned_at_micros,
            cause: due.cause,
            covers: due.covers,
            clock_went_back: due.clock_went_back,
        });
    }

    fn follow(&mut self, done: usize, now: Now) {
        for (job, state) in self.states.iter_mut().enumerate() {
            if state.planned.covered_by.contains(&done)
                && state
                    .wish
                    .as_ref()
                    .is_some_and(|wish| wish.cause == Cause::Retry)
                && let Some(covers) = state.wish.take().and_then(|wish| wish.covers)
            {
                let reason = "another job that ran covers it".to_owned();
                self.passed.push(MissedAppointments {
                    job,
                    covers,
                    reason,
                });
            }
        }
        for job in 0..self.states.len() {
            if job != done && self.states[job].planned.after.contains(&done) {
                self.wish(job, Cause::After, now);
            }
        }
    }

    /// It shall run, even without an appointment.
    pub fn wish(&mut self, job: usize, cause: Cause, now: Now) {
        let state = &mut self.states[job];
        if cause != Cause::Request && (state.paused || state.planned.trigger == Trigger::Off) {
            return;
        }
        let wish = match state.running {
            Some(_) => &mut state.again,
            None => &mut state.wish,
        };
        match wish {
            Some(wish) if cause == Cause::Request => wish.cause = cause,
            Some(_) => {}
            None => *wish = Some(Wish::new(now.wall_micros, cause)),
        }
    }

    /// Somebody else did it, at this time: what was due before is done.
    pub fn seen(&mut self, job: usize, started_micros: i64) {
        let state = &mut self.states[job];
        if state.last_start_micros < Some(started_micros) {
            state.last_start_micros = Some(started_micros);
            state.settled_micros = state.settled_micros.max(Some(started_micros));
            if state.running.is_none() {
                (state.failures, state.retry_at) = (0, None);
                state.wish.take_if(|wish| wish.cause != Cause::Request);
            }
        }
    }

    /// Somebody else accounted for its appointments up to this one.
    pub fn settled(&mut self, job: usize, last_micros: i64) {
        let state = &mut self.states[job];
        state.settled_micros = state.settled_micros.max(Some(last_micros));
    }

    /// Nothing more is started but what is asked for.
    pub fn pause(&mut self, job: usize) {
        let state = &mut self.states[job];
        state.paused = true;
        state.not_repeated = Some("the job was paused");
    }

    /// Nothing before its next appointment.
    pub fn resume(&mut self, job: usize, now: Now) {
        if std::mem::replace(&mut self.states[job].paused, false) {
            self.pass_all(job, now, "the job was paused");
        }
    }

    /// Another schedule, from now on.
    pub fn edit(&mut self, job: usize, trigger: Trigger, now: Now) {
        self.pass_all(job, now, "the schedule was changed");
        let state = &mut self.states[job];
        state.planned.trigger = trigger;
        state.started_at = None;
        state.not_repeated = Some("the schedule was changed");
    }

    /// Gives up what has come and was not done.
    pub fn pass_all(&mut self, job: usize, now: Now, reason: &str) {
        let state = &mut self.states[job];
        state.follow_clock(now.wall_micros);
        if let Some(covers) = state.drop_all(now.wall_micros) {
            let reason = reason.to_owned();
            self.passed.push(MissedAppointments {
                job,
                covers,
                reason,
            });
        }
    }

    /// Gives up what had come by an earlier moment, and what failed of it.
    pub fn pass_until(&mut self, job: usize, moment: i64, reason: &str) {
        let state = &mut self.states[job];
        let is_before = |covers: &Covers| covers.first_micros <= moment;
        let failed = state.wish.as_ref().and_then(|wish| wish.covers);
        let failed = failed.filter(is_before);
        let is_behind = state.settled_micros.is_none_or(|settled| settled < moment);
        let known = state.settled_micros.is_some();
        let outstanding = (is_behind && known).then(|| state.outstanding(moment));
        let outstanding = outstanding.flatten();
        if is_behind {
            state.settled_micros = Some(moment);
        }
        if failed.is_some() {
            state.wish = None;
        }
        let covers = match (outstanding, failed) {
            (Some(outstanding), failed) => outstanding.and(failed),
            (None, Some(failed)) => failed,
            (None, None) => return,
        };
        let reason = reason.to_owned();
        self.passed.push(MissedAppointments {
            job,
            covers,
            reason,
        });
    }

    /// Tells of appointments that were missed before.
    pub fn pass(&mut self, job: usize, covers: Covers, reason: &str) {
        let reason = reason.to_owned();
        self.passed.push(MissedAppointments {
            job,
            covers,
            reason,
        });
    }

    /// What was passed over since this was last asked.
    pub fn take_passed(&mut self) -> Vec<MissedAppointments> {
        std::mem::take(&mut self.passed)
    }

    #[must_use]
    pub fn is_running(&self, job: usize) -> bool {
        self.states[job].running.is_some()
    }

    #[must_use]
    pub fn is_paused(&self, job: usize) -> bool {
        self.states[job].paused
    }

    #[must_use]
    pub fn trigger(&self, job: usize) -> &Trigger {
        &self.states[job].planned.trigger
    }

    /// When it will run next, as far as appointments tell: `None` for what is off or waits for another job.
    #[must_use]
    pub fn next_micros(&self, job: usize, now: Now) -> Option<i64> {
        let state = &self.states[job];
        if state.wish.is_some() {
            let wait = state
                .retry_at
                .map_or(Duration::ZERO, |at| at.saturating_sub(now.steady));
            let wait = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
            return Some(now.wall_micros.saturating_add(wait));
        }
        state.planned.trigger.next_appointment(now.wall_micros)
    }
}
