//! One backup: what it needs; one at a time of an instance.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use backup::database::{BackupOutcome, DatabaseBackup, SourceChoice, backup};
use host::{files::make_folder, lock::lock, progress::Steps};
use postgres_physical::wire::ConnectOptions;
use repository::{
    Repository,
    backup::BackupKind,
    keys::{ChunkIdKey, RecipientPublic},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{self, BackupSource},
    error::Error,
};

/// How long a backup waits for its last WAL to arrive; later it is `waiting`, and complete when it has.
const WAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything a backup needs, for a thread of its own.
#[derive(Debug)]
pub struct OwnedRequest {
    pub connect: ConnectOptions,
    pub repository: Repository,
    pub public: RecipientPublic,
    pub chunk_id: ChunkIdKey,
    pub label: &'static str,
    pub kind: BackupKind,
    pub reading: Reading,
    /// What the repository holds already, as this host knows it; may be deleted.
    pub cache: PathBuf,
    /// Held while a backup runs, whoever started it.
    pub lock: PathBuf,
}

/// Which way the bytes come, and how fast.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    source: SourceChoice,
    bytes_per_second_max: Option<u64>,
}

/// What a person asks for; what is absent is as the settings have it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ReadingSelection {
    pub source: Option<BackupSource>,
    pub throttle_mib: Option<NonZeroU32>,
}

impl Reading {
    pub fn new(settings: &config::Backup, selection: ReadingSelection) -> Self {
        let throttle = selection.throttle_mib.or(settings.throttle_mib);
        Self {
            source: match selection.source.unwrap_or(settings.source) {
                BackupSource::Auto => SourceChoice::Auto,
                BackupSource::Local => SourceChoice::Local,
                BackupSource::Protocol => SourceChoice::Protocol,
            },
            bytes_per_second_max: throttle.map(|mib| u64::from(mib.get()) << 20),
        }
    }
}

impl OwnedRequest {
    pub fn run(&self, steps: &Steps) -> Result<BackupOutcome, Error> {
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
