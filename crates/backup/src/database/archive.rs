//! The archives of a base backup as plain readers.

use crate::Progress;
use bytes::{Buf, Bytes};
use postgres_physical::replication::{BackupItem, BaseBackup};
use postgres_physical::wire::WireError;
use std::io::{self, Read};

/// What comes after the present part of the stream.
#[derive(Debug)]
pub(super) enum Part {
    Archive { name: String },
    Manifest,
    End,
}

/// Walks a base backup part by part; while inside one, it is a reader of its bytes.
pub(super) struct Parts<'a> {
    backup: &'a mut BaseBackup,
    progress: &'a dyn Progress,
    pending: Bytes,
    next: Option<Part>,
    error: Option<WireError>,
    bytes_read: u64,
}

impl<'a> Parts<'a> {
    pub(super) fn new(backup: &'a mut BaseBackup, progress: &'a dyn Progress) -> Parts<'a> {
        Parts {
            backup,
            progress,
            pending: Bytes::new(),
            next: None,
            error: None,
            bytes_read: 0,
        }
    }

    /// Passes over the rest of the present part.
    pub(super) fn next_part(&mut self) -> io::Result<Part> {
        loop {
            self.pending.clear();
            if let Some(part) = self.next.take() {
                return Ok(part);
            }
            self.fill()?;
        }
    }

    /// The server's or the connection's error behind a failed read.
    pub(super) fn take_error(&mut self) -> Option<WireError> {
        self.error.take()
    }

    /// So far, of all parts.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// More bytes of this part, or the part that follows it.
    fn fill(&mut self) -> io::Result<()> {
        if self.progress.cancelled() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, CANCELLED));
        }
        let item = self.backup.next_item().map_err(|error| {
            let text = error.to_string();
            self.error = Some(error);
            io::Error::other(text)
        })?;
        match item {
            None => self.next = Some(Part::End),
            Some(BackupItem::Archive { name, .. }) => self.next = Some(Part::Archive { name }),
            Some(BackupItem::Manifest) => self.next = Some(Part::Manifest),
            Some(BackupItem::Progress(_)) => {}
            Some(BackupItem::Data(bytes)) => {
                self.bytes_read += bytes.len() as u64;
                self.progress.advance(bytes.len() as u64);
                self.pending = bytes;
            }
        }
        Ok(())
    }
}

const CANCELLED: &str = "cancelled";

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pending.is_empty() {
            if self.next.is_some() {
                return Ok(0);
            }
            // `Interrupted` would make readers try again.
            self.fill()
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        let count = buffer.len().min(self.pending.len());
        self.pending.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
