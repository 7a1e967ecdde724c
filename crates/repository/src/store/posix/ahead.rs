//! Files of zeros, made ahead for what will be appended to. Where nothing is allocated and no length changes, a sync of an
//! append need not wait for the file system's journal, in which everybody else's writes queue: half the time, at the median.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Room for a whole WAL segment of usual size, sealed in small frames, at the third step.
const SMALLEST: u64 = 272 * 1024;
const STEP: u64 = 4;
const LARGEST: u64 = SMALLEST * STEP * STEP * STEP * STEP;
const BITE: u64 = 1 << 20;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// At most one file waits. Whoever finds none does without. When this is dropped, the file that waits goes at once, whatever the
/// thread that makes the next one is doing.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    shared: Arc<SharedState>,
}

/// Of the store and the thread that makes the next file.
#[derive(Debug, Default)]
struct SharedState {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Option<PreparedFile>,
    is_working: bool,
    /// The store is gone: nobody will take what is made.
    is_closed: bool,
    /// What the last file came to.
    last_class: u64,
}

/// Goes with its name when it is dropped; `keep` lets go of the name.
#[derive(Debug)]
pub(super) struct PreparedFile {
    path: PathBuf,
    file: Option<File>,
    pub(super) len: u64,
}

impl PreparedFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// After it was renamed.
    pub(super) fn keep(mut self) -> Option<File> {
        self.file.take()
    }
}

impl Drop for PreparedFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The size of file in which so much finds room.
pub(super) fn class_of(len: u64) -> u64 {
    let mut class = SMALLEST;
    while class < len && class < LARGEST {
        class *= STEP;
    }
    class
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// What a file that was begun just now will probably come to.
    pub(super) fn expected(&self) -> u64 {
        self.state().last_class
    }

    pub(super) fn came_to(&self, len: u64) {
        self.state().last_class = class_of(len);
    }

    pub(super) fn take(&self) -> Option<PreparedFile> {
        self.state().ready.take()
    }

    /// Sees to it, in the background, that a file of at least this class waits. What fails here costs time elsewhere, nothing more.
    pub(super) fn want(&self, class: u64, path: PathBuf) {
        {
            let mut state = self.state();
            let has = state.ready.as_ref().is_some_and(|it| it.len >= class);
            if has || std::mem::replace(&mut state.is_working, true) {
                return;
            }
        }
        let shared = Arc::clone(&self.shared);
        let making = std::thread::Builder::new()
            .name("zeros ahead".to_owned())
            .spawn(move || {
                let made = made(path, class, || shared.state().is_closed);
                shared.done(made);
            });
        if let Err(error) = making {
            self.shared.done(Err(error));
        }
    }

    #[cfg(test)]
    pub(super) fn wait(&self) -> Option<u64> {
        self.shared.idle().ready.as_ref().map(|it| it.len)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut state = self.state();
        state.is_closed = true;
        // Here and not where the thread lets go of its share: that may be after whoever dropped the store looked.
        drop(state.ready.take());
    }
}

impl SharedState {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, made: io::Result<PreparedFile>) {
        let mut state = self.state();
        match made {
            Ok(zeroed) if state.is_closed => drop(zeroed),
            Ok(zeroed) => state.ready = Some(zeroed),
            Err(error) => tracing::debug!(%error, "no file of zeros was made ahead"),
        }
        // Last: whoever sees that nothing is being made sees what was made of it, on the disk too.
        state.is_working = false;
        self.changed.notify_all();
    }

    #[cfg(test)]
    fn idle(&self) -> MutexGuard<'_, State> {
        let state = self.state();
        self.changed
            .wait_while(state, |state| state.is_working)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops, and takes away what it made, as soon as nobody wants it any more.
fn made(path: PathBuf, len: u64, is_unwanted: impl Fn() -> bool) -> io::Result<PreparedFile> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    let zeroed = PreparedFile {
        path,
        file: Some(file),
        len,
    };
    if let Some(mut file) = zeroed.file.as_ref() {
        let mut left = len;
        while left > 0 {
            if is_unwanted() {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            let now = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            file.write_all(&ZEROS[..now])?;
            left -= now as u64;
            // In bites: somebody else's sync, a commit's for one, would wait behind all of them.
            if left % BITE < now as u64 {
                file.sync_data()?;
            }
        }
        file.sync_all()?;
    }
    Ok(zeroed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::{MARKER, Store};
    use super::super::PosixStore;
    use super::{Ahead, SMALLEST, STEP, made};

    #[test]
    fn a_tail_grows_into_zeros_that_were_made_ahead_and_ends_at_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let store = PosixStore::new(dir.path().join("repository"));
        store.put(MARKER, b"marker").unwrap();
        let len = |name: &str| usize::try_from(store.size(name).unwrap()).unwrap();
        let small = usize::try_from(SMALLEST).unwrap();

        let mut first = store.appender("tail/1/a").unwrap().unwrap();
        first.append(b"ab").unwrap();
        assert_eq!(len("tail/1/a"), 2, "nothing was there for the first");
        assert_eq!(store.ahead.wait(), Some(SMALLEST));
        first.append(&vec![7; small]).unwrap();
        assert_eq!(store.ahead.wait(), Some(SMALLEST * STEP), "it grew");
        drop(first);
        assert_eq!(len("tail/1/a"), small + 2);

        let mut second = store.appender("tail/1/b").unwrap().unwrap();
        second.append(b"ab").unwrap();
        second.append(b"cd").unwrap();
        assert_eq!(store.ahead.wait(), Some(SMALLEST * STEP), "as the last one");
        let bytes = store.get("tail/1/b").unwrap();
        assert_eq!((bytes.len(), &bytes[..4]), (small * 4, b"abcd".as_slice()));
        assert!(bytes[4..].iter().all(|byte| *byte == 0));
        // What lies ahead is no object.
        let names: Vec<String> = store
            .list("")
            .unwrap()
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert_eq!(names, [MARKER, "tail/1/a", "tail/1/b"]);
        drop(second);
        assert_eq!(store.get("tail/1/b").unwrap(), b"abcd");

        // Longer than what was made for it, and somebody swept that away.
        let mut third = store.appender("tail/1/c").unwrap().unwrap();
        third.append(&vec![7; small * 5]).unwrap();
        assert_eq!(len("tail/1/c"), small * 5);
        store.ahead.wait();
        let incoming = store.root().join(super::super::INCOMING);
        for left in std::fs::read_dir(&incoming).unwrap() {
            std::fs::remove_file(left.unwrap().path()).unwrap();
        }
        let mut fourth = store.appender("tail/1/d").unwrap().unwrap();
        fourth.append(b"x").unwrap();
        assert_eq!(store.get("tail/1/d").unwrap(), b"x");
        assert!(store.ahead.wait().is_some());
        drop((third, fourth, store));
        assert_eq!(std::fs::read_dir(&incoming).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_is_dropped_takes_its_zeros_with_it_whatever_makes_them_is_doing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let left = || std::fs::read_dir(dir.path()).unwrap().count();

        // The thread has done its work and still holds its share.
        let ahead = Ahead::default();
        let held = Arc::clone(&ahead.shared);
        ahead.want(SMALLEST, path("ready"));
        assert_eq!((ahead.wait(), left()), (Some(SMALLEST), 1));
        drop(ahead);
        assert_eq!(left(), 0, "held by nobody but the thread");

        // It is at work: what it makes has no use any more.
        assert!(made(path("unwanted"), SMALLEST, || true).is_err());
        held.done(made(path("late"), SMALLEST, || false));
        assert_eq!(left(), 0);
    }
}
