//! Writes what a plan says, key by key and only if the key is still as decided; then the append-only file again from
//! memory; then reads everything back. Nothing is announced before.

use std::time::Duration;

use redis_physical::{Contents, Info, KeyName, RedisError, RedisSession};

use super::plan::decide;
use super::{CachePlan, CacheRestoreError, KeyAction, LoadedCache};

type Result<T, E = CacheRestoreError> = std::result::Result<T, E>;

/// A key that changes each time we look has a writer, who is newer.
const ATTEMPTS: u32 = 20;
const REWRITE_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRestoreReport {
    pub written: usize,
    /// Of those that were to be written: something newer came first.
    pub kept: usize,
    /// Over the keys, values and moments that were loaded.
    pub digest: String,
    /// False: the cache has no append-only file.
    pub has_aof: bool,
}

pub fn apply(
    loaded: &LoadedCache,
    plan: &CachePlan,
    cache: &mut RedisSession,
    cancelled: &dyn Fn() -> bool,
) -> Result<CacheRestoreReport> {
    let mut files = loaded.session()?;
    let mut written = Vec::new();
    let mut kept = 0;
    for key in plan.writes() {
        if cancelled() {
            return Err(RedisError::Cancelled.into());
        }
        match write(loaded, &mut files, cache, key)? {
            true => written.push(key),
            false => kept += 1,
        }
    }
    let has_aof = rewrite(cache, written.len(), cancelled)?;
    read_back(loaded, cache, &written)?;
    Ok(CacheRestoreReport {
        written: written.len(),
        kept,
        digest: loaded.contents.digest(),
        has_aof,
    })
}

pub(super) fn now_millis(session: &mut RedisSession) -> Result<i64> {
    let (seconds, micros): (i64, i64) = session.ask(&["TIME"])?;
    Ok(seconds * 1000 + micros / 1000)
}

/// Decided again on what is there now, and written only if that is still there.
fn write(
    loaded: &LoadedCache,
    files: &mut RedisSession,
    cache: &mut RedisSession,
    key: &KeyName,
) -> Result<bool> {
    let Some(entry) = loaded.contents.entries.get(key) else {
        return Ok(false);
    };
    files.select(key.database)?;
    cache.select(key.database)?;
    let Some(value) = files.value(&key.name)? else {
        // It expired meanwhile.
        return Ok(false);
    };
    for _ in 0..ATTEMPTS {
        cache.ask_bytes::<()>(&[b"WATCH", &key.name])?;
        let there = cache.expires_at_millis(&key.name)?;
        // Its value is not compared again: an equal moment is no reason to write.
        let there = there.map(|millis| ((millis >= 0).then_some(millis), false));
        if !decide(entry, there, now_millis(cache)?).writes() {
            cache.ask::<()>(&["UNWATCH"])?;
            return Ok(false);
        }
        if cache.write_watched(&key.name, &value, entry.expires_at_millis)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is in memory becomes the whole of the append-only file, on disk. Whether there is one.
fn rewrite(cache: &mut RedisSession, written: usize, cancelled: &dyn Fn() -> bool) -> Result<bool> {
    if !cache.persistence()?.is("aof_enabled", "1") {
        return Ok(false);
    }
    let idle = |info: &Info| {
        info.is("aof_rewrite_in_progress", "0")
            && info.is("aof_rewrite_scheduled", "0")
            && info.is("rdb_bgsave_in_progress", "0")
    };
    loop {
        let before =
            cache.persistence_until("what it saves already", REWRITE_TIMEOUT, cancelled, idle)?;
        match cache.ask::<String>(&["BGREWRITEAOF"]) {
            Ok(_) => {}
            // One began between the two questions: it may be of before the last key.
            Err(RedisError::Refused { word, .. }) if word.contains("in progress") => continue,
            Err(error) => return Err(error.into()),
        }
        let after = cache.persistence_until("BGREWRITEAOF", REWRITE_TIMEOUT, cancelled, idle)?;
        let is_counted = match (before.number("aof_rewrites"), after.number("aof_rewrites")) {
            (Some(before), Some(after)) => after > before,
            _ => true,
        };
        return match is_counted && after.is("aof_last_bgrewrite_status", "ok") {
            true => Ok(true),
            false => Err(CacheRestoreError::NotRewritten {
                place: cache.place().to_owned(),
                written,
            }),
        };
    }
}

fn read_back(loaded: &LoadedCache, cache: &mut RedisSession, written: &[&KeyName]) -> Result<()> {
    let there = Contents::read(cache, &|| false)?;
    let now = now_millis(cache)?;
    let is_there = |key: &&&KeyName| {
        let Some(wanted) = loaded.contents.entries.get(**key) else {
            return true;
        };
        let found = there.entries.get(**key);
        match decide(
            wanted,
            found.map(|it| (it.expires_at_millis, it.digest == wanted.digest)),
            now,
        ) {
            KeyAction::Create | KeyAction::Replace => false,
            // One without a moment was written by us just now, or changed by somebody.
            KeyAction::Keep => found.is_some_and(|it| it.expires_at_millis.is_some()),
            KeyAction::Same | KeyAction::Expired => true,
        }
    };
    let missing = written.iter().filter(|key| !is_there(key)).count();
    match missing {
        0 => Ok(()),
        _ => Err(CacheRestoreError::ReadBack {
            place: cache.place().to_owned(),
            missing,
            written: written.len(),
        }),
    }
}
