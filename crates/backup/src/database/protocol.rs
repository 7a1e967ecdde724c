//! The source for any server: one BASE_BACKUP stream of archives; of a server that names the pages that changed, only those.

use super::changes::{self, ChangedPages, Limits, PreviousBackup};
use super::run::DatabaseBackup;
use super::settings_outside;
use super::source::{BackupEnd, BackupStart, Identity, Source, Suspects};
use super::unpack::Unpack;
use crate::{BackupError, Progress, Result, random_suffix};
use postgres_physical::replication::{BackupOptions, BaseBackup, Connection};
use postgres_physical::wire::{ConnectOptions, WireError};
use repository::backup::{BackupKind, BackupWriter};
use std::collections::{BTreeMap, BTreeSet};

/// The server sends its own label files, and `pg_control` last.
#[derive(Debug)]
pub struct Protocol {
    connect: ConnectOptions,
    rate_kb_max: Option<u32>,
    /// Until the stream takes it.
    connection: Option<Connection>,
    identity: Option<Identity>,
    stream: Option<BaseBackup>,
    /// Of a stream that names the pages that changed.
    limits: Option<Limits>,
    bytes_read: u64,
    /// Files of the stream that are no data.
    beside: BTreeSet<String>,
}

/// What MAX_RATE accepts, in kB/s.
const RATES_KB: std::ops::RangeInclusive<u64> = 32..=1_048_576;

impl Protocol {
    #[must_use]
    pub fn new(request: &DatabaseBackup<'_>) -> Self {
        let rate = |bytes: u64| (bytes / 1024).clamp(*RATES_KB.start(), *RATES_KB.end());
        Self {
            // Not the stream's name: strict mode waits for that one.
            connect: request.connect.clone().with_application_name("bre-backup"),
            rate_kb_max: request
                .bytes_per_second_max
                .and_then(|bytes| u32::try_from(rate(bytes)).ok()),
            connection: None,
            identity: None,
            stream: None,
            limits: None,
            bytes_read: 0,
            beside: BTreeSet::new(),
        }
    }

    fn stream(&mut self) -> Result<&mut BaseBackup> {
        self.stream.as_mut().ok_or_else(not_begun)
    }

    fn connection(&mut self) -> Result<Connection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Ok(Connection::connect(&self.connect)?),
        }
    }

    fn options(&self, label: &str, incremental: bool) -> BackupOptions {
        let mut options = BackupOptions::new(label);
        options.fast_checkpoint = true;
        options.rate_kb_max = self.rate_kb_max;
        options.incremental = incremental;
        options
    }

    /// The inner error says why the server did not name them.
    fn begin_named(
        &mut self,
        label: &str,
        writer: &BackupWriter,
        progress: &dyn Progress,
    ) -> Result<std::result::Result<(BaseBackup, Limits), String>> {
        let identity = self.identity.clone().ok_or_else(not_begun)?;
        let mut connection = self.connection()?;
        let before = changes::before(writer, &identity, || connection.show("summarize_wal"))?;
        let before = match before {
            Ok(before) => before,
            Err(why) => {
                self.connection = Some(connection);
                return Ok(Err(why));
            }
        };
        keep_wal(&mut connection);
        let manifest = changes::manifest(writer, &identity, &before)?.render();
        progress.message("waiting for a checkpoint and the summaries of its WAL");
        match self.ask(connection, label, manifest.as_bytes(), &before) {
            Ok(begun) => Ok(Ok(begun)),
            // The connection is of no more use; a new one will do.
            Err(WireError::Server { what, server }) => {
                Ok(Err(format!("the server refused {what}: {server}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn ask(
        &self,
        mut connection: Connection,
        label: &str,
        manifest: &[u8],
        before: &PreviousBackup,
    ) -> std::result::Result<(BaseBackup, Limits), WireError> {
        connection.upload_manifest(manifest)?;
        let stream = connection.base_backup(&self.options(label, true))?;
        let limits = changes::limits(&self.connect, before, stream.start().lsn)?;
        Ok((stream, limits))
    }
}

/// Until its pages are judged, the server keeps the WAL of this backup.
fn keep_wal(connection: &mut Connection) {
    let slot = format!("bre_backup_{}", random_suffix());
    if let Err(error) = connection.create_temporary_slot(&slot) {
        tracing::warn!(%error, "no temporary slot for this backup; torn pages may have to be recorded as damaged");
    }
}

fn not_begun() -> BackupError {
    BackupError::Archive("it was not begun".into())
}

impl Source for Protocol {
    fn identify(&mut self) -> Result<Identity> {
        let mut connection = Connection::connect(&self.connect)?;
        let system = connection.identify_system()?;
        let identity = Identity {
            system_identifier: system.system_identifier,
            timeline: system.timeline,
            pg_version: connection
                .show("server_version_num")?
                .parse()
                .unwrap_or_default(),
            wal_segment_bytes: connection.wal_segment_bytes()?,
            page_checksums: connection.show("data_checksums")? == "on",
        };
        self.connection = Some(connection);
        self.identity = Some(identity.clone());
        Ok(identity)
    }

    fn begin(
        &mut self,
        label: &str,
        writer: &BackupWriter,
        progress: &dyn Progress,
    ) -> Result<BackupStart> {
        let mut changed_pages = ChangedPages::All;
        if writer.kind() == BackupKind::Incremental {
            match self.begin_named(label, writer, progress)? {
                Ok((stream, limits)) => {
                    changed_pages = ChangedPages::Named;
                    (self.stream, self.limits) = (Some(stream), Some(limits));
                }
                Err(why_not_named) => changed_pages = ChangedPages::Compared { why_not_named },
            }
        }
        if self.stream.is_none() {
            progress.message("waiting for a checkpoint");
            let mut connection = self.connection()?;
            keep_wal(&mut connection);
            self.stream = Some(connection.base_backup(&self.options(label, false))?);
        }
        let stream = self.stream()?;
        let start = stream.start();
        Ok(BackupStart {
            timeline: start.timeline,
            start: start.lsn,
            bytes_expected: stream.bytes_expected(),
            changed_pages,
        })
    }

    fn copy(&mut self, writer: &BackupWriter, progress: &dyn Progress) -> Result<Suspects> {
        let checksums = self.identity.as_ref().is_some_and(|it| it.page_checksums);
        let stream = self.stream.as_mut().ok_or_else(not_begun)?;
        let unpack = Unpack {
            writer,
            progress,
            checksums,
            limits: self.limits.as_ref(),
        };
        let unpacked = unpack.all(stream)?;
        self.bytes_read = unpacked.bytes_read;
        self.beside = unpacked.beside;
        Ok(Suspects(unpacked.suspects))
    }

    fn stop(&mut self, _: &BackupWriter, _: &dyn Progress) -> Result<BackupEnd> {
        let stop = self
            .stream()?
            .stop()
            .ok_or_else(|| BackupError::Archive("it has no stop position".into()))?;
        let mut facts = facts(self.stream()?);
        let beside = std::mem::take(&mut self.beside);
        let connect = self.connect.clone();
        let notices = self.stream()?.notices();
        facts.extend(settings_outside::facts(&connect, notices, &beside));
        Ok(BackupEnd {
            stop: stop.lsn,
            timeline: stop.timeline,
            bytes_read: self.bytes_read,
            facts,
            wal: self.stream.take().and_then(BaseBackup::into_connection),
        })
    }
}

/// `tablespace.<oid>` → its location on the source, for whoever restores; and which source it was.
fn facts(source: &BaseBackup) -> BTreeMap<String, String> {
    let named = source
        .tablespaces()
        .iter()
        .filter_map(|t| Some((t.oid?, t.location.clone()?)));
    let spaces = named.map(|(oid, location)| (format!("tablespace.{oid}"), location));
    spaces
        .chain([("source".to_owned(), "protocol".to_owned())])
        .collect()
}
