//! Whether what a job looks after changed, as a thread of its own finds out while the engine runs: it looks at the
//! whole of it, in the form in which it is kept, so that what changes without a difference (a status, a lease) starts
//! nothing. Where somebody tells of changes it looks then; otherwise every 45 s, less often where a look takes long.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Of the time, a twentieth at most is spent looking.
const SHARE: u32 = 20;
/// A run without a change, so that a look that finds nothing any more is seen.
const RUN_AT_LEAST_EVERY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug)]
struct Pauses {
    /// With the look itself and the start of the run: within a minute.
    look: Duration,
    look_max: Duration,
    /// Between two looks that were asked for: something that changes every second costs no more.
    told: Duration,
    /// A watch that lives for so long is one.
    watch_started: Duration,
    watch: Duration,
}

const PAUSES: Pauses = Pauses {
    look: Duration::from_secs(45),
    look_max: Duration::from_secs(15 * 60),
    told: Duration::from_secs(5),
    watch_started: Duration::from_secs(3),
    watch: Duration::from_secs(60),
};

/// What is there now, as a number that differs where it differs. None: it cannot be told now. Ends early once the flag
/// is set.
pub(crate) type Look = Box<dyn Fn(&AtomicBool) -> Option<u64> + Send>;
/// Returns when it ends; meanwhile the first function says whether it shall, and the second takes what it heard.
pub(crate) type Watch =
    Box<dyn Fn(&dyn Fn() -> bool, &(dyn Fn() + Sync)) -> Result<(), String> + Send>;

#[derive(Debug)]
pub(crate) struct ChangeLook {
    shared: Arc<LookState>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct LookState {
    pauses: Pauses,
    changed: AtomicBool,
    ends: AtomicBool,
    /// Watches that are up, and all of them.
    watching: AtomicUsize,
    watches: usize,
    rest: Mutex<Rest>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Rest {
    told: bool,
    pause: Duration,
}

/// For the record of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LookFigures {
    pub(crate) is_watched: bool,
    /// Between two looks.
    pub(crate) pause: Duration,
}

impl ChangeLook {
    pub(crate) fn start(look: Look, watches: Vec<Watch>) -> Self {
        Self::start_with(PAUSES, look, watches)
    }

    fn start_with(pauses: Pauses, look: Look, watches: Vec<Watch>) -> Self {
        let shared = Arc::new(LookState {
            pauses,
            changed: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            watching: AtomicUsize::new(0),
            watches: watches.len(),
            rest: Mutex::default(),
            wake: Condvar::new(),
        });
        let of_look = Arc::clone(&shared);
        let mut threads = vec![std::thread::spawn(move || of_look.keep_looking(&look))];
        for watch in watches {
            let of_watch = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || of_watch.keep_watching(&watch)));
        }
        Self { shared, threads }
    }

    /// Since this was last cleared.
    pub(crate) fn has_changed(&self) -> bool {
        self.shared.changed.load(Ordering::Acquire)
    }

    /// A run begins, and sees what is there.
    pub(crate) fn clear(&self) {
        self.shared.changed.store(false, Ordering::Release);
    }

    pub(crate) fn figures(&self) -> LookFigures {
        LookFigures {
            is_watched: self.shared.is_watched(),
            pause: self.shared.locked().pause,
        }
    }
}

impl Drop for ChangeLook {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        drop(self.shared.locked());
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl LookState {
    fn locked(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    fn is_watched(&self) -> bool {
        self.watches > 0 && self.watching.load(Ordering::Acquire) == self.watches
    }

    fn tell(&self) {
        self.locked().told = true;
        self.wake.notify_all();
    }

    fn keep_looking(&self, look: &Look) {
        // None: there was no look yet.
        let mut last: Option<Option<u64>> = None;
        let mut raised = Instant::now();
        while !self.ends() {
            self.locked().told = false;
            let began = Instant::now();
            let found = look(&self.ends);
            let took = began.elapsed();
            if self.ends() {
                return;
            }
            // One that fails starts a run as well: its record says why.
            if last != Some(found) || raised.elapsed() >= RUN_AT_LEAST_EVERY {
                raised = Instant::now();
                self.changed.store(true, Ordering::Release);
            }
            last = Some(found);
            self.pause(took);
        }
    }

    fn pause(&self, took: Duration) {
        let began = Instant::now();
        let pauses = self.pauses;
        let told = (took * SHARE).clamp(pauses.told, pauses.look_max);
        let mut state = self.locked();
        loop {
            let pause = match self.is_watched() {
                true => pauses.look_max,
                false => (took * SHARE).clamp(pauses.look, pauses.look_max),
            };
            state.pause = pause;
            let pause = if state.told { told } else { pause };
            let left = pause.saturating_sub(began.elapsed());
            if left.is_zero() || self.ends() {
                return;
            }
            state = self.wait(state, left);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, Rest>, left: Duration) -> MutexGuard<'a, Rest> {
        let waited = self.wake.wait_timeout(state, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn keep_watching(&self, watch: &Watch) {
        while !self.ends() {
            let (began, is_up) = (Instant::now(), AtomicBool::new(false));
            let ends = || {
                if began.elapsed() >= self.pauses.watch_started
                    && !is_up.swap(true, Ordering::AcqRel)
                {
                    self.watching.fetch_add(1, Ordering::AcqRel);
                    // What changed before it was up.
                    self.tell();
                }
                self.ends()
            };
            let came = watch(&ends, &|| self.tell());
            if is_up.into_inner() {
                self.watching.fetch_sub(1, Ordering::AcqRel);
            }
            if self.ends() {
                return;
            }
            if let Err(reason) = came {
                tracing::debug!(reason, "what changes is looked for, not watched");
            }
            self.tell();
            let (began, pause) = (Instant::now(), self.pauses.watch);
            let mut state = self.locked();
            while !self.ends() && began.elapsed() < pause {
                state = self.wait(state, pause.saturating_sub(began.elapsed()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn wait_for(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < LONG, "it does not come");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_first_look_and_each_difference_start_a_run_and_the_same_does_not() {
        let (looked, looks) = mpsc::channel();
        let (found, finds) = mpsc::channel::<Option<u64>>();
        let look: Look = Box::new(move |_| {
            looked.send(()).unwrap();
            finds.recv().unwrap_or_default()
        });
        // It tells of a change all the time, as one that changes without a difference does.
        let watch: Watch = Box::new(|ends, tell| {
            while !ends() {
                tell();
                std::thread::yield_now();
            }
            Ok(())
        });
        let short = Duration::from_millis(1);
        let pauses = Pauses {
            look: short,
            told: short,
            watch_started: short,
            ..PAUSES
        };
        let look = ChangeLook::start_with(pauses, look, vec![watch]);
        let next = |number| {
            looks.recv_timeout(LONG).unwrap();
            found.send(number).unwrap();
        };
        next(Some(1));
        wait_for(|| look.has_changed());
        look.clear();
        next(Some(1));
        looks.recv_timeout(LONG).unwrap();
        assert!(!look.has_changed(), "nothing differs");
        found.send(None).unwrap();
        wait_for(|| look.has_changed());
        look.clear();
        wait_for(|| look.figures().is_watched);
        wait_for(|| look.figures().pause == PAUSES.look_max);
        drop(found);
    }
}
