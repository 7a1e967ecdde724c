//! Where a log's epochs begin, and when stretches of it were recorded: for whoever verifies a copy.

use audit::{Entry, Kind, expand};
use tokio_postgres::Row;

use super::database::DatabaseError;
use super::verifying::Verifying;
use super::writer::log_number;
use crate::domain::moment::Period;
use crate::domain::time::micros;

/// Epoch and timeline of every opening that can be read, in the order of positions.
pub async fn openings(database: &str, log: u16) -> Result<Vec<(u32, u32)>, DatabaseError> {
    let entries = opening_entries(database, log).await?;
    let opening = |entry: &Entry| Some((entry.epoch, entry.fields.get("timeline")?.parse().ok()?));
    Ok(entries.iter().filter_map(opening).collect())
}

/// Epoch and position of the last opening at that place or behind it that says to be signed by that key.
pub async fn opened_with(
    database: &str,
    log: u16,
    key_id: &str,
    from: (u32, u64),
) -> Result<Option<(u32, u64)>, DatabaseError> {
    let entries = opening_entries(database, log).await?;
    let of_key = entries
        .iter()
        .filter(|entry| entry.fields.get("key_id") == Some(key_id))
        .map(|entry| (entry.epoch, entry.position));
    Ok(of_key.filter(|place| *place >= from).max())
}

async fn opening_entries(database: &str, log: u16) -> Result<Vec<Entry>, DatabaseError> {
    let failed = DatabaseError::query("reading where the epochs begin");
    let session = Verifying::begin(database).await?;
    let sql = format!(
        "SELECT canonical FROM {} WHERE log = $1 AND kind = $2 ORDER BY position",
        session.table("audit_log")
    );
    let kind = i16::from(Kind::EpochOpened.number());
    let rows = session
        .client()
        .query(&sql, &[&log_number(log), &kind])
        .await
        .map_err(&failed)?;
    let bytes = |row: &Row| row.try_get::<_, Vec<u8>>(0);
    let openings: Result<Vec<Vec<u8>>, _> = rows.iter().map(bytes).collect();
    let entry = |bytes: &Vec<u8>| Entry::parse(&expand(bytes)).ok();
    let openings = openings.map_err(&failed)?;
    Ok(openings.iter().filter_map(entry).collect())
}

/// When the entries of each stretch, from one position up to and with another, were recorded.
pub async fn periods(
    database: &str,
    log: u16,
    stretches: &[(u64, u64)],
) -> Result<Vec<Period>, DatabaseError> {
    let failed = DatabaseError::query("reading when entries were recorded");
    let session = Verifying::begin(database).await?;
    let sql = format!(
        "SELECT min(recorded_at), max(recorded_at) FROM {} WHERE log = $1 AND position BETWEEN $2 AND $3",
        session.table("audit_log")
    );
    let mut periods = Vec::new();
    for (from, to) in stretches {
        let row = session
            .client()
            .query_one(
                &sql,
                &[&log_number(log), &from.cast_signed(), &to.cast_signed()],
            )
            .await
            .map_err(&failed)?;
        let at = |index: usize| Ok(row.try_get::<_, Option<_>>(index)?.map(micros));
        periods.push(Period {
            from_micros: at(0).map_err(&failed)?,
            to_micros: at(1).map_err(&failed)?,
        });
    }
    Ok(periods)
}
