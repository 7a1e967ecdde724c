//! What the command line and the supervisor put on record: backups, restores, settings. Quotes, keys and feeds record themselves.

use serde_json::{Value, json};

use crate::{
    error::Error,
    host::{control::Control, instance::Instance, person::who},
};

/// An event for the audit log, with who made it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    kind: &'static str,
    fields: serde_json::Map<String, Value>,
}

impl Event {
    /// By a person at the command line.
    pub(crate) fn by_person(kind: &'static str) -> Self {
        Self::new(kind, &who())
    }

    /// By the engine itself.
    pub(crate) fn by_engine(kind: &'static str) -> Self {
        Self::new(kind, "engine")
    }

    /// By a person who asked the engine for it.
    pub(crate) fn by(kind: &'static str, person: &str) -> Self {
        Self::new(kind, person)
    }

    fn new(kind: &'static str, actor: &str) -> Self {
        let mut event = Self {
            kind,
            fields: serde_json::Map::new(),
        };
        event.fields.insert("actor".into(), json!(actor));
        event
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.insert(name.into(), json!(value.to_string()));
        self
    }

    /// Returns when it is durable.
    pub(crate) async fn record(&self, instance: &Instance) -> Result<(), Error> {
        let body = json!({ "kind": self.kind, "fields": self.fields });
        let _: Value = Control::to(instance)?
            .post("/internal/audit/entries", &body)
            .await?;
        Ok(())
    }
}

/// A finished backup, as the record shows it.
pub(crate) fn backup(event: Event, outcome: &backup::database::BackupOutcome) -> Event {
    let state = serde_json::to_value(outcome.state).unwrap_or_default();
    let kind = serde_json::to_value(outcome.kind).unwrap_or_default();
    event
        .with("backup_id", &outcome.id)
        .with("kind", kind.as_str().unwrap_or_default())
        .with("state", state.as_str().unwrap_or_default())
        .with("bytes", outcome.bytes_source)
        .with("damaged_pages", outcome.damaged.len())
}

/// Into the log of whoever took it.
pub(crate) fn note_backup(outcome: &backup::database::BackupOutcome) {
    if !outcome.damaged.is_empty() {
        tracing::error!(
            backup = %outcome.id,
            pages = outcome.damaged.len(),
            "the source has damaged pages; see: bre backup show"
        );
    }
    tracing::info!(
        backup = %outcome.id,
        kind = ?outcome.kind,
        state = ?outcome.state,
        bytes = outcome.bytes_source,
        "backup"
    );
}
