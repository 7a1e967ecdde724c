//! The one writer of an audit log: group commit. Whatever is waiting is written in one statement; whatever arrives meanwhile waits
//! for the next one; there is no timer. An answer is given only after the commit, and only if the commit was clean.

mod batch;
mod change;
mod guard;
mod heads;
mod locates;
mod open;
mod openings;
mod rows;
mod serve;

pub(crate) use change::Change;
pub(crate) use heads::HeadSigner;
pub(crate) use rows::{entries_from, entries_of, log_number};

use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{Chain, Fields, Hash, Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use locates::LocateWork;

use crate::data::locates::LocateSettings;
use crate::data::quotes::QuoteRow;
use crate::domain::protection::{RecoveryFact, StreamHealth};
use crate::market::Market;

/// Why something was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing was recorded.
    #[error("{part}: {reason}; nothing was recorded")]
    Refused { part: &'static str, reason: String },
    /// It may or may not be in the log.
    #[error("{part} gave no answer in time: the entry may or may not be recorded")]
    Unknown { part: &'static str },
}

impl WriteError {
    pub(crate) fn refused(part: &'static str, reason: impl Into<String>) -> WriteError {
        WriteError::Refused {
            part,
            reason: reason.into(),
        }
    }

    pub(crate) fn unknown(part: &'static str) -> WriteError {
        WriteError::Unknown { part }
    }
}

/// What the writer is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WriterState {
    Starting,
    Serving {
        epoch: u32,
    },
    /// No connection; it is being tried again.
    Away {
        reason: String,
    },
    /// Paused by the supervisor, during a recovery.
    Paused,
    /// The log in the database is not the one this engine knows: nothing is written until an operator has looked.
    Refusing {
        reason: String,
    },
    Stopped,
}

impl WriterState {
    pub fn is_serving(&self) -> bool {
        matches!(self, WriterState::Serving { .. })
    }

    pub(crate) fn explain(&self) -> String {
        match self {
            WriterState::Starting => "the audit log is being opened".to_owned(),
            WriterState::Serving { .. } => "serving".to_owned(),
            WriterState::Away { reason } => format!("the database is away: {reason}"),
            WriterState::Paused => "the database is being recovered".to_owned(),
            WriterState::Refusing { reason } => {
                format!("the audit log is not what it should be: {reason}")
            }
            WriterState::Stopped => "the service is shutting down".to_owned(),
        }
    }

    fn refusal(&self) -> WriteError {
        let part = match self {
            WriterState::Refusing { .. } => LOG_DAMAGED,
            _ => "database",
        };
        WriteError::refused(part, self.explain())
    }
}

/// The part that is named when the log is not what it should be, and the word for it in answers.
pub(crate) const LOG_DAMAGED: &str = "log_damaged";

/// The place of an entry that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogPosition {
    pub log: u16,
    pub epoch: u32,
    pub position: u64,
}

/// Who waits for an entry.
type Reply = oneshot::Sender<Result<LogPosition, WriteError>>;

/// What is to be recorded, and who waits for it.
#[derive(Debug)]
enum Work {
    /// An entry and its row in `quotes`.
    Quote { quote: QuoteRow, reply: Reply },
    /// An entry, with a change to other tables in the same transaction.
    Entry(EntryWork),
    /// A step of a locate, if one is due to it.
    Locate(Box<LocateWork>),
}

#[derive(Debug)]
struct EntryWork {
    kind: Kind,
    fields: Fields,
    change: Change,
    reply: Reply,
}

impl Work {
    fn refuse(self, state: &WriterState) {
        let refused = state.refusal();
        match self {
            Work::Quote { reply, .. } | Work::Entry(EntryWork { reply, .. }) => {
                drop(reply.send(Err(refused)));
            }
            Work::Locate(work) => drop(work.reply.send(Err(refused))),
        }
    }
}

/// What waits to be recorded.
struct WorkQueue {
    sent: mpsc::Receiver<Work>,
    /// Taken out, and put back before anything of it was begun: the first of those that wait.
    first: Option<Work>,
}

impl WorkQueue {
    /// None when every sender is gone. A call that is cancelled has taken nothing.
    async fn recv(&mut self) -> Option<Work> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.sent.recv().await,
        }
    }

    /// None when nothing waits.
    fn try_recv(&mut self) -> Option<Work> {
        self.first.take().or_else(|| self.sent.try_recv().ok())
    }

    /// For what was taken last: dropped, it would leave the client in doubt of what was never begun.
    fn put_back(&mut self, work: Work) {
        self.first = Some(work);
    }

    /// Nothing more comes in.
    fn close(&mut self) {
        self.sent.close();
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Run,
    Pause,
    Stop,
}

/// What the writer was told last.
#[derive(Debug, Clone)]
struct WriterControl {
    mode: Mode,
    recovery: Option<RecoveryFact>,
    database: String,
    reopening: Option<Arc<Reopening>>,
}

/// A person lets writing go on after damage.
#[derive(Debug)]
struct Reopening {
    why: String,
    actor: String,
    /// Taken once.
    answer: Mutex<Option<oneshot::Sender<Result<LogPosition, String>>>>,
}

/// What callers hold.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    works: mpsc::Sender<Work>,
    control: watch::Sender<WriterControl>,
    state: watch::Receiver<WriterState>,
    tip: watch::Receiver<Option<Chain>>,
    /// Since when.
    closed: watch::Receiver<Option<i64>>,
    /// For the calendar in force.
    market: Arc<Market>,
    stream: Arc<dyn StreamHealth>,
    strict: bool,
    deadline: Duration,
}

/// What the writer is started with.
#[derive(Debug)]
pub(crate) struct WriterConfig {
    pub(crate) log: u16,
    pub(crate) heads: Arc<HeadSigner>,
    pub(crate) recovery: Option<RecoveryFact>,
    pub(crate) database: String,
    pub(crate) stream: Arc<dyn StreamHealth>,
    pub(crate) strict: bool,
    pub(crate) deadline: Duration,
    pub(crate) queue_max: usize,
    pub(crate) batch_max: usize,
    pub(crate) locates: LocateSettings,
    /// For the sources that the settings prefer.
    pub(crate) market: Arc<Market>,
}

/// The task's own side.
struct Task {
    config: WriterConfig,
    works: WorkQueue,
    control: watch::Receiver<WriterControl>,
    state: watch::Sender<WriterState>,
    tip: watch::Sender<Option<Chain>>,
    /// Since when locates of that moment's trade date are rejected, because a recovery may have lost grants of it.
    closed: watch::Sender<Option<i64>>,
    recovery: Option<RecoveryFact>,
    /// The restore whose epoch this process has seen opened: its fact is never used again.
    recovery_used: Option<String>,
    /// Entries of a commit whose outcome is not known: at most these may be found beyond the tip.
    in_doubt: Vec<Hash>,
    /// The last batch's memory.
    free_batch: batch::Batch,
}

impl Writer {
    pub(crate) fn start(config: WriterConfig) -> (Writer, tokio::task::JoinHandle<()>) {
        let (works, waiting) = mpsc::channel(config.queue_max);
        let first = WriterControl {
            mode: Mode::Run,
            recovery: config.recovery.clone(),
            database: config.database.clone(),
            reopening: None,
        };
        let (control, told) = watch::channel(first);
        let (state, seen) = watch::channel(WriterState::Starting);
        let (tip, tip_seen) = watch::channel(None);
        let (closed, closed_seen) = watch::channel(None);
        let writer = Writer {
            works,
            control,
            state: seen,
            tip: tip_seen,
            closed: closed_seen,
            market: Arc::clone(&config.market),
            stream: Arc::clone(&config.stream),
            strict: config.strict,
            deadline: config.deadline,
        };
        let recovery = config.recovery.clone();
        let task = Task {
            config,
            works: WorkQueue {
                sent: waiting,
                first: None,
            },
            control: told,
            state,
            tip,
            closed,
            recovery,
            recovery_used: None,
            in_doubt: Vec::new(),
            free_batch: batch::Batch::default(),
        };
        (writer, tokio::spawn(task.run()))
    }

    /// Why a locate would be refused right now.
    pub(crate) fn refusal(&self) -> Option<WriteError> {
        let state = self.state.borrow();
        if !state.is_serving() {
            return Some(state.refusal());
        }
        drop(state);
        let stream = self.stream.report();
        if let Some(why) = stream.refuse_locates {
            return Some(WriteError::refused("wal_stream", why));
        }
        if self.strict && !(stream.attached && stream.strict) {
            let why = "strict mode: the stream to the repository is not attached, so a commit could not be protected";
            return Some(WriteError::refused("wal_stream", why));
        }
        None
    }

    /// Records a quote, or says within the deadline that it could not.
    pub(crate) async fn quote(&self, quote: QuoteRow) -> Result<LogPosition, WriteError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let (reply, replied) = oneshot::channel();
        self.works
            .try_send(Work::Quote { quote, reply })
            .map_err(|_| {
                WriteError::refused("database", "too many quotes are waiting to be recorded")
            })?;
        match tokio::time::timeout(self.deadline, replied).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(WriteError::unknown("database")),
        }
    }

    /// Records anything but a quote, with its change.
    pub(crate) async fn entry(
        &self,
        kind: Kind,
        fields: Fields,
        change: Change,
    ) -> Result<LogPosition, WriteError> {
        let refused = WriterState::refusal;
        if !self.state.borrow().is_serving() {
            return Err(refused(&self.state.borrow()));
        }
        let (reply, replied) = oneshot::channel();
        let work = Work::Entry(EntryWork {
            kind,
            fields,
            change,
            reply,
        });
        self.works
            .send(work)
            .await
            .map_err(|_| refused(&WriterState::Stopped))?;
        replied
            .await
            .unwrap_or(Err(WriteError::unknown("database")))
    }

    pub(crate) fn state(&self) -> WriterState {
        self.state.borrow().clone()
    }

    pub(crate) fn watch_state(&self) -> watch::Receiver<WriterState> {
        self.state.clone()
    }

    /// The end of the log as this engine knows it.
    pub(crate) fn tip(&self) -> Option<Chain> {
        self.tip.borrow().clone()
    }

    /// Why locates of a trade date are rejected until an operator has looked, and what he does then.
    pub(crate) fn closed(&self) -> Option<String> {
        let since = (*self.closed.borrow())?;
        let calendar = self.market.calendar()?;
        let date = calendar.trade_date(since).ok()?;
        // The next trade date is open by itself.
        if calendar.trade_date(crate::domain::time::now_micros()).ok() != Some(date) {
            return None;
        }
        Some(format!(
            "locates of trade date {date} are rejected (recovery_unsettled): a recovery may have lost grants of it. Compare with what clients hold, \
             then POST /api/v1/admin/locates/reopen, or: bre locate reopen"
        ))
    }

    /// Lets go of the database; whatever is being committed is answered "outcome unknown". Returns when it is so.
    pub(crate) async fn pause(&self) {
        self.control
            .send_modify(|control| control.mode = Mode::Pause);
        let mut state = self.state.clone();
        let _ = state
            .wait_for(|state| matches!(state, WriterState::Paused | WriterState::Stopped))
            .await;
    }

    /// Takes up the database again. With a fact, the next entry opens a new epoch.
    pub(crate) fn resume(&self, recovery: Option<RecoveryFact>) {
        self.control.send_modify(|control| {
            control.mode = Mode::Run;
            control.recovery = recovery;
        });
    }

    /// Lets writing go on after damage: a new epoch says what is missing, why, and who said so. Returns the opening's place.
    pub(crate) async fn reopen(&self, why: String, actor: String) -> Result<LogPosition, String> {
        if !matches!(self.state(), WriterState::Refusing { .. }) {
            return Err(format!(
                "nothing stands against the audit log: {}",
                self.state().explain()
            ));
        }
        let (answer, answered) = oneshot::channel();
        let reopening = Arc::new(Reopening {
            why,
            actor,
            answer: Mutex::new(Some(answer)),
        });
        self.control.send_modify(|control| {
            control.mode = Mode::Run;
            control.reopening = Some(reopening);
        });
        answered
            .await
            .unwrap_or_else(|_| Err("the writer was told something else meanwhile".to_owned()))
    }

    pub(crate) fn set_database(&self, database: String) {
        self.control
            .send_modify(|control| control.database = database);
    }

    pub(crate) fn stop(&self) {
        self.control
            .send_modify(|control| control.mode = Mode::Stop);
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);

impl Task {
    async fn run(mut self) {
        let mut retry = RETRY_FIRST;
        loop {
            let control = self.control.borrow_and_update().clone();
            let unused =
                |fact: &RecoveryFact| Some(&fact.restore_id) != self.recovery_used.as_ref();
            self.recovery = control
                .recovery
                .clone()
                .or(self.recovery.take())
                .filter(unused);
            match control.mode {
                Mode::Stop => break,
                Mode::Pause => self.idle(WriterState::Paused, None).await,
                Mode::Run => match self.open(&control).await {
                    Ok(session) => {
                        retry = RETRY_FIRST;
                        let ended = self.serve(session).await;
                        if self.control.borrow().mode != Mode::Stop {
                            // What comes back may be another timeline, on which the same position means something else.
                            self.config.heads.withdraw();
                        }
                        match ended {
                            serve::SessionEnd::Ordered => {}
                            serve::SessionEnd::Lost(reason) => {
                                tracing::warn!(%reason, "the audit log's connection is lost");
                                self.idle(WriterState::Away { reason }, Some(retry)).await;
                            }
                            serve::SessionEnd::Damaged(reason) => {
                                self.config.heads.note_damage(&reason);
                                let end = self.tip.borrow().clone();
                                self.config.heads.note_end(end.as_ref());
                                let reason = open::damaged(&reason);
                                self.idle(WriterState::Refusing { reason }, None).await;
                            }
                        }
                    }
                    Err(open::OpenError::Interrupted) => {}
                    Err(open::OpenError::Away(reason)) => {
                        self.idle(WriterState::Away { reason }, Some(retry)).await;
                        retry = (retry * 2).min(RETRY_LAST);
                    }
                    Err(open::OpenError::Overprivileged(reason)) => {
                        let state = WriterState::Refusing { reason };
                        if *self.state.borrow() != state {
                            tracing::error!(reason = %state.explain(), "the audit log is refused");
                        }
                        self.idle(state, Some(RETRY_LAST)).await;
                    }
                    Err(open::OpenError::Refusing(reason)) => {
                        tracing::error!(%reason, "the audit log is refused");
                        self.idle(WriterState::Refusing { reason }, None).await;
                    }
                },
            }
        }
        self.state.send_replace(WriterState::Stopped);
        self.works.close();
        while let Some(work) = self.works.try_recv() {
            work.refuse(&WriterState::Stopped);
        }
    }

    /// Refuses whatever comes until new orders arrive or the time is up.
    async fn idle(&mut self, state: WriterState, time: Option<Duration>) {
        self.state.send_replace(state.clone());
        let until = time.map(|time| Instant::now() + time);
        loop {
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.control.changed() => return,
                work = self.works.recv() => match work {
                    Some(work) => work.refuse(&state),
                    None => return,
                },
                () = timer => return,
            }
        }
    }
}
