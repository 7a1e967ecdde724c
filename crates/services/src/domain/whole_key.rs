//! A stored key with its hash, for a data-service that is to store it. Wherever else a key is written out, the hash is left out.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keys::{KeyHash, StoredKey};

pub(crate) fn serialize<S: Serializer>(key: &StoredKey, serializer: S) -> Result<S::Ok, S::Error> {
    (key.hash, key).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<StoredKey, D::Error> {
    let (hash, stored) = <(KeyHash, StoredKey)>::deserialize(deserializer)?;
    Ok(StoredKey { hash, ..stored })
}
