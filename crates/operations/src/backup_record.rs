//! A finished backup, in the audit log and in the log of the process that took it.

use host::record::Event;

/// A finished backup, as the record shows it.
pub fn event(event: Event, outcome: &backup::database::BackupOutcome) -> Event {
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
pub fn note(outcome: &backup::database::BackupOutcome) {
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
