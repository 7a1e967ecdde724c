//! A limit to how fast all readers together read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Each reader reserves the time that its bytes take at the allowed rate, and waits until its turn.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: Option<u64>,
    next: Mutex<Option<Instant>>,
}

/// A wait is cut into pieces of this length, so that a cancel is noticed.
const PIECE: Duration = Duration::from_millis(100);

impl Throttle {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Throttle {
        Throttle {
            bytes_per_second: bytes_per_second.map(|bytes| bytes.max(1)),
            next: Mutex::new(None),
        }
    }

    /// Waits until `bytes` may be read; less when `stopped` says so.
    pub(super) fn wait(&self, bytes: u64, stopped: &dyn Fn() -> bool) {
        let Some(turn) = self.reserve(bytes, Instant::now()) else {
            return;
        };
        loop {
            let left = turn.saturating_duration_since(Instant::now());
            if left.is_zero() || stopped() {
                return;
            }
            std::thread::sleep(left.min(PIECE));
        }
    }

    /// When these bytes may be read. Time that nobody used is not saved up.
    fn reserve(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + takes);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_together_keep_to_the_rate() {
        let throttle = Throttle::new(Some(10 << 20));
        let now = Instant::now();
        let turns = [1, 2, 3, 4].map(|_| throttle.reserve(5 << 20, now).unwrap() - now);
        assert_eq!(turns.map(|turn| turn.as_millis()), [0, 500, 1000, 1500]);
        let later = now + Duration::from_secs(9);
        assert_eq!(throttle.reserve(5 << 20, later), Some(later));
        assert_eq!(Throttle::new(None).reserve(5 << 20, now), None);
    }
}
