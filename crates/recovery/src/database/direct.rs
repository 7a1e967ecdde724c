//! New files, written past the page cache where the file system allows it: a restored database is larger than what is
//! read of it next, so the cache would be filled, flushed and thrown away for nothing.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl};

/// What every file system's direct writes accept.
const ALIGN: usize = 4096;
const STAGED_MAX: usize = 2 << 20;
/// Below this the page cache is quicker.
const DIRECT_FROM: u64 = 1 << 20;

/// Aligned memory in which one write is put together.
pub(super) struct Staging {
    memory: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Staging {
    pub(super) fn new() -> Self {
        let memory = vec![0; STAGED_MAX + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self {
            memory,
            start,
            filled: 0,
        }
    }

    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(STAGED_MAX - self.filled));
        let at = self.start + self.filled;
        self.memory[at..at + now.len()].copy_from_slice(now);
        self.filled += now.len();
        later
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.filled]
    }
}

/// A new file that grows at its end.
pub(super) struct Output<'a> {
    file: File,
    staging: &'a mut Staging,
    at: u64,
    direct: bool,
}

impl<'a> Output<'a> {
    pub(super) fn create(
        path: &Path,
        mode: u32,
        size: u64,
        staging: &'a mut Staging,
    ) -> io::Result<Self> {
        staging.filled = 0;
        let open = |flags: OFlags| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .custom_flags(flags.bits().cast_signed())
                .open(path)
        };
        let (file, direct) = if size < DIRECT_FROM {
            (open(OFlags::empty())?, false)
        } else {
            match open(OFlags::DIRECT) {
                Ok(file) => (file, true),
                // The file may have been made all the same.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    let _ = std::fs::remove_file(path);
                    (open(OFlags::empty())?, false)
                }
                Err(error) => return Err(error),
            }
        };
        // With the bits that the umask leaves.
        file.set_permissions(Permissions::from_mode(mode))?;
        if size >= DIRECT_FROM {
            // One piece on disk, and a full disk is known at once. Not every file system can.
            if let Err(full @ rustix::io::Errno::NOSPC) =
                fallocate(&file, FallocateFlags::empty(), 0, size)
            {
                return Err(full.into());
            }
        }
        Ok(Self {
            file,
            staging,
            at: 0,
            direct,
        })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            bytes = self.staging.take(bytes);
            if self.staging.filled == STAGED_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.staging.bytes();
        if self.direct && !bytes.len().is_multiple_of(ALIGN) {
            fcntl_setfl(&self.file, OFlags::empty())?;
            self.direct = false;
        }
        match self.file.write_all_at(bytes, self.at) {
            Err(error) if self.direct && error.kind() == ErrorKind::InvalidInput => {
                fcntl_setfl(&self.file, OFlags::empty())?;
                self.direct = false;
                self.file.write_all_at(bytes, self.at)?;
            }
            other => other?,
        }
        self.at += bytes.len() as u64;
        self.staging.filled = 0;
        Ok(())
    }
}
