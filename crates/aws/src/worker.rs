//! Runs the async SDK for a store and a key provider that block: threads of their own do the waiting, so that they work
//! from any thread, also from one that runs another runtime.

use std::{future::Future, io, sync::mpsc};

use tokio::runtime::{Builder, Runtime};

#[derive(Debug)]
pub(crate) struct Worker {
    runtime: Option<Runtime>,
}

impl Worker {
    pub(crate) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// None when the task ended without an answer.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (send, receive) = mpsc::sync_channel(1);
        self.runtime.as_ref()?.spawn(async move {
            // Whoever asked is gone only when its thread is.
            let _ = send.send(work.await);
        });
        receive.recv().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without waiting: waiting is forbidden in a thread of another runtime, and there is nothing to wait for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
