//! A lock on an open file or folder, for the process that works there alone.

use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, flock};

/// Goes with the process that holds it, however that ends. Dropping it unlocks the file at once, and not by closing
/// it: a child that another thread has just forked has the file open too, until it becomes its program, and would keep
/// the lock from the next one here.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// `None` while somebody has it, in this process or in another.
    ///
    /// # Errors
    /// When the file system refuses locks.
    pub fn try_take(file: File) -> io::Result<Option<Self>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lock_is_free_although_a_child_still_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::open(folder.path()).unwrap();
        let file = open();
        // As a fork leaves it: another descriptor of the same opening.
        let of_a_child = file.try_clone().unwrap();
        let lock = FileLock::try_take(file).unwrap().unwrap();
        assert!(FileLock::try_take(open()).unwrap().is_none());
        drop(lock);
        assert!(FileLock::try_take(open()).unwrap().is_some());
        drop(of_a_child);
    }
}
