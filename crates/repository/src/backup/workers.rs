//! A small pool: fingerprint → leave out what is known → hash → compress → seal → pack. Each worker fills a pack of its own, so that
//! little is shared but the table of what is known; full packs go to the store through threads of their own. Memory is bounded by the
//! queue, one pack per worker and per putter, and one between them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::open_file::{End, OpenFile};
use super::table::{ReusedBytes, Table};
use super::worker::{Worker, put_packs};
use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::DataKey;
use crate::local_index::{Fingerprinter, IndexWriter, Journal};
use crate::manifest::{CHUNK_BYTES, FileLayout};
use crate::pack::{BlobId, Identifier};
use crate::pipeline::BoxKind;

pub(super) enum Job {
    /// A window of a file (nothing in the job that only ends one), and what is known once the file has ended.
    Window {
        file: Arc<OpenFile>,
        number: usize,
        /// The pieces that were given, one after the other.
        raw: Vec<u8>,
        /// One a piece, where some were not given: those are the parent's. Empty: all were given.
        kept: Vec<bool>,
        end: Option<End>,
    },
    Node {
        id: BlobId,
        raw: Vec<u8>,
    },
}

/// Size and layout of a file that is done.
pub(super) type FileSummary = (u64, FileLayout);

/// What the workers tell each other and the writer.
pub(super) struct SharedState {
    pub(super) repository: Repository,
    pub(super) key: Arc<DataKey>,
    pub(super) identifier: Identifier,
    pub(super) level: i32,
    /// Only where somebody will want to know.
    pub(super) fingerprinter: Option<Fingerprinter>,
    pub(super) table: Mutex<Table>,
    /// By slot.
    pub(super) layouts: Mutex<Vec<Option<FileSummary>>>,
    pub(super) reused_bytes: Mutex<ReusedBytes>,
    /// Both are help for the next backup: this one goes on without them.
    pub(super) index: Mutex<Option<IndexWriter>>,
    pub(super) journal: Mutex<Option<Journal>>,
    /// Room of packs that were put.
    pub(super) free_buffers: Mutex<Vec<Vec<u8>>>,
    failed: Mutex<Option<Error>>,
    /// Jobs sent and not done.
    pending: Mutex<usize>,
    done: Condvar,
}

pub(super) struct Workers {
    shared: Arc<SharedState>,
    jobs: Option<Sender<Job>>,
    empties: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
    putters: Vec<JoinHandle<()>>,
}

/// Putting is waiting; one thread keeps up with two that compress.
fn putters_for(threads: usize) -> usize {
    threads.div_ceil(2)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedState {
    pub(super) fn new(
        repository: &Repository,
        key: Arc<DataKey>,
        identifier: Identifier,
        level: i32,
        table: Table,
        help: (Option<Fingerprinter>, Option<IndexWriter>, Option<Journal>),
    ) -> Self {
        let (fingerprinter, index, journal) = help;
        Self {
            repository: repository.clone(),
            key,
            identifier,
            level,
            fingerprinter,
            table: Mutex::new(table),
            layouts: Mutex::default(),
            reused_bytes: Mutex::default(),
            index: Mutex::new(index),
            journal: Mutex::new(journal),
            free_buffers: Mutex::default(),
            failed: Mutex::default(),
            pending: Mutex::default(),
            done: Condvar::new(),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        lock(&self.failed).is_some()
    }

    pub(super) fn fail(&self, error: Error) {
        lock(&self.failed).get_or_insert(error);
    }

    pub(super) fn job_done(&self) {
        let mut pending = lock(&self.pending);
        *pending = pending.saturating_sub(1);
        if *pending == 0 {
            self.done.notify_all();
        }
    }

    /// The first failure, once; later calls say that it failed.
    fn check(&self) -> Result<()> {
        let mut failed = lock(&self.failed);
        match failed.take() {
            None => Ok(()),
            Some(error) => {
                *failed = Some(Error::Input("the backup failed before".to_owned()));
                Err(error)
            }
        }
    }
}

impl Workers {
    pub(super) fn start(shared: SharedState, threads: usize) -> Self {
        let shared = Arc::new(shared);
        let (jobs, queue) = bounded(threads * 2);
        let (spent, empties) = unbounded();
        let (full, packs) = bounded(1);
        let put = |_| {
            let (shared, packs) = (Arc::clone(&shared), packs.clone());
            std::thread::spawn(move || put_packs(&shared, &packs))
        };
        let putters = (0..putters_for(threads)).map(put).collect();
        let spawn = |_| {
            let worker = Worker::new(Arc::clone(&shared), full.clone());
            let (queue, spent) = (queue.clone(), spent.clone());
            std::thread::spawn(move || worker.run(&queue, &spent))
        };
        let threads = (0..threads).map(spawn).collect();
        Self {
            shared,
            jobs: Some(jobs),
            empties,
            threads,
            putters,
        }
    }

    pub(super) fn shared(&self) -> &SharedState {
        &self.shared
    }

    /// A buffer to fill with the next window.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.empties
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(CHUNK_BYTES))
    }

    pub(super) fn node(&self, raw: Vec<u8>) -> Result<BlobId> {
        let id = self.shared.identifier.id(BoxKind::Node, &raw);
        self.send(Job::Node { id, raw })?;
        Ok(id)
    }

    pub(super) fn send(&self, job: Job) -> Result<()> {
        self.shared.check()?;
        *lock(&self.shared.pending) += 1;
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if sent {
            return Ok(());
        }
        self.shared.check()?;
        Err(Error::Input("the backup was already finished".to_owned()))
    }

    /// Waits until all that was sent is done.
    pub(super) fn drain(&self) -> Result<()> {
        let mut pending = lock(&self.shared.pending);
        while *pending > 0 {
            if self.threads.iter().all(JoinHandle::is_finished) {
                self.shared.check()?;
                return Err(Error::Input("the backup's workers ended early".to_owned()));
            }
            // Woken by the last job; the time-out only notices workers that died.
            let waited = self
                .shared
                .done
                .wait_timeout(pending, Duration::from_millis(200));
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(pending);
        self.shared.check()
    }

    /// Puts what is open.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.join();
        self.shared.check()
    }

    fn join(&mut self) {
        self.jobs = None;
        // Workers first: with them goes the way into the putters, which then end.
        for thread in self.threads.drain(..).chain(self.putters.drain(..)) {
            if thread.join().is_err() {
                self.shared
                    .fail(Error::Input("a worker of the backup panicked".to_owned()));
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared
                .fail(Error::Input("the backup was abandoned".to_owned()));
            self.join();
        }
    }
}
