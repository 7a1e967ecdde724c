//! What protects the database while it runs: the stream, strict mode, and a full backup that the WAL can follow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use backup::{
    database::{BackupOutcome, DatabaseBackup, backup, is_strict, set_strict, slot_status},
    stream::{StreamWatch, Streamer, StreamerConfig},
};
use postgres_physical::wire::ConnectOptions;
use repository::{BackupState, ChunkIdKey, RecipientPublic, Repository, WalReader, catalogue};

use super::{
    postgres::{BACKUP, SUPERUSER},
    supervisor::Supervisor,
};
use crate::{
    cli::RepositoryArgs,
    commands::{opened::Opened, progress::Steps},
    error::Error,
    instance::Instance,
    record::{self, Event},
};

/// Name of our slot, and of our stream as a standby.
pub(crate) const SLOT: &str = "bre";
/// How long a backup waits for its last WAL to arrive; later it is `waiting`, and complete when it has.
const WAL_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts at a backup that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

impl Supervisor {
    pub(super) fn start_streamer(&mut self) {
        let connect = self
            .postgres
            .connect_options(BACKUP, "postgres")
            .with_application_name(SLOT);
        let streamer = Streamer::start(StreamerConfig::new(
            connect,
            SLOT,
            Arc::clone(&self.store),
            self.keys.public.clone(),
        ));
        self.stream.follow(Some(streamer.watch()));
        self.streamer = Some(streamer);
        self.tidy_wal();
    }

    /// Seals what an earlier stream left in tails. In the background: the bytes are safe where they are, and a process that
    /// ends in the middle harms nothing.
    fn tidy_wal(&self) {
        let Some(private) = self.keys.private.clone() else {
            return;
        };
        let (repository, public) = (self.repository.clone(), self.keys.public.clone());
        std::thread::spawn(
            move || match WalReader::new(&repository, &private).compact(&public) {
                Ok(report) => tracing::debug!(?report, "tidied WAL of earlier streams"),
                Err(error) => {
                    tracing::warn!(%error, "WAL of earlier streams stays in tails for now")
                }
            },
        );
    }

    pub(super) fn stop_streamer(&mut self) {
        self.stream.follow(None);
        if let Some(streamer) = self.streamer.take() {
            streamer.stop();
        }
    }

    /// Makes PostgreSQL wait for the stream, or not, as configured. Strict is switched on only once the stream is attached.
    pub(super) fn settle_strict_mode(&mut self) -> Result<(), Error> {
        let superuser = self.postgres.connect_options(SUPERUSER, "postgres");
        let wanted = self.config.database.strict;
        let is_on = is_strict(&superuser, SLOT)?;
        if wanted && !is_on {
            if !self.stream.is_attached() {
                return Ok(());
            }
            set_strict(&superuser, SLOT, true)?;
            tracing::info!("strict mode: a commit returns when the repository holds it");
        }
        if !wanted && is_on {
            set_strict(&superuser, SLOT, false)?;
            tracing::warn!("strict mode was left, as this start's settings say");
        }
        self.stream.set_strict(wanted);
        Ok(())
    }

    /// Once a second: how much WAL waits, whether strict mode can come on, whether a hole demands a new backup.
    pub(super) fn look_after_stream(&mut self) -> Result<(), Error> {
        if !self.postgres.is_running() {
            return Ok(());
        }
        let slot = slot_status(&self.postgres.connect_options(BACKUP, "postgres"), SLOT)?;
        self.stream.set_slot(slot.as_ref());
        self.keep_strict_mode()?;
        match self.full_backup.collect() {
            Some(Err(error)) => {
                tracing::error!(%error, "the full backup failed");
                self.stream
                    .set_problem(Some(format!("the last full backup failed: {error}")));
            }
            Some(Ok(())) => self.stream.set_problem(None),
            None => {}
        }
        self.record_backups();
        let hole = self
            .streamer
            .as_ref()
            .is_some_and(|streamer| streamer.state().needs_full_backup);
        if hole && self.full_backup.may_start() {
            tracing::warn!("WAL was lost on the way to the repository; taking a new full backup");
            self.start_full_backup("after a hole in the WAL");
        }
        Ok(())
    }

    /// Comes on when the stream is attached, and again when somebody switched it off in the database: leaving it is done by
    /// this engine's settings alone.
    fn keep_strict_mode(&mut self) -> Result<(), Error> {
        if !self.config.database.strict || !self.stream.is_attached() {
            return Ok(());
        }
        if self.stream.is_strict() {
            let superuser = self.postgres.connect_options(SUPERUSER, "postgres");
            if is_strict(&superuser, SLOT)? {
                return Ok(());
            }
            tracing::error!(
                "synchronous_standby_names was changed in the database; strict mode is switched on again"
            );
            self.stream.set_strict(false);
        }
        self.settle_strict_mode()
    }

    /// Without a complete backup on this timeline WAL alone restores nothing. The first one is waited for.
    pub(super) fn ensure_full_backup(&mut self) -> Result<(), Error> {
        let backups = catalogue(&self.repository)?.backups;
        if backups
            .iter()
            .any(|backup| backup.state == BackupState::Complete)
        {
            let timeline = self
                .streamer
                .as_ref()
                .map(|streamer| streamer.state().timeline);
            let on_timeline =
                |backup: &repository::BackupSummary| Some(backup.timeline) == timeline;
            if !backups.iter().any(on_timeline) {
                self.start_full_backup("after a recovery");
            }
            return Ok(());
        }
        tracing::info!("no complete backup yet: taking the first one before serving");
        let request = self.backup_request("first backup");
        let outcome = request.run(&Steps::logged())?;
        self.full_backup.note(outcome);
        Ok(())
    }

    fn record_backups(&mut self) {
        self.full_backup
            .record(self.runtime.handle(), &self.instance);
    }

    fn backup_request(&self, label: &'static str) -> OwnedRequest {
        OwnedRequest {
            connect: self.postgres.connect_options(BACKUP, "postgres"),
            repository: self.repository.clone(),
            public: self.keys.public.clone(),
            chunk_id: self.keys.chunk_id.clone(),
            label,
        }
    }

    fn start_full_backup(&mut self, label: &'static str) {
        self.full_backup.start(
            self.backup_request(label),
            self.streamer.as_ref().map(Streamer::watch),
        );
    }
}

/// Everything a backup needs, for a thread of its own.
pub(crate) struct OwnedRequest {
    pub(crate) connect: ConnectOptions,
    pub(crate) repository: Repository,
    pub(crate) public: RecipientPublic,
    pub(crate) chunk_id: ChunkIdKey,
    pub(crate) label: &'static str,
}

impl OwnedRequest {
    fn run(&self, steps: &Steps) -> Result<BackupOutcome, Error> {
        Ok(backup(
            &DatabaseBackup {
                label: self.label,
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

/// Full backups in the background: one at a time, ended cleanly when the engine stops.
#[derive(Debug, Default)]
pub(crate) struct FullBackup {
    thread: Option<JoinHandle<Result<BackupOutcome, Error>>>,
    cancel: Arc<AtomicBool>,
    /// Finished, and not on record yet.
    unrecorded: Vec<BackupOutcome>,
    /// The first of them, on its way into the record.
    recording: Option<tokio::task::JoinHandle<Result<(), Error>>>,
    /// After a failure: not before this.
    retry_at: Option<Instant>,
}

impl FullBackup {
    /// What could not be recorded stays for the next look: the audit log may not be open yet. In the background, because a
    /// strict commit waits for a repository that is away, and whoever waits here notices nothing else.
    pub(crate) fn record(&mut self, runtime: &tokio::runtime::Handle, instance: &Instance) {
        if let Some(recording) = self.recording.take() {
            if !recording.is_finished() {
                self.recording = Some(recording);
                return;
            }
            match runtime.block_on(recording) {
                Ok(Ok(())) => drop(self.unrecorded.remove(0)),
                failed => tracing::debug!(?failed, "a backup is not on record yet"),
            }
        }
        if let Some(outcome) = self.unrecorded.first() {
            let event = record::backup(Event::by_engine("BackupRun"), outcome);
            let instance = instance.clone();
            let recording = async move { event.record(&instance).await };
            self.recording = Some(runtime.spawn(recording));
        }
    }

    pub(crate) fn may_start(&self) -> bool {
        self.thread.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now())
    }

    pub(crate) fn start(&mut self, request: OwnedRequest, stream: Option<StreamWatch>) {
        if !self.may_start() {
            return;
        }
        let steps = Steps::logged().cancelled_by(Arc::clone(&self.cancel));
        self.thread = Some(std::thread::spawn(move || {
            let outcome = request.run(&steps)?;
            if let Some(stream) = stream
                && outcome.state == BackupState::Complete
            {
                stream.full_backup_taken();
            }
            Ok(outcome)
        }));
    }

    /// Takes note of one that ended.
    pub(crate) fn collect(&mut self) -> Option<Result<(), Error>> {
        if !self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            return None;
        }
        Some(match self.thread.take().map(JoinHandle::join)? {
            Ok(Ok(outcome)) => {
                self.retry_at = None;
                self.note(outcome);
                Ok(())
            }
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(self.failed(Error::Failed("its thread panicked".into()))),
        })
    }

    fn failed(&mut self, error: Error) -> Error {
        self.retry_at = Some(Instant::now() + RETRY_PAUSE);
        error
    }

    fn note(&mut self, outcome: BackupOutcome) {
        if !outcome.damaged.is_empty() {
            tracing::error!(backup = %outcome.id, pages = outcome.damaged.len(), "the source has damaged pages; see: bre backup show");
        }
        tracing::info!(backup = %outcome.id, state = ?outcome.state, bytes = outcome.bytes_source, "full backup");
        self.unrecorded.push(outcome);
    }

    pub(crate) fn end(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `bre backup run`: from another process, on the running instance.
pub(crate) fn full_backup_of_running(
    instance: &Instance,
    steps: &Steps,
) -> Result<BackupOutcome, Error> {
    let running = instance.running()?;
    let opened = Opened::at(instance, &RepositoryArgs::default())?;
    let connect = ConnectOptions::from_url(&running.database_url)
        .map_err(|error| Error::Failed(error.to_string()))?
        .with_user(BACKUP)
        .with_database("postgres");
    let keys = instance.keys();
    let public = RecipientPublic::load(&keys.join("recipient.pub"))?;
    let chunk_id = ChunkIdKey::load(&keys.join("chunk_id.key"))?;
    let request = OwnedRequest {
        connect,
        repository: opened.repository,
        public,
        chunk_id,
        label: "by hand",
    };
    request.run(steps)
}
