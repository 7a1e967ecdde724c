//! Quotes read back, for the client they belong to.

use audit::Entry;
use tokio_postgres::{Client, Row};

use super::database::DatabaseError;
use super::quotes::QuoteEntry;
use super::writer::LogPosition;
use crate::domain::time::{micros, rfc3339};

/// A quote as it stands in the log.
#[derive(Debug)]
pub(crate) struct StoredQuote {
    pub(crate) recorded: LogPosition,
    pub(crate) recorded_at: String,
    pub(crate) quote: QuoteEntry,
}

const SELECT: &str = "SELECT a.log, a.epoch, a.position, a.recorded_at, a.canonical FROM quotes AS q \
                      JOIN audit_log AS a USING (log, epoch, position) WHERE q.client_id = $1 AND ";

pub(crate) async fn find_by_id(
    client: &Client,
    client_id: &str,
    quote_id: &str,
) -> Result<Option<StoredQuote>, DatabaseError> {
    let sql = format!("{SELECT} q.quote_id = $2::text::uuid");
    let row = client
        .query_opt(&sql, &[&client_id, &quote_id])
        .await
        .map_err(DatabaseError::query("reading a quote"))?;
    row.as_ref().map(read).transpose()
}

/// Those of one request, oldest first, and how many there are in all.
pub(crate) async fn find_by_request(
    client: &Client,
    client_id: &str,
    request_id: &str,
    skip: i64,
    limit: i64,
) -> Result<(Vec<StoredQuote>, i64), DatabaseError> {
    let failed = DatabaseError::query("reading quotes");
    let sql = format!("{SELECT} q.request_id = $2 ORDER BY a.position OFFSET $3 LIMIT $4");
    let rows = client
        .query(&sql, &[&client_id, &request_id, &skip, &limit])
        .await
        .map_err(&failed)?;
    let count = "SELECT count(*) FROM quotes WHERE client_id = $1 AND request_id = $2";
    let total = client
        .query_one(count, &[&client_id, &request_id])
        .await
        .map_err(&failed)?
        .get(0);
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

fn read(row: &Row) -> Result<StoredQuote, DatabaseError> {
    let damaged = |detail: String| DatabaseError::Query {
        what: "a recorded quote is damaged",
        detail,
    };
    let entry =
        Entry::parse(&audit::expand(row.get(4))).map_err(|error| damaged(error.to_string()))?;
    Ok(StoredQuote {
        recorded: LogPosition {
            log: row.get::<_, i16>(0).cast_unsigned(),
            epoch: row.get::<_, i32>(1).cast_unsigned(),
            position: row.get::<_, i64>(2).cast_unsigned(),
        },
        recorded_at: rfc3339(micros(row.get(3))),
        quote: QuoteEntry::read(&entry.fields).map_err(damaged)?,
    })
}
