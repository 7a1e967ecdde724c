//! What a job is: data, and a `run`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::schedule::Trigger;

/// One row of the plan. Everything that is shown of a job, and decided about it, follows from this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// `component.kind`, as `database.full`.
    pub name: String,
    /// Shorter or older names that it also goes by, in settings and on the command line; the first is what status
    /// files and metrics call it.
    pub aliases: Vec<String>,
    /// The thing that it protects, as the guide calls it.
    pub component: String,
    /// What it makes, for people: "incremental".
    pub kind: String,
    /// A word for jobs that others follow as one: `after every backup`.
    pub group: Option<String>,
    pub trigger: Trigger,
    pub retention: Retention,
    pub storage: Storage,
    /// No two jobs run at once that have one of these in common. One that has none may run beside itself, by hand.
    pub locks: Vec<String>,
    /// A start of one of these is also what this one would have been for.
    pub covered_by: Vec<String>,
    /// The greatest goes first when several are due; of equal ones the one that started longest ago.
    pub priority: u8,
    pub deadline: Deadline,
    /// The age of its last success at which it is late; none: it cannot be late.
    pub objective: Option<Duration>,
    /// How what it makes is checked.
    pub verification: String,
    pub first_run: FirstRun,
}

impl JobSpec {
    /// Whether the two may not run at once.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        self.locks.iter().any(|lock| other.locks.contains(lock))
    }
}

/// How long its results are kept: in words, and at least that long where that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    words: String,
    at_least: Option<Duration>,
}

const HOUR_SECONDS: u64 = 3600;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
/// The shortest that seven years can be is shorter than this.
const YEAR_SECONDS: u64 = 366 * DAY_SECONDS;

impl Retention {
    fn counted(number: u64, unit: &str, seconds: u64) -> Self {
        Self {
            words: format!("{number} {unit}"),
            at_least: Some(Duration::from_secs(number.saturating_mul(seconds))),
        }
    }

    #[must_use]
    pub fn hours(hours: u64) -> Self {
        Self::counted(hours, "hours", HOUR_SECONDS)
    }

    #[must_use]
    pub fn days(days: u64) -> Self {
        Self::counted(days, "days", DAY_SECONDS)
    }

    #[must_use]
    pub fn years(years: u64) -> Self {
        Self::counted(years, "years", YEAR_SECONDS)
    }

    /// Nothing is ever deleted: in these words.
    #[must_use]
    pub fn without_end(words: &str) -> Self {
        Self {
            words: words.to_owned(),
            at_least: Some(Duration::MAX),
        }
    }

    /// It follows from something else, or the job keeps nothing.
    #[must_use]
    pub fn in_words(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            at_least: None,
        }
    }

    /// With words that say for how much longer it may be.
    #[must_use]
    pub fn and(mut self, words: &str) -> Self {
        self.words = format!("{}, {words}", self.words);
        self
    }

    #[must_use]
    pub fn at_least(&self) -> Option<Duration> {
        self.at_least
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Where its results are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Sealed, in the instance's repository.
    Repository,
    Git,
    Local,
    /// In the service that made them.
    Provider,
}

impl Storage {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Git => "git",
            Self::Local => "local",
            Self::Provider => "provider",
        }
    }
}

/// When a job that is new in the plan runs for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRun {
    NextAppointment,
    /// A minute after the start.
    Soon,
    /// A minute after every start.
    SoonAtEachStart,
}

/// How long a run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As long as it takes; three times the median is an alarm.
    None,
    /// Four times the median, an hour at least.
    FourMedians,
    After(Duration),
}

const CANCELLED_LOOK: Duration = Duration::from_millis(50);
const DEADLINE_MIN: Duration = Duration::from_secs(3600);

impl Deadline {
    /// When a run is told to end. `median`: of its last ones, once there are enough.
    #[must_use]
    pub fn limit(self, median: Option<Duration>) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::After(limit) => Some(limit),
            Self::FourMedians => Some((median? * 4).max(DEADLINE_MIN)),
        }
    }
}

/// Whether it can run, here and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    Ready,
    /// Not on this host, and why.
    Unavailable(String),
    /// Not yet, and what it waits for.
    Waiting(String),
}

/// What a pause of it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PausePolicy {
    #[default]
    Allowed,
    /// As long as it lasts it is an alarm: what is lost meanwhile.
    Alarming(String),
    /// Why not. A pause that was made before is not heeded.
    Refused(String),
}

/// What the thing itself shows of earlier runs, made here or elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The newest run that came to its end.
    pub started_micros: Option<i64>,
    pub ended_micros: Option<i64>,
    /// What it looked at is not sound.
    pub unsound: bool,
    /// What came of it, as an id.
    pub summary: String,
    /// What it comes after has happened since.
    pub pending: bool,
}

pub trait Job: Send + Sync {
    fn spec(&self) -> JobSpec;

    fn availability(&self) -> Availability {
        Availability::Ready
    }

    fn pause_policy(&self) -> PausePolicy {
        PausePolicy::Allowed
    }

    /// Asked in the background, at the start and once a minute: it may ask a store. None: records are all there is.
    ///
    /// # Errors
    /// Why it cannot be told now. Nothing of the job is started before it could be told once.
    fn history(&self) -> Result<Option<History>, String> {
        Ok(None)
    }

    /// Of a job that runs on change: whether what it looks after changed since it last ran. Asked every second.
    fn has_changed(&self) -> bool {
        false
    }

    /// # Errors
    /// What went wrong, in a sentence; the run is recorded as failed and tried again.
    fn run(&self, context: &RunContext) -> Result<RunReport, String>;
}

/// What came of a run that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    pub summary: String,
    pub bytes: Option<u64>,
    pub figures: BTreeMap<String, i64>,
    /// What it looked at is not sound, and why: an alarm, and no reason to do it again.
    pub unsound: Option<String>,
}

impl RunReport {
    #[must_use]
    pub fn said(summary: impl Into<String>) -> Self {
        Self {
            summary: summary.into(),
            ..Self::default()
        }
    }
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// What it does now.
    pub step: String,
    /// Of that step; 0 where it is not known.
    pub bytes_total: u64,
    pub bytes: u64,
}

/// What a run is given.
#[derive(Clone, Default)]
pub struct RunContext {
    cancelled: Arc<AtomicBool>,
    progress: Arc<Mutex<RunProgress>>,
    deadline: Option<Duration>,
    asked_by: Option<String>,
    options: Option<String>,
    answer: Arc<Mutex<Option<String>>>,
    lacks: Arc<Mutex<Option<String>>>,
}

impl fmt::Debug for RunContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunContext")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl RunContext {
    #[must_use]
    pub fn new(deadline: Option<Duration>, asked_by: Option<String>) -> Self {
        Self {
            deadline,
            asked_by,
            ..Self::default()
        }
    }

    /// By a person who waits for it, and sets the flag to end it.
    #[must_use]
    pub fn asked(by: String, cancelled: Arc<AtomicBool>) -> Self {
        Self {
            cancelled,
            asked_by: Some(by),
            ..Self::default()
        }
    }

    /// What a person gave with the request, in a form that the job reads.
    #[must_use]
    pub fn with_options(mut self, options: Option<String>) -> Self {
        self.options = options;
        self
    }

    /// It shall end, as soon as it can do so cleanly.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Waits that long, or until it shall end: whether it shall.
    #[must_use]
    pub fn pause(&self, pause: Duration) -> bool {
        let began = Instant::now();
        while !self.is_cancelled() {
            let left = pause.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            // A signal sets the flag of a person's run, and cannot wake anybody.
            std::thread::sleep(left.min(CANCELLED_LOOK));
        }
        self.is_cancelled()
    }

    /// For libraries that look at a flag of their own.
    #[must_use]
    pub fn cancellation(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// After which it is told to end.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The person who asked for this run.
    #[must_use]
    pub fn asked_by(&self) -> Option<&str> {
        self.asked_by.as_deref()
    }

    #[must_use]
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// What it does now, for `status`.
    pub fn progress(&self, what: impl Into<String>) {
        held(&self.progress).step = what.into();
    }

    /// A step of that many bytes begins.
    pub fn begin_bytes(&self, total: u64) {
        let mut progress = held(&self.progress);
        (progress.bytes_total, progress.bytes) = (total, 0);
    }

    pub fn add_bytes(&self, bytes: u64) {
        let mut progress = held(&self.progress);
        progress.bytes = progress.bytes.saturating_add(bytes);
    }

    pub(crate) fn told(&self) -> RunProgress {
        held(&self.progress).clone()
    }

    /// For the person who asked for it: more than its record says. The first one counts.
    pub fn answer(&self, answer: String) {
        held(&self.answer).get_or_insert(answer);
    }

    #[must_use]
    pub fn take_answer(&self) -> Option<String> {
        held(&self.answer).take()
    }

    /// A part of what it looks after is not in what it made, and why: the run ends as partial. The last one counts.
    pub fn lacks(&self, part: String) {
        *held(&self.lacks) = Some(part);
    }

    pub(crate) fn lack(&self) -> Option<String> {
        held(&self.lacks).clone()
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
