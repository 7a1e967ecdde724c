//! What an engine needs at every moment, once it is gone.

/// What is gone, so that there is nothing to wait for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostPart {
    #[error("the engine was told to stop")]
    Stopping,
    #[error("PostgreSQL ended ({0})")]
    Server(String),
    #[error("the data folder is gone although PostgreSQL still runs")]
    Folder,
    #[error("PostgreSQL's socket was deleted: nobody can connect any more")]
    Socket,
}
