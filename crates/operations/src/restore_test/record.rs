//! What is kept of a proof: an object beside the backup's manifest, and an entry of the audit log that repeats it.

use std::time::Duration;

use assurance::verification::{Check, Verdict};
use host::{person::machine, record::Event};
use repository::{
    Repository,
    backup::{BackupSummary, RestoreTestRecord, put_restore_test},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;

/// Fields of the JSON record in the repository; `docs/formats/repository.md` lists them.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreTestReport {
    pub backup_id: String,
    pub proved_at_micros: i64,
    pub passed: bool,
    pub engine: &'static str,
    pub host: String,
    pub millis: u64,
    pub checks: Vec<Check>,
}

impl RestoreTestReport {
    pub(super) fn begin(backup: &BackupSummary) -> Self {
        Self {
            backup_id: backup.id.clone(),
            proved_at_micros: 0,
            passed: false,
            engine: env!("CARGO_PKG_VERSION"),
            host: machine(),
            millis: 0,
            checks: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, check: Check) {
        if check.verdict == Verdict::Failed {
            tracing::error!(backup = %self.backup_id, check = %check.name, why = check.why.as_deref().unwrap_or_default(), "the restore proof found something");
        }
        for warning in &check.warnings {
            tracing::warn!(backup = %self.backup_id, check = %check.name, warning, "seen in the restored copy");
        }
        self.checks.push(check);
    }

    pub(super) fn extend(&mut self, checks: Vec<Check>) {
        checks.into_iter().for_each(|check| self.add(check));
    }

    /// It passed when nothing failed and it came to the end: what the cluster has not got (checksums, the engine's tables) is skipped
    /// by name and fails nobody.
    pub(super) fn end(&mut self, took: Duration) {
        let came_up = self.checks.iter().any(|check| check.name == "connectivity");
        let failed = self
            .checks
            .iter()
            .any(|check| check.verdict == Verdict::Failed);
        self.passed = came_up && !failed;
        self.millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.proved_at_micros = jiff::Timestamp::now().as_microsecond();
    }

    /// The names of what failed, with the reason of the first.
    pub fn failure(&self) -> Option<String> {
        let mut failed = self
            .checks
            .iter()
            .filter(|check| check.verdict == Verdict::Failed);
        let first = failed.next()?;
        let more = failed.count();
        let why = first.why.as_deref().unwrap_or_default();
        let rest = if more > 0 {
            format!(" (and {more} more)")
        } else {
            String::new()
        };
        Some(format!("{}: {why}{rest}", first.name))
    }

    /// Puts it beside the backup; its name and its bytes.
    pub fn store(&self, repository: &Repository) -> Result<(String, Vec<u8>), Error> {
        Ok(put_restore_test(
            repository,
            &self.backup_id,
            &proof_of(self),
        )?)
    }

    /// Databases about which this record says nothing.
    pub fn not_looked_at(&self) -> usize {
        let check = self.checks.iter().find(|check| check.name == "databases");
        check.map_or(0, |check| check.warnings.len())
    }
}

fn proof_of(record: &RestoreTestReport) -> RestoreTestRecord {
    let mut details = match serde_json::to_value(record) {
        Ok(Value::Object(details)) => details,
        _ => serde_json::Map::new(),
    };
    // Those two are the record's own.
    details.remove("proved_at_micros");
    details.remove("passed");
    details.insert("proof_version".to_owned(), json!(1));
    RestoreTestRecord {
        proved_at_micros: record.proved_at_micros,
        passed: record.passed,
        details,
    }
}

const RECORD_BYTES_MAX: usize = 48 * 1024;

/// The entry repeats the record, so that the log's signed heads vouch for it: whoever changes the object later is found out.
pub fn event(
    event: Event,
    record: &RestoreTestReport,
    (object, bytes): &(String, Vec<u8>),
) -> Event {
    // An entry has its limits; a record beyond them is named, and its length.
    let repeated = match bytes.len() {
        0..=RECORD_BYTES_MAX => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    event
        .with("backup_id", &record.backup_id)
        .with("kind", "proof")
        .with("state", if record.passed { "passed" } else { "failed" })
        .with("bytes", bytes.len())
        .with("object", object)
        .with("record", repeated)
}
