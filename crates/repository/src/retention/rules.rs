//! How long what is kept: the guide's table as data.

use serde::Serialize;

pub const HOUR_MICROS: i64 = 3_600_000_000;
pub const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// Older than anything is.
pub(super) const FOREVER_MICROS: i64 = i64::MAX / 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rules {
    pub full_micros: i64,
    pub incremental_micros: i64,
    /// The window in which every moment can be restored.
    pub wal_micros: i64,
    /// Of schema dumps; the repository has no objects of theirs yet.
    pub schema_micros: i64,
    /// Of snapshots of all components: what was in force at any moment of it can be restored.
    pub snapshot_micros: i64,
    /// Of snapshots of the component `cache`: they shorten a recovery, and age within hours.
    pub cache_micros: i64,
    /// Of snapshots of the component `secrets`: what was replaced for a reason does not stay for long.
    pub secrets_micros: i64,
    /// Between tombstone and sweep. Longer than any backup takes.
    pub grace_micros: i64,
    /// WAL that nothing needs goes without a mark and without a grace: for a repository that is full. Packs and wraps keep theirs,
    /// a backup that runs may refer to them.
    pub wal_at_once: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            full_micros: 30 * DAY_MICROS,
            incremental_micros: 7 * DAY_MICROS,
            wal_micros: 7 * DAY_MICROS,
            schema_micros: 90 * DAY_MICROS,
            snapshot_micros: 90 * DAY_MICROS,
            cache_micros: DAY_MICROS,
            secrets_micros: 30 * DAY_MICROS,
            grace_micros: DAY_MICROS,
            wal_at_once: false,
        }
    }
}

impl Rules {
    /// How long snapshots of a component stay.
    pub(super) fn snapshot_limit_micros(&self, component: &str) -> i64 {
        match component {
            "cache" => self.cache_micros,
            "secrets" => self.secrets_micros,
            // The guide keeps them without an end.
            of if of.starts_with("terraform_") => FOREVER_MICROS,
            _ => self.snapshot_micros,
        }
    }
}

/// `7 days`, `36 hours`.
pub(super) fn span_text(micros: i64) -> String {
    match micros {
        _ if micros >= 2 * DAY_MICROS && micros % DAY_MICROS == 0 => {
            format!("{} days", micros / DAY_MICROS)
        }
        _ => format!("{} hours", micros / HOUR_MICROS),
    }
}
