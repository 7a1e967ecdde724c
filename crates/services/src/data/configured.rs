//! What the log says of one setting, for a command that compares it with something else.

use audit::{Entry, Kind, expand};

use super::database::DatabaseError;
use super::verifying::Verifying;
use super::writer::log_number;

/// A ConfigurationChanged entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationChange {
    pub epoch: u32,
    pub position: u64,
    pub after: String,
}

/// The changes of that name, in the order of their positions. Reads the kind of every entry.
pub async fn configuration_changes(
    database: &str,
    log: u16,
    name: &str,
) -> Result<Vec<ConfigurationChange>, DatabaseError> {
    let failed = DatabaseError::query("reading changes of settings");
    let session = Verifying::begin(database).await?;
    let kind = i16::from(Kind::ConfigurationChanged.number());
    let sql = format!(
        "SELECT canonical FROM {} WHERE log = $1 AND kind = $2 ORDER BY position",
        session.table("audit_log")
    );
    let rows = session
        .client()
        .query(&sql, &[&log_number(log), &kind])
        .await
        .map_err(failed)?;
    let change = |row: &tokio_postgres::Row| {
        // What cannot be read is the verification's to tell.
        let bytes: Vec<u8> = row.try_get(0).ok()?;
        let entry = Entry::parse(&expand(&bytes)).ok()?;
        let after = entry.fields.get("after")?.to_owned();
        (entry.fields.get("name") == Some(name)).then_some(ConfigurationChange {
            epoch: entry.epoch,
            position: entry.position,
            after,
        })
    };
    Ok(rows.iter().filter_map(change).collect())
}
