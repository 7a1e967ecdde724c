//! What ends an operation, in words, and the exit code that goes with it.

use std::path::PathBuf;

use backup::{
    application_state::StateError, cache::CacheError, infrastructure::InfrastructureError,
};
use control_plane::{ClientError, aws::AwsError, call::is_away};
use recovery::{application_state::StateError as StateRestoreError, cache::CacheRestoreError};
use redis_physical::RedisError;

use crate::exit::Exit;

/// Anything that ends an operation. Each says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Lost(#[from] crate::lost::LostPart),
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
    #[error("the restored database is not whole: {0}")]
    IncompleteCopy(String),
    #[error(transparent)]
    Schema(#[from] backup::schema::SchemaError),
    #[error(transparent)]
    Cache(#[from] backup::cache::CacheError),
    #[error(transparent)]
    CacheRestore(#[from] recovery::cache::CacheRestoreError),
    #[error(transparent)]
    Aws(#[from] control_plane::aws::AwsError),
    #[error(transparent)]
    Infrastructure(#[from] backup::infrastructure::InfrastructureError),
    #[error(transparent)]
    InfrastructureRestore(#[from] recovery::infrastructure::InfrastructureError),
    #[error(transparent)]
    Redis(#[from] redis_physical::RedisError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    StateRestore(#[from] StateRestoreError),
    #[error(transparent)]
    Standby(#[from] recovery::standby::StandbyError),
    #[error(transparent)]
    Services(#[from] services::ServiceError),
    #[error(transparent)]
    Database(#[from] services::DatabaseError),
}

impl Error {
    pub fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let of_file = host::Error::file(what, path);
        move |source| of_file(source).into()
    }

    /// Something stands against it; nothing was changed.
    pub fn refused(what: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        host::Error::Refused { what, reason }.into()
    }

    /// What would have to answer does not.
    pub fn unreachable(what: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        host::Error::Unreachable { what, reason }.into()
    }

    pub fn argument(
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

    pub fn failed(reason: impl Into<String>) -> Self {
        host::Error::Failed(reason.into()).into()
    }

    /// Of what a restore from a backup gave: the reason is in that backup.
    pub fn is_of_backup(&self) -> bool {
        match self {
            Self::IncompleteCopy(_) => true,
            Self::Recovery(error) => error.is_of_backup(),
            _ => false,
        }
    }

    /// What the shell sees.
    pub fn exit(&self) -> Exit {
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
            Self::Aws(AwsError::Away { .. })
            | Self::Infrastructure(InfrastructureError::Aws(AwsError::Away { .. })) => {
                Exit::NotRunning
            }
            Self::InfrastructureRestore(error) if error.is_refusal() => Exit::Refused,
            Self::Redis(error) if error.is_refusal() => Exit::Refused,
            Self::Cache(error) if error.is_unavailable() => Exit::Refused,
            Self::CacheRestore(error) if error.is_refusal() => Exit::Refused,
            Self::Client(error)
            | Self::State(StateError::Client(error))
            | Self::StateRestore(StateRestoreError::Client(error)) => exit_of_client(error),
            Self::State(StateError::NoneRead(unread)) if is_away(&unread.why) => Exit::NotRunning,
            // Something of it is applied.
            Self::StateRestore(StateRestoreError::NotTheSame(_)) => Exit::Partial,
            Self::StateRestore(error) if error.is_refusal() => Exit::Refused,
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

fn exit_of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::ProgramMissing { .. } => Exit::Refused,
        ClientError::Timeout { .. } => Exit::NotRunning,
        error if is_away(error.said()) => Exit::NotRunning,
        _ => Exit::Failed,
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
