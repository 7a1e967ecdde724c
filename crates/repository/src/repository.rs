//! A store that holds the marker, and the identity of the cluster that it belongs to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, StoreError};
use crate::keys::random_hex;
use crate::store::{MARKER, Store, now_micros};

const FORMAT: &str = "bre-repository";
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Marker {
    format: String,
    version: u64,
    repository_id: String,
    created_at_micros: i64,
}

#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    id: Arc<str>,
}

impl Repository {
    /// Opens the repository, or makes one where there is none.
    pub fn init(store: Arc<dyn Store>) -> Result<Self> {
        let marker = Marker {
            format: FORMAT.to_owned(),
            version: VERSION,
            repository_id: random_hex(16)?,
            created_at_micros: now_micros(),
        };
        match store.put(MARKER, &to_json(&marker)) {
            Ok(()) | Err(StoreError::AlreadyExists { .. }) => Self::open(store),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens an existing repository; a missing marker means that it is away.
    pub fn open(store: Arc<dyn Store>) -> Result<Self> {
        let bytes = match store.get(MARKER) {
            Err(StoreError::NotFound { store, .. }) => {
                let what = format!("its marker `{MARKER}` cannot be found");
                return Err(StoreError::Away { store, what }.into());
            }
            other => other?,
        };
        let marker: Marker =
            serde_json::from_slice(&bytes).map_err(|e| Error::damaged(MARKER, 0, e.to_string()))?;
        if marker.format != FORMAT || marker.version != VERSION {
            return Err(Error::Version {
                object: MARKER.to_owned(),
                found: marker.version,
            });
        }
        let id = Arc::from(marker.repository_id);
        Ok(Self { store, id })
    }

    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// 32 hex digits, the same for the life of the repository.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// The cluster whose repository this is, once anything of it was written.
    pub fn cluster(&self) -> Result<Option<u64>> {
        let claims = self.store.list("cluster/")?;
        let mut ids = claims.iter().map(|claim| {
            let digits = claim.name.trim_start_matches("cluster/");
            u64::from_str_radix(digits, 16)
                .map_err(|_| Error::damaged(&claim.name, 0, "its name holds no system identifier"))
        });
        let first = ids.next().transpose()?;
        match (first, ids.next().transpose()?) {
            (Some(expected), Some(found)) => Err(Error::ForeignCluster {
                object: claims[1].name.clone(),
                found,
                expected,
            }),
            _ => Ok(first),
        }
    }

    /// Claims the repository for a cluster, or refuses when it is another's.
    pub fn bind_cluster(&self, system_identifier: u64, object: &str) -> Result<()> {
        if self.cluster()?.is_none() {
            match self
                .store
                .put(&format!("cluster/{system_identifier:016x}"), b"{}")
            {
                Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.expect_cluster(system_identifier, object)
    }

    pub(crate) fn expect_cluster(&self, found: u64, object: &str) -> Result<()> {
        match self.cluster()? {
            Some(expected) if expected != found => Err(Error::ForeignCluster {
                object: object.to_owned(),
                found,
                expected,
            }),
            _ => Ok(()),
        }
    }
}

/// Serialising our own plain structures cannot fail; an empty object would be refused by every reader.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
