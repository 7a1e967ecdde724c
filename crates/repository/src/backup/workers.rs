//! A small pool that hashes, skips what is known, compresses, seals and packs. Each worker fills a pack of its own,
//! so that nothing is shared but the set of known ids; memory is bounded by the queue and one pack per worker.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::DataKey;
use crate::manifest::{CHUNK_BYTES, PackRef};
use crate::pack::{BlobId, Identifier, PACK_BYTES_MAX, PackBuilder, pack_name};
use crate::pipeline::{BoxKind, Compression};

enum Job {
    Chunk { sequence: usize, raw: Vec<u8> },
    Node { id: BlobId, raw: Vec<u8> },
}

/// What the workers tell each other and the writer.
struct Shared {
    repository: Repository,
    key: Arc<DataKey>,
    identifier: Identifier,
    level: i32,
    known: Mutex<HashSet<BlobId>>,
    /// Ids of chunks by sequence number.
    ids: Mutex<Vec<Option<BlobId>>>,
    packs: Mutex<Vec<PackRef>>,
    failed: Mutex<Option<Error>>,
    hashed: Condvar,
}

pub(super) struct Workers {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    empties: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
    next_sequence: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    pub(super) fn start(
        repository: &Repository,
        key: Arc<DataKey>,
        identifier: Identifier,
        threads: usize,
        level: i32,
    ) -> Self {
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            key,
            identifier,
            level,
            known: Mutex::default(),
            ids: Mutex::default(),
            packs: Mutex::default(),
            failed: Mutex::default(),
            hashed: Condvar::new(),
        });
        let (jobs, queue) = bounded(threads * 2);
        let (spent, empties) = unbounded();
        let spawn = |_| {
            let worker = Worker {
                shared: Arc::clone(&shared),
                pack: None,
            };
            let (queue, spent) = (queue.clone(), spent.clone());
            std::thread::spawn(move || worker.run(&queue, &spent))
        };
        let threads = (0..threads).map(spawn).collect();
        Self {
            shared,
            jobs: Some(jobs),
            empties,
            threads,
            next_sequence: AtomicUsize::new(0),
        }
    }

    /// A buffer to fill with the next chunk.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.empties
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(CHUNK_BYTES))
    }

    /// Takes a chunk; its id is known under the returned number after `finish`.
    pub(super) fn chunk(&self, raw: Vec<u8>) -> Result<usize> {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        self.send(Job::Chunk { sequence, raw })?;
        Ok(sequence)
    }

    pub(super) fn node(&self, raw: Vec<u8>) -> Result<BlobId> {
        let id = self.shared.identifier.id(BoxKind::Node, &raw);
        self.send(Job::Node { id, raw })?;
        Ok(id)
    }

    fn send(&self, job: Job) -> Result<()> {
        self.check()?;
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if sent {
            return Ok(());
        }
        self.check()?;
        Err(Error::Input("the backup was already finished".to_owned()))
    }

    /// The first failure, once; later calls say that it failed.
    fn check(&self) -> Result<()> {
        let mut failed = lock(&self.shared.failed);
        match failed.take() {
            None => Ok(()),
            Some(error) => {
                *failed = Some(Error::Input("the backup failed before".to_owned()));
                Err(error)
            }
        }
    }

    /// Waits for the chunks taken so far and returns their ids in order.
    pub(super) fn chunk_ids(&self) -> Result<Vec<BlobId>> {
        let taken = self.next_sequence.load(Ordering::Relaxed);
        let mut ids = lock(&self.shared.ids);
        while ids.iter().flatten().count() < taken {
            self.check()?;
            if self.threads.iter().all(JoinHandle::is_finished) {
                return Err(Error::Input("the backup's workers ended early".to_owned()));
            }
            // Woken by each chunk; the time-out only notices a worker that died.
            let waited = self
                .shared
                .hashed
                .wait_timeout(ids, Duration::from_millis(200));
            ids = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(ids.iter().copied().flatten().collect())
    }

    /// Puts what is open and returns all packs.
    pub(super) fn finish(mut self) -> Result<Vec<PackRef>> {
        self.join();
        self.check()?;
        Ok(std::mem::take(&mut *lock(&self.shared.packs)))
    }

    fn join(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                let error = Error::Input("a worker of the backup panicked".to_owned());
                lock(&self.shared.failed).get_or_insert(error);
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            lock(&self.shared.failed)
                .get_or_insert(Error::Input("the backup was abandoned".to_owned()));
            self.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    pack: Option<PackBuilder>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Job>, spent: &Sender<Vec<u8>>) {
        // After a failure jobs are still taken, so that nobody blocks, and dropped.
        for job in queue {
            let mut raw = match self.take(job) {
                Ok(raw) => raw,
                Err(error) => {
                    lock(&self.shared.failed).get_or_insert(error);
                    self.shared.hashed.notify_one();
                    continue;
                }
            };
            raw.clear();
            let _ = spent.send(raw);
        }
        if !self.has_failed()
            && let Err(error) = self.put_pack()
        {
            lock(&self.shared.failed).get_or_insert(error);
        }
    }

    fn has_failed(&self) -> bool {
        lock(&self.shared.failed).is_some()
    }

    fn take(&mut self, job: Job) -> Result<Vec<u8>> {
        let (kind, id, raw) = match job {
            _ if self.has_failed() => return Ok(Vec::new()),
            Job::Chunk { sequence, raw } => {
                let id = self.shared.identifier.id(BoxKind::Chunk, &raw);
                let mut ids = lock(&self.shared.ids);
                if ids.len() <= sequence {
                    ids.resize(sequence + 1, None);
                }
                ids[sequence] = Some(id);
                drop(ids);
                self.shared.hashed.notify_one();
                (BoxKind::Chunk, id, raw)
            }
            Job::Node { id, raw } => (BoxKind::Node, id, raw),
        };
        if lock(&self.shared.known).insert(id) {
            self.add(kind, id, &raw)?;
        }
        Ok(raw)
    }

    fn add(&mut self, kind: BoxKind, id: BlobId, raw: &[u8]) -> Result<()> {
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(PackBuilder::new(&self.shared.key)?),
        };
        pack.add(kind, id, Compression::Zstd(self.shared.level), raw)?;
        if pack.len() >= PACK_BYTES_MAX {
            self.put_pack()
        } else {
            Ok(())
        }
    }

    fn put_pack(&mut self) -> Result<()> {
        let Some(pack) = self.pack.take() else {
            return Ok(());
        };
        let (id, bytes) = pack.finish()?;
        self.shared
            .repository
            .store()
            .put(&pack_name(&id), &bytes)?;
        lock(&self.shared.packs).push(PackRef {
            id,
            bytes: bytes.len() as u64,
        });
        Ok(())
    }
}
