//! Received WAL on its way to the repository. One side pushes, the other takes everything at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the flushing thread has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    Append {
        lsn: u64,
        bytes: Vec<u8>,
        server_time_micros: i64,
    },
    /// Nothing was written on the server up to this time.
    Heartbeat {
        server_time_micros: i64,
    },
    Closed,
}

#[derive(Debug)]
struct Inner {
    /// Where `bytes` begin.
    lsn: u64,
    bytes: Vec<u8>,
    server_time_micros: i64,
    heartbeat: Option<i64>,
    closed: bool,
    /// The flushing thread gave up.
    broken: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn new(start: u64, bytes_max: usize) -> Queue {
        let inner = Inner {
            lsn: start,
            bytes: Vec::new(),
            server_time_micros: 0,
            heartbeat: None,
            closed: false,
            broken: false,
        };
        Queue {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds WAL that must begin where the last ended; false when it does not.
    pub(super) fn push(&self, lsn: u64, bytes: &[u8], server_time_micros: i64) -> bool {
        let mut inner = self.lock();
        if inner.lsn + inner.bytes.len() as u64 != lsn {
            return false;
        }
        inner.bytes.extend_from_slice(bytes);
        inner.server_time_micros = inner.server_time_micros.max(server_time_micros);
        self.changed.notify_all();
        true
    }

    pub(super) fn heartbeat(&self, server_time_micros: i64) {
        self.lock().heartbeat = Some(server_time_micros);
        self.changed.notify_all();
    }

    /// Waits for room, at most `patience`; true when there is some.
    pub(super) fn has_room(&self, patience: Duration) -> bool {
        let inner = self.lock();
        if inner.bytes.len() < self.bytes_max || inner.broken {
            return true;
        }
        let (inner, _) = self
            .changed
            .wait_timeout(inner, patience)
            .unwrap_or_else(PoisonError::into_inner);
        inner.bytes.len() < self.bytes_max
    }

    /// Everything there is, as soon as there is anything. WAL comes before a heartbeat, the end comes last.
    pub(super) fn take(&self) -> Work {
        let mut inner = self.lock();
        loop {
            if !inner.bytes.is_empty() {
                let bytes = std::mem::take(&mut inner.bytes);
                let lsn = inner.lsn;
                inner.lsn += bytes.len() as u64;
                self.changed.notify_all();
                return Work::Append {
                    lsn,
                    bytes,
                    server_time_micros: inner.server_time_micros,
                };
            }
            if inner.closed {
                return Work::Closed;
            }
            if let Some(server_time_micros) = inner.heartbeat.take() {
                return Work::Heartbeat { server_time_micros };
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No more will be pushed; what is there is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The taker will take no more.
    pub(super) fn break_off(&self) {
        self.lock().broken = true;
        self.changed.notify_all();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.lock().broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_came_meanwhile_is_taken_at_once_and_in_order() {
        let queue = Queue::new(100, 8);
        assert!(queue.push(100, b"abc", 5));
        assert!(queue.push(103, b"de", 4));
        assert!(!queue.push(104, b"x", 6), "overlaps");
        assert!(!queue.push(106, b"x", 6), "leaves a gap");
        queue.heartbeat(9);
        assert_eq!(
            queue.take(),
            Work::Append {
                lsn: 100,
                bytes: b"abcde".to_vec(),
                server_time_micros: 5
            }
        );
        assert_eq!(
            queue.take(),
            Work::Heartbeat {
                server_time_micros: 9
            }
        );
        assert!(queue.push(105, b"0123456789", 7));
        assert!(!queue.has_room(Duration::ZERO));
        queue.close();
        assert!(matches!(queue.take(), Work::Append { lsn: 105, .. }));
        assert!(queue.has_room(Duration::ZERO));
        assert_eq!(queue.take(), Work::Closed);
    }
}
