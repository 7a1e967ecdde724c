//! The streaming replication protocol of a physical WAL sender (PostgreSQL 15 and newer).
//!
//! [`Connection`] runs commands; [`Connection::start_streaming`] turns it into a [`WalStream`], which keeps its results
//! after the end (next timeline, or the server's error) and gives the connection back.

mod base_backup;
mod stream;

pub use base_backup::{BackupItem, BackupOptions, BackupStart, BackupStop, BaseBackup, Tablespace};
pub use stream::{EndOfTimeline, Event, StatusSender, WalStream};

use crate::lsn::Lsn;
use crate::server::session;
use crate::wire::{ConnectOptions, ServerMessage, Wire, WireError, data_row, row_description};

/// SQLSTATE `undefined_file`: the WAL asked for is no longer (or not yet) in the server's `pg_wal`.
pub const SQLSTATE_WAL_REMOVED: &str = "58P01";
/// SQLSTATE `object_in_use`: another receiver holds the slot.
pub const SQLSTATE_IN_USE: &str = "55006";
/// SQLSTATE `undefined_object`: no such slot.
pub const SQLSTATE_UNDEFINED: &str = "42704";
/// SQLSTATE `object_not_in_prerequisite_state`: the slot was invalidated because it fell too far behind.
pub const SQLSTATE_INVALIDATED: &str = "55000";
/// SQLSTATE `duplicate_object`: the slot exists already.
pub const SQLSTATE_DUPLICATE: &str = "42710";

/// Of a manifest in one message.
const UPLOAD_BYTES: usize = 64 << 10;

/// Answer of IDENTIFY_SYSTEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    pub system_identifier: u64,
    pub timeline: u32,
    /// The flush position of the server.
    pub lsn: Lsn,
}

/// Answer of READ_REPLICATION_SLOT for a physical slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPosition {
    /// `None`: the slot never reserved WAL, or lost it.
    pub restart_lsn: Option<Lsn>,
    pub restart_timeline: Option<u32>,
}

/// A connection to a WAL sender.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    notices: Vec<ServerMessage>,
}

impl Connection {
    /// Needs a role with REPLICATION and a `replication` line in `pg_hba.conf`.
    pub fn connect(options: &ConnectOptions) -> Result<Connection, WireError> {
        let session = session::replication_options();
        let extra = [("replication", "true"), ("options", session.as_str())];
        Ok(Connection {
            wire: Wire::connect(options, &extra)?,
            notices: Vec::new(),
        })
    }

    pub fn identify_system(&mut self) -> Result<SystemIdentity, WireError> {
        let row = self.one_row("IDENTIFY_SYSTEM")?;
        Ok(SystemIdentity {
            system_identifier: row.field(0)?,
            timeline: row.field(1)?,
            lsn: row.field(2)?,
        })
    }

    /// SHOW of one setting, in the form the server prints it.
    pub fn show(&mut self, setting: &str) -> Result<String, WireError> {
        let row = self.one_row(&format!("SHOW {setting}"))?;
        row.text(0).map(str::to_owned)
    }

    /// The size of a WAL segment.
    pub fn wal_segment_bytes(&mut self) -> Result<u64, WireError> {
        let text = self.show("wal_segment_size")?;
        parse_bytes(&text)
            .ok_or_else(|| WireError::Protocol(format!("wal_segment_size is {text:?}")))
    }

    /// For example `15.14 (Debian 15.14-0+deb12u1)`.
    pub fn server_version(&mut self) -> Result<String, WireError> {
        self.show("server_version")
    }

    /// Creates a physical slot that keeps WAL from now on.
    pub fn create_physical_slot(&mut self, name: &str) -> Result<(), WireError> {
        self.one_row(&format!(
            "CREATE_REPLICATION_SLOT {} PHYSICAL (RESERVE_WAL)",
            identifier(name)
        ))
        .map(drop)
    }

    /// A slot that keeps WAL from now on and lives as long as this connection.
    pub fn create_temporary_slot(&mut self, name: &str) -> Result<(), WireError> {
        let name = identifier(name);
        self.one_row(&format!(
            "CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL (RESERVE_WAL)"
        ))
        .map(drop)
    }

    /// Drops a slot; with `wait`, not before its present user has let go.
    pub fn drop_slot(&mut self, name: &str, wait: bool) -> Result<(), WireError> {
        self.rows(&format!(
            "DROP_REPLICATION_SLOT {}{}",
            identifier(name),
            if wait { " WAIT" } else { "" }
        ))
        .map(drop)
    }

    /// `None` when there is no such slot.
    pub fn read_slot(&mut self, name: &str) -> Result<Option<SlotPosition>, WireError> {
        let row = self.one_row(&format!("READ_REPLICATION_SLOT {}", identifier(name)))?;
        if row.0.first().is_none_or(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(SlotPosition {
            restart_lsn: row.field_option(1)?,
            restart_timeline: row.field_option(2)?,
        }))
    }

    /// The content of a timeline's history file (timeline 1 has none: the server reports an error).
    pub fn timeline_history(&mut self, timeline: u32) -> Result<String, WireError> {
        let row = self.one_row(&format!("TIMELINE_HISTORY {timeline}"))?;
        row.text(1).map(str::to_owned)
    }

    /// Gives the server the manifest of an earlier backup, for [`BackupOptions::incremental`] on this connection. An
    /// error of the server leaves the connection unusable.
    pub fn upload_manifest(&mut self, manifest: &[u8]) -> Result<(), WireError> {
        const COMMAND: &str = "UPLOAD_MANIFEST";
        self.wire.send_query(COMMAND)?;
        let frame = self.wire.answer(COMMAND, &mut self.notices)?;
        if frame.tag != b'G' {
            return Err(self.wire.unexpected(COMMAND, &frame));
        }
        for part in manifest.chunks(UPLOAD_BYTES) {
            let mut message = Vec::with_capacity(part.len() + 5);
            message.push(b'd');
            // At most `UPLOAD_BYTES`.
            let length = u32::try_from(part.len() + 4).unwrap_or(u32::MAX);
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(part);
            self.wire.send(&message)?;
        }
        self.wire.send(&[b'c', 0, 0, 0, 4])?;
        loop {
            let frame = self.wire.answer(COMMAND, &mut self.notices)?;
            match frame.tag {
                b'C' => {}
                b'Z' => return Ok(()),
                _ => return Err(self.wire.unexpected(COMMAND, &frame)),
            }
        }
    }

    /// Starts a base backup; its parts are then read from the returned value.
    pub fn base_backup(self, options: &BackupOptions) -> Result<BaseBackup, WireError> {
        BaseBackup::begin(self.wire, options)
    }

    /// Streams WAL of `timeline` from `start` on. With a slot the server keeps what was not yet confirmed.
    pub fn start_streaming(
        mut self,
        slot: Option<&str>,
        start: Lsn,
        timeline: u32,
    ) -> Result<WalStream, WireError> {
        let slot = slot
            .map(|name| format!("SLOT {} ", identifier(name)))
            .unwrap_or_default();
        let command = format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {timeline}");
        self.wire.send_query(&command)?;
        WalStream::begin(self, &command)
    }

    /// What the server remarked since the last call.
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        std::mem::take(&mut self.notices)
    }

    fn rows(&mut self, command: &str) -> Result<Vec<Row>, WireError> {
        self.wire.send_query(command)?;
        let mut rows = Vec::new();
        loop {
            let frame = match self.wire.answer(command, &mut self.notices) {
                Ok(frame) => frame,
                Err(error @ WireError::Server { .. }) => {
                    self.wire.drain_to_ready()?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            match frame.tag {
                b'T' | b'C' => {}
                b'D' => rows.push(Row::parse(frame.body)?),
                b'Z' => return Ok(rows),
                _ => return Err(self.wire.unexpected(command, &frame)),
            }
        }
    }

    fn one_row(&mut self, command: &str) -> Result<Row, WireError> {
        let mut rows = self.rows(command)?;
        rows.pop()
            .ok_or_else(|| WireError::Protocol(format!("no row in answer to {command}")))
    }
}

/// A row of text fields.
#[derive(Debug)]
struct Row(Vec<Option<String>>);

impl Row {
    fn parse(body: bytes::Bytes) -> Result<Row, WireError> {
        data_row(body)
            .map(Row)
            .ok_or_else(|| WireError::Protocol("a damaged row".into()))
    }

    fn text(&self, index: usize) -> Result<&str, WireError> {
        self.0
            .get(index)
            .and_then(Option::as_deref)
            .ok_or_else(|| WireError::Protocol(format!("field {index} is missing in {:?}", self.0)))
    }

    fn field<T: std::str::FromStr>(&self, index: usize) -> Result<T, WireError> {
        let text = self.text(index)?;
        text.parse()
            .map_err(|_| WireError::Protocol(format!("field {index} is {text:?}")))
    }

    fn field_option<T: std::str::FromStr>(&self, index: usize) -> Result<Option<T>, WireError> {
        if self.0.get(index).is_none_or(Option::is_none) {
            Ok(None)
        } else {
            self.field(index).map(Some)
        }
    }
}

/// Reads a result set whose first message may already have been taken: `T`, `D`*, `C`.
fn result_set(
    wire: &mut Wire,
    what: &str,
    notices: &mut Vec<ServerMessage>,
) -> Result<(Vec<String>, Vec<Row>), WireError> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    loop {
        let frame = wire.answer(what, notices)?;
        match frame.tag {
            b'T' => {
                columns = row_description(frame.body)
                    .ok_or_else(|| WireError::Protocol("a damaged row description".into()))?
            }
            b'D' => rows.push(Row::parse(frame.body)?),
            b'C' => return Ok((columns, rows)),
            _ => return Err(wire.unexpected(what, &frame)),
        }
    }
}

/// Slot names are lower-case letters, digits and underscores; quoting keeps everything else from becoming a command.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `16MB` → 16777216; also kB, GB, B and plain numbers.
fn parse_bytes(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let shift = match text[split..].trim() {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    number.checked_shl(shift)
}

/// Microseconds between the Unix epoch and PostgreSQL's (2000-01-01).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A server timestamp as microseconds since the Unix epoch.
pub(crate) fn unix_micros(postgres_micros: i64) -> i64 {
    postgres_micros.saturating_add(POSTGRES_EPOCH_MICROS)
}

fn now_postgres_micros() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_MICROS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(parse_bytes(text), expected, "{text}");
        check("16MB", Some(16 << 20));
        check("1GB", Some(1 << 30));
        check("8192", Some(8192));
        check("64kB", Some(64 << 10));
        check("many", None);
        check("1TB", None);
    }
}
