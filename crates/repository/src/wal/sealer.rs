//! Turns the tails of a finished segment into one segment object, in the background.
//! The tails go only after the object was read back and compared. Nothing waits for that: where the store does not let them go,
//! the next segment is sealed all the same, and readers pass over tails beside their segment.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::segment_boxes::{Wal, seal_segment};
use super::{WalFacts, segment_name, tail_prefix};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{DataKey, DataKeyId, RecipientPublic, new_data_key};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// At a time: a store may do several at once.
const DELETES: usize = 64;
const DELETE_RETRY_FIRST: Duration = Duration::from_secs(1);
const DELETE_RETRY_MAX: Duration = Duration::from_secs(3600);
pub(super) const REMEDY_TAILS: &str = "The segment stays in its tails";

/// How the sealing of finished segments goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealStatus {
    /// Finished segments that still lie in tails.
    pub pending: usize,
    pub sealed: u64,
    /// Why the oldest pending one is not sealed yet.
    pub last_error: Option<String>,
    /// Objects that nothing needs any more and that the store has not let go.
    pub undeleted: u64,
    /// Why, in the store's words; with the day where it names one.
    pub undeleted_reason: Option<String>,
}

pub(super) struct SealJob {
    pub(super) facts: WalFacts,
    pub(super) tails: Vec<(String, Arc<DataKey>)>,
    /// All of the segment, where the writer kept it; else it is read from the tails.
    pub(super) wal: Option<Vec<u8>>,
    pub(super) streamer_id: String,
}

enum Work {
    Seal(SealJob),
    /// An object that nothing needs any more.
    Delete(String),
}

pub(super) struct SealerHandle {
    jobs: Sender<Work>,
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
            undeleted: BTreeSet::new(),
            deletes: Backoff::new(DELETE_RETRY_FIRST, DELETE_RETRY_MAX),
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
        if self.jobs.send(Work::Seal(job)).is_err() {
            status.last_error = Some("the sealing thread ended: restart the stream".to_owned());
        }
    }

    /// Never blocks. An object that stays costs room, nothing else.
    pub(super) fn delete(&self, name: String) {
        let _ = self.jobs.send(Work::Delete(name));
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
    /// Names of what nothing needs any more.
    undeleted: BTreeSet<String>,
    deletes: Backoff,
}

/// When something that failed is done again: later each time.
struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    due: Instant,
}

impl Backoff {
    fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            next: first,
            due: Instant::now(),
        }
    }

    fn failed(&mut self) {
        self.due = Instant::now() + self.next;
        self.next = (self.next * 2).min(self.max);
    }

    fn succeeded(&mut self) {
        (self.next, self.due) = (self.first, Instant::now());
    }

    fn left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }
}

impl Sealer {
    /// Ends when the writer is gone, after one last attempt on each pending segment. What the store does not let go stays.
    fn run(mut self, queue: &Receiver<Work>) -> Result<()> {
        let mut seals = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            if !self.pending.is_empty() && seals.left().is_zero() {
                match self.seal_oldest() {
                    Ok(()) => seals.succeeded(),
                    Err(_) => seals.failed(),
                }
            }
            // Behind the seals: a segment that lies in tails matters more than tails that lie beside a segment.
            if (self.pending.is_empty() || !seals.left().is_zero()) && self.deletes.left().is_zero()
            {
                self.delete_some();
            }
            let waits = [
                (!self.pending.is_empty()).then(|| seals.left()),
                (!self.undeleted.is_empty()).then(|| self.deletes.left()),
            ];
            let work = match waits.into_iter().flatten().min() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => queue.recv_timeout(wait),
            };
            match work {
                Ok(Work::Seal(job)) => self.pending.push_back(job),
                Ok(Work::Delete(name)) => {
                    self.undeleted.insert(name);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.last_attempt(),
            }
        }
    }

    fn last_attempt(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            self.seal_oldest()?;
        }
        if self.deletes.left().is_zero() {
            self.delete_some();
        }
        Ok(())
    }

    /// All that is due, until the store refuses one.
    fn delete_some(&mut self) {
        let mut refused = None;
        while refused.is_none() && !self.undeleted.is_empty() {
            let names: Vec<String> = self.undeleted.iter().take(DELETES).cloned().collect();
            match self.repository.store().delete_all(&names) {
                Ok(()) => names.iter().for_each(|name| {
                    self.undeleted.remove(name);
                }),
                Err(error) => refused = Some(error),
            }
        }
        match &refused {
            None => self.deletes.succeeded(),
            Some(_) => self.deletes.failed(),
        }
        let count = self.undeleted.len() as u64;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = refused.map(|error| error.to_string());
        // Once: it may go on for years.
        if status.undeleted_reason.is_none()
            && let Some(reason) = &reason
        {
            tracing::warn!(
                objects = count,
                reason,
                "the store does not let go of what nothing needs any more; it is asked again, and nothing waits for it"
            );
        }
        (status.undeleted, status.undeleted_reason) = (count, reason);
    }

    fn seal_oldest(&mut self) -> Result<()> {
        let Some(job) = self.pending.front() else {
            return Ok(());
        };
        let result = self.seal(job);
        if result.is_ok() {
            // Those of other writers of the segment too. A listing that fails leaves them to `WalReader::compact`.
            let names = tails_of(&self.repository, &job.facts).unwrap_or_default();
            self.undeleted.extend(names);
            if self.deletes.left().is_zero() {
                self.delete_some();
            }
        }
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                self.pending.pop_front();
                status.pending -= 1;
                status.sealed += 1;
                status.undeleted = self.undeleted.len() as u64;
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
        let names: Vec<String> = job.tails.iter().map(|(name, _)| name.clone()).collect();
        let key_of = |name: &str, id: DataKeyId| {
            let known = job.tails.iter().map(|(_, key)| key);
            let key = known.into_iter().find(|key| key.id() == id).cloned();
            key.ok_or_else(|| Error::damaged(name, 8, "it is sealed with another key than it was"))
        };
        let wal = match &job.wal {
            Some(kept) => Wal::Kept(kept),
            None => Wal::Tails {
                names: &names,
                key: &key_of,
            },
        };
        let key = match job.tails.last() {
            Some((_, key)) => Arc::clone(key),
            None => new_data_key(&self.repository, &self.public)?,
        };
        let seal =
            |key: &DataKey| seal_segment(&self.repository, key, facts, &job.streamer_id, wal);
        match seal(&key) {
            // Another writer saw the segment too and was quicker: its object holds the same bytes.
            Err(Error::Store(StoreError::NotFound { .. })) if self.is_superseded(facts)? => {
                return Ok(());
            }
            // A name is never written twice: try again under another.
            Err(Error::Damaged { .. }) => {
                seal(&*new_data_key(&self.repository, &self.public)?)?;
            }
            other => other?,
        }
        Ok(())
    }

    fn is_superseded(&self, facts: &WalFacts) -> Result<bool> {
        let prefix = segment_name(facts.timeline, facts.segment, "");
        Ok(!self.repository.store().list(&prefix)?.is_empty())
    }
}

/// Everything that lies in tails of a segment whose whole object was proven.
pub(super) fn tails_of(repository: &Repository, facts: &WalFacts) -> Result<Vec<String>> {
    let tails = repository
        .store()
        .list(&tail_prefix(facts.timeline, facts.segment))?;
    Ok(tails.into_iter().map(|tail| tail.name).collect())
}

pub(super) fn delete_tails(repository: &Repository, facts: &WalFacts) -> Result<()> {
    Ok(repository
        .store()
        .delete_all(&tails_of(repository, facts)?)?)
}
