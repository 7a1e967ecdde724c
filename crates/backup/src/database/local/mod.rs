//! The source for a server whose files can be read here: one session holds the backup open over SQL, several threads read
//! the data folder.
//!
//! It reads what `BASE_BACKUP` would send, so that both sources store the same bytes; `pg_control` comes last, and the label
//! files are what `pg_backup_stop` returns. PostgreSQL 15 and newer, where any number of such backups run at once: another
//! tool's is not disturbed.

mod configuration;
mod exclusions;
mod live;
mod reach;
mod reading;
mod session;
mod throttle;
mod walk;

use super::changes::ChangedPages;
use super::manifest::{Manifest, ManifestFile, WalRange};
use super::run::DatabaseBackup;
use super::source::{BackupEnd, BackupStart, Identity, Source, Suspects};
use crate::{BackupError, Progress, Result, now_micros, random_suffix};
use configuration::Configuration;
use postgres_physical::replication::{Connection, SystemIdentity};
use postgres_physical::wire::ConnectOptions;
use reach::{CONTROL, ServerFolder};
use reading::{PageFindings, Reader};
use repository::backup::{BackupKind, BackupWriter};
use session::Session;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use throttle::Throttle;
use walk::{Tree, version_folder, walk};

pub use live::{LivePage, LivePages, Owner, verify_live};

/// Reads the server's files here.
#[derive(Debug)]
pub struct Local {
    threads: usize,
    throttle: Throttle,
    /// Its temporary slot keeps the WAL of the backup until its pages are judged.
    wal: Option<Connection>,
    system: SystemIdentity,
    pg_version: u32,
    bytes_read: u64,
    session: Option<Session>,
    reached: ServerFolder,
    begun: Option<BackupStart>,
    tree: Tree,
    configuration: Configuration,
    listed: Vec<ManifestFile>,
}

impl Local {
    /// `Ok(Err(why))` when the server's files cannot be read here.
    pub fn open(request: &DatabaseBackup<'_>) -> Result<std::result::Result<Self, String>> {
        // Not the stream's name: strict mode waits for that one.
        let connect: ConnectOptions = request.connect.clone().with_application_name("bre-backup");
        let mut wal = Connection::connect(&connect)?;
        let system = wal.identify_system()?;
        let slot = format!("bre_backup_{}", random_suffix());
        let slot = match wal.create_temporary_slot(&slot) {
            Ok(()) => Some(slot),
            Err(error) => {
                tracing::warn!(%error, "no temporary slot for this backup");
                None
            }
        };
        let mut session = Session::open(&connect)?;
        let reached = match reach::reach(&mut session, system.system_identifier, slot.as_deref())? {
            Ok(reached) => reached,
            Err(why) => return Ok(Err(why)),
        };
        Ok(Ok(Self {
            threads: request.threads.max(1),
            throttle: Throttle::new(request.bytes_per_second_max),
            wal: Some(wal),
            system,
            pg_version: 0,
            bytes_read: 0,
            session: Some(session),
            reached,
            begun: None,
            tree: Tree::default(),
            configuration: Configuration::default(),
            listed: Vec::new(),
        }))
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(not_begun)
    }

    fn server_number(&mut self, setting: &str) -> Result<u32> {
        let value = self.session()?.setting(setting)?;
        value
            .as_deref()
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| BackupError::Source(format!("the server's {setting} is {value:?}")))
    }

    /// The files that the server makes or changes last, and the list of all of them.
    fn finish(&mut self, writer: &BackupWriter, stopped: &session::StopAnswer) -> Result<()> {
        let begun = self.begun.clone().ok_or_else(not_begun)?;
        let now = now_micros() / 1_000_000 * 1_000_000;
        self.blob(writer, "backup_label", now, stopped.label.as_bytes())?;
        // Empty without tablespaces, as BASE_BACKUP sends it.
        self.blob(
            writer,
            "tablespace_map",
            now,
            stopped.tablespace_map.as_bytes(),
        )?;
        let range = WalRange {
            timeline: begun.timeline,
            start: begun.start.to_string(),
            end: stopped.lsn.to_string(),
        };
        self.listed.sort_by(|a, b| a.path.cmp(&b.path));
        let files = std::mem::take(&mut self.listed);
        let manifest = Manifest::new(self.pg_version, self.system.system_identifier, files, range);
        let manifest = manifest.render();
        Ok(writer.blob("backup_manifest", 0o600, now, manifest.as_bytes())?)
    }

    fn blob(
        &mut self,
        writer: &BackupWriter,
        path: &str,
        mtime_micros: i64,
        bytes: &[u8],
    ) -> Result<()> {
        writer.blob(path, 0o600, mtime_micros, bytes)?;
        self.listed
            .push(ManifestFile::of(path, mtime_micros, bytes));
        Ok(())
    }

    /// Last of all that is copied: a recovery reads in it how far it has to go.
    fn control(&mut self, writer: &BackupWriter) -> Result<()> {
        let path = self.reached.data.join(CONTROL);
        let meta = fs::metadata(&path).map_err(BackupError::file("look at", &path))?;
        let bytes = reach::read_control_bytes(&self.reached.data).map_err(BackupError::Source)?;
        let mtime_micros = meta.mtime() * 1_000_000;
        writer.blob(CONTROL, meta.mode() & 0o7777, mtime_micros, &bytes)?;
        self.listed
            .push(ManifestFile::of(CONTROL, mtime_micros, &bytes));
        Ok(())
    }

    fn facts(&mut self) -> BTreeMap<String, String> {
        let mut facts = std::mem::take(&mut self.configuration.facts);
        facts.insert("source".to_owned(), "local".to_owned());
        let spaces = &self.tree.tablespaces;
        facts.extend(
            spaces
                .iter()
                .map(|(oid, place)| (format!("tablespace.{oid}"), place.display().to_string())),
        );
        if !self.tree.skipped.is_empty() {
            facts.insert("skipped".to_owned(), self.tree.skipped.join(", "));
        }
        facts
    }
}

impl Source for Local {
    fn identify(&mut self) -> Result<Identity> {
        self.pg_version = self.server_number("server_version_num")?;
        Ok(Identity {
            system_identifier: self.system.system_identifier,
            timeline: self.system.timeline,
            pg_version: self.pg_version,
            wal_segment_bytes: self.reached.control.wal_segment_bytes,
            page_checksums: self.reached.control.checksums_enabled,
        })
    }

    fn begin(
        &mut self,
        label: &str,
        writer: &BackupWriter,
        progress: &dyn Progress,
    ) -> Result<BackupStart> {
        progress.message("waiting for a checkpoint");
        let start = self.session()?.start(label)?;
        let data = self.reached.data.clone();
        self.configuration = configuration::outside(self.session()?, &data)?;
        let version = version_folder(self.pg_version, self.reached.control.catalog_version);
        self.tree = walk(&data, &version)?;
        // Links to settings: what they lead to is in the backup.
        let followed = &self.configuration.files;
        self.tree
            .skipped
            .retain(|path| !followed.iter().any(|file| file.place == data.join(path)));
        self.tree.files.append(&mut self.configuration.files);
        self.tree.sort_for_threads();
        let begun = BackupStart {
            timeline: self.system.timeline,
            start,
            bytes_expected: self.tree.bytes(),
            changed_pages: match writer.kind() {
                BackupKind::Full => ChangedPages::All,
                BackupKind::Incremental => ChangedPages::Compared {
                    why_not_named: "the local source reads all files".into(),
                },
            },
        };
        self.begun = Some(begun.clone());
        Ok(begun)
    }

    fn copy(&mut self, writer: &BackupWriter, progress: &dyn Progress) -> Result<Suspects> {
        for folder in &self.tree.folders {
            writer.dir(&folder.path, folder.mode, folder.mtime_micros)?;
        }
        let reader = Reader {
            writer,
            progress,
            throttle: &self.throttle,
            checksums: self.reached.control.checksums_enabled,
        };
        let session = self.session.as_mut().ok_or_else(not_begun)?;
        let PageFindings { listed, suspects } =
            reader.read_all(&self.tree.files, self.threads, session)?;
        self.bytes_read = listed.iter().map(ManifestFile::size).sum();
        self.listed = listed;
        self.control(writer)?;
        Ok(Suspects(suspects))
    }

    fn stop(&mut self, writer: &BackupWriter, _: &dyn Progress) -> Result<BackupEnd> {
        let stopped = self.session.take().ok_or_else(not_begun)?.stop()?;
        if stopped.timeline != self.system.timeline {
            return Err(BackupError::Source(format!(
                "the server went from timeline {} to {} meanwhile: take the backup again",
                self.system.timeline, stopped.timeline
            )));
        }
        self.finish(writer, &stopped)?;
        Ok(BackupEnd {
            stop: stopped.lsn,
            timeline: stopped.timeline,
            bytes_read: self.bytes_read,
            facts: self.facts(),
            wal: self.wal.take(),
        })
    }
}

fn not_begun() -> BackupError {
    BackupError::Source("the backup was not begun".into())
}
