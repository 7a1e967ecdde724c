//! What can stand between a command and this machine: each error says what happened, to what, and what to do next.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {reason}\nMend the file; docs/operations/settings.md lists every setting")]
    Settings { path: PathBuf, reason: String },
    #[error(
        "{path} is in use by another running instance (process {pid}). Stop that one, or give another --data DIR"
    )]
    FolderTaken { path: PathBuf, pid: String },
    #[error("no engine runs at {path}. Start it with: bre up --data {path}")]
    NotRunning { path: PathBuf },
    #[error(
        "an engine runs on {path}, but it has not said where it can be reached ({file} is not there): it starts, it stops, or it cannot write there. \
         Try again; {path} and the engine's log say more"
    )]
    NotAnnounced { path: PathBuf, file: PathBuf },
    #[error(
        "port {port} on {bind} is in use by another program. Stop it, or choose another with --port N (0 takes a free one)"
    )]
    PortTaken { bind: std::net::IpAddr, port: u16 },
    #[error(
        "{program} was not found. Install it (Debian: apt-get install {package}), or name its folder in bre.toml: {setting}"
    )]
    ProgramMissing {
        program: &'static str,
        package: &'static str,
        setting: &'static str,
    },
    #[error(
        "{repository} holds a repository, but {missing} is missing. Bring the keys folder back; without it nothing in the repository can be read"
    )]
    KeysMissing {
        repository: String,
        missing: PathBuf,
    },
    #[error("{what}: {reason}")]
    Refused { what: &'static str, reason: String },
    /// Whoever would have to answer does not.
    #[error("{what}: {reason}")]
    Unreachable { what: &'static str, reason: String },
    #[error("the running engine answered {status} to {asked}: {reason}")]
    Answer {
        asked: String,
        status: u16,
        reason: String,
    },
    #[error("{value:?} is no {what}: {reason}")]
    Argument {
        what: &'static str,
        value: String,
        reason: String,
    },
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    SecretFile(#[from] secrets::SecretFileError),
    #[error(transparent)]
    Server(#[from] postgres_physical::server::ServerError),
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error(transparent)]
    Head(#[from] audit::HeadError),
    #[error(transparent)]
    Key(#[from] audit::KeyError),
}

impl Error {
    /// Of a file that cannot be read, written, made or removed: `what` says which.
    pub fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
