//! Waits for a long statement of a server; when the caller stops waiting, the statement is cancelled there.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use postgres_physical::server::sql::Cancel;

use super::TableError;
use crate::Progress;

/// Between two looks, and between two requests: one that comes between two statements is lost.
const LOOK: Duration = Duration::from_millis(100);
/// A server that does not react within this is not waited for any more. It ends the work itself when it misses the
/// connection.
const REACTION: Duration = Duration::from_millis(1500);

/// Does the work. Once `progress` is cancelled it is an interruption, whatever came of it: the caller rolls back.
pub(super) fn watched<T>(
    cancels: &[Cancel],
    progress: &dyn Progress,
    work: impl FnOnce() -> Result<T, TableError>,
) -> Result<T, TableError> {
    let (working, ended) = channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut since: Option<Instant> = None;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                if !progress.cancelled() {
                    continue;
                }
                let late = since.get_or_insert_with(Instant::now).elapsed() > REACTION;
                for cancel in cancels {
                    match late {
                        true => cancel.abandon(),
                        false => cancel.send(),
                    }
                }
            }
            since.is_some()
        });
        let result = work();
        drop(working);
        match watcher.join() {
            Ok(false) => result,
            // A panic of the watcher is none that is known.
            Ok(true) | Err(_) => Err(TableError::Interrupted),
        }
    })
}
