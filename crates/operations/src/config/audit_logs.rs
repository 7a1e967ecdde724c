//! `[audit_archive]` and `[audit_logs]`: where what an audit asks for is kept, and which logs it asks for
//! (docs/operations/audit_logs.md).

use std::{num::NonZeroU16, path::PathBuf};

use host::location::Location;
use repository::log_stretches::LogKind;
use serde::Deserialize;

use super::ObjectLock;

/// A repository of its own for the logs; the instance's when absent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditArchive {
    pub repository: Option<Location>,
    pub lock: Option<ObjectLock>,
    /// Recipients that may read the archive, as `bre audit key show` lists them.
    pub readers: Vec<String>,
    /// The command socket of chrony, where it is not the usual one.
    pub chrony: Option<PathBuf>,
    /// How far the clock may be from the time.
    pub clock_offset_millis_max: NonZeroU16,
}

impl Default for AuditArchive {
    fn default() -> Self {
        Self {
            repository: None,
            lock: None,
            readers: Vec::new(),
            chrony: None,
            clock_offset_millis_max: NonZeroU16::MIN.saturating_add(99),
        }
    }
}

/// Logs of this host beside the engine's own files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditLogs {
    /// Files of services, each with what it was before: `/var/log/app/app.log`, `/var/log/app/*.jsonl`.
    pub application: Vec<PathBuf>,
    /// Files of a PostgreSQL that the instance does not start.
    pub postgres: Vec<PathBuf>,
    /// A folder of journal files, or one; the first of systemd's own folders that is there when absent.
    pub journal: Option<PathBuf>,
    /// Whose entries of the journal are kept, beside those of kernel and audit subsystem; sshd, sudo, auditd and their
    /// like when absent.
    pub system_identifiers: Option<Vec<String>>,
    /// For how long each kind is kept; fewer days than the guide's count for nothing.
    pub application_days: NonZeroU16,
    pub postgres_days: NonZeroU16,
    pub system_days: NonZeroU16,
    /// As `[audit_archive]` has it.
    #[serde(skip)]
    pub archive: AuditArchive,
    /// As `[log] file` has it.
    #[serde(skip)]
    pub log_file: Option<PathBuf>,
}

fn days(kind: LogKind) -> NonZeroU16 {
    NonZeroU16::new(kind.days()).unwrap_or(NonZeroU16::MAX)
}

impl Default for AuditLogs {
    fn default() -> Self {
        Self {
            application: Vec::new(),
            postgres: Vec::new(),
            journal: None,
            system_identifiers: None,
            application_days: days(LogKind::Application),
            postgres_days: days(LogKind::Postgres),
            system_days: days(LogKind::System),
            archive: AuditArchive::default(),
            log_file: None,
        }
    }
}

impl AuditLogs {
    /// Never fewer than the kind has.
    pub fn days(&self, kind: LogKind) -> NonZeroU16 {
        let set = match kind {
            LogKind::Application => self.application_days,
            LogKind::Postgres => self.postgres_days,
            LogKind::System => self.system_days,
        };
        set.max(days(kind))
    }
}
