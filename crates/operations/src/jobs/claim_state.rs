//! What a thread of its own finds out about a claim. The driver asks without waiting: a server or a store that hangs
//! must not hold up anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

use jobs::Claim;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClaimState {
    /// Taken for this time; each has another number, and none is 0.
    Held(u64),
    Elsewhere(String),
    Unknown(String),
}

impl ClaimState {
    /// `known`: the number that the driver was told last.
    pub(super) fn claim(self, known: &mut u64) -> Claim {
        match self {
            Self::Held(number) if number == *known => Claim::Held,
            Self::Held(number) => {
                *known = number;
                Claim::Taken
            }
            Self::Elsewhere(who) => Claim::Elsewhere(who),
            Self::Unknown(reason) => Claim::Unknown(reason),
        }
    }
}

/// Dropped, it is told to end and not waited for.
#[derive(Debug)]
pub(super) struct ClaimThread {
    ends: Arc<AtomicBool>,
    thread: Thread,
}

impl ClaimThread {
    /// `keep` looks at what it is given at each turn, and parks between them.
    pub(super) fn start(keep: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&ends);
        let thread = std::thread::spawn(move || keep(&of_thread));
        Self {
            ends,
            thread: thread.thread().clone(),
        }
    }
}

impl Drop for ClaimThread {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}
