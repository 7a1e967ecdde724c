//! A PostgreSQL cluster as a child process: find the programs, create a data folder, start, wait, stop, and clean up
//! what an earlier run left behind.

mod absence;
mod binaries;
mod copy;
mod databases;
mod initdb;
mod leftover;
mod os_user;
mod own_session;
mod process;
pub mod processes;
mod program;
pub(crate) mod session;
pub mod sql;
mod tree;

pub use absence::{Absence, other_collation_version};
pub use binaries::Binaries;
pub use databases::{Access, ListedDatabase, databases};
pub use initdb::{InitOptions, initdb, write_cluster_file, write_peer_access};
pub use leftover::Leftover;
pub use os_user::{OsUser, check_traversable};
pub use process::{Exit, Server, StartOptions, StopMode, tail_of};
pub use program::{ClientProgram, client_program};
pub use tree::{is_mount_root, remove_tree};

use std::path::PathBuf;

/// The oldest major version that has everything we rely on (`BASE_BACKUP` as one stream, `READ_REPLICATION_SLOT`).
pub const MAJOR_VERSION_MIN: u32 = 15;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "no PostgreSQL {min} or newer found (looked in {looked_in}); install it (Debian: apt-get install postgresql) \
         or set the folder that holds `postgres`",
        min = MAJOR_VERSION_MIN
    )]
    NotInstalled { looked_in: String },
    #[error("{program} in {dir} is version {found}; {min} or newer is needed", min = MAJOR_VERSION_MIN)]
    TooOld {
        program: String,
        dir: PathBuf,
        found: String,
    },
    #[error(
        "operating-system user {name} does not exist; PostgreSQL never runs as root, so create it (it comes with the \
         PostgreSQL package)"
    )]
    NoSuchUser { name: String },
    #[error(
        "user {user} cannot enter {folder} on the way to {path}; allow it with: chmod o+x {folder}"
    )]
    NotTraversable {
        user: String,
        folder: PathBuf,
        path: PathBuf,
    },
    #[error("{program} failed ({status}): {output}")]
    ProgramFailed {
        program: String,
        status: String,
        output: String,
    },
    #[error(
        "PostgreSQL on {dir} stopped while starting ({status}); the end of its log {log}:\n{tail}"
    )]
    StartFailed {
        dir: PathBuf,
        status: String,
        log: PathBuf,
        tail: String,
    },
    #[error(
        "PostgreSQL on {dir} was not ready after {seconds} s; the end of its log {log}:\n{tail}"
    )]
    NotReady {
        dir: PathBuf,
        seconds: u64,
        log: PathBuf,
        tail: String,
    },
    #[error("the data folder {dir} vanished while PostgreSQL was starting on it")]
    FolderGone { dir: PathBuf },
    #[error(
        "PostgreSQL on {dir} did not stop within {seconds} s; stop it in the mode immediate, or look at its log"
    )]
    NotStopped { dir: PathBuf, seconds: u64 },
    #[error("another PostgreSQL (pid {pid}) runs on {dir}; stop it first")]
    AlreadyRunning { dir: PathBuf, pid: i32 },
    #[error(
        "{top} is not removed: another file system is mounted at {mount}, and its content is not ours to delete. \
         Unmount it, then repeat"
    )]
    Mounted { top: PathBuf, mount: PathBuf },
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl ServerError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> ServerError {
        let path = path.into();
        move |source| ServerError::Io { what, path, source }
    }
}
