//! Settings that changed while the services run: what took effect, what waits, and the audit entry that says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit::{Fields, Kind};
use serde::Serialize;

use crate::data::{AuditLog, Change};
use crate::domain::time::{now_micros, rfc3339};

/// What reading the settings again brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    reloaded_at: String,
    /// By name: old and new value.
    changed: BTreeMap<String, String>,
    /// Differs from what runs, and takes effect at the next start.
    needs_restart: Vec<String>,
}

impl ReloadReport {
    pub fn new(changed: BTreeMap<String, String>, needs_restart: Vec<String>) -> ReloadReport {
        ReloadReport {
            reloaded_at: rfc3339(now_micros()),
            changed,
            needs_restart,
        }
    }

    fn fields(&self, services: &str) -> Fields {
        let mut fields = Fields::new()
            .with("actor", "operator, by SIGHUP")
            .with("services", services);
        for (name, change) in &self.changed {
            fields.set(format!("changed.{}", field_name(name)), change);
        }
        if !self.needs_restart.is_empty() {
            fields.set("needs_restart", self.needs_restart.join(","));
        }
        fields
    }
}

/// An entry's field names have fewer characters than TOML's keys.
fn field_name(name: &str) -> String {
    name.chars()
        .map(|char| match char {
            'a'..='z' | '0'..='9' | '_' | '.' => char,
            'A'..='Z' => char.to_ascii_lowercase(),
            _ => '_',
        })
        .collect()
}

const RETRY_EVERY: Duration = Duration::from_secs(1);
const TRIES: u32 = 300;

/// The settings are in force already; their entry follows as soon as the record takes it. One whose outcome is unknown is
/// written again: twice is better than not at all.
pub(crate) async fn record(writer: Arc<dyn AuditLog>, report: Arc<ReloadReport>, services: String) {
    if report.changed.is_empty() {
        return;
    }
    for _ in 0..TRIES {
        let fields = report.fields(&services);
        match writer
            .entry(Kind::ConfigurationChanged, fields, Change::None)
            .await
        {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "the change of settings is not on record yet");
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
    }
    tracing::error!("the change of settings could not be put on record");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_becomes_fields_that_an_entry_takes() {
        let changed = BTreeMap::from([("limits.Odd-name".to_owned(), "1 -> 2".to_owned())]);
        let report = ReloadReport::new(changed, vec!["server.port".to_owned()]);
        let fields = report.fields("api-gateway");
        assert_eq!(fields.get("changed.limits.odd_name"), Some("1 -> 2"));
        assert_eq!(fields.get("needs_restart"), Some("server.port"));
    }
}
