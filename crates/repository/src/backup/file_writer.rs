//! One file on its way into a backup.

use std::sync::Arc;

use super::open_file::{End, OpenFile};
use super::workers::Job;
use super::writer::{BackupWriter, WINDOW_BYTES};
use crate::error::{Error, Result};
use crate::local_index::PIECE_BYTES;

/// Takes the bytes of one file in order. May be used on any thread.
pub struct FileWriter<'a> {
    writer: &'a BackupWriter,
    file: Arc<OpenFile>,
    /// Sent so far.
    windows: usize,
    size: u64,
    /// What was given of the present window.
    buffer: Vec<u8>,
    /// Its pieces so far, up to the last one that is kept.
    kept: Vec<bool>,
    kept_bytes: usize,
}

impl<'a> FileWriter<'a> {
    pub(super) fn new(writer: &'a BackupWriter, file: OpenFile) -> Self {
        Self {
            writer,
            file: Arc::new(file),
            windows: 0,
            size: 0,
            buffer: Vec::new(),
            kept: Vec::new(),
            kept_bytes: 0,
        }
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer = self.writer.buffer();
            }
            let room = WINDOW_BYTES - self.filled();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            self.send_when_full()?;
        }
        Ok(())
    }

    /// As `write`, without a copy where `bytes` are whole windows of the file.
    pub fn push(&mut self, bytes: Vec<u8>) -> Result<()> {
        if self.filled() == 0 && bytes.len() <= WINDOW_BYTES {
            self.buffer = bytes;
            return self.send_when_full();
        }
        self.write(&bytes)
    }

    /// How many bytes of this file the parent has in whole pieces, from its start; `None` when it had no such file (or none that
    /// can still be looked up).
    #[must_use]
    pub fn bytes_before(&self) -> Option<u64> {
        let pieces = self.file.pieces_before?;
        Some((pieces * PIECE_BYTES) as u64)
    }

    /// The next `bytes` are those that the parent has in this place: nobody read them. Whole pieces of 8 KiB only, below
    /// [`FileWriter::bytes_before`].
    pub fn keep(&mut self, bytes: u64) -> Result<()> {
        let (at, piece) = (self.size + self.filled() as u64, PIECE_BYTES as u64);
        let end = at.checked_add(bytes);
        let fits = end.is_some_and(|end| self.bytes_before().is_some_and(|before| end <= before));
        if !fits || !at.is_multiple_of(piece) || !bytes.is_multiple_of(piece) {
            return Err(Error::Input(format!(
                "`{}`: its parent has not {bytes} bytes to keep at {at}",
                self.file.path
            )));
        }
        for _ in 0..bytes / piece {
            self.kept.resize(self.filled() / PIECE_BYTES, false);
            self.kept.push(true);
            self.kept_bytes += PIECE_BYTES;
            self.send_when_full()?;
        }
        Ok(())
    }

    /// Of the present window.
    fn filled(&self) -> usize {
        self.buffer.len() + self.kept_bytes
    }

    fn send_when_full(&mut self) -> Result<()> {
        if self.filled() < WINDOW_BYTES {
            return Ok(());
        }
        self.send(false)
    }

    fn send(&mut self, last: bool) -> Result<()> {
        let (number, filled) = (self.windows, self.filled());
        self.size += filled as u64;
        self.windows += usize::from(filled > 0);
        let end = last.then_some(End {
            windows: self.windows,
            size: self.size,
        });
        let mut kept = std::mem::take(&mut self.kept);
        if !kept.is_empty() {
            kept.resize(filled.div_ceil(PIECE_BYTES), false);
        }
        self.kept_bytes = 0;
        self.writer.workers().send(Job::Window {
            file: Arc::clone(&self.file),
            number,
            raw: std::mem::take(&mut self.buffer),
            kept,
            end,
        })
    }

    /// Without it the file, and with it the backup, is incomplete and `BackupWriter::finish` refuses.
    pub fn finish(mut self) -> Result<()> {
        self.send(true)?;
        self.writer.file_taken(&self.file.path, self.size);
        Ok(())
    }
}

impl std::fmt::Debug for FileWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileWriter({}, {} bytes)", self.file.path, self.size)
    }
}
