//! Received WAL on its way to the repository. One side pushes, the other takes everything at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// Less where the buffer holds less.
const AT_ONCE_BYTES: usize = 256 << 10;

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
    /// The flushing thread has had something to do and waits for its time: a little more WAL need not wake it.
    paced: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    bytes_max: usize,
    /// As much as this never waits for its time.
    at_once_bytes: usize,
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
            paced: false,
        };
        Queue {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            bytes_max,
            at_once_bytes: AT_ONCE_BYTES.min(bytes_max),
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
        if !inner.paced || inner.bytes.len() >= self.at_once_bytes {
            self.changed.notify_all();
        }
        true
    }

    pub(super) fn heartbeat(&self, server_time_micros: i64) {
        self.lock().heartbeat = Some(server_time_micros);
        self.changed.notify_all();
    }

    /// Waits for room, at most `timeout`; true when there is some.
    pub(super) fn has_room(&self, timeout: Duration) -> bool {
        let inner = self.lock();
        if inner.bytes.len() < self.bytes_max || inner.broken {
            return true;
        }
        let (inner, _) = self
            .changed
            .wait_timeout(inner, timeout)
            .unwrap_or_else(PoisonError::into_inner);
        inner.bytes.len() < self.bytes_max
    }

    /// Everything there is, as soon as there is anything, but little of it not before its time. WAL comes before a heartbeat, the end
    /// comes last.
    pub(super) fn take(&self, not_before: Instant) -> Work {
        let mut inner = self.lock();
        loop {
            if !inner.bytes.is_empty() {
                let early = not_before.saturating_duration_since(Instant::now());
                inner.paced =
                    !early.is_zero() && inner.bytes.len() < self.at_once_bytes && !inner.closed;
                if inner.paced {
                    inner = self
                        .changed
                        .wait_timeout(inner, early)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    continue;
                }
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
        let (queue, at_once) = (Queue::new(100, 8), Instant::now());
        assert!(queue.push(100, b"abc", 5));
        assert!(queue.push(103, b"de", 4));
        assert!(!queue.push(104, b"x", 6), "overlaps");
        assert!(!queue.push(106, b"x", 6), "leaves a gap");
        queue.heartbeat(9);
        assert_eq!(
            queue.take(at_once),
            Work::Append {
                lsn: 100,
                bytes: b"abcde".to_vec(),
                server_time_micros: 5
            }
        );
        assert_eq!(
            queue.take(at_once),
            Work::Heartbeat {
                server_time_micros: 9
            }
        );
        assert!(queue.push(105, b"0123456789", 7));
        assert!(!queue.has_room(Duration::ZERO));
        queue.close();
        assert!(matches!(queue.take(at_once), Work::Append { lsn: 105, .. }));
        assert!(queue.has_room(Duration::ZERO));
        assert_eq!(queue.take(at_once), Work::Closed);
    }

    /// Longer than the test may take, so that it fails where something waits for its time that should not.
    const LATER: Duration = Duration::from_secs(20);

    fn until_paced(queue: &Queue) {
        let began = Instant::now();
        while !queue.lock().paced {
            if began.elapsed() > LATER / 2 {
                queue.close();
                panic!("the taker does not wait for its time");
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn little_waits_for_its_time_but_neither_much_nor_the_end_does() {
        let (began, later) = (Instant::now(), Instant::now() + LATER);
        let queue = Queue::new(0, 1 << 20);
        let end = 2 + AT_ONCE_BYTES as u64;
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| (queue.take(later), queue.take(later), queue.take(later)));
            queue.push(0, b"a", 1);
            until_paced(&queue);
            queue.push(1, &vec![7; AT_ONCE_BYTES], 2);
            queue.push(end - 1, b"z", 3);
            while queue.lock().lsn == 0 {
                std::thread::yield_now();
            }
            if queue.lock().lsn < end {
                until_paced(&queue);
            }
            queue.close();
            let (first, second, last) = taker.join().unwrap();
            assert!(matches!(first, Work::Append { lsn: 0, .. }), "{first:?}");
            // Both at once, or one after the other: never before its time.
            assert!(
                second == Work::Closed
                    || matches!(&second, Work::Append { bytes, .. } if bytes == b"z")
            );
            assert!(second == Work::Closed || last == Work::Closed);
        });
        assert!(began.elapsed() < LATER / 2, "something waited for its time");
    }
}
