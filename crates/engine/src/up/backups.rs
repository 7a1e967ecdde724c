//! Backups in the background: one at a time in the whole machine, ended cleanly when the engine stops, put on record.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use backup::{
    database::{BackupOutcome, DatabaseBackup, SourceChoice, backup},
    schedule::Job,
    stream::StreamWatch,
};
use postgres_physical::wire::ConnectOptions;
use repository::{
    Repository,
    backup::{BackupKind, BackupState},
    keys::{ChunkIdKey, RecipientPublic},
};

use crate::{
    cli::{ReadingArgs, RepositoryArgs, Source},
    config,
    error::Error,
    host::{
        database::BACKUP,
        instance::{Instance, make_folder},
        lock::lock,
        progress::Steps,
        record::{self, Event},
    },
    opened::Opened,
};

/// How long a backup waits for its last WAL to arrive; later it is `waiting`, and complete when it has.
const WAL_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts at a backup that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// How long the engine's stop waits for one that was told to end.
const END_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Everything a backup needs, for a thread of its own.
pub(crate) struct OwnedRequest {
    pub(crate) connect: ConnectOptions,
    pub(crate) repository: Repository,
    pub(crate) public: RecipientPublic,
    pub(crate) chunk_id: ChunkIdKey,
    pub(crate) label: &'static str,
    pub(crate) kind: BackupKind,
    pub(crate) reading: Reading,
    /// What the repository holds already, as this host knows it; may be deleted.
    pub(crate) cache: PathBuf,
    /// Held while a backup runs, whoever started it.
    pub(crate) lock: PathBuf,
}

/// Which way the bytes come, and how fast.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    source: SourceChoice,
    bytes_per_second_max: Option<u64>,
}

impl Reading {
    /// As the command line says, and otherwise the settings.
    pub(crate) fn new(settings: &config::Backup, asked: ReadingArgs) -> Self {
        let throttle = asked.throttle.or(settings.throttle_mib);
        Self {
            source: match asked.source.unwrap_or(settings.source) {
                Source::Auto => SourceChoice::Auto,
                Source::Local => SourceChoice::Local,
                Source::Protocol => SourceChoice::Protocol,
            },
            bytes_per_second_max: throttle.map(|mib| u64::from(mib.get()) << 20),
        }
    }
}

impl OwnedRequest {
    pub(crate) fn run(&self, steps: &Steps) -> Result<BackupOutcome, Error> {
        let _alone = lock(&self.lock)?;
        make_folder(&self.cache, 0o700)?;
        Ok(backup(
            &DatabaseBackup {
                label: self.label,
                kind: self.kind,
                source: self.reading.source,
                bytes_per_second_max: self.reading.bytes_per_second_max,
                cache: Some(&self.cache),
                wal_patience: WAL_PATIENCE,
                ..DatabaseBackup::new(
                    &self.connect,
                    &self.repository,
                    &self.public,
                    &self.chunk_id,
                )
            },
            steps,
        )?)
    }
}

/// What has happened and is not on record yet, oldest first. What could not be recorded stays for the next look: the audit log may
/// not be open yet. In the background, because a strict commit waits for a repository that is away, and whoever waits here
/// notices nothing else.
#[derive(Debug, Default)]
pub(crate) struct Records {
    waiting: VecDeque<Event>,
    /// The first of them, on its way.
    recording: Option<tokio::task::JoinHandle<Result<(), Error>>>,
}

impl Records {
    pub(crate) fn push(&mut self, event: Event) {
        self.waiting.push_back(event);
    }

    pub(crate) fn send(&mut self, runtime: &tokio::runtime::Handle, instance: &Instance) {
        if let Some(recording) = self.recording.take() {
            if !recording.is_finished() {
                self.recording = Some(recording);
                return;
            }
            match runtime.block_on(recording) {
                Ok(Ok(())) => drop(self.waiting.pop_front()),
                failed => tracing::debug!(?failed, "a job is not on record yet"),
            }
        }
        if let Some(event) = self.waiting.front().cloned() {
            let instance = instance.clone();
            let recording = async move { event.record(&instance).await };
            self.recording = Some(runtime.spawn(recording));
        }
    }
}

/// A backup that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) job: Job,
    pub(crate) result: Result<BackupOutcome, Error>,
}

#[derive(Debug, Default)]
pub(crate) struct Backups {
    thread: Option<(Job, JoinHandle<Result<BackupOutcome, Error>>)>,
    cancel: Arc<AtomicBool>,
    /// After a failure: not before this.
    retry_at: Option<Instant>,
    pub(crate) records: Records,
}

impl Backups {
    pub(crate) fn may_start(&self) -> bool {
        self.thread.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now())
    }

    pub(crate) fn running(&self) -> Option<Job> {
        self.thread.as_ref().map(|(job, _)| *job)
    }

    pub(crate) fn start(&mut self, request: OwnedRequest, stream: Option<StreamWatch>) {
        if !self.may_start() {
            return;
        }
        let job = job_of(request.kind);
        let steps = Steps::logged().cancelled_by(Arc::clone(&self.cancel));
        let thread = std::thread::spawn(move || {
            let outcome = request.run(&steps)?;
            if let Some(stream) = stream
                && outcome.state == BackupState::Complete
                && outcome.kind == BackupKind::Full
            {
                stream.full_backup_taken();
            }
            Ok(outcome)
        });
        self.thread = Some((job, thread));
    }

    /// Takes note of one that ended.
    pub(crate) fn collect(&mut self) -> Option<Ended> {
        self.thread
            .as_ref()
            .filter(|(_, thread)| thread.is_finished())?;
        let (job, thread) = self.thread.take()?;
        let result = thread
            .join()
            .unwrap_or_else(|_| Err(Error::Failed("its thread panicked".into())));
        match &result {
            Ok(outcome) => {
                self.retry_at = None;
                self.note(outcome);
            }
            Err(_) => self.retry_at = Some(Instant::now() + RETRY_PAUSE),
        }
        Some(Ended { job, result })
    }

    pub(crate) fn note(&mut self, outcome: &BackupOutcome) {
        if !outcome.damaged.is_empty() {
            tracing::error!(backup = %outcome.id, pages = outcome.damaged.len(), "the source has damaged pages; see: bre backup show");
        }
        tracing::info!(backup = %outcome.id, kind = ?outcome.kind, state = ?outcome.state, bytes = outcome.bytes_source, "backup");
        self.records
            .push(record::backup(Event::by_engine("BackupRun"), outcome));
    }

    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&mut self) {
        self.cancel();
        if let Some((_, thread)) = self.thread.take() {
            join_soon(thread);
        }
    }
}

/// One that hangs, on a store that is away for instance, leaves nothing that a kill could harm: it is not waited for.
pub(crate) fn join_soon<T>(thread: JoinHandle<T>) {
    let began = Instant::now();
    while !thread.is_finished() && began.elapsed() < END_PATIENCE {
        std::thread::sleep(LOOK);
    }
    if thread.is_finished() {
        let _ = thread.join();
    } else {
        tracing::warn!("a job does not end; it is left to itself");
    }
}

fn job_of(kind: BackupKind) -> Job {
    match kind {
        BackupKind::Full => Job::Full,
        BackupKind::Incremental => Job::Incremental,
    }
}

/// `bre backup run`: from another process, on the running instance.
pub(crate) fn backup_of_running(
    instance: &Instance,
    kind: BackupKind,
    reading: Reading,
    steps: &Steps,
) -> Result<BackupOutcome, Error> {
    let running = instance.running()?;
    let opened = Opened::at(instance, &RepositoryArgs::default())?;
    let connect = ConnectOptions::from_url(&running.database_url)
        .map_err(|error| Error::Failed(error.to_string()))?
        .with_user(BACKUP)
        .with_database("postgres");
    let keys = instance.keys();
    let request = OwnedRequest {
        connect,
        repository: opened.repository,
        public: crate::keys::writing_key(&keys)?,
        chunk_id: ChunkIdKey::load(&keys.join("chunk_id.key"))?,
        label: "by hand",
        kind,
        reading,
        cache: instance.cache(),
        lock: instance.backup_lock(),
    };
    request.run(steps)
}
