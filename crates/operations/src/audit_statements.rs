//! What the log records about its signing keys against what the repository publishes of them: a revocation that
//! somebody took away would make a stolen key good again.

use std::collections::BTreeSet;

use audit::{BadEntry, Entry, Kind, Report};
use host::log::{LOG, log_name};
use repository::Repository;

use crate::{audit_outside::Outside, error::Error};

/// As the entries name it (docs/formats/audit_transparency.md §6).
pub const NAME: &str = "audit_signing_key";

/// What a road that asks a database compares beside the entries: each statement that the log records, and what the
/// archive says of its end.
pub async fn judge(
    database: &str,
    repository: &Repository,
    outside: &Outside,
    report: &mut Report,
) -> Result<(), Error> {
    let mut found = None;
    if report.is_sound() {
        found = taken_away(database, repository).await?;
    }
    if report.is_sound() && found.is_none() {
        found = outside.contradiction(database).await?;
    }
    if let Some((bad, reason)) = found {
        report.first_bad = Some(bad);
        report.reason = Some(reason);
    }
    Ok(())
}

/// The first entry whose statement the repository has not got, and in words.
async fn taken_away(
    database: &str,
    repository: &Repository,
) -> Result<Option<(BadEntry, String)>, Error> {
    let recorded = services::configuration_changes(database, LOG, NAME).await?;
    if recorded.is_empty() {
        return Ok(None);
    }
    let published = PublishedStatements::read(repository)?;
    let missing = recorded
        .into_iter()
        .find(|change| !published.has(&change.after));
    Ok(missing
        .map(|change| PublishedStatements::lacks(change.epoch, change.position, &change.after)))
}

/// The statements that the repository holds, for a road that meets the entries one by one.
#[derive(Debug)]
pub struct PublishedStatements(BTreeSet<Vec<u8>>);

impl PublishedStatements {
    pub fn read(repository: &Repository) -> Result<Self, Error> {
        let all = repository::transparency::key_statements(repository, &log_name())?;
        Ok(Self(all.into_iter().collect()))
    }

    fn has(&self, statement: &str) -> bool {
        self.0.contains(statement.as_bytes())
    }

    /// What is wrong with an entry that records a statement.
    pub fn fault_of(&self, entry: &Entry) -> Option<(BadEntry, String)> {
        let is_one =
            entry.kind == Kind::ConfigurationChanged && entry.fields.get("name") == Some(NAME);
        let statement = entry.fields.get("after").filter(|_| is_one)?;
        (!self.has(statement)).then(|| Self::lacks(entry.epoch, entry.position, statement))
    }

    fn lacks(epoch: u32, position: u64, statement: &str) -> (BadEntry, String) {
        let said = statement.lines().next().unwrap_or_default();
        let bad = BadEntry {
            epoch: i64::from(epoch),
            position: i64::try_from(position).unwrap_or(i64::MAX),
        };
        let reason = format!(
            "it records a statement about a signing key ({said}) that is not below signing-keys/ in the repository: \
             somebody took it away"
        );
        (bad, reason)
    }
}
