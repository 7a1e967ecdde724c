//! Keeps a feed that fails from being asked for a while, and asks carefully afterwards.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A feed's own numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) failures: usize,
    pub(super) window: Duration,
    pub(super) pause: Duration,
    pub(super) successes: u32,
}

#[derive(Debug)]
pub(super) struct Breaker {
    rules: Rules,
    state: State,
    failures: VecDeque<Instant>,
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
        }
        !matches!(self.state, State::Open { .. })
    }

    pub(super) fn succeeded(&mut self) {
        if let State::HalfOpen { successes } = self.state {
            let successes = successes + 1;
            self.state = if successes >= self.rules.successes {
                self.failures.clear();
                State::Closed
            } else {
                State::HalfOpen { successes }
            };
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|at| now.duration_since(*at) > self.rules.window)
        {
            self.failures.pop_front();
        }
        let broken = match self.state {
            State::HalfOpen { .. } => true,
            State::Closed => self.failures.len() >= self.rules.failures,
            State::Open { .. } => false,
        };
        if broken {
            self.state = State::Open {
                until: now + self.rules.pause,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_open_it_a_pause_half_opens_it_three_successes_close_it() {
        let rules = Rules {
            failures: 5,
            window: Duration::from_secs(30),
            pause: Duration::from_secs(60),
            successes: 3,
        };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(rules);
        for second in [0, 10, 20, 31, 32] {
            breaker.failed(at(second));
        }
        assert_eq!(breaker.word(), "closed", "the first is out of the window");
        breaker.failed(at(33));
        assert_eq!(breaker.word(), "open");
        assert!(!breaker.allows(at(92)));
        assert!(breaker.allows(at(93)));
        breaker.failed(at(95));
        assert_eq!(
            breaker.word(),
            "open",
            "one failure while half open is enough"
        );
        assert!(breaker.allows(at(155)));
        for expected in ["half_open", "half_open", "closed"] {
            breaker.succeeded();
            assert_eq!(breaker.word(), expected);
        }
        breaker.failed(at(156));
        assert_eq!(breaker.word(), "closed", "old failures are forgotten");
    }
}
