//! API keys: 256 random bits, shown once, kept as a SHA-256. Looked up in memory.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::limits::Window;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Standard,
    Premium,
    Internal,
}

impl Tier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tier::Standard => "standard",
            Tier::Premium => "premium",
            Tier::Internal => "internal",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Tier> {
        [Tier::Standard, Tier::Premium, Tier::Internal]
            .into_iter()
            .find(|tier| tier.name() == text)
    }
}

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Prices, for its own client.
    #[default]
    Client,
    /// Administration, and nothing that is priced.
    Operator,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Operator => "operator",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Role> {
        [Role::Client, Role::Operator]
            .into_iter()
            .find(|role| role.name() == text)
    }
}

pub(crate) type KeyHash = [u8; 32];

/// What is stored of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub(crate) key_id: String,
    #[serde(skip_serializing, default)]
    pub(crate) hash: KeyHash,
    pub(crate) client_id: String,
    pub(crate) tier: Tier,
    pub(crate) created_at_micros: i64,
    pub(crate) expires_at_micros: i64,
    pub(crate) revoked_at_micros: Option<i64>,
    #[serde(default)]
    pub(crate) role: Role,
}

#[derive(Debug)]
pub(crate) struct LiveKey {
    pub(crate) stored: StoredKey,
    /// The key's id, for those who keep it.
    pub(crate) id: Arc<str>,
    pub(crate) window: Arc<Window>,
}

#[derive(Debug, Default)]
pub(crate) struct KeyTable {
    keys: HashMap<KeyHash, Arc<LiveKey>>,
}

impl KeyTable {
    /// Windows live on: reading the keys again gives nobody new requests.
    pub(crate) fn renewed(&self, stored: Vec<StoredKey>) -> KeyTable {
        let live = |stored: StoredKey| {
            let window = self
                .keys
                .get(&stored.hash)
                .map(|key| Arc::clone(&key.window))
                .unwrap_or_default();
            let id = stored.key_id.as_str().into();
            (stored.hash, Arc::new(LiveKey { stored, id, window }))
        };
        KeyTable {
            keys: stored.into_iter().map(live).collect(),
        }
    }

    pub(crate) fn find(
        &self,
        presented: &str,
        now_micros: i64,
    ) -> Result<Arc<LiveKey>, &'static str> {
        let key = self
            .keys
            .get(&hash(presented))
            .ok_or("this API key is not known")?;
        if key.stored.revoked_at_micros.is_some() {
            return Err("this API key was revoked");
        }
        if key.stored.expires_at_micros <= now_micros {
            return Err("this API key has expired");
        }
        Ok(Arc::clone(key))
    }
}

pub(crate) fn hash(key: &str) -> KeyHash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}

/// A new key's text and id. The text is never seen again.
pub(crate) fn generate(role: Role) -> Result<(String, String), &'static str> {
    // Scanners for leaked secrets, and people, tell the two apart.
    let prefix = match role {
        Role::Client => "bre",
        Role::Operator => "breop",
    };
    let mut bytes = [0u8; 40];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gave no random bytes")?;
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    Ok((
        format!("{}_{}", prefix, hex(&bytes[..32])),
        format!("key_{}", hex(&bytes[32..])),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: &str, expires: i64, revoked: Option<i64>) -> StoredKey {
        StoredKey {
            key_id: format!("id of {key}"),
            hash: hash(key),
            client_id: "standard".to_owned(),
            tier: Tier::Standard,
            created_at_micros: 0,
            expires_at_micros: expires,
            revoked_at_micros: revoked,
            role: Role::Client,
        }
    }

    #[test]
    fn only_a_live_key_opens() {
        let table = KeyTable::default().renewed(vec![
            stored("good", 10, None),
            stored("gone", 10, Some(1)),
            stored("late", 5, None),
        ]);
        let check = |key: &str, expected: Result<&str, &str>| {
            let found = table.find(key, 5).map(|key| key.stored.key_id.clone());
            assert_eq!(found.as_deref().map_err(|why| *why), expected, "{key}");
        };
        check("good", Ok("id of good"));
        check("gone", Err("this API key was revoked"));
        check("late", Err("this API key has expired"));
        check("other", Err("this API key is not known"));
    }

    #[test]
    fn reading_the_keys_again_keeps_the_windows() {
        let table = KeyTable::default().renewed(vec![stored("k", 10, None)]);
        assert!(table.find("k", 0).unwrap().window.take(1, 0).allowed);
        let table = table.renewed(vec![stored("k", 20, None)]);
        assert!(!table.find("k", 0).unwrap().window.take(1, 0).allowed);
    }

    #[test]
    fn keys_are_long_and_differ() {
        let (first, second) = (
            generate(Role::Client).unwrap(),
            generate(Role::Client).unwrap(),
        );
        assert_eq!(first.0.len(), 4 + 64);
        assert_ne!(first.0, second.0);
        assert_ne!(first.1, second.1);
    }
}
