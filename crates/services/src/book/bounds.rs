//! What one book may cost. The table for operators is docs/operations/limits.md: change both.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::input::BookError;

pub(crate) const FILE_BYTES_MAX: usize = 256 << 20;
/// Of all passes over a book together, and of the child that decodes it.
pub(crate) const CPU_SECONDS_MAX: u64 = 60;
/// Of the child that decodes it.
pub(crate) const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Of all cells that are ours.
pub(crate) const DECODED_BYTES_MAX: u64 = 1 << 30;
pub(super) const CELL_BYTES_MAX: usize = 64 << 10;
/// A line of CSV, with the columns that are not ours.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;
pub(super) const LINES_MAX: u64 = 5_000_000;
/// Groups within groups in a Parquet schema.
pub(super) const DEPTH_MAX: usize = 8;
/// Of a Parquet schema: columns and groups.
pub(super) const ELEMENTS_MAX: u64 = 1000;
pub(super) const FOOTER_BYTES_MAX: u64 = 16 << 20;
/// How often work looks whether it may go on.
const LOOK_EVERY_LINES: u32 = 256;

/// Ends work that nobody waits for any more. Clones speak of the same work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Halt {
    own: Arc<AtomicBool>,
    /// Of everything at once: the process ends.
    all: Arc<AtomicBool>,
}

impl Halt {
    pub(crate) fn of(all: &Arc<AtomicBool>) -> Halt {
        Halt {
            own: Arc::default(),
            all: Arc::clone(all),
        }
    }

    pub(crate) fn halt(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.all.load(Ordering::Relaxed)
    }
}

/// Halts the work when whoever waits for it goes, however that happens.
#[derive(Debug)]
pub(crate) struct HaltOnDrop(pub(crate) Halt);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.halt();
    }
}

/// Asked at every line of a pass, by the thread that makes it.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    halt: &'a Halt,
    began: Duration,
    max: Duration,
    lines: Cell<u32>,
}

impl<'a> Meter<'a> {
    /// Counts from now on, up to `max` of processor time.
    pub(super) fn new(halt: &'a Halt, max: Duration) -> Meter<'a> {
        Meter {
            halt,
            began: thread_time(),
            max,
            lines: Cell::new(0),
        }
    }

    pub(super) fn spent(&self) -> Duration {
        thread_time().saturating_sub(self.began)
    }

    pub(super) fn line(&self) -> Result<(), BookError> {
        let lines = self.lines.get().wrapping_add(1);
        self.lines.set(lines);
        match lines % LOOK_EVERY_LINES {
            0 => self.look(),
            _ => Ok(()),
        }
    }

    pub(super) fn look(&self) -> Result<(), BookError> {
        if self.halt.is_set() {
            return Err(BookError::Halted);
        }
        match self.spent() > self.max {
            true => Err(BookError::cpu()),
            false => Ok(()),
        }
    }
}

/// Processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_when_nobody_waits_or_it_costs_too_much() {
        let all = Arc::new(AtomicBool::new(false));
        let halt = Halt::of(&all);
        let meter = Meter::new(&halt, Duration::from_secs(60));
        assert_eq!(meter.look(), Ok(()));
        drop(HaltOnDrop(halt.clone()));
        assert_eq!(meter.look(), Err(BookError::Halted));
        let other = Halt::of(&all);
        all.store(true, Ordering::Relaxed);
        let meter = Meter::new(&other, Duration::from_secs(60));
        let lines = (0..LOOK_EVERY_LINES).map(|_| meter.line());
        assert_eq!(lines.collect::<Result<(), _>>(), Err(BookError::Halted));
        let own = Halt::default();
        let meter = Meter::new(&own, Duration::ZERO);
        assert_eq!(meter.look(), Err(BookError::cpu()));
    }
}
