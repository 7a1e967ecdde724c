//! Object lock: what a store refuses to delete before a day, whoever asks.

use std::str::FromStr;

const DAY_MICROS: i64 = 86_400_000_000;
/// Seven years, with their leap days.
const ARCHIVE_DAYS: u16 = 7 * 365 + 2;
/// Two years, with a leap day.
const SYSTEM_LOG_DAYS: u16 = 2 * 365 + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody shortens it, not even the owner of the account.
    Compliance,
    /// Those with a permission of their own may lift it; the engine never does.
    Governance,
}

impl FromStr for LockMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "compliance" => Ok(Self::Compliance),
            "governance" => Ok(Self::Governance),
            _ => Err(format!("{text:?}: compliance and governance are the modes")),
        }
    }
}

/// How long objects are locked from the day on which they are written, or referred to again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockPolicy {
    pub mode: LockMode,
    pub days: u16,
}

impl LockPolicy {
    #[must_use]
    pub fn until(self, now_micros: i64) -> i64 {
        now_micros + i64::from(self.days) * DAY_MICROS
    }

    /// The lock of a new object; none where it is not covered. The audit archive is kept for seven years at least, whatever is said of backups.
    #[must_use]
    pub fn of(self, name: &str) -> Option<Self> {
        if name.starts_with("audit/") {
            let days = self.days.max(ARCHIVE_DAYS);
            return Some(Self { days, ..self });
        }
        // Logs are an auditor's: for as long as their kind says, and no permission lifts it.
        if let Some(days) = Self::days_of_log(name) {
            let mode = LockMode::Compliance;
            return Some(Self { mode, days });
        }
        Self::covers(name).then_some(self)
    }

    /// For how long logs of this kind are locked and kept, by `logs/<kind>/…`; a kind that is not known here as the
    /// longest.
    #[must_use]
    pub fn days_of_log(name: &str) -> Option<u16> {
        let kind = name.strip_prefix("logs/")?.split('/').next();
        Some(match kind {
            Some("system") => SYSTEM_LOG_DAYS,
            _ => ARCHIVE_DAYS,
        })
    }

    /// Data is locked: packs, manifests of backups and snapshots, whole WAL segments, the audit archive with its
    /// wraps, logs. What is replaced soon (tails, wraps) or says what may go (tombstones, probes) is not.
    #[must_use]
    pub fn covers(name: &str) -> bool {
        name.starts_with("packs/")
            || name.starts_with("wal/")
            || name.starts_with("audit/")
            || name.starts_with("logs/")
            || ((name.starts_with("backups/") || name.starts_with("snapshots/"))
                && name.ends_with("/manifest"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    pub until_micros: Option<i64>,
    pub hold: bool,
    /// Of its date.
    pub mode: Option<LockMode>,
}

impl Lock {
    /// None where it stands against nothing any more.
    #[must_use]
    pub fn at(self, now_micros: i64) -> Option<Self> {
        let until_micros = self.until_micros.filter(|until| *until > now_micros);
        (self.hold || until_micros.is_some()).then_some(Self {
            until_micros,
            hold: self.hold,
            mode: self.mode,
        })
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let until = self
            .until_micros
            .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        match (until, self.hold) {
            (Some(until), false) => write!(f, "locked until {until:.0}"),
            (Some(until), true) => write!(f, "on legal hold, and locked until {until:.0}"),
            (None, _) => write!(f, "on legal hold"),
        }
    }
}
