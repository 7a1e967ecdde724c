//! Signed heads go into the repository, where the database's superuser cannot reach them.

use std::collections::BTreeMap;

use audit::SignedHead;
use repository::{Repository, StoreError};
use services::HeadPublisher;

use super::health::StreamMonitor;

/// The name of the engine's log in `heads/`.
pub(crate) const LOG: u16 = 1;

pub(crate) fn log_name() -> String {
    LOG.to_string()
}

const EPOCH_DIGITS: usize = 8;

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

/// The newest head of each epoch: all that a start needs, however many years of heads there are.
pub(crate) fn newest(repository: &Repository) -> Result<Vec<SignedHead>, crate::error::Error> {
    let prefix = format!("heads/{}/", log_name());
    let objects = repository
        .store()
        .list(&prefix)
        .map_err(repository::Error::from)?;
    // Names are `<epoch>-<size>` in hex of fixed width, and listed in order: the last of an epoch is its newest.
    let mut newest = BTreeMap::new();
    for object in &objects {
        if let Some(epoch) = object.name.get(..prefix.len() + EPOCH_DIGITS) {
            newest.insert(epoch, &object.name);
        }
    }
    newest
        .values()
        .map(|name| {
            let bytes = repository
                .store()
                .get(name)
                .map_err(repository::Error::from)?;
            Ok(SignedHead::from_json(&bytes)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use audit::{Chain, EpochOpening, SigningKey};
    use repository::MemoryStore;

    use super::*;

    #[test]
    fn a_start_reads_one_head_an_epoch() {
        let repository = Repository::init(Arc::new(MemoryStore::default())).unwrap();
        let key = SigningKey::generate().unwrap();
        let mut chain = Chain::new(LOG);
        chain
            .open_epoch(0, &EpochOpening::Created { timeline: 1 }, &key)
            .unwrap();
        for at in 1..=3 {
            let head = key.sign(&chain.head(at, 0).unwrap());
            let claimed = head.claimed();
            repository::put_head(
                &repository,
                &log_name(),
                claimed.epoch,
                claimed.size,
                &head.to_json(),
            )
            .unwrap();
            let opening = EpochOpening::Recovery {
                timeline: 1,
                known_heads: &[],
                restore_id: "r",
                target_lsn: 0,
                known_lost: None,
            };
            if at == 2 {
                chain.open_epoch(at, &opening, &key).unwrap();
            } else {
                chain
                    .append(audit::Kind::BackupRun, at, audit::Fields::new())
                    .unwrap();
            }
        }
        let newest: Vec<(u32, u64)> = newest(&repository)
            .unwrap()
            .iter()
            .map(|h| (h.claimed().epoch, h.claimed().size))
            .collect();
        assert_eq!(newest, [(1, 2), (2, 3)]);
        assert_eq!(stored(&repository).unwrap().len(), 3);
    }
}
