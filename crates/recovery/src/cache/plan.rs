//! What a restore would write. It decides by moments: every key of the market is written with a life of a fixed
//! length, so that of two values the one that expires later was written later.

use std::collections::BTreeMap;

use redis_physical::{Contents, Entry, KeyName, RedisSession};
use serde::Serialize;

use super::apply::now_millis;
use super::{CacheRestoreError, LoadedCache};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyAction {
    /// It is missing in the cache.
    Create,
    /// What the cache has was written earlier.
    Replace,
    Same,
    /// What the cache has was written later, or has no moment to compare.
    Keep,
    /// It is of the files, and expired since.
    Expired,
}

impl KeyAction {
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, KeyAction::Create | KeyAction::Replace)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachePlan {
    pub keys: BTreeMap<KeyName, KeyAction>,
    /// Keys of the files that a server did not even load.
    pub expired_before: u64,
}

impl CachePlan {
    #[must_use]
    pub fn count(&self, action: KeyAction) -> usize {
        self.keys.values().filter(|it| **it == action).count()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes().next().is_none()
    }

    pub fn writes(&self) -> impl Iterator<Item = &KeyName> {
        self.keys
            .iter()
            .filter(|(_, action)| action.writes())
            .map(|(key, _)| key)
    }
}

/// Looks at what is in the cache now; changes nothing.
pub fn plan(
    loaded: &LoadedCache,
    cache: &mut RedisSession,
    cancelled: &dyn Fn() -> bool,
) -> Result<CachePlan, CacheRestoreError> {
    let there = Contents::read(cache, cancelled)?;
    let mut plan = compare(&loaded.contents, &there, now_millis(cache)?);
    plan.expired_before = loaded.expired;
    Ok(plan)
}

/// `now_millis`: by the clock of the cache that is restored.
fn compare(files: &Contents, cache: &Contents, now_millis: i64) -> CachePlan {
    let action = |(key, entry): (&KeyName, &Entry)| {
        let there = cache
            .entries
            .get(key)
            .map(|it| (it.expires_at_millis, it.digest == entry.digest));
        (key.clone(), decide(entry, there, now_millis))
    };
    CachePlan {
        keys: files.entries.iter().map(action).collect(),
        expired_before: 0,
    }
}

/// `there`: when it expires, and whether its value is the same.
pub(super) fn decide(
    files: &Entry,
    there: Option<(Option<i64>, bool)>,
    now_millis: i64,
) -> KeyAction {
    if files
        .expires_at_millis
        .is_some_and(|expires| expires <= now_millis)
    {
        return KeyAction::Expired;
    }
    let Some((expires, is_same)) = there else {
        return KeyAction::Create;
    };
    match (files.expires_at_millis, expires) {
        (of_files, of_cache) if of_files == of_cache && is_same => KeyAction::Same,
        (Some(of_files), Some(of_cache)) if of_files > of_cache => KeyAction::Replace,
        _ => KeyAction::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_be_newer_is_replaced() {
        let files = |expires: Option<i64>| Entry {
            digest: [1; 32],
            expires_at_millis: expires,
        };
        let check =
            |expires: Option<i64>, there: Option<(Option<i64>, bool)>, expected: KeyAction| {
                assert_eq!(
                    decide(&files(expires), there, 100),
                    expected,
                    "{expires:?} {there:?}"
                );
            };
        check(Some(200), None, KeyAction::Create);
        check(None, None, KeyAction::Create);
        check(Some(100), None, KeyAction::Expired);
        check(Some(99), Some((Some(300), false)), KeyAction::Expired);
        check(Some(200), Some((Some(199), false)), KeyAction::Replace);
        // The same value, written again later: its life counts.
        check(Some(200), Some((Some(199), true)), KeyAction::Replace);
        check(Some(200), Some((Some(200), true)), KeyAction::Same);
        check(Some(200), Some((Some(200), false)), KeyAction::Keep);
        check(Some(200), Some((Some(201), false)), KeyAction::Keep);
        check(Some(200), Some((None, false)), KeyAction::Keep);
        check(None, Some((Some(201), false)), KeyAction::Keep);
        check(None, Some((None, false)), KeyAction::Keep);
        check(None, Some((None, true)), KeyAction::Same);
    }
}
