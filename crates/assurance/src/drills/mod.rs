//! Drills: a runbook run against a real, throw-away system under load, timed, with its losses counted.

pub mod client;
pub mod database_loss;
mod faults;
mod judge;
mod ledger;
mod proxy;
mod system;

pub use faults::Fault;
pub use judge::Report;
pub use proxy::Proxy;

use std::path::PathBuf;

/// Why a drill could not be carried out. A drill that was carried out and lost something is a [`Report`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the throw-away system did not start: {reason}. Its output is in {log}")]
    Start { reason: String, log: PathBuf },
    #[error(
        "the throw-away system did not serve a new durable quote within {seconds} s of the kill. Its output is in {log}"
    )]
    NotBack { seconds: u64, log: PathBuf },
    #[error(
        "no client got an answer before the kill; nothing could have been lost, so nothing is proved. Output: {log}"
    )]
    NoLoad { log: PathBuf },
    #[error("`bre {command}` failed: {reason}")]
    Command { command: String, reason: String },
    #[error("could not end process {pid}: {source}")]
    Kill { pid: i32, source: std::io::Error },
}

impl DrillError {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
