//! Why a restore failed, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use postgres_physical::server::{Absence, ServerError};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error(transparent)]
    Server(#[from] ServerError),

    #[error("there is nothing to restore: {0}")]
    NothingToRestore(String),
    #[error("{target} cannot be restored: {reason}. {nearest}")]
    OutsideWindow {
        target: String,
        reason: String,
        nearest: String,
    },
    #[error("{what} is not in the WAL that can be restored, {window}. {known}")]
    NoSuchPoint {
        what: String,
        window: String,
        known: String,
    },
    #[error(
        "there is more than one {what}: {found}. Choose one of them by its LSN, or name a timeline"
    )]
    Ambiguous { what: String, found: String },
    #[error(
        "timeline {timeline} has WAL up to {end}, but no complete backup leads there without a hole. \
         Name an older timeline to restore without it, or take a new full backup"
    )]
    Unreachable { timeline: u32, end: String },
    #[error(
        "the newest WAL cannot be read: {damage}\nTo restore without it, name the LSN to restore to: the last one \
         before it is {last_good}"
    )]
    DamagedWal { damage: String, last_good: String },
    #[error(
        "WAL of timeline {timeline} from {from} to {to} is missing, and there is no backup after it that leads to the \
         newest WAL. Bring the missing `wal/` or `tail/` objects back. To do without what is newer, name the place to \
         restore to: the last one before it is LSN {from}"
    )]
    MissingWal {
        timeline: u32,
        from: String,
        to: String,
    },
    #[error(
        "no other complete backup leads to this target. Not used: {}. Restore what they lack from another copy of \
         the repository; `bre verify backup ID` names it",
        .passed_over.join(", ")
    )]
    NoOtherBackup { passed_over: Vec<String> },
    #[error("the repository holds no complete backup {id}. `bre backup list` shows them")]
    NoSuchBackup { id: String },
    #[error(
        "backup {id} does not lead to this target: it ended after it, or the WAL between them is not there. Name \
         another backup, or a later target"
    )]
    LeadsElsewhere { id: String },
    #[error("timeline {timeline}: {what}")]
    Timeline { timeline: u32, what: String },

    #[error(
        "the folder {0} is not empty and was not touched. Choose another, move it aside first, or restore over it \
         with --delta"
    )]
    NotEmpty(PathBuf),
    #[error("the folder {0} was left half restored. Continue with --delta, or delete it first")]
    HalfRestored(PathBuf),
    #[error("another restore runs in {0}. Wait for it, or stop it first")]
    Busy(PathBuf),
    #[error("a server (process {pid}) runs on {folder}. Stop it first; nothing was changed")]
    ServerRuns { folder: PathBuf, pid: i32 },
    #[error(
        "{folder} is the data folder of cluster {found}, the backup is of cluster {expected}: the folder was not \
         touched. Choose another one"
    )]
    OtherCluster {
        folder: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error(
        "{0} cannot be recognised as a data folder (no readable global/pg_control, no WAL in pg_wal), and was not \
         touched. Restore into an empty folder instead"
    )]
    NoDataFolder(PathBuf),
    #[error("{path} cannot be moved aside to {to}: {source}. Move it away yourself, then repeat")]
    KeepAside {
        path: PathBuf,
        to: PathBuf,
        source: io::Error,
    },
    #[error(
        "{count} files and folders of WAL and logs ({bytes} bytes; the first is {first}) are on another file system \
         than {aside}, so they cannot be renamed to there. Nothing was changed. Give --copy-across to copy them \
         there, or move them away yourself"
    )]
    AcrossFileSystems {
        first: PathBuf,
        count: usize,
        bytes: u64,
        aside: PathBuf,
    },
    #[error(
        "another file system is mounted at {0}, where the backup has a file or something else: it cannot be replaced. \
         Unmount it first; nothing was changed"
    )]
    MountInTheWay(PathBuf),
    #[error(
        "{path} belongs to user number {uid} and could not be repaired by {user}. Run this as root, or give it to \
         {user} first; nothing was changed"
    )]
    NotOwned {
        path: PathBuf,
        uid: u32,
        user: String,
    },
    #[error(
        "{0} is on a file system that is mounted read-only. Mount it for writing; nothing was changed"
    )]
    ReadOnly(PathBuf),
    #[error("the backup has no tablespace at {given}. It has: {known}")]
    NoSuchTablespace { given: String, known: String },
    #[error("a tablespace needs an absolute path, {0} is not one")]
    RelativeTablespace(PathBuf),
    #[error(
        "{folder} has {free} bytes free and the backup needs {needed}. Free space or choose another folder"
    )]
    NoSpace {
        folder: PathBuf,
        free: u64,
        needed: u64,
    },
    #[error(
        "{folder} has {free} inodes free and the backup needs {needed}: one for each file and folder. Delete files \
         that are not needed there, or choose a file system that was made with more"
    )]
    NoInodes {
        folder: PathBuf,
        free: u64,
        needed: u64,
    },
    #[error(
        "backup {backup} has no file `{path}`, without which it cannot be started. Use another backup"
    )]
    NoSuchFile { backup: String, path: &'static str },
    #[error(
        "{0} is in the way: it is no file, and nothing of it is touched. Move it away, or restore into another folder"
    )]
    InTheWay(PathBuf),
    #[error("{0} reads back as something else than was written. Look at its disk, then repeat")]
    ReadBack(PathBuf),
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("interrupted; nothing was written")]
    Stopped,
    #[error(
        "interrupted. {0} is half restored and will not start: continue with --delta, or delete it and restore again"
    )]
    Cancelled(PathBuf),
    #[error(
        "{error}\n{folder} is half restored and will not start: continue with --delta, or delete it and restore again"
    )]
    Incomplete { folder: PathBuf, error: Box<Error> },
    #[error("{error}\n{folder} is incomplete: delete it and export again")]
    IncompleteExport { folder: PathBuf, error: Box<Error> },

    #[error(
        "PostgreSQL cannot run on {folder} on this machine: {absence}.\nThe repository and the backup are not at fault. {folder} is half restored: once it can run, give the \
         same command with --delta. PostgreSQL's log is {log}"
    )]
    Absent {
        folder: PathBuf,
        absence: Absence,
        log: PathBuf,
    },
    #[error(
        "the WAL of timeline {timeline} in the repository continues to {goes_on_to}, but at {at} there is no record: \
         a server whose files were removed while it ran sent what is no WAL. What was committed before can be \
         restored: delete {folder}, and restore to the last record, --lsn {} --timeline {timeline}",
        crate::database::show_lsn(*last_record)
    )]
    BrokenWal {
        folder: PathBuf,
        timeline: u32,
        at: String,
        goes_on_to: String,
        /// LSN of the last record that can be replayed.
        last_record: u64,
    },
    #[error(
        "recovery in {folder} did not finish: {reason}. {remedy}\nThe end of PostgreSQL's log {log}:\n{tail}"
    )]
    Recovery {
        folder: PathBuf,
        reason: Box<str>,
        remedy: &'static str,
        log: PathBuf,
        tail: Box<str>,
        /// Where the reason is.
        fault: Fault,
    },
}

/// Where the reason is that a restored copy did not become a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// In the copy itself, and so in its backup.
    Backup,
    /// In the WAL, this machine, or the process that ended it.
    Elsewhere,
}

impl Error {
    /// Something stands against it, and nothing was changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::OutsideWindow { .. }
                | Self::NotEmpty(_)
                | Self::HalfRestored(_)
                | Self::Busy(_)
                | Self::ServerRuns { .. }
                | Self::OtherCluster { .. }
                | Self::NoDataFolder(_)
                | Self::AcrossFileSystems { .. }
                | Self::MountInTheWay(_)
                | Self::NotOwned { .. }
                | Self::ReadOnly(_)
                | Self::InTheWay(_)
                | Self::NoSpace { .. }
                | Self::NoInodes { .. }
                | Self::NoSuchTablespace { .. }
                | Self::RelativeTablespace(_)
                | Self::Stopped
        )
    }

    /// The reason is in the backup: another try from it fails the same way, one from another backup may not. Only of
    /// errors that a restore or a recovery from that backup gave, never of those of a plan.
    #[must_use]
    pub fn is_of_backup(&self) -> bool {
        match self {
            Self::NoSuchFile { .. } => true,
            Self::Recovery { fault, .. } => *fault == Fault::Backup,
            Self::Incomplete { error, .. } => error.is_of_backup(),
            // All backups need the same WAL, the older ones more of it.
            Self::Repository(error) => {
                let shared = ["wal/", "tail/", "timelines/"];
                let is_shared = |object: &str| shared.iter().any(|name| object.starts_with(name));
                error.is_damage() && !error.object().is_some_and(is_shared)
            }
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }
}
