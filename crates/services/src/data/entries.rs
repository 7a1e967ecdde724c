//! Audit entries read back, for the client they are about.

use audit::{Entry, Hash};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::database::DatabaseError;
use crate::domain::time::system_time;

/// An entry as it stands in the log, with the hash that stands beside it.
#[derive(Debug)]
pub(crate) struct StoredEntry {
    pub(crate) entry: Entry,
    pub(crate) hash: Hash,
    pub(crate) canonical: Vec<u8>,
}

/// Which of a client's entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct EntryFilter {
    pub(crate) client_id: String,
    pub(crate) ticker: Option<String>,
    /// Recorded at or after.
    pub(crate) from_micros: Option<i64>,
    /// Recorded before.
    pub(crate) to_micros: Option<i64>,
}

/// How an entry is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryId {
    Place {
        log: i16,
        epoch: i32,
        position: i64,
    },
    /// The quote it records.
    Quote(String),
}

const SELECT: &str = "SELECT canonical, hash FROM audit_log WHERE client_id = $1 AND ";

/// Entries are counted up to here: counting millions would take longer than anybody waits.
pub(crate) const COUNTED_MAX: i64 = 10_000;

/// A page of entries.
#[derive(Debug)]
pub(crate) struct FoundEntries {
    /// Newest first.
    pub(crate) entries: Vec<StoredEntry>,
    /// In all, or [`COUNTED_MAX`] where there are more.
    pub(crate) counted: i64,
    pub(crate) has_more: bool,
}

pub(crate) async fn find_entries(
    client: &Client,
    filter: &EntryFilter,
    offset: i64,
    rows: i64,
) -> Result<FoundEntries, DatabaseError> {
    let failed = DatabaseError::query("reading audit entries");
    let from = filter.from_micros.map(system_time);
    let to = filter.to_micros.map(system_time);
    let what = "($2::text IS NULL OR ticker = $2) AND ($3::timestamptz IS NULL OR recorded_at >= $3) AND ($4::timestamptz IS NULL OR recorded_at < $4)";
    let parameters: [&(dyn ToSql + Sync); 4] = [&filter.client_id, &filter.ticker, &from, &to];
    // One more than is wanted tells whether there is more.
    let sql = format!(
        "{SELECT}{what} ORDER BY recorded_at DESC, log, epoch DESC, position DESC OFFSET {offset} LIMIT {}",
        rows.saturating_add(1)
    );
    let mut found = client.query(&sql, &parameters).await.map_err(&failed)?;
    let wanted = usize::try_from(rows).unwrap_or(usize::MAX);
    let has_more = found.len() > wanted;
    found.truncate(wanted);
    let sql = format!(
        "SELECT count(*) FROM (SELECT FROM audit_log WHERE client_id = $1 AND {what} LIMIT {COUNTED_MAX}) AS counted"
    );
    let counted = client
        .query_one(&sql, &parameters)
        .await
        .map_err(&failed)?
        .get(0);
    let entries = found.iter().map(read).collect::<Result<_, _>>()?;
    Ok(FoundEntries {
        entries,
        counted,
        has_more,
    })
}

pub(crate) async fn find_entry(
    client: &Client,
    client_id: &str,
    id: &EntryId,
) -> Result<Option<StoredEntry>, DatabaseError> {
    let failed = DatabaseError::query("reading an audit entry");
    let row = match id {
        EntryId::Place {
            log,
            epoch,
            position,
        } => {
            let sql = format!("{SELECT}(log, epoch, position) = ($2, $3, $4)");
            client
                .query_opt(&sql, &[&client_id, log, epoch, position])
                .await
        }
        EntryId::Quote(quote_id) => {
            let sql = format!(
                "{SELECT}(log, epoch, position) = (SELECT log, epoch, position FROM quotes WHERE quote_id = $2::text::uuid)"
            );
            client.query_opt(&sql, &[&client_id, quote_id]).await
        }
    };
    row.map_err(&failed)?.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<StoredEntry, DatabaseError> {
    let damaged = |detail: String| DatabaseError::Query {
        what: "an audit entry is damaged",
        detail,
    };
    let canonical = audit::expand(row.get(0)).into_owned();
    let entry = Entry::parse(&canonical).map_err(|error| damaged(error.to_string()))?;
    let hash = <[u8; 32]>::try_from(row.get::<_, &[u8]>(1))
        .map(Hash::from_bytes)
        .map_err(|_| damaged("its hash has not 32 bytes".to_owned()))?;
    Ok(StoredEntry {
        entry,
        hash,
        canonical,
    })
}
