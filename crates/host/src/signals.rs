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

/// Ctrl-C and SIGTERM ask for a clean stop; a second one, or one that is not done within a minute, ends the process at
/// once, which loses nothing either. `last` ends what would stay behind.
pub fn stop_on_signal(
    runtime: &Runtime,
    last: impl FnOnce() + Send + 'static,
) -> Result<Arc<AtomicBool>, Error> {
    stop_within(STOP_TIMEOUT, runtime, last)
}

fn stop_within(
    timeout: Duration,
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
                    std::thread::sleep(timeout);
                    tracing::error!(
                        "the stop was not done within {} s; ending at once",
                        timeout.as_secs()
                    );
                    last();
                    std::process::exit(1);
                });
            }
        }
    });
    Ok(stop)
}

/// Set by Ctrl-C, SIGTERM, and a terminal that is closed: the work ends between two steps, takes away what it made for
/// itself, and says what it leaves.
pub fn interrupted() -> Result<Arc<AtomicBool>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let failed =
        |error: std::io::Error| Error::Failed(format!("cannot listen for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    // Before this returns: a signal that comes right after it is heard.
    let mut heard = {
        let _inside = runtime.enter();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let heard: std::io::Result<Vec<_>> = kinds.into_iter().map(signal).collect();
        heard.map_err(failed)?
    };
    std::thread::spawn(move || {
        runtime.block_on(std::future::poll_fn(|context| {
            let any = heard
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            match any {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        }));
        seen.store(true, Ordering::Relaxed);
    });
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const FILE: &str = "BRE_TEST_LAST";

    #[test]
    #[ignore = "a child of the next test"]
    fn child_that_hangs_in_its_stop() {
        let Ok(file) = std::env::var(FILE) else {
            return;
        };
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let last = move || std::fs::write(file, "").unwrap();
        stop_within(Duration::from_secs(1), &runtime, last).unwrap();
        let signal = rustix::process::Signal::TERM;
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        // Whether or not it was heard: this thread never ends.
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn a_stop_that_hangs_is_ended_with_words_and_leaves_no_server() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("last");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["signals::tests::child_that_hangs_in_its_stop"])
            .args(["--exact", "--ignored", "--nocapture"])
            .env(FILE, &file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(1), "{said}");
        let sentence = "the stop was not done within 1 s; ending at once";
        assert!(said.contains(sentence), "{said}");
        assert!(file.exists(), "what ends the servers did not run");
    }
}
