//! The logs that an audit asks for (docs/formats/log_stretches.md): of the services, of PostgreSQL, of the machine. A
//! [`LogSource`] hands out lines behind a cursor; [`Shipment::ship`] seals them in stretches of a day and moves the
//! cursor only when a stretch was read back from the repository. A line is perhaps there twice, never not at all.

mod cursor_file;
mod files;
mod journal;
mod ship;
mod time;

use std::path::{Path, PathBuf};

use repository::log_stretches::SourceGap;

pub use cursor_file::{CursorFile, Place};
pub use files::FileLog;
pub use journal::{JournalLog, SYSTEM_IDENTIFIERS};
pub use ship::{Shipment, ShipmentReport};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error("cannot {what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{path} is no cursor file of a log: {reason}. Move it away: the log continues from what the repository holds"
    )]
    CursorFile { path: PathBuf, reason: String },
    #[error(
        "{program} cannot be run: {source}. Install it (Debian: systemd), or name another journal"
    )]
    ProgramMissing {
        program: &'static str,
        source: std::io::Error,
    },
    #[error("the journal {place} cannot be read: {said}")]
    Journal { place: PathBuf, said: String },
    #[error("{folder}: {what}")]
    Folder { folder: PathBuf, what: String },
    #[error("interrupted; what was put stays, and the next run continues from there")]
    Cancelled,
}

impl LogError {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// One log of one host.
pub trait LogSource {
    /// What follows the cursor; all that is there without one. `fingerprint_key` stays the same for the life of the
    /// cursor file, and never leaves the host.
    fn open(
        &self,
        cursor: Option<&str>,
        fingerprint_key: &[u8; 32],
    ) -> Result<Box<dyn LogReading + '_>, LogError>;
}

/// A pass over what is new.
pub trait LogReading {
    fn next(&mut self) -> Result<Option<LogItem>, LogError>;
    /// Where a later pass continues: behind the last item, or before it.
    fn cursor(&self, before_last: bool) -> String;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    Line { at_micros: i64, bytes: Vec<u8> },
    Gap(SourceGap),
}
