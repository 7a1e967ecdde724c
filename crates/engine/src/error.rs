//! The one place where every error of the product becomes words on a terminal and an exit code.

use std::{path::PathBuf, process::ExitCode};

use backup::cache::CacheError;
use recovery::cache::CacheRestoreError;
use redis_physical::RedisError;

use crate::exit::Exit;

/// Anything that ends a command. Each says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Lost(#[from] crate::lost::Lost),
    #[error(transparent)]
    Wire(#[from] postgres_physical::wire::WireError),
    #[error(transparent)]
    Backup(#[from] backup::BackupError),
    #[error(transparent)]
    Jobs(#[from] jobs::Error),
    #[error(transparent)]
    Recovery(#[from] recovery::Error),
    /// Of a job that another process, or another thread, ran.
    #[error("{words}")]
    OfRun { words: String, exit: Exit },
    #[error("{error}\n{next}")]
    OfBackup { error: Box<Error>, next: String },
    #[error("the restored database is not whole: {0}")]
    IncompleteCopy(String),
    #[error(transparent)]
    Table(#[from] recovery::table::TableError),
    #[error(transparent)]
    Page(#[from] recovery::pages::PageError),
    #[error(transparent)]
    Schema(#[from] backup::schema::SchemaError),
    #[error(transparent)]
    Cache(#[from] backup::cache::CacheError),
    #[error(transparent)]
    CacheRestore(#[from] recovery::cache::CacheRestoreError),
    #[error(transparent)]
    Redis(#[from] redis_physical::RedisError),
    #[error(transparent)]
    Standby(#[from] recovery::standby::StandbyError),
    #[error(transparent)]
    Services(#[from] services::ServiceError),
    #[error(transparent)]
    Database(#[from] services::DatabaseError),
    #[error(transparent)]
    Drill(#[from] assurance::drills::DrillError),
}

impl Error {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let of_file = host::Error::file(what, path);
        move |source| of_file(source).into()
    }

    /// Something stands against it; nothing was changed.
    pub(crate) fn refused(what: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        host::Error::Refused { what, reason }.into()
    }

    /// What would have to answer does not.
    pub(crate) fn unreachable(what: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        host::Error::Unreachable { what, reason }.into()
    }

    pub(crate) fn argument(
        what: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let (value, reason) = (value.into(), reason.into());
        host::Error::Argument {
            what,
            value,
            reason,
        }
        .into()
    }

    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        host::Error::Failed(reason.into()).into()
    }

    /// Of what a restore from a backup gave: the reason is in that backup.
    pub(crate) fn is_of_backup(&self) -> bool {
        match self {
            Self::IncompleteCopy(_) => true,
            Self::Recovery(error) => error.is_of_backup(),
            _ => false,
        }
    }

    /// What the shell sees. `restore_command` reads its codes itself; see `commands::wal`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.exit().into()
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Host(error) => exit_of_host(error),
            Self::Recovery(error) if error.is_refusal() => Exit::Refused,
            Self::OfRun { exit, .. } => *exit,
            Self::Jobs(jobs::Error::Refused { .. } | jobs::Error::Unavailable { .. }) => {
                Exit::Refused
            }
            Self::Redis(RedisError::Away { .. })
            | Self::Cache(CacheError::Redis(RedisError::Away { .. }))
            | Self::CacheRestore(CacheRestoreError::Redis(RedisError::Away { .. })) => {
                Exit::NotRunning
            }
            Self::Redis(error) if error.is_refusal() => Exit::Refused,
            Self::Cache(error) if error.is_unavailable() => Exit::Refused,
            Self::CacheRestore(error) if error.is_refusal() => Exit::Refused,
            Self::Jobs(jobs::Error::UnknownJob { .. }) => Exit::Usage,
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
            _ => Exit::Failed,
        }
    }
}

fn exit_of_host(error: &host::Error) -> Exit {
    use host::Error;
    match error {
        Error::Refused { .. }
        | Error::FolderTaken { .. }
        | Error::PortTaken { .. }
        | Error::KeysMissing { .. }
        // It conflicts with what is there: a fault of neither side.
        | Error::Answer { status: 409 | 422, .. } => Exit::Refused,
        Error::SecretFile(error)
        | Error::Repository(
            repository::Error::SecretFile(error)
            | repository::Error::Store(repository::StoreError::SecretFile(error)),
        )
        | Error::Key(audit::KeyError::Secret(error))
            if error.is_exposed() =>
        {
            Exit::Refused
        }
        Error::Argument { .. } => Exit::Usage,
        Error::NotRunning { .. } | Error::NotAnnounced { .. } | Error::Unreachable { .. } => {
            Exit::NotRunning
        }
        Error::Repository(error) if error.is_unavailable() => Exit::NotRunning,
        _ => Exit::Failed,
    }
}

/// What a host meets as well is one of its errors.
macro_rules! through_host {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Host(error.into())
            }
        })+
    };
}

through_host!(
    secrets::SecretFileError,
    postgres_physical::server::ServerError,
    repository::Error,
    audit::HeadError,
    audit::KeyError,
);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person reads, and the exit code beside it.
    #[test]
    fn every_error_of_a_command_says_what_where_and_what_next() {
        let refused = |what, reason: &str| host::Error::Refused {
            what,
            reason: reason.to_owned(),
        };
        let errors = [
            host::Error::File {
                what: "cannot read",
                path: "/srv/bre/bre.toml".into(),
                source: std::io::ErrorKind::PermissionDenied.into(),
            },
            host::Error::Settings {
                path: "/srv/bre/bre.toml".into(),
                reason: "unknown field `ful`".to_owned(),
            },
            host::Error::FolderTaken {
                path: "/srv/bre".into(),
                pid: "77".to_owned(),
            },
            host::Error::NotRunning {
                path: "/srv/bre".into(),
            },
            host::Error::NotAnnounced {
                path: "/srv/bre".into(),
                file: "/srv/bre/run/instance.json".into(),
            },
            host::Error::PortTaken {
                bind: std::net::Ipv4Addr::LOCALHOST.into(),
                port: 8000,
            },
            host::Error::ProgramMissing {
                program: "redis-server",
                package: "redis-server",
                setting: "[cache] binary",
            },
            host::Error::KeysMissing {
                repository: "/srv/bre/repository".to_owned(),
                missing: "/srv/bre/keys/recipient.pub".into(),
            },
            refused("nothing was changed", "give --yes to do it without asking"),
            host::Error::Unreachable {
                what: "no process keeps a standby here",
                reason: "start it".to_owned(),
            },
            host::Error::Answer {
                asked: "locates".to_owned(),
                status: 422,
                reason: "shares: must be a multiple of 100".to_owned(),
            },
            host::Error::Argument {
                what: "backup",
                value: "B9".to_owned(),
                reason: "the repository has none of this id; see: bre backup list".to_owned(),
            },
            host::Error::Failed("the answer was cut short".to_owned()),
        ];
        let lines = errors
            .map(Error::from)
            .map(|error| format!("{:>2}  bre: {error}\n", error.exit() as u8));
        insta::assert_snapshot!("errors", lines.concat());
    }
}
