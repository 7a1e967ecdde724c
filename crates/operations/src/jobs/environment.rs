//! What the jobs of the engine share: what does not change while it runs, what it has at this moment, and what they
//! tell it.

use std::{
    fmt,
    future::Future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use backup::stream::StreamWatch;
use host::{instance::Instance, progress::Steps, record::Event};
use jobs::RunContext;
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use repository::{
    Repository,
    backup::{BackupKind, BackupSummary},
    keys::{ChunkIdKey, RecipientPrivate, RecipientPublic},
};

use super::{answer::Screens, events::Events};
use crate::{
    backup_request::{OwnedRequest, Reading, ReadingSelection},
    config,
    error::Error,
    health::ProtectionStatus,
};

/// The audit log's kind for everything that a job does.
const KIND: &str = "BackupRun";

/// Who runs the jobs.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The engine, by its plan.
    Engine(tokio::runtime::Handle),
    /// A person at the command line, who waits and sees what came of it.
    Person { json: bool },
}

pub struct JobEnvironment {
    pub instance: Instance,
    pub config: config::Backup,
    caller: Caller,
    pub(super) screens: Screens,
    moment: Mutex<Moment>,
    /// As the catalogue last had them.
    backups: Mutex<Vec<BackupSummary>>,
    /// 0 before the first time.
    backups_asked_at_micros: AtomicI64,
    events: Mutex<Events>,
    protected: Mutex<ProtectionStatus>,
    /// Programs that definitions need and this host has not got.
    lacks_for_schema: Option<String>,
}

impl fmt::Debug for JobEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobEnvironment")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Keys are replaced and connections change while the engine runs.
#[derive(Clone, Debug)]
pub struct Moment {
    pub repository: Repository,
    pub private: Option<RecipientPrivate>,
    pub public: Option<RecipientPublic>,
    pub chunk_id: Option<ChunkIdKey>,
    /// Of PostgreSQL's programs; without them no restore can be tested.
    pub binaries: Option<Binaries>,
    pub user: Option<OsUser>,
    /// As a role that may take backups.
    pub connect: Option<ConnectOptions>,
    /// As a role that may read every definition.
    pub definitions: Option<ConnectOptions>,
    pub stream: Option<StreamWatch>,
    pub attached: bool,
    pub label: &'static str,
    pub reading: Reading,
}

impl JobEnvironment {
    pub fn new(
        instance: &Instance,
        config: &config::Backup,
        caller: Caller,
        screens: Screens,
        moment: Moment,
    ) -> Self {
        Self {
            lacks_for_schema: backup::schema::cannot_back_up(moment.binaries.as_ref()),
            instance: instance.clone(),
            config: config.clone(),
            caller,
            screens,
            moment: Mutex::new(moment),
            backups: Mutex::default(),
            backups_asked_at_micros: AtomicI64::new(0),
            events: Mutex::default(),
            protected: Mutex::default(),
        }
    }

    /// A person waits for what comes of it; the engine is another process.
    pub(super) fn is_by_hand(&self) -> bool {
        matches!(self.caller, Caller::Person { .. })
    }

    pub fn moment(&self) -> Moment {
        lock(&self.moment).clone()
    }

    pub fn set_moment(&self, moment: Moment) {
        *lock(&self.moment) = moment;
    }

    pub(super) fn lacks_for_schema(&self) -> Option<String> {
        self.lacks_for_schema.clone()
    }

    /// And when the store was asked for them.
    pub fn set_backups(&self, backups: Vec<BackupSummary>, asked_at_micros: i64) {
        *lock(&self.backups) = backups;
        self.backups_asked_at_micros
            .store(asked_at_micros, Ordering::Release);
    }

    pub fn backups_asked_at_micros(&self) -> i64 {
        self.backups_asked_at_micros.load(Ordering::Acquire)
    }

    /// The catalogue was read since the start. Until then an empty list says nothing.
    pub(super) fn knows_backups(&self) -> bool {
        self.backups_asked_at_micros() > 0
    }

    pub fn backups(&self) -> MutexGuard<'_, Vec<BackupSummary>> {
        lock(&self.backups)
    }

    pub fn protected(&self) -> MutexGuard<'_, ProtectionStatus> {
        lock(&self.protected)
    }

    pub fn events(&self) -> MutexGuard<'_, Events> {
        lock(&self.events)
    }

    /// An entry of the audit log by whoever asked for this run.
    pub(super) fn event(&self, context: &RunContext) -> Event {
        match context.asked_by() {
            Some(person) => Event::by(KIND, person),
            None => Event::by_engine(KIND),
        }
    }

    /// Before anything is done; a named cluster has no audit log, and its records of runs say what was done.
    pub(super) fn record(&self, event: &Event) -> Result<(), Error> {
        match self.config.cluster {
            Some(_) => Ok(()),
            None => Ok(self.wait(event.record(&self.instance))?),
        }
    }

    /// For the audit log: the engine's goes there as soon as it can.
    pub(super) fn tell(&self, event: Event) {
        if self.config.cluster.is_some() {
            return;
        }
        match self.caller {
            Caller::Engine(_) => self.events().push(event),
            // On a host without the engine there is no log to write to.
            Caller::Person { .. } if !self.instance.is_locked() => {}
            Caller::Person { .. } => {
                // What was done is there all the same; that it is not on record has to be seen.
                if let Err(error) = self.wait(event.record(&self.instance)) {
                    terminal::note(&format!(
                        "bre: it is done but not in the audit log: {error}"
                    ));
                }
            }
        }
    }

    pub(super) fn wait<T, E: From<host::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match &self.caller {
            Caller::Engine(runtime) => runtime.block_on(work),
            Caller::Person { .. } => host::runtime::wait(work),
        }
    }

    pub(super) fn steps(&self, context: &RunContext, what: &'static str) -> Steps {
        let steps = match self.caller {
            Caller::Engine(_) => Steps::logged(),
            Caller::Person { json } => Steps::shown(json, what),
        };
        let steps = steps.cancelled_by(context.cancellation());
        match (&self.caller, context.asked_by()) {
            (Caller::Engine(_), Some(_)) => steps.heard_by(Box::new(OfRun(context.clone()))),
            _ => steps,
        }
    }

    pub(super) fn backup_request(
        &self,
        moment: &Moment,
        kind: BackupKind,
        context: &RunContext,
    ) -> Result<OwnedRequest, Error> {
        let asked = context
            .options()
            .map(serde_json::from_str::<ReadingSelection>);
        let asked = asked
            .transpose()
            .map_err(|error| Error::failed(format!("how to read cannot be understood: {error}")))?;
        let lacks = |what: &str| {
            Error::refused("no backup was started", format!("this host has no {what}"))
        };
        Ok(OwnedRequest {
            connect: moment
                .connect
                .clone()
                .ok_or_else(|| lacks("connection to the database"))?,
            repository: moment.repository.clone(),
            public: moment
                .public
                .clone()
                .ok_or_else(|| lacks("recipient.pub"))?,
            chunk_id: moment
                .chunk_id
                .clone()
                .ok_or_else(|| lacks("chunk_id.key"))?,
            label: match context.asked_by() {
                Some(_) => "by hand",
                None => moment.label,
            },
            kind,
            reading: match asked {
                Some(asked) => Reading::new(&self.config, asked),
                None => moment.reading,
            },
            cache: self.instance.cache(),
            lock: self.instance.backup_lock(),
        })
    }
}

/// What a run does, for the person who waits for it elsewhere.
struct OfRun(RunContext);

impl repository::Progress for OfRun {
    fn total(&self, bytes: u64) {
        self.0.begin_bytes(bytes);
    }
    fn advance(&self, bytes: u64) {
        self.0.add_bytes(bytes);
    }
    fn message(&self, text: &str) {
        self.0.progress(text);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
