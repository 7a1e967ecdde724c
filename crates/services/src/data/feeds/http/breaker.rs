//! Keeps a feed that fails from being asked for a while, and asks carefully afterwards. It judges the feed, not what the feed was asked
//! for: one subject (a ticker, or a part of a batch) that fails again and again while others are answered opens nothing.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A feed's own numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// So many failures within the window, of as many different subjects (or all, where there are fewer) and nothing answered in between.
    pub(super) failures: usize,
    pub(super) window: Duration,
    pub(super) pause: Duration,
    pub(super) successes: u32,
}

/// While half open, so many different subjects that fail are enough.
const SUBJECTS_HALF_OPEN: usize = 2;

#[derive(Debug)]
pub(super) struct Breaker {
    rules: Rules,
    state: State,
    failures: VecDeque<Instant>,
    /// What failed since something was answered.
    failing: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { successes: u32 },
}

impl Breaker {
    pub(super) fn new(rules: Rules) -> Breaker {
        Breaker {
            rules,
            state: State::Closed,
            failures: VecDeque::new(),
            failing: BTreeSet::new(),
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }

    /// Whether the feed may be asked now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.state = State::HalfOpen { successes: 0 };
            self.failing.clear();
        }
        !matches!(self.state, State::Open { .. })
    }

    /// Something was answered: whatever failed since the answer before it was not the feed's failure.
    pub(super) fn answered(&mut self) {
        self.failures.clear();
        self.failing.clear();
        self.state = match self.state {
            State::HalfOpen { successes } if successes + 1 < self.rules.successes => {
                State::HalfOpen {
                    successes: successes + 1,
                }
            }
            _ => State::Closed,
        };
    }

    /// One try at one of `subjects` subjects failed. Whether that opened it.
    pub(super) fn failed(&mut self, now: Instant, subject: &str, subjects: usize) -> bool {
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|at| now.duration_since(*at) > self.rules.window)
        {
            self.failures.pop_front();
        }
        if !self.failing.contains(subject) {
            self.failing.insert(subject.to_owned());
        }
        let different = |wanted: usize| self.failing.len() >= wanted.min(subjects.max(1));
        let broken = match self.state {
            State::HalfOpen { .. } => different(SUBJECTS_HALF_OPEN),
            // Patient tries at many subjects outlast the window; then their number is enough.
            State::Closed if subjects > 1 => different(self.rules.failures),
            State::Closed => self.failures.len() >= self.rules.failures,
            State::Open { .. } => false,
        };
        if broken {
            self.state = State::Open {
                until: now + self.rules.pause,
            };
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        failures: 5,
        window: Duration::from_secs(30),
        pause: Duration::from_secs(60),
        successes: 3,
    };

    #[test]
    fn five_failures_open_it_a_pause_half_opens_it_three_successes_close_it() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(RULES);
        for second in [0, 10, 20, 31, 32] {
            assert!(!breaker.failed(at(second), "batch", 1));
        }
        assert_eq!(breaker.word(), "closed", "the first is out of the window");
        assert!(breaker.failed(at(33), "batch", 1));
        assert_eq!(breaker.word(), "open");
        assert!(!breaker.allows(at(92)));
        assert!(breaker.allows(at(93)));
        breaker.failed(at(95), "batch", 1);
        assert_eq!(
            breaker.word(),
            "open",
            "one failure while half open is enough"
        );
        assert!(breaker.allows(at(155)));
        for expected in ["half_open", "half_open", "closed"] {
            breaker.answered();
            assert_eq!(breaker.word(), expected);
        }
        breaker.failed(at(156), "batch", 1);
        assert_eq!(breaker.word(), "closed", "old failures are forgotten");
    }

    #[test]
    fn one_member_of_a_set_that_fails_does_not_cost_the_set() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(RULES);
        // One of two, three tries a poll, for an hour; the other is answered.
        for poll in 0..60 {
            for second in 0..3 {
                assert!(!breaker.failed(at(poll * 60 + second), "AAPL", 2), "{poll}");
            }
            breaker.answered();
        }
        // All of two fail.
        for second in 3600..3603 {
            assert!(!breaker.failed(at(second), "AAPL", 2));
        }
        assert!(breaker.failed(at(3603), "GME", 2));
        // Half open, and the first that is asked is the one that always fails.
        assert!(breaker.allows(at(3700)));
        assert!(!breaker.failed(at(3700), "AAPL", 2));
        breaker.answered();
        assert_eq!(breaker.word(), "half_open");
        // Of many, five different ones in a row are the feed.
        let mut breaker = Breaker::new(RULES);
        for (second, subject) in (0..).zip(["A", "A", "A", "B", "C", "D"]) {
            assert!(!breaker.failed(at(second * 60), subject, 8000), "{subject}");
        }
        assert!(breaker.failed(at(600), "E", 8000));
    }
}
