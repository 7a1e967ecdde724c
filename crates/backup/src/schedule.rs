//! When each job of the plan runs. Pure: both clocks are fed, nothing is started here.
//!
//! The wall clock (UTC) says which appointment was the last one; a clock that only goes forward says how long ago a job really
//! started. A job whose last appointment lies after its last start is due: what was missed while the engine was stopped is
//! caught up once, however many appointments it was. The wall clock may be set: back, and the last start counts as now; forward,
//! and an appointment that comes much too soon after the last real start is passed over. So no jump makes a storm, and none
//! silences a job for longer than one period.

use std::{fmt, str::FromStr, time::Duration};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// A start has better things to do than to catch up.
const START_PAUSE: Duration = Duration::from_secs(60);
/// Between two attempts at a job that failed: doubled each time, up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_LAST: Duration = Duration::from_secs(1800);

/// What the engine does by itself. WAL is not among them: it streams all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    Full,
    Expire,
    Incremental,
    Proof,
    /// The definitions, into git.
    Schema,
    /// What is new in the audit log, into its archive.
    AuditArchive,
}

impl Job {
    /// In the order in which they go first when several are due.
    pub const ALL: [Job; 6] = [
        Job::Full,
        Job::Expire,
        Job::Incremental,
        Job::Proof,
        Job::Schema,
        Job::AuditArchive,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Job::Full => "full",
            Job::Expire => "expire",
            Job::Incremental => "incremental",
            Job::Proof => "proof",
            Job::Schema => "schema",
            Job::AuditArchive => "audit_archive",
        }
    }

    /// A proof and a dump of definitions only read, and nothing else touches the audit archive; the others would get into each other's way.
    fn shares_a_lane(self, other: Job) -> bool {
        let lane = |job| match job {
            Job::Full | Job::Expire | Job::Incremental => 0,
            Job::Proof => 1,
            Job::Schema => 2,
            Job::AuditArchive => 3,
        };
        lane(self) == lane(other)
    }
}

/// How often. Times are UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    Off,
    Daily {
        minute_of_day: u16,
    },
    Hourly {
        minute: u16,
    },
    EveryMinutes {
        minutes: u16,
    },
    /// After every backup of either kind.
    AfterEveryBackup,
    AfterFull,
}

impl Cadence {
    /// The newest appointment that is not in the future.
    fn last_appointment(self, now_micros: i64) -> Option<i64> {
        let (period, offset) = self.grid()?;
        Some((now_micros - offset).div_euclid(period) * period + offset)
    }

    fn grid(self) -> Option<(i64, i64)> {
        match self {
            Cadence::Daily { minute_of_day } => Some((DAY, i64::from(minute_of_day) * MINUTE)),
            Cadence::Hourly { minute } => Some((HOUR, i64::from(minute) * MINUTE)),
            Cadence::EveryMinutes { minutes } => Some((i64::from(minutes) * MINUTE, 0)),
            Cadence::Off | Cadence::AfterEveryBackup | Cadence::AfterFull => None,
        }
    }

    /// From one appointment to the next; `None` for what has none.
    #[must_use]
    pub fn period(self) -> Option<Duration> {
        let micros = self.grid()?.0;
        Some(Duration::from_micros(micros.unsigned_abs()))
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cadence::Off => f.write_str("off"),
            Cadence::Daily { minute_of_day } => {
                write!(
                    f,
                    "daily {:02}:{:02}",
                    minute_of_day / 60,
                    minute_of_day % 60
                )
            }
            Cadence::Hourly { minute } => write!(f, "hourly :{minute:02}"),
            Cadence::EveryMinutes { minutes } => write!(f, "every {minutes} minutes"),
            Cadence::AfterEveryBackup => f.write_str("after every backup"),
            Cadence::AfterFull => f.write_str("after full"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no schedule; it is one of: off, daily HH:MM, hourly :MM (both UTC), every N minutes (1 to 60), after every backup, after full"
)]
pub struct CadenceError(String);

impl FromStr for Cadence {
    type Err = CadenceError;

    fn from_str(text: &str) -> Result<Self, CadenceError> {
        let bad = || CadenceError(text.to_owned());
        let number = |digits: &str, max: u16| {
            let plain =
                (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            let value = digits.parse().ok().filter(|value| plain && *value <= max);
            value.ok_or_else(bad)
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["off"] => Ok(Cadence::Off),
            ["daily"] => Ok(Cadence::Daily { minute_of_day: 0 }),
            ["daily", at] => {
                let (hour, minute) = at.split_once(':').ok_or_else(bad)?;
                let minute_of_day = number(hour, 23)? * 60 + number(minute, 59)?;
                Ok(Cadence::Daily { minute_of_day })
            }
            ["hourly"] => Ok(Cadence::Hourly { minute: 0 }),
            ["hourly", at] => {
                let minute = number(at.strip_prefix(':').ok_or_else(bad)?, 59)?;
                Ok(Cadence::Hourly { minute })
            }
            ["every", minutes, "minutes"] => match number(minutes, 60)? {
                0 => Err(bad()),
                minutes => Ok(Cadence::EveryMinutes { minutes }),
            },
            ["after", "every", "backup"] => Ok(Cadence::AfterEveryBackup),
            ["after", "full"] => Ok(Cadence::AfterFull),
            _ => Err(bad()),
        }
    }
}

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
    pub last_start_micros: Option<i64>,
    /// What it comes after has happened since it last ran.
    pub pending: bool,
}

#[derive(Clone, Debug)]
struct State {
    cadence: Cadence,
    last_start_micros: Option<i64>,
    started_at: Option<Duration>,
    running: bool,
    /// Wanted whatever the appointments say: its trigger came, or its last attempt failed.
    pending: bool,
    failures: u32,
    retry_at: Option<Duration>,
}

/// Decides; whoever asks starts the job and says so.
#[derive(Clone, Debug)]
pub struct Scheduler {
    states: [State; 6],
}

impl Scheduler {
    /// Nothing is due within the first minute.
    pub fn new(now: Now, cadence: impl Fn(Job) -> Cadence, past: impl Fn(Job) -> Past) -> Self {
        let state = |job: Job| {
            let (cadence, past) = (cadence(job), past(job));
            State {
                cadence,
                last_start_micros: past.last_start_micros,
                started_at: None,
                running: false,
                pending: past.pending && cadence.grid().is_none() && cadence != Cadence::Off,
                failures: 0,
                retry_at: Some(now.steady + START_PAUSE),
            }
        };
        Self {
            states: Job::ALL.map(state),
        }
    }

    /// The job to start now, if any, of those that `can` be started. Ask again after starting it: another lane may have one, too.
    pub fn due(&mut self, now: Now, can: impl Fn(Job) -> bool) -> Option<Job> {
        for state in &mut self.states {
            // The clock was set back: what started "later" than now started now.
            if let Some(last) = &mut state.last_start_micros {
                *last = (*last).min(now.wall_micros);
            }
        }
        Job::ALL
            .into_iter()
            .find(|job| !self.is_busy(*job) && can(*job) && self.is_wanted(*job, now))
    }

    fn is_busy(&self, job: Job) -> bool {
        Job::ALL
            .into_iter()
            .any(|other| job.shares_a_lane(other) && self.state(other).running)
    }

    fn is_wanted(&mut self, job: Job, now: Now) -> bool {
        // A full backup is also what an incremental one would have been for.
        let last = match job {
            Job::Incremental => self.newest_backup(),
            _ => self.state(job).last_start_micros,
        };
        let state = self.state_mut(job);
        if state.retry_at.is_some_and(|at| now.steady < at) {
            return false;
        }
        if state.pending {
            return true;
        }
        let Some(appointment) = state.cadence.last_appointment(now.wall_micros) else {
            return false;
        };
        if last.is_some_and(|last| appointment <= last) {
            return false;
        }
        let half = state.cadence.period().unwrap_or_default() / 2;
        let too_soon = |started: Duration| now.steady.saturating_sub(started) < half;
        if state.started_at.is_some_and(too_soon) {
            // By the steady clock it ran just now: the wall clock was set. This appointment counts as kept.
            state.last_start_micros = Some(appointment);
            return false;
        }
        true
    }

    fn newest_backup(&self) -> Option<i64> {
        let of = |job| self.state(job).last_start_micros;
        of(Job::Full).max(of(Job::Incremental))
    }

    pub fn started(&mut self, job: Job, now: Now) {
        let state = self.state_mut(job);
        state.running = true;
        state.pending = false;
        state.last_start_micros = Some(now.wall_micros);
        state.started_at = Some(now.steady);
    }

    /// A job that failed is tried again by and by; what follows a backup follows only one that succeeded.
    pub fn ended(&mut self, job: Job, now: Now, succeeded: bool) {
        let state = self.state_mut(job);
        state.running = false;
        if succeeded {
            (state.failures, state.retry_at) = (0, None);
            self.follow(job);
            return;
        }
        let pause = RETRY_FIRST * 2_u32.saturating_pow(state.failures.min(10));
        state.failures = state.failures.saturating_add(1);
        state.retry_at = Some(now.steady + pause.min(RETRY_LAST));
        state.pending = state.cadence != Cadence::Off;
    }

    fn follow(&mut self, done: Job) {
        let is_backup = matches!(done, Job::Full | Job::Incremental);
        if is_backup {
            let incremental = self.state_mut(Job::Incremental);
            incremental.pending = false;
        }
        for job in Job::ALL {
            let state = self.state_mut(job);
            state.pending |= match state.cadence {
                Cadence::AfterEveryBackup => {
                    is_backup && !matches!(job, Job::Full | Job::Incremental)
                }
                Cadence::AfterFull => done == Job::Full && job != Job::Full,
                _ => false,
            };
        }
    }

    /// Somebody else did it, at this time: what was due before is done.
    pub fn seen(&mut self, job: Job, started_micros: i64) {
        let state = self.state_mut(job);
        if state.last_start_micros < Some(started_micros) {
            state.last_start_micros = Some(started_micros);
            if !state.running {
                (state.pending, state.failures, state.retry_at) = (false, 0, None);
            }
        }
    }

    #[must_use]
    pub fn is_running(&self, job: Job) -> bool {
        self.state(job).running
    }

    /// When it will run next, as far as appointments tell: `None` for what is off or waits for another job.
    #[must_use]
    pub fn next_micros(&self, job: Job, now: Now) -> Option<i64> {
        let state = self.state(job);
        if state.pending {
            let wait = state
                .retry_at
                .map_or(Duration::ZERO, |at| at.saturating_sub(now.steady));
            let wait = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
            return Some(now.wall_micros.saturating_add(wait));
        }
        next_appointment(state.cadence, now.wall_micros)
    }

    fn state(&self, job: Job) -> &State {
        &self.states[job as usize]
    }

    fn state_mut(&mut self, job: Job) -> &mut State {
        &mut self.states[job as usize]
    }
}

/// The first appointment after a moment.
#[must_use]
pub fn next_appointment(cadence: Cadence, now_micros: i64) -> Option<i64> {
    let (period, _) = cadence.grid()?;
    Some(cadence.last_appointment(now_micros)? + period)
}

#[cfg(test)]
mod tests;
