//! Turns the tails of a finished segment into one segment object, in the background.
//! The tails go only after the object was read back and compared.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::frames::Tail;
use super::writer::span;
use super::{WalFacts, segment_name, tail_prefix};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{DataKey, RecipientPublic, new_data_key};
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, ObjectOpener, seal_single};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
const SEGMENT_ZSTD_LEVEL: i32 = 1;

/// How the sealing of finished segments goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealStatus {
    /// Finished segments that still lie in tails.
    pub pending: usize,
    pub sealed: u64,
    /// Why the oldest pending one is not sealed yet.
    pub last_error: Option<String>,
}

pub(super) struct SealJob {
    pub(super) facts: WalFacts,
    pub(super) tails: Vec<(String, Arc<DataKey>)>,
    /// All of the segment, where the writer kept it; else it is read from the tails.
    pub(super) wal: Option<Vec<u8>>,
    pub(super) streamer_id: String,
}

pub(super) struct SealerHandle {
    jobs: Sender<SealJob>,
    status: Arc<Mutex<SealStatus>>,
    thread: JoinHandle<Result<()>>,
}

impl SealerHandle {
    pub(super) fn start(repository: &Repository, public: &RecipientPublic) -> Self {
        let (jobs, queue) = unbounded();
        let status = Arc::new(Mutex::new(SealStatus::default()));
        let sealer = Sealer {
            repository: repository.clone(),
            public: public.clone(),
            status: Arc::clone(&status),
            pending: VecDeque::new(),
        };
        let thread = std::thread::spawn(move || sealer.run(&queue));
        Self {
            jobs,
            status,
            thread,
        }
    }

    /// Never blocks: a job is a few names, the bytes lie in the tails.
    pub(super) fn seal(&self, job: SealJob) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.pending += 1;
        if self.jobs.send(job).is_err() {
            status.last_error = Some("the sealing thread ended: restart the stream".to_owned());
        }
    }

    pub(super) fn status(&self) -> SealStatus {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn finish(self) -> Result<()> {
        drop(self.jobs);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::Input("the sealing thread panicked".to_owned())))
    }
}

struct Sealer {
    repository: Repository,
    public: RecipientPublic,
    status: Arc<Mutex<SealStatus>>,
    pending: VecDeque<SealJob>,
}

impl Sealer {
    /// Ends when the writer is gone, after one last attempt on each pending segment.
    fn run(mut self, queue: &Receiver<SealJob>) -> Result<()> {
        let mut retry = RETRY_FIRST;
        while let Ok(job) = queue.recv() {
            self.pending.push_back(job);
            while !self.pending.is_empty() {
                if self.seal_oldest().is_ok() {
                    retry = RETRY_FIRST;
                    continue;
                }
                match queue.recv_timeout(retry) {
                    Ok(job) => self.pending.push_back(job),
                    Err(RecvTimeoutError::Timeout) => retry = (retry * 2).min(RETRY_MAX),
                    Err(RecvTimeoutError::Disconnected) => return self.last_attempt(),
                }
            }
        }
        Ok(())
    }

    fn last_attempt(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            self.seal_oldest()?;
        }
        Ok(())
    }

    fn seal_oldest(&mut self) -> Result<()> {
        let Some(job) = self.pending.front() else {
            return Ok(());
        };
        let result = self.seal(job);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                self.pending.pop_front();
                status.pending -= 1;
                status.sealed += 1;
                status.last_error = None;
            }
            Err(error) => {
                tracing::warn!(%error, "a finished WAL segment stays in its tails for now");
                status.last_error = Some(error.to_string());
            }
        }
        result
    }

    fn seal(&self, job: &SealJob) -> Result<()> {
        let facts = &job.facts;
        let read;
        let wal = match &job.wal {
            Some(kept) => kept,
            None => match read_tails(&self.repository, &job.tails) {
                // Another writer saw the segment too and was quicker: its object holds the same bytes.
                Err(Error::Store(StoreError::NotFound { .. })) if self.is_superseded(facts)? => {
                    return Ok(());
                }
                other => {
                    read = other?;
                    &read
                }
            },
        };
        // A job without tails has no WAL either and was refused above.
        let key = match job.tails.last() {
            Some((_, key)) => Arc::clone(key),
            None => new_data_key(&self.repository, &self.public)?,
        };
        match seal_segment(&self.repository, &key, facts, &job.streamer_id, wal) {
            // A name is never written twice: try again under another.
            Err(Error::Damaged { .. }) => {
                let key = new_data_key(&self.repository, &self.public)?;
                seal_segment(&self.repository, &key, facts, &job.streamer_id, wal)?;
            }
            other => other?,
        }
        delete_tails(&self.repository, facts)
    }

    fn is_superseded(&self, facts: &WalFacts) -> Result<bool> {
        let prefix = segment_name(facts.timeline, facts.segment, "");
        Ok(!self.repository.store().list(&prefix)?.is_empty())
    }
}

/// The bytes of the segment, through the same code that a restore uses.
fn read_tails(repository: &Repository, tails: &[(String, Arc<DataKey>)]) -> Result<Vec<u8>> {
    let mut wal = Vec::new();
    let mut next = None;
    for (name, key) in tails {
        let bytes = repository.store().get(name)?;
        let Some(mut tail) = Tail::scan(name, &bytes)? else {
            continue;
        };
        let opened = tail.open(key)?;
        let covered = tail.covered();
        // A tail whose last append failed may hold bytes that its successor repeats.
        let at = *next.get_or_insert(covered.start);
        let known = at
            .checked_sub(covered.start)
            .and_then(|known| usize::try_from(known).ok());
        let Some(known) = known else {
            return Err(Error::damaged(name, 0, "WAL before it is missing"));
        };
        wal.extend_from_slice(opened.get(known..).unwrap_or(&[]));
        next = Some(at.max(covered.end));
    }
    Ok(wal)
}

/// Seals a whole segment, puts it, reads it back and compares.
pub(super) fn seal_segment(
    repository: &Repository,
    key: &DataKey,
    facts: &WalFacts,
    streamer_id: &str,
    wal: &[u8],
) -> Result<()> {
    if wal.len() as u64 != facts.segment_bytes {
        let (from, to) = (
            facts.segment_start() + wal.len() as u64,
            facts.segment_end(),
        );
        let remedy = "The segment stays in its tails";
        return Err(Error::WalHole {
            timeline: facts.timeline,
            from,
            to,
            remedy,
        });
    }
    let name = segment_name(facts.timeline, facts.segment, &span(streamer_id, key));
    let header = ObjectHeader {
        kind: ObjectKind::WalSegment,
        data_key: key.id(),
        clear: facts.encode(),
    };
    let labels = (facts.start_lsn, facts.server_time_micros);
    let level = Compression::Zstd(SEGMENT_ZSTD_LEVEL);
    let object = seal_single(key, &name, &header, BoxKind::WalSegment, level, labels, wal)?;
    match repository.store().put(&name, &object) {
        // An earlier attempt got further than it could tell; the same bytes under the same key are the same object.
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (read, len) = (repository.store().get(&name)?, header.encode().len());
    let body = read.get(len..).unwrap_or(&[]);
    let opened = ObjectOpener::new(key, &name, &header)?.open(len as u64, body)?;
    if read != object || opened.raw != wal {
        return Err(Error::damaged(
            &name,
            0,
            "read back, it is not what was written",
        ));
    }
    Ok(())
}

/// Everything that lies in tails of a segment whose whole object was proven.
pub(super) fn delete_tails(repository: &Repository, facts: &WalFacts) -> Result<()> {
    let store = repository.store();
    let tails = store.list(&tail_prefix(facts.timeline, facts.segment))?;
    let names: Vec<String> = tails.into_iter().map(|tail| tail.name).collect();
    Ok(store.delete_all(&names)?)
}
