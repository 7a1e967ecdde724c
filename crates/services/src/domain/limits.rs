//! Requests per key and minute: fixed windows, counted exactly in this process.

use std::sync::atomic::{AtomicU64, Ordering};

/// A window's minute and the requests in it, in one word: minute in the upper, count in the lower 32 bits.
#[derive(Debug, Default)]
pub(crate) struct Window(AtomicU64);

/// Who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This gateway, for itself.
    Gateway,
    /// All gateways together.
    Shared,
}

impl Scope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Gateway => "gateway",
            Scope::Shared => "shared",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    pub(crate) reset_seconds: u64,
    pub(crate) scope: Scope,
}

impl Window {
    /// Counted elsewhere already: known here too, should elsewhere go away within the minute.
    pub(crate) fn note(&self, now_micros: i64) {
        self.take(u32::MAX, now_micros);
    }

    pub(crate) fn take(&self, limit: u32, now_micros: i64) -> Verdict {
        let seconds = u64::try_from(now_micros).unwrap_or(0) / 1_000_000;
        let minute = (seconds / 60) & 0xffff_ffff;
        let reset_seconds = 60 - seconds % 60;
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            // A clock that steps back keeps the newer window: nobody gains requests by it.
            let (window, used) = if word >> 32 >= minute {
                (word >> 32, word & 0xffff_ffff)
            } else {
                (minute, 0)
            };
            if used >= u64::from(limit) {
                return Verdict {
                    allowed: false,
                    limit,
                    remaining: 0,
                    reset_seconds,
                    scope: Scope::Gateway,
                };
            }
            let next = (window << 32) | (used + 1);
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    let remaining = limit - u32::try_from(used + 1).unwrap_or(limit);
                    return Verdict {
                        allowed: true,
                        limit,
                        remaining,
                        reset_seconds,
                        scope: Scope::Gateway,
                    };
                }
                Err(newer) => word = newer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_at_once_get_exactly_sixty() {
        let window = Window::default();
        let now = 1_795_421_730_000_000;
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..25).filter(|_| window.take(60, now).allowed).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(allowed, 60);
    }

    #[test]
    fn a_new_minute_is_a_new_window_and_an_old_one_is_not() {
        let window = Window::default();
        let minute = 60_000_000;
        let check = |now: i64, expected: (bool, u32, u64)| {
            let verdict = window.take(2, now);
            assert_eq!(
                (verdict.allowed, verdict.remaining, verdict.reset_seconds),
                expected,
                "at {now}"
            );
        };
        check(10 * minute, (true, 1, 60));
        check(10 * minute + 59_000_000, (true, 0, 1));
        check(10 * minute + 59_999_999, (false, 0, 1));
        check(11 * minute, (true, 1, 60));
        check(10 * minute, (true, 0, 60));
        check(10 * minute, (false, 0, 60));
    }
}
