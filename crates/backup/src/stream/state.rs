//! What the stream is doing, for status, health and whoever waits for a position.

use crate::BackupError;
use repository::wal::{Hole, SealStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where a trouble of the stream lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server, or the way to it.
    Server,
    Repository,
    /// Something that is set, here or there: the error says which.
    Setting,
}

impl Side {
    pub(super) fn of(error: &BackupError) -> Side {
        match error {
            BackupError::Postgres(_) | BackupError::NotWal(..) => Side::Server,
            BackupError::Repository(_) => Side::Repository,
            _ => Side::Setting,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Connected and streaming into a repository that answers.
    pub attached: bool,
    pub system_identifier: Option<u64>,
    pub timeline: u32,
    pub segment_bytes: u64,
    /// Everything before it (from the start of this stream) is durable in the repository.
    pub durable_lsn: u64,
    pub received_lsn: u64,
    /// The end of the server's WAL when it last said so.
    pub server_lsn: u64,
    /// The server's clock at the last confirmation: every commit up to then is in the repository.
    pub confirmed_at_micros: Option<i64>,
    /// Our clock at the last append that succeeded.
    pub last_flush_at_micros: Option<i64>,
    /// Since when it is detached.
    pub detached_at_micros: Option<i64>,
    /// The last trouble; `None` when all is well.
    pub error: Option<String>,
    /// Where that lies.
    pub side: Option<Side>,
    /// How often the stream was attached.
    pub attachments: u64,
    /// WAL was lost that no later full backup makes up for: take one.
    pub needs_full_backup: bool,
    /// Where it was lost.
    pub hole: Option<Hole>,
    /// How finished segments are put away.
    pub sealing: SealStatus,
}

/// Looks at a stream from elsewhere.
#[derive(Debug, Clone)]
pub struct StreamWatch {
    shared: Arc<SharedState>,
}

impl StreamWatch {
    pub(super) fn new(shared: Arc<SharedState>) -> StreamWatch {
        StreamWatch { shared }
    }

    pub fn state(&self) -> StreamState {
        self.shared.state()
    }

    /// Waits until `condition` holds; `None` when it did not in time or the stream was stopped.
    pub fn wait_until(
        &self,
        timeout: Duration,
        condition: impl Fn(&StreamState) -> bool,
    ) -> Option<StreamState> {
        let deadline = Instant::now() + timeout;
        let mut inner = self.shared.lock();
        loop {
            if condition(&inner.state) {
                return Some(inner.state.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || inner.stopping {
                return None;
            }
            inner = self
                .shared
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A full backup was taken after the last hole: nothing is missing any more.
    pub fn full_backup_taken(&self) {
        self.shared
            .update(|state| (state.needs_full_backup, state.hole) = (false, None));
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: StreamState,
    stopping: bool,
}

#[derive(Debug, Default)]
pub(super) struct SharedState {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> StreamState {
        self.lock().state.clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut StreamState)) {
        change(&mut self.lock().state);
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits, but not for longer than until the stop.
    pub(super) fn pause(&self, pause: Duration) {
        let deadline = Instant::now() + pause;
        let mut inner = self.lock();
        while !inner.stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner = self
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
