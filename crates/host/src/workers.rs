//! The threads that asynchronous work runs on. Dropping a runtime waits for every blocking work in it, however long
//! that takes; a stop of the engine must not.

use std::{ops::Deref, time::Duration};

use tokio::runtime::Runtime;

use crate::error::Error;

/// What is still running at the end is given this long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A runtime that ends in time.
#[derive(Debug)]
pub struct Workers(Option<Runtime>);

impl Workers {
    pub fn start() -> Result<Self, Error> {
        let runtime = Runtime::new()
            .map_err(|error| Error::Failed(format!("cannot start threads: {error}")))?;
        Ok(Self(Some(runtime)))
    }
}

impl Deref for Workers {
    type Target = Runtime;

    #[allow(clippy::expect_used, reason = "it is taken by drop alone")]
    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_that_does_not_end_does_not_hold_a_stop() {
        let workers = Workers::start().unwrap();
        let (begun, begins) = mpsc::channel();
        // Ends with the test's process, as with the engine's.
        let (_never, forever) = mpsc::channel::<()>();
        let endless = std::sync::Mutex::new(forever);
        workers.spawn_blocking(move || {
            let _ = begun.send(());
            let _ = endless.lock().map(|endless| endless.recv());
        });
        begins.recv().unwrap();
        drop(workers);
    }
}
