//! The one place where every error of the product becomes words on a terminal and an exit code.

use std::{path::PathBuf, process::ExitCode};

use operations::exit::Exit;

/// Anything that ends a command. Each says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Operations(#[from] operations::Error),
    #[error("{error}\n{next}")]
    OfBackup { error: Box<Error>, next: String },
    #[error(transparent)]
    Table(#[from] recovery::table::TableError),
    #[error(transparent)]
    Page(#[from] recovery::pages::PageError),
    #[error(transparent)]
    Drill(#[from] assurance::drills::DrillError),
}

impl Error {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let of_file = operations::Error::file(what, path);
        move |source| of_file(source).into()
    }

    /// Something stands against it; nothing was changed.
    pub(crate) fn refused(what: &'static str, reason: impl Into<String>) -> Self {
        operations::Error::refused(what, reason).into()
    }

    /// What would have to answer does not.
    pub(crate) fn unreachable(what: &'static str, reason: impl Into<String>) -> Self {
        operations::Error::unreachable(what, reason).into()
    }

    pub(crate) fn argument(
        what: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        operations::Error::argument(what, value, reason).into()
    }

    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        operations::Error::failed(reason).into()
    }

    /// What the shell sees. `restore_command` reads its codes itself; see `commands::wal`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.exit().into()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Operations(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

/// What an operation meets as well is one of its errors.
macro_rules! through_operations {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Operations(error.into())
            }
        })+
    };
}

through_operations!(
    host::Error,
    secrets::SecretFileError,
    postgres_physical::server::ServerError,
    postgres_physical::wire::WireError,
    repository::Error,
    audit::HeadError,
    audit::KeyError,
    backup::BackupError,
    backup::configuration::ConfigurationError,
    backup::documents::Interruption,
    backup::documents::SealedError,
    backup::schema::SchemaError,
    backup::cache::CacheError,
    recovery::cache::CacheRestoreError,
    redis_physical::RedisError,
    jobs::Error,
    recovery::Error,
    services::ServiceError,
    services::DatabaseError,
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
