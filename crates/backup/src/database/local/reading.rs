//! Several threads over the files: read → page check → writer.

use super::super::manifest::ManifestFile;
use super::super::pages::PageCheck;
use super::session::Session;
use super::throttle::Throttle;
use super::walk::SourceFile;
use crate::{BackupError, Progress, Result};
use postgres_physical::page::{PAGE_BYTES, RelationFile};
use repository::backup::{BackupWriter, WINDOW_BYTES};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the session is looked at that holds the backup open.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Reader<'a> {
    pub(super) writer: &'a BackupWriter,
    pub(super) progress: &'a dyn Progress,
    pub(super) throttle: &'a Throttle,
    pub(super) checksums: bool,
}

/// What all threads together have found.
#[derive(Debug, Default)]
pub(super) struct PageFindings {
    pub(super) listed: Vec<ManifestFile>,
    pub(super) suspects: Vec<PageCheck>,
}

/// The state that the threads share.
#[derive(Default)]
struct Work {
    next: AtomicUsize,
    /// Set by a failure anywhere: nobody begins anything more.
    stop: AtomicBool,
    result: Mutex<ReadOutcome>,
    ended: Condvar,
}

#[derive(Default)]
struct ReadOutcome {
    read: PageFindings,
    failed: Option<BackupError>,
    threads_left: usize,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, ReadOutcome> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: BackupError) {
        self.stop.store(true, Ordering::Relaxed);
        self.lock().failed.get_or_insert(error);
    }
}

impl Reader<'_> {
    /// Reads all `files`; the session is looked at meanwhile.
    pub(super) fn read_all(
        &self,
        files: &[SourceFile],
        threads: usize,
        session: &mut Session,
    ) -> Result<PageFindings> {
        let work = Work::default();
        work.lock().threads_left = threads.max(1);
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| self.run(files, &work));
            }
            let mut state = work.lock();
            while state.threads_left > 0 {
                let (back, waited) = work
                    .ended
                    .wait_timeout(state, LOOK)
                    .unwrap_or_else(PoisonError::into_inner);
                state = back;
                if waited.timed_out() && state.failed.is_none() {
                    drop(state);
                    if let Err(error) = session.check() {
                        work.fail(error);
                    }
                    state = work.lock();
                }
            }
        });
        let outcome = work
            .result
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match outcome.failed {
            Some(error) => Err(error),
            None => Ok(outcome.read),
        }
    }

    fn run(&self, files: &[SourceFile], work: &Work) {
        let _ended = DoneOnDrop(work);
        let mut read = PageFindings::default();
        let stopped = || work.stop.load(Ordering::Relaxed) || self.progress.cancelled();
        while let Some(file) = files.get(work.next.fetch_add(1, Ordering::Relaxed)) {
            if stopped() {
                break;
            }
            if let Err(error) = self.file(file, &mut read, &stopped) {
                work.fail(error);
                break;
            }
        }
        if self.progress.cancelled() {
            work.fail(BackupError::Cancelled);
        }
        let mut state = work.lock();
        state.read.listed.append(&mut read.listed);
        state.read.suspects.append(&mut read.suspects);
    }

    /// One file, up to the size that it has when it is opened: what it grows by later comes with WAL, and so does the end of one
    /// that became shorter. One that is gone was removed by something that WAL repeats.
    fn file(
        &self,
        found: &SourceFile,
        read: &mut PageFindings,
        stopped: &dyn Fn() -> bool,
    ) -> Result<()> {
        let place = &found.place;
        let file = match File::open(place) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(BackupError::file("read", place))?,
        };
        let meta = file
            .metadata()
            .map_err(BackupError::file("look at", place))?;
        let mtime_micros = meta.mtime() * 1_000_000;
        let mut out = self
            .writer
            .file(&found.path, meta.mode() & 0o7777, mtime_micros)?;
        let relation = match self.checksums {
            true => RelationFile::parse(&found.path),
            false => None,
        };
        let (mut at, mut crc32c) = (0, 0);
        while at < meta.len() && !stopped() {
            let wanted = (meta.len() - at).min(WINDOW_BYTES as u64);
            self.throttle.wait(wanted, stopped);
            // Not through a zeroed buffer: `read_to_end` writes into spare room.
            let mut bytes = self.writer.buffer();
            let filled = (&file)
                .take(wanted)
                .read_to_end(&mut bytes)
                .map_err(BackupError::file("read", place))? as u64;
            if let Some(relation) = relation {
                let block = relation.first_block() + block_at(at);
                let suspects = bad_pages(&file, &mut bytes, at, |bytes| {
                    PageCheck::bad_pages(bytes, &found.path, relation, block).collect()
                });
                read.suspects.extend(suspects);
            }
            crc32c = crc32c::crc32c_append(crc32c, &bytes);
            out.push(bytes)?;
            self.progress.advance(filled);
            at += filled;
            if filled < wanted {
                break;
            }
        }
        if stopped() {
            return Ok(());
        }
        out.finish()?;
        read.listed.push(ManifestFile::with_checksum(
            &found.path,
            at,
            mtime_micros,
            crc32c,
        ));
        Ok(())
    }
}

/// A page that was caught in the middle of a write is mostly whole a moment later.
fn bad_pages(
    file: &File,
    bytes: &mut [u8],
    at: u64,
    check: impl Fn(&[u8]) -> Vec<PageCheck>,
) -> Vec<PageCheck> {
    let suspects = check(bytes);
    if suspects.is_empty() {
        return suspects;
    }
    let mut again = vec![0; bytes.len()];
    match file.read_exact_at(&mut again, at) {
        Ok(()) => {
            bytes.copy_from_slice(&again);
            check(bytes)
        }
        Err(_) => suspects,
    }
}

fn block_at(offset: u64) -> u32 {
    u32::try_from(offset / PAGE_BYTES as u64).unwrap_or(u32::MAX)
}

/// Tells that a thread is done, however it ends.
struct DoneOnDrop<'a>(&'a Work);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail(BackupError::Source("a thread that reads panicked".into()));
        }
        self.0.lock().threads_left -= 1;
        self.0.ended.notify_all();
    }
}
