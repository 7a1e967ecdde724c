//! BASE_BACKUP in the form of PostgreSQL 15 and newer: one copy stream that holds archives, progress and the manifest.

use super::{Connection, Row, result_set};
use crate::lsn::Lsn;
use crate::wire::{ServerMessage, Wire, WireError, take_cstr};
use bytes::{Buf, Bytes};

#[derive(Debug, Clone)]
pub struct BackupOptions {
    pub label: String,
    /// Begin with an immediate checkpoint instead of waiting for the next spread one.
    pub fast_checkpoint: bool,
    /// The server's own page check, which fails a backup; ours judges pages by the WAL and records them.
    pub verify_checksums: bool,
    /// Largest rate in kB/s.
    pub rate_kb_max: Option<u32>,
    /// Only what changed since the backup whose manifest was sent with [`Connection::upload_manifest`] (PostgreSQL 17
    /// and newer).
    pub incremental: bool,
}

impl BackupOptions {
    pub fn new(label: &str) -> BackupOptions {
        BackupOptions {
            label: label.to_owned(),
            fast_checkpoint: true,
            verify_checksums: false,
            rate_kb_max: None,
            incremental: false,
        }
    }

    fn command(&self) -> String {
        let rate = self
            .rate_kb_max
            .map(|rate| format!(", MAX_RATE {rate}"))
            .unwrap_or_default();
        format!(
            "BASE_BACKUP ( LABEL '{}', PROGRESS true, CHECKPOINT '{}', WAL false, MANIFEST 'yes', WAIT false, \
             TABLESPACE_MAP true, VERIFY_CHECKSUMS {}{rate}{} )",
            self.label.replace('\'', "''"),
            if self.fast_checkpoint {
                "fast"
            } else {
                "spread"
            },
            self.verify_checksums,
            if self.incremental {
                ", INCREMENTAL"
            } else {
                ""
            },
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupStart {
    pub lsn: Lsn,
    pub timeline: u32,
}

/// The backup needs WAL up to `lsn` to be consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupStop {
    pub lsn: Lsn,
    pub timeline: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// `None` for the data folder itself.
    pub oid: Option<u32>,
    pub location: Option<String>,
    /// The server's estimate.
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupItem {
    /// A new tar archive begins: `base.tar`, or `<oid>.tar` of a tablespace at `location`.
    Archive {
        name: String,
        location: Option<String>,
    },
    /// Bytes of the present archive, or of the manifest once that has begun.
    Data(Bytes),
    /// The backup manifest begins.
    Manifest,
    /// Bytes of archives done so far.
    Progress(u64),
}

/// A running base backup. Dropping it before the end makes the server give up.
#[derive(Debug)]
pub struct BaseBackup {
    wire: Wire,
    notices: Vec<ServerMessage>,
    start: BackupStart,
    tablespaces: Vec<Tablespace>,
    stop: Option<BackupStop>,
}

const WHAT: &str = "BASE_BACKUP";

impl BaseBackup {
    pub(super) fn begin(mut wire: Wire, options: &BackupOptions) -> Result<BaseBackup, WireError> {
        wire.send_query(&options.command())?;
        let mut notices = Vec::new();
        let (lsn, timeline) = read_position(&mut wire, &mut notices)?;
        let (_, rows) = result_set(&mut wire, WHAT, &mut notices)?;
        let tablespaces = rows.iter().map(read_tablespace).collect::<Result<_, _>>()?;
        let frame = wire.answer(WHAT, &mut notices)?;
        if frame.tag != b'H' {
            return Err(wire.unexpected(WHAT, &frame));
        }
        Ok(BaseBackup {
            wire,
            notices,
            start: BackupStart { lsn, timeline },
            tablespaces,
            stop: None,
        })
    }

    pub fn start(&self) -> BackupStart {
        self.start
    }

    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// The server's estimate of all archives together.
    pub fn bytes_expected(&self) -> u64 {
        self.tablespaces
            .iter()
            .filter_map(|tablespace| tablespace.bytes)
            .sum()
    }

    /// The next part; `None` at the end, after which [`BaseBackup::stop`] is known.
    pub fn next_item(&mut self) -> Result<Option<BackupItem>, WireError> {
        if self.stop.is_some() {
            return Ok(None);
        }
        loop {
            let frame = self.wire.answer(WHAT, &mut self.notices)?;
            match frame.tag {
                b'd' => {
                    if let Some(item) = parse_item(frame.body)? {
                        return Ok(Some(item));
                    }
                }
                b'c' => break,
                _ => return Err(self.wire.unexpected(WHAT, &frame)),
            }
        }
        let (lsn, timeline) = read_position(&mut self.wire, &mut self.notices)?;
        // Checksum failures (when asked for) are an error after the stop position.
        loop {
            let frame = self.wire.answer(WHAT, &mut self.notices)?;
            if frame.tag == b'Z' {
                break;
            }
        }
        self.stop = Some(BackupStop { lsn, timeline });
        Ok(None)
    }

    /// At the end: the connection, ready for the next command (it still holds its temporary slots).
    pub fn into_connection(self) -> Option<Connection> {
        let connection = Connection {
            wire: self.wire,
            notices: self.notices,
        };
        self.stop.map(|_| connection)
    }

    /// Known once [`BaseBackup::next_item`] has returned `None`.
    pub fn stop(&self) -> Option<BackupStop> {
        self.stop
    }

    pub fn notices(&self) -> &[ServerMessage] {
        &self.notices
    }
}

fn read_position(
    wire: &mut Wire,
    notices: &mut Vec<ServerMessage>,
) -> Result<(Lsn, u32), WireError> {
    let (_, rows) = result_set(wire, WHAT, notices)?;
    let row = rows
        .first()
        .ok_or_else(|| WireError::Protocol("BASE_BACKUP named no WAL position".into()))?;
    Ok((row.field(0)?, row.field(1)?))
}

fn read_tablespace(row: &Row) -> Result<Tablespace, WireError> {
    // The size is in kB.
    let kilobytes: Option<u64> = row.field_option(2)?;
    Ok(Tablespace {
        oid: row.field_option(0)?,
        location: row.field_option(1)?,
        bytes: kilobytes.map(|kb| kb * 1024),
    })
}

fn parse_item(mut body: Bytes) -> Result<Option<BackupItem>, WireError> {
    let damaged = || WireError::Protocol("a damaged part of a base backup".into());
    match body.try_get_u8().map_err(|_| damaged())? {
        b'n' => {
            let name = take_cstr(&mut body).ok_or_else(damaged)?;
            let location = take_cstr(&mut body).ok_or_else(damaged)?;
            Ok(Some(BackupItem::Archive {
                name,
                location: (!location.is_empty()).then_some(location),
            }))
        }
        b'm' => Ok(Some(BackupItem::Manifest)),
        b'd' => Ok(Some(BackupItem::Data(body))),
        b'p' => Ok(Some(BackupItem::Progress(
            body.try_get_u64().map_err(|_| damaged())?,
        ))),
        other => Err(WireError::Protocol(format!(
            "part {:?} of a base backup",
            other as char
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        let command = BackupOptions::new("it's").command();
        assert!(
            command.starts_with("BASE_BACKUP ( LABEL 'it''s', PROGRESS true, CHECKPOINT 'fast',"),
            "{command}"
        );
        assert!(command.ends_with("VERIFY_CHECKSUMS false )"), "{command}");
    }

    #[test]
    fn parts() {
        let check = |bytes: &'static [u8], expected: BackupItem| {
            assert_eq!(
                parse_item(Bytes::from_static(bytes)).unwrap(),
                Some(expected)
            )
        };
        check(
            b"nbase.tar\0\0",
            BackupItem::Archive {
                name: "base.tar".into(),
                location: None,
            },
        );
        check(
            b"n16385.tar\0/ts\0",
            BackupItem::Archive {
                name: "16385.tar".into(),
                location: Some("/ts".into()),
            },
        );
        check(b"dxyz", BackupItem::Data(Bytes::from_static(b"xyz")));
        check(b"m", BackupItem::Manifest);
        check(b"p\0\0\0\0\0\0\x10\0", BackupItem::Progress(4096));
        for wrong in [&b"q"[..], b"", b"nbase", b"p12"] {
            assert!(parse_item(Bytes::from_static(wrong)).is_err());
        }
    }
}
