//! Signals that ask a process of the engine to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::runtime::Runtime;

use crate::error::Error;

/// A stop takes no longer, whatever runs: what hangs then has nothing that its end could harm.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// What ends a process with a signal ends with this: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// Ctrl-C and SIGTERM ask for a clean stop; a second one, or one that is not done within a minute, ends the process at once, which
/// loses nothing either. `last` ends what would stay behind.
pub(crate) fn stop_on_signal(
    runtime: &Runtime,
    last: impl FnOnce() + Send + 'static,
) -> Result<Arc<AtomicBool>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let failed =
        |error: std::io::Error| Error::Failed(format!("cannot listen for signals: {error}"));
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut last = Some(last);
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED);
            }
            if let Some(last) = last.take() {
                // A thread of its own: those of the runtime may be what hangs.
                std::thread::spawn(move || {
                    std::thread::sleep(STOP_TIMEOUT);
                    tracing::error!(
                        "the stop was not done within {} s; ending at once",
                        STOP_TIMEOUT.as_secs()
                    );
                    last();
                    std::process::exit(1);
                });
            }
        }
    });
    Ok(stop)
}
