//! Backups that a recovery could not use, and why. Kept in the instance's folder: the alarm holds until such a backup
//! is gone, or a restore test of it has passed. Without the file the next recovery finds out again.

use std::path::{Path, PathBuf};

use host::{files::write_whole, instance::Instance};
use repository::backup::{BackupState, BackupSummary};
use serde::{Deserialize, Serialize};
use terminal::time;

use crate::{error::Error, health::StreamMonitor};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    pub backup_id: String,
    pub reason: String,
    pub at_micros: i64,
}

impl PassedOver {
    /// What happened, and what to do.
    pub fn sentence(&self) -> String {
        let Self {
            backup_id,
            reason,
            at_micros,
        } = self;
        format!(
            "the recovery of {} passed over backup {backup_id}, which cannot be restored: {reason}. \
             `bre verify backup {backup_id}` names what it lacks: take that from another copy of the repository and \
             run `bre restore-test run {backup_id}`; or remove `backups/{backup_id}/manifest` from the repository",
            time(*at_micros)
        )
    }

    /// Gone, or restored and checked since.
    fn is_settled(&self, backups: &[BackupSummary]) -> bool {
        let same = |backup: &&BackupSummary| backup.id == self.backup_id;
        let Some(backup) = backups.iter().find(same) else {
            return true;
        };
        backup.state == BackupState::Expiring
            || backup.restored_and_proved_at_micros > Some(self.at_micros)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct PassedOverFile {
    passed_over: Vec<PassedOver>,
}

/// Of an instance; the supervisor alone changes it.
#[derive(Debug)]
pub struct PassedOverBackups {
    file: PathBuf,
    list: Vec<PassedOver>,
    /// Among its alarms each is named.
    monitor: StreamMonitor,
}

impl PassedOverBackups {
    pub fn of(instance: &Instance, monitor: StreamMonitor) -> Self {
        let file = instance.passed_over_file();
        let list = read(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "which backups a recovery passed over is not known");
            Vec::new()
        });
        let passed_over = Self {
            file,
            list,
            monitor,
        };
        passed_over.show();
        passed_over
    }

    pub fn list(&self) -> &[PassedOver] {
        &self.list
    }

    pub fn ids(&self) -> Vec<String> {
        self.list.iter().map(|it| it.backup_id.clone()).collect()
    }

    pub fn add(&mut self, backup_id: &str, reason: &Error) {
        tracing::error!(
            backup = backup_id, error = %reason,
            "the database cannot be restored from this backup; an older one is next"
        );
        self.list.retain(|it| it.backup_id != backup_id);
        self.list.push(PassedOver {
            backup_id: backup_id.to_owned(),
            // PostgreSQL's log may follow.
            reason: reason
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            at_micros: jiff::Timestamp::now().as_microsecond(),
        });
        self.keep();
    }

    /// It could be used after all.
    pub fn remove(&mut self, backup_id: &str) {
        if self.list.iter().any(|it| it.backup_id == backup_id) {
            self.list.retain(|it| it.backup_id != backup_id);
            self.keep();
        }
    }

    /// By the catalogue as it was asked for at that time: an older one says nothing of a younger backup.
    pub fn settle(&mut self, backups: &[BackupSummary], asked_at_micros: i64) {
        let before = self.list.len();
        let is_settled = |it: &PassedOver| it.at_micros < asked_at_micros && it.is_settled(backups);
        self.list.retain(|it| !is_settled(it));
        if self.list.len() != before {
            self.keep();
        }
    }

    fn keep(&self) {
        self.show();
        let stored = PassedOverFile {
            passed_over: self.list.clone(),
        };
        let written = match self.list.is_empty() {
            true => {
                std::fs::remove_file(&self.file).map_err(Error::file("cannot remove", &self.file))
            }
            false => serde_json::to_vec_pretty(&stored)
                .map_err(|error| Error::file("cannot write", &self.file)(error.into()))
                .and_then(|text| Ok(write_whole(&self.file, &text, 0o644)?)),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "which backups the recovery passed over is not kept across a restart");
        }
    }

    fn show(&self) {
        let sentences = self.list.iter().map(PassedOver::sentence);
        self.monitor.set_passed_over(sentences.collect());
    }
}

/// For `bre status` where no engine runs: what is not settled by these backups.
pub fn unsettled(instance: &Instance, backups: &[BackupSummary]) -> Result<Vec<PassedOver>, Error> {
    let mut list = read(&instance.passed_over_file())?;
    list.retain(|it| !it.is_settled(backups));
    Ok(list)
}

fn read(file: &Path) -> Result<Vec<PassedOver>, Error> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map(|stored: PassedOverFile| stored.passed_over)
            .map_err(|error| Error::file("cannot understand", file)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("cannot read", file)(error)),
    }
}
