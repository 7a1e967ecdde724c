//! The one place where every error of the product becomes words on a terminal and an exit code.

use std::{path::PathBuf, process::ExitCode};

use crate::exit::Exit;

/// Anything that ends a command. Each says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    Lost(#[from] crate::lost::Lost),
    #[error(transparent)]
    Server(#[from] postgres_physical::server::ServerError),
    #[error(transparent)]
    Wire(#[from] postgres_physical::wire::WireError),
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error(transparent)]
    Backup(#[from] backup::BackupError),
    #[error(transparent)]
    Jobs(#[from] jobs::Error),
    #[error(transparent)]
    Recovery(#[from] recovery::Error),
    #[error(transparent)]
    Table(#[from] recovery::table::TableError),
    #[error(transparent)]
    Page(#[from] recovery::pages::PageError),
    #[error(transparent)]
    Schema(#[from] backup::schema::SchemaError),
    #[error(transparent)]
    Standby(#[from] recovery::standby::StandbyError),
    #[error(transparent)]
    Services(#[from] services::ServiceError),
    #[error(transparent)]
    Database(#[from] services::DatabaseError),
    #[error(transparent)]
    Head(#[from] audit::HeadError),
    #[error(transparent)]
    Key(#[from] audit::KeyError),
    #[error(transparent)]
    Drill(#[from] assurance::drills::DrillError),
}

impl Error {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// What the shell sees. `restore_command` reads its codes itself; see `commands::wal`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.exit().into()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. }
            | Self::FolderTaken { .. }
            | Self::PortTaken { .. }
            | Self::KeysMissing { .. }
            // It conflicts with what is there: a fault of neither side.
            | Self::Answer { status: 409 | 422, .. } => Exit::Refused,
            Self::Recovery(error) if error.is_refusal() => Exit::Refused,
            Self::SecretFile(error)
            | Self::Repository(
                repository::Error::SecretFile(error)
                | repository::Error::Store(repository::StoreError::SecretFile(error)),
            )
            | Self::Key(audit::KeyError::Secret(error))
                if error.is_exposed() =>
            {
                Exit::Refused
            }
            Self::Jobs(jobs::Error::Refused { .. }) => Exit::Refused,
            Self::Argument { .. } | Self::Jobs(jobs::Error::UnknownJob { .. }) => Exit::Usage,
            Self::NotRunning { .. } | Self::NotAnnounced { .. } | Self::Unreachable { .. } => {
                Exit::NotRunning
            }
            Self::Database(
                services::DatabaseError::Connect(_) | services::DatabaseError::Away(_),
            ) => Exit::NotRunning,
            Self::Wire(error) if error.is_away() => Exit::NotRunning,
            // What answers is not what was demanded.
            Self::Database(services::DatabaseError::Unfit(_))
            | Self::Wire(
                postgres_physical::wire::WireError::Tls { .. }
                | postgres_physical::wire::WireError::Handshake { .. }
                | postgres_physical::wire::WireError::Pooler { .. },
            ) => Exit::Refused,
            Self::Repository(error) if error.is_unavailable() => Exit::NotRunning,
            _ => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person reads, and the exit code beside it.
    #[test]
    fn every_error_of_a_command_says_what_where_and_what_next() {
        let refused = |what, reason: &str| Error::Refused {
            what,
            reason: reason.to_owned(),
        };
        let errors = [
            Error::File {
                what: "cannot read",
                path: "/srv/bre/bre.toml".into(),
                source: std::io::ErrorKind::PermissionDenied.into(),
            },
            Error::Settings {
                path: "/srv/bre/bre.toml".into(),
                reason: "unknown field `ful`".to_owned(),
            },
            Error::FolderTaken {
                path: "/srv/bre".into(),
                pid: "77".to_owned(),
            },
            Error::NotRunning {
                path: "/srv/bre".into(),
            },
            Error::NotAnnounced {
                path: "/srv/bre".into(),
                file: "/srv/bre/run/instance.json".into(),
            },
            Error::PortTaken {
                bind: std::net::Ipv4Addr::LOCALHOST.into(),
                port: 8000,
            },
            Error::ProgramMissing {
                program: "redis-server",
                package: "redis-server",
                setting: "[cache] binary",
            },
            Error::KeysMissing {
                repository: "/srv/bre/repository".to_owned(),
                missing: "/srv/bre/keys/recipient.pub".into(),
            },
            refused("nothing was changed", "give --yes to do it without asking"),
            Error::Unreachable {
                what: "no process keeps a standby here",
                reason: "start it".to_owned(),
            },
            Error::Answer {
                asked: "locates".to_owned(),
                status: 422,
                reason: "shares: must be a multiple of 100".to_owned(),
            },
            Error::Argument {
                what: "backup",
                value: "B9".to_owned(),
                reason: "the repository has none of this id; see: bre backup list".to_owned(),
            },
            Error::Failed("the answer was cut short".to_owned()),
        ];
        let lines = errors.map(|error| format!("{:>2}  bre: {error}\n", error.exit() as u8));
        insta::assert_snapshot!("errors", lines.concat());
    }
}
