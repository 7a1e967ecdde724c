//! Pauses between retries: twice as long each time, up to a bound.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
            until: None,
        }
    }

    /// It failed again; how long to wait from `now`.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let wait = self
            .first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.most);
        self.failures = (self.failures + 1).min(31);
        self.until = Some(now + wait);
        wait
    }

    /// It works: the next failure is the first one.
    pub fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }

    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// Someone asks for it, or something changed: it is tried at once, and waits as long as before when it fails again.
    pub fn now(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_later_each_time_and_never_too_late() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let start = Instant::now();
        assert!(backoff.is_due(start));
        let waits: Vec<u64> = (0..40).map(|_| backoff.failed(start).as_secs()).collect();
        assert_eq!(waits[..9], [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert!(waits[9..].iter().all(|wait| *wait == 300), "{waits:?}");
        assert!(!backoff.is_due(start + Duration::from_secs(299)));
        assert!(backoff.is_due(start + Duration::from_secs(300)));
        backoff.now();
        assert!(backoff.is_due(start));
        backoff.succeeded();
        assert_eq!(backoff.failed(start).as_secs(), 1);
    }
}
