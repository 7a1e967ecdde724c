//! Signed heads go into the repository, where the database's superuser cannot reach them.

use audit::SignedHead;
use repository::Repository;
use services::HeadPublisher;

use super::health::StreamMonitor;

/// The name of the engine's log in `heads/`.
pub(crate) const LOG: u16 = 1;

pub(crate) fn log_name() -> String {
    LOG.to_string()
}

#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) repository: Repository,
    pub(crate) stream: StreamMonitor,
}

impl HeadPublisher for Publisher {
    fn durable_lsn(&self) -> Option<u64> {
        self.stream.durable_lsn()
    }

    fn publish(&self, head: &SignedHead) -> Result<(), String> {
        let claimed = head.claimed();
        repository::put_head(
            &self.repository,
            &log_name(),
            claimed.epoch,
            claimed.size,
            &head.to_json(),
        )
        .map_err(|error| error.to_string())
    }
}

/// Every head that the repository holds, oldest first.
pub(crate) fn stored(repository: &Repository) -> Result<Vec<SignedHead>, crate::error::Error> {
    repository::heads(repository, &log_name())?
        .iter()
        .map(|head| SignedHead::from_json(&head.bytes).map_err(Into::into))
        .collect()
}
