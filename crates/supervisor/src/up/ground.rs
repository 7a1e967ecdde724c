//! What every wait of the supervisor stands on: the server's process, its folder, its socket, and that nobody asked for the stop. A
//! wait that does not look at it sits out its whole timeout for something that cannot come any more. So nothing here waits in
//! any other way.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::postgres::Postgres;
use operations::lost::LostPart;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Work that was told to end ends soon, or is left alone.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome<T> {
    Done(T),
    /// Its timeout ran out, and everything that it needs is still there.
    TimedOut,
    Lost(LostPart),
}

#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) postgres: &'a mut Postgres,
    pub(super) stop: &'a AtomicBool,
}

impl Ground<'_> {
    pub(super) fn lost(&mut self) -> Option<LostPart> {
        if self.stop.load(Ordering::Relaxed) {
            return Some(LostPart::Stopping);
        }
        self.postgres.lost()
    }

    /// Asks again until there is an answer. `look` may itself wait, for as long as it is told.
    pub(super) fn wait<T>(
        &mut self,
        timeout: Duration,
        look: impl FnMut(Duration) -> Option<T>,
    ) -> WaitOutcome<T> {
        wait_on(|| self.lost(), timeout, look)
    }

    /// The same for what the services promise.
    pub(super) fn wait_for<T>(
        &mut self,
        runtime: &Handle,
        timeout: Duration,
        promise: impl Future<Output = T>,
    ) -> WaitOutcome<T> {
        let mut promise = std::pin::pin!(promise);
        self.wait(timeout, |turn| {
            runtime
                .block_on(async { tokio::time::timeout(turn, &mut promise).await })
                .ok()
        })
    }

    /// Does something that cannot be asked twice, such as reading a repository that may hang. What is lost meanwhile sets the flag
    /// that `work` is given; work that does not end soon is left to itself.
    pub(super) fn during<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
    ) -> Result<T, LostPart> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (done, result) = channel();
        let told = Arc::clone(&cancel);
        std::thread::spawn(move || drop(done.send(work(told))));
        let outcome = wait_on(
            || self.lost(),
            Duration::MAX,
            |turn| match result.recv_timeout(turn) {
                Ok(value) => Some(Some(value)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(None),
            },
        );
        match outcome {
            WaitOutcome::Done(Some(value)) => Ok(value),
            WaitOutcome::Done(None) | WaitOutcome::TimedOut => Err(LostPart::Server(
                "the thread that worked on it panicked".into(),
            )),
            WaitOutcome::Lost(lost) => {
                cancel.store(true, Ordering::Relaxed);
                let _ = result.recv_timeout(END_TIMEOUT);
                Err(lost)
            }
        }
    }
}

fn wait_on<T>(
    mut lost: impl FnMut() -> Option<LostPart>,
    timeout: Duration,
    mut look: impl FnMut(Duration) -> Option<T>,
) -> WaitOutcome<T> {
    let began = Instant::now();
    loop {
        // Before the answer: one that is out of date would be taken for true.
        if let Some(lost) = lost() {
            return WaitOutcome::Lost(lost);
        }
        let left = timeout.saturating_sub(began.elapsed());
        if let Some(value) = look(left.min(LOOK)) {
            return WaitOutcome::Done(value);
        }
        if left.is_zero() {
            return WaitOutcome::TimedOut;
        }
    }
}

/// A pause that ends early when the stop is asked for, or when `better` says that trying again may succeed now.
pub(super) fn pause(stop: &AtomicBool, timeout: Duration, mut better: impl FnMut() -> bool) {
    let stopping = || stop.load(Ordering::Relaxed).then_some(LostPart::Stopping);
    wait_on(stopping, timeout, |turn| {
        std::thread::sleep(turn);
        better().then_some(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wait_ends_when_what_it_stands_on_is_gone_however_patient_it_is() {
        let mut looks = 0;
        let waited: WaitOutcome<()> = wait_on(
            || {
                looks += 1;
                (looks > 3).then_some(LostPart::Folder)
            },
            FOR_EVER,
            |_| None,
        );
        assert_eq!(waited, WaitOutcome::Lost(LostPart::Folder));

        let waited = wait_on(|| None, FOR_EVER, |turn| (turn <= LOOK).then_some(7));
        assert_eq!(waited, WaitOutcome::Done(7));
        let waited: WaitOutcome<()> = wait_on(|| None, Duration::ZERO, |_| None);
        assert_eq!(waited, WaitOutcome::TimedOut);
        let waited = wait_on(|| Some(LostPart::Stopping), FOR_EVER, |_| Some(()));
        assert_eq!(
            waited,
            WaitOutcome::Lost(LostPart::Stopping),
            "an answer from before the loss"
        );
    }

    #[test]
    fn a_pause_ends_early_when_it_is_better_or_the_stop_is_asked_for() {
        let stop = AtomicBool::new(false);
        pause(&stop, FOR_EVER, || true);
        let mut looks = 0;
        pause(&stop, FOR_EVER, || {
            looks += 1;
            stop.store(looks == 2, Ordering::Relaxed);
            false
        });
        assert_eq!(looks, 2);
    }
}
