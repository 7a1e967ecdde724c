//! What the services are told of their surroundings: who keeps signed heads, how the WAL stream does, that the
//! database was restored.

use std::fmt;

use super::known_log::{Claim, KnownLog};

/// Keeps signed heads outside the database.
pub trait HeadPublisher: Send + Sync + fmt::Debug {
    /// The WAL position up to which the repository holds everything.
    fn durable_lsn(&self) -> Option<u64>;
    /// Called from a thread of its own; may take as long as a store takes. So are all that follow.
    fn publish(&self, head: &audit::SignedHead) -> Result<(), String>;

    /// What is known outside the database. Asked for once, when the services start.
    fn known(&self) -> KnownLog {
        KnownLog::default()
    }
    /// Whose signatures count, as it is said now. `None`: what was said at the start holds.
    fn trusted(&self) -> Result<Option<Vec<audit::VerifyingKey>>, String> {
        Ok(None)
    }
    /// From here on no other epoch has this number, whatever becomes of this one. Durable when it returns.
    fn claim(&self, _: &Claim) -> Result<(), String> {
        Ok(())
    }
    /// What has disappeared since it was published, in words. `known`: heads that openings name as missing.
    fn look(&self, _known: &[audit::HeadRange]) -> Result<Option<String>, String> {
        Ok(None)
    }
    /// Heads that should be there and are not. `whole`: all of them are looked at; otherwise the one that the anchor
    /// names.
    fn missing(&self, _whole: bool) -> Result<Vec<audit::HeadRange>, String> {
        Ok(Vec::new())
    }
    /// Writes down what was found damaged, or that a person has looked at it: it holds across starts.
    fn note_damage(&self, _: Option<&str>) -> Result<(), String> {
        Ok(())
    }
    /// Keeps the end of a log that is damaged beside that note. It is not published, and vouches for nothing.
    fn note_end(&self, _: &audit::SignedHead) -> Result<(), String> {
        Ok(())
    }
    /// Lets go of old heads (audit_log.md §5). `named`: epochs and sizes that openings name.
    fn thin(&self, _named: &[(u32, u64)]) -> Result<(), String> {
        Ok(())
    }
}

/// What the WAL stream is doing, asked for at every locate: answer from memory.
pub trait StreamHealth: Send + Sync + fmt::Debug {
    fn report(&self) -> StreamReport;

    /// Of each job of the plan, for metrics.
    fn jobs(&self) -> Vec<JobReport> {
        Vec::new()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StreamReport {
    pub attached: bool,
    /// PostgreSQL waits for this stream at every commit.
    pub strict: bool,
    pub durable_lsn: Option<u64>,
    /// Thousandths of `max_slot_wal_keep_size` in use.
    pub slot_fill_permille: Option<u32>,
    /// When the newest complete backup ended.
    #[serde(default)]
    pub last_backup_at_micros: Option<i64>,
    /// When a backup was last restored and proved.
    #[serde(default)]
    pub last_proof_at_micros: Option<i64>,
    /// The newest restore proof failed.
    #[serde(default)]
    pub proof_failed: bool,
    /// Something to do in time, while nothing is wrong yet.
    #[serde(default)]
    pub warning: Option<String>,
    /// Something an operator should look at; shown in health and status.
    pub alarm: Option<String>,
    /// Set: locates are refused, and why (strict mode with the slot full, for one).
    pub refuse_locates: Option<String>,
}

/// What the records of one job's runs say; nothing of it is remembered, so a job that is gone leaves nothing behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JobReport {
    pub name: String,
    /// The named cluster whose job it is; of the instance's own plan when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    pub component: String,
    /// When the newest run that succeeded ended; none before the first.
    pub last_success_micros: Option<i64>,
    /// From one appointment to the next; none where it follows another job or runs when asked.
    pub expected_seconds: Option<u64>,
    /// Of the last 30 days.
    pub runs: u64,
    pub succeeded: u64,
    pub duration_median_micros: Option<i64>,
    pub running: bool,
    pub paused: bool,
    /// The newest run failed, and nothing has succeeded since.
    pub failing: bool,
}

/// The database was restored from the repository: what the new epoch's first entry will say.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecoveryFact {
    pub restore_id: String,
    /// The timeline that the restore opened.
    pub timeline: u32,
    /// Where it ended: a WAL position on the old timeline.
    pub target_lsn: u64,
}
