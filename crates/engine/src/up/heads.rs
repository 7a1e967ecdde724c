//! Signed heads go into the repository, where the database's superuser cannot reach them.

use audit::SignedHead;
use repository::{Repository, StoreError};
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
        let put = repository::put_head(
            &self.repository,
            &log_name(),
            claimed.epoch,
            claimed.size,
            &head.to_json(),
        );
        match put {
            // After a restart the same end of the log is signed again, at another time. The first signature stands.
            Err(repository::Error::Store(StoreError::AlreadyExists { object })) => {
                self.agrees(&object, head)
            }
            other => other.map_err(|error| error.to_string()),
        }
    }
}

impl Publisher {
    fn agrees(&self, object: &str, head: &SignedHead) -> Result<(), String> {
        let bytes = self
            .repository
            .store()
            .get(object)
            .map_err(|error| error.to_string())?;
        let stored =
            SignedHead::from_json(&bytes).map_err(|error| format!("`{object}`: {error}"))?;
        if stored.claimed().last_hash == head.claimed().last_hash {
            return Ok(());
        }
        Err(format!(
            "`{object}` is the head of another chain: two engines wrote this log, or it was rewritten. Run: bre audit verify"
        ))
    }
}

/// Every head that the repository holds, oldest first.
pub(crate) fn stored(repository: &Repository) -> Result<Vec<SignedHead>, crate::error::Error> {
    repository::heads(repository, &log_name())?
        .iter()
        .map(|head| SignedHead::from_json(&head.bytes).map_err(Into::into))
        .collect()
}
