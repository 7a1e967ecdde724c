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
    #[error(
        "what PostgreSQL sends from {0} on is no WAL ({1}); nothing of it is kept or confirmed. Its files in pg_wal were removed or replaced \
         while it runs, and what it commits is in no file: stop it and restore it from the repository"
    )]
    NotWal(postgres_physical::lsn::Lsn, String),
    #[error("{0}")]
    Setting(String),
    #[error(
        "the session that held the backup open was lost ({0}), and with it the backup; nothing of it counts, and earlier \
         backups are untouched. Run it again"
    )]
    SessionLost(std::io::Error),
    #[error(
        "files of the server were gone when the backup came to them ({}): nothing of it counts, and earlier backups are untouched. \
         If the data folder was removed or moved, restore it from an earlier backup; if a relation lost its file, rebuild it \
         (REINDEX) or bring it back (bre restore table), then take the backup again", .0.join(", ")
    )]
    FilesGone(Vec<String>),
    #[error("the server's files cannot be copied: {0}")]
    Source(String),
    #[error(
        "cannot {what} {path}: {source}. Run this as the server's account or as root, or take the backup through the \
         replication protocol (source protocol)"
    )]
    File {
        what: &'static str,
        path: std::path::PathBuf,
        source: std::io::Error,
    },
}

impl BackupError {
    pub(crate) fn file(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> BackupError {
        let path = path.to_owned();
        move |source| BackupError::File { what, path, source }
    }
}
