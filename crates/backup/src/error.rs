//! What can go wrong between a server and a repository.

use postgres_physical::wire::WireError;

pub type Result<T, E = BackupError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Postgres(#[from] WireError),
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error("the backup was interrupted; nothing of it counts, and earlier backups are untouched")]
    Cancelled,
    #[error("the base backup stream is damaged: {0}; run the backup again")]
    Archive(String),
    #[error(
        "the server's WAL (timeline {timeline}) ends at {server:X?}, the repository already holds it up to {repository:X?}: \
         this server was set back without a new timeline, or another server writes here. Restore it from the repository \
         (which opens a new timeline), or give it a repository of its own"
    )]
    SetBack {
        timeline: u32,
        server: postgres_physical::lsn::Lsn,
        repository: postgres_physical::lsn::Lsn,
    },
    #[error("{0}")]
    Setting(String),
}
