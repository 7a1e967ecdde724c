//! One backup: what it needs, one at a time of an instance; and what of the jobs waits to be put on record.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use backup::database::{BackupOutcome, DatabaseBackup, SourceChoice, backup};
use host::{files::make_folder, instance::Instance, lock::lock, progress::Steps, record::Event};
use postgres_physical::wire::ConnectOptions;
use repository::{
    Repository,
    backup::BackupKind,
    keys::{ChunkIdKey, RecipientPublic},
};

use crate::{
    cli::{ReadingArgs, Source},
    config,
    error::Error,
};

/// How long a backup waits for its last WAL to arrive; later it is `waiting`, and complete when it has.
const WAL_TIMEOUT: Duration = Duration::from_secs(30);

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
                wal_timeout: WAL_TIMEOUT,
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
pub(crate) struct Events {
    waiting: VecDeque<Event>,
    /// The first of them, on its way.
    recording: Option<tokio::task::JoinHandle<Result<(), host::Error>>>,
}

impl Events {
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
