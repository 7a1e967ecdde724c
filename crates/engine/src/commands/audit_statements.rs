//! What the log records about its signing keys against what the repository publishes of them: a revocation that somebody took away would
//! make a stolen key good again.

use std::collections::BTreeSet;

use audit::BadEntry;
use repository::Repository;

use crate::{
    error::Error,
    host::log::{LOG, log_name},
};

/// As the entries name it (docs/formats/audit_transparency.md §6).
pub(super) const NAME: &str = "audit_signing_key";

/// The first entry whose statement the repository has not got, and in words.
pub(super) async fn taken_away(
    database: &str,
    repository: &Repository,
) -> Result<Option<(BadEntry, String)>, Error> {
    let recorded = services::configuration_changes(database, LOG, NAME).await?;
    if recorded.is_empty() {
        return Ok(None);
    }
    let published: BTreeSet<Vec<u8>> =
        repository::transparency::key_statements(repository, &log_name())?
            .into_iter()
            .collect();
    let missing = recorded
        .into_iter()
        .find(|change| !published.contains(change.after.as_bytes()));
    Ok(missing.map(|change| {
        let said = change.after.lines().next().unwrap_or_default().to_owned();
        let bad = BadEntry {
            epoch: i64::from(change.epoch),
            position: i64::try_from(change.position).unwrap_or(i64::MAX),
        };
        let reason = format!(
            "it records a statement about a signing key ({said}) that is not below signing-keys/ in the repository: somebody took it away"
        );
        (bad, reason)
    }))
}
