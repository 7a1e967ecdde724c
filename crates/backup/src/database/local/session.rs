//! The session that holds a backup open. `pg_backup_start` and `pg_backup_stop` belong to one connection: when it ends
//! before the stop, the server gives the backup up, and so do we.

use crate::{BackupError, Result};
use postgres_physical::lsn::Lsn;
use postgres_physical::server::sql::{Client, quote_identifier, quote_literal};
use postgres_physical::wire::{ConnectOptions, WireError};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    user: String,
    database: String,
    start: Option<Lsn>,
}

/// What the server says at the end: the two files that tell a recovery where to begin are the function's result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StopAnswer {
    pub(super) lsn: Lsn,
    pub(super) timeline: u32,
    pub(super) label: String,
    pub(super) tablespace_map: String,
}

impl Session {
    pub(super) fn open(connect: &ConnectOptions) -> Result<Session> {
        let mut client = Client::connect(connect)?;
        // The session is silent for as long as the copy takes.
        client.query("SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10")?;
        Ok(Session {
            client,
            user: connect.user.clone(),
            database: connect.database.clone(),
            start: None,
        })
    }

    /// A setting; `None` for roles that may not see it.
    pub(super) fn setting(&mut self, name: &str) -> Result<Option<String>> {
        match self.client.value(&format!("SHOW {name}")) {
            Err(error) if error.sqlstate() == Some(INSUFFICIENT_PRIVILEGE) => Ok(None),
            other => Ok(other?),
        }
    }

    /// Refuses, with the grants that are missing, a role that may not do all of it.
    pub(super) fn check_rights(&mut self) -> Result<()> {
        let rights = self.client.value(
            "SELECT has_function_privilege('pg_backup_start(text, boolean)', 'EXECUTE') \
                AND has_function_privilege('pg_backup_stop(boolean)', 'EXECUTE') \
                AND pg_has_role('pg_read_all_settings', 'USAGE')",
        )?;
        match rights.as_deref() {
            Some("t") => Ok(()),
            _ => Err(self.not_allowed()),
        }
    }

    fn not_allowed(&self) -> BackupError {
        let role = quote_identifier(&self.user);
        BackupError::Setting(format!(
            "{} may not hold a backup open. As a superuser, in the database {}: GRANT EXECUTE ON FUNCTION \
             pg_backup_start(text, boolean), pg_backup_stop(boolean) TO {role}; GRANT pg_read_all_settings TO {role}; \
             or take the backup through the replication protocol (source protocol)",
            self.user, self.database
        ))
    }

    /// Begins with an immediate checkpoint; returns where a recovery will start.
    pub(super) fn start(&mut self, label: &str) -> Result<Lsn> {
        let sql = format!("SELECT pg_backup_start({}, true)", quote_literal(label));
        let lsn = match self.client.value(&sql) {
            Err(error) if error.sqlstate() == Some(INSUFFICIENT_PRIVILEGE) => {
                return Err(self.not_allowed());
            }
            other => other?,
        };
        let start = lsn.as_deref().and_then(|lsn| lsn.parse().ok());
        self.start = start;
        start.ok_or_else(|| unexpected("pg_backup_start", &lsn))
    }

    /// Asked every now and then while files are copied: without the session all of that is in vain.
    pub(super) fn check(&mut self) -> Result<()> {
        self.client.query("SELECT 1").map(drop).map_err(lost)
    }

    pub(super) fn stop(mut self) -> Result<StopAnswer> {
        // The repository's stream brings the WAL; waiting for an archive could wait for ever.
        let rows = self
            .client
            .query("SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)")
            .map_err(lost)?
            .rows;
        let field = |index: usize| rows.first()?.get(index)?.clone();
        let (lsn, label) = (field(0), field(1).unwrap_or_default());
        let stopped = StopAnswer {
            lsn: lsn
                .as_deref()
                .and_then(|lsn| lsn.parse().ok())
                .ok_or_else(|| unexpected("pg_backup_stop", &lsn))?,
            timeline: timeline_of(&label)
                .ok_or_else(|| unexpected("pg_backup_stop", &Some(label.clone())))?,
            tablespace_map: field(2).unwrap_or_default(),
            label,
        };
        match start_of(&stopped.label) == self.start {
            true => Ok(stopped),
            false => Err(unexpected("pg_backup_stop", &Some(stopped.label))),
        }
    }
}

fn lost(error: WireError) -> BackupError {
    match error {
        WireError::Lost(source) => BackupError::SessionLost(source),
        // Ended by the server: a shutdown, or pg_terminate_backend.
        error if error.is_away() => {
            BackupError::SessionLost(std::io::Error::other(error.to_string()))
        }
        error => error.into(),
    }
}

fn unexpected(what: &str, found: &Option<String>) -> BackupError {
    BackupError::Postgres(WireError::Protocol(format!("{what} returned {found:?}")))
}

fn line<'a>(label: &'a str, name: &str) -> Option<&'a str> {
    label
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn timeline_of(label: &str) -> Option<u32> {
    line(label, "START TIMELINE")?.trim().parse().ok()
}

fn start_of(label: &str) -> Option<Lsn> {
    line(label, "START WAL LOCATION")?
        .split(' ')
        .next()?
        .parse()
        .ok()
}
