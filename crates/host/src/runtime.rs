//! Asynchronous work of a command.

use std::future::Future;

use crate::error::Error;

/// Commands talk to one thing at a time: one thread is enough.
pub fn wait<T, E: From<Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("cannot start: {error}")))?
        .block_on(work)
}
