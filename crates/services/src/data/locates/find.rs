//! Locates read back, for the client they belong to.

use jiff::civil::Date;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::locate_state::{DecisionContext, LocateState, steps};
use super::record::Figure;
use super::request::StoredLocate;
use super::states::Reason;
use crate::data::database::DatabaseError;
use crate::domain::time::system_time;

/// Which of a client's locates, by what they are now.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocateFilter {
    pub(crate) client_id: String,
    pub(crate) status: Option<&'static str>,
    pub(crate) ticker: Option<String>,
    pub(crate) trade_date: Option<String>,
    /// Of any of its steps.
    pub(crate) request_id: Option<String>,
}

/// From each locate's first step to its newest, however many orders lie between.
const NEWEST: &str = "FROM locates AS f CROSS JOIN LATERAL \
       (SELECT * FROM locates WHERE locate_id = f.locate_id ORDER BY sequence DESC LIMIT 1) AS l \
     WHERE f.client_id = $1 AND f.sequence = 1 \
     AND ($2::text IS NULL OR l.status = $2) AND ($3::text IS NULL OR l.ticker = $3) \
     AND ($4::text IS NULL OR l.trade_date = $4::text::date) \
     AND ($5::text IS NULL OR l.locate_id IN (SELECT r.locate_id FROM locates AS r WHERE r.client_id = $1 AND r.request_id = $5))";

/// Newest first, each as it is now, and how many there are in all.
pub(crate) async fn find_locates(
    client: &Client,
    filter: &LocateFilter,
    offset: i64,
    rows: i64,
) -> Result<(Vec<StoredLocate>, i64), DatabaseError> {
    let failed = DatabaseError::query("reading locates");
    let parameters: [&(dyn ToSql + Sync); 5] = [
        &filter.client_id,
        &filter.status,
        &filter.ticker,
        &filter.trade_date,
        &filter.request_id,
    ];
    let sql = format!(
        "SELECT a.log, a.epoch, a.position, a.recorded_at, a.canonical FROM (SELECT l.* {NEWEST} \
         ORDER BY l.recorded_at DESC, l.locate_id OFFSET {offset} LIMIT {rows}) AS l \
         JOIN audit_log AS a USING (log, epoch, position) ORDER BY l.recorded_at DESC, l.locate_id"
    );
    let found = client.query(&sql, &parameters).await.map_err(&failed)?;
    let total = client
        .query_one(&format!("SELECT count(*) {NEWEST}"), &parameters)
        .await
        .map_err(&failed)?
        .get(0);
    Ok((steps(found).collect(), total))
}

/// What was made of the request that a client called by that key.
pub(crate) async fn made_for(
    client: &Client,
    client_id: &str,
    key: &str,
) -> Result<Option<StoredLocate>, DatabaseError> {
    let sql = "SELECT a.log, a.epoch, a.position, a.recorded_at, a.canonical FROM locates AS l \
               JOIN audit_log AS a USING (log, epoch, position) WHERE l.client_id = $1 AND l.idempotency_key = $2";
    let rows = client
        .query(sql, &[&client_id, &key])
        .await
        .map_err(DatabaseError::query(
            "reading a locate by its idempotency key",
        ))?;
    Ok(steps(rows).next())
}

/// The figure in force or why there is none, and the shares that are granted of it on that trade date.
pub(crate) async fn available(
    client: &Client,
    ticker: &str,
    trade_date: Date,
    terms: &DecisionContext<'_>,
) -> Result<(Result<Figure, Reason>, i64), DatabaseError> {
    let state = LocateState::look(client, ticker, terms)
        .await
        .map_err(DatabaseError::query("reading what is available"))?;
    let figure = state.figure(ticker).cloned();
    Ok((figure, state.outstanding(ticker, trade_date)))
}

/// What a client may sell short of a ticker, what its orders hold, what they sold: of all its locates in force together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UseTotals {
    pub(crate) ticker: String,
    pub(crate) locates: i64,
    pub(crate) held: i64,
    pub(crate) reserved: i64,
    pub(crate) used: i64,
}

/// By ticker, in alphabetical order; of one alone where it is named.
pub(crate) async fn use_totals(
    client: &Client,
    client_id: &str,
    ticker: Option<&str>,
    now_micros: i64,
) -> Result<Vec<UseTotals>, DatabaseError> {
    let sql = "SELECT l.ticker, count(*), sum(l.granted - l.returned)::bigint, sum(l.reserved)::bigint, sum(l.used)::bigint \
               FROM locates AS o CROSS JOIN LATERAL \
                 (SELECT * FROM locates WHERE locate_id = o.locate_id ORDER BY sequence DESC LIMIT 1) AS l \
               WHERE o.client_id = $1 AND o.status = 'filled' AND o.order_id IS NULL AND o.expires_at > $2 \
                 AND ($3::text IS NULL OR o.ticker = $3) AND l.status = 'filled' \
                 AND NOT EXISTS (SELECT FROM locates AS n WHERE n.locate_id = o.locate_id AND n.sequence > o.sequence AND n.order_id IS NULL) \
               GROUP BY l.ticker ORDER BY l.ticker";
    let rows = client
        .query(sql, &[&client_id, &system_time(now_micros), &ticker])
        .await
        .map_err(DatabaseError::query("reading what orders have used"))?;
    let totals = |row: &tokio_postgres::Row| UseTotals {
        ticker: row.get(0),
        locates: row.get(1),
        held: row.get(2),
        reserved: row.get(3),
        used: row.get(4),
    };
    Ok(rows.iter().map(totals).collect())
}

/// What orders did with a locate's shares, the newest first, and how many there are in all.
pub(crate) async fn find_uses(
    client: &Client,
    locate_id: Uuid,
    order_id: Option<&str>,
    offset: i64,
    rows: i64,
) -> Result<(Vec<StoredLocate>, i64), DatabaseError> {
    const WHICH: &str = "FROM locates AS l WHERE l.locate_id = $1::text::uuid AND l.order_id IS NOT NULL AND ($2::text IS NULL OR l.order_id = $2)";
    let failed = DatabaseError::query("reading the uses of a locate");
    let parameters: [&(dyn ToSql + Sync); 2] = [&locate_id.to_string(), &order_id];
    let sql = format!(
        "SELECT a.log, a.epoch, a.position, a.recorded_at, a.canonical FROM (SELECT l.* {WHICH} \
         ORDER BY l.sequence DESC OFFSET {offset} LIMIT {rows}) AS l \
         JOIN audit_log AS a USING (log, epoch, position) ORDER BY l.sequence DESC"
    );
    let found = client.query(&sql, &parameters).await.map_err(&failed)?;
    let total = client
        .query_one(&format!("SELECT count(*) {WHICH}"), &parameters)
        .await
        .map_err(&failed)?
        .get(0);
    Ok((steps(found).collect(), total))
}

/// The steps of one locate that no order made, the first one first, and the newest of all; none when it is somebody else's.
pub(crate) async fn steps_of(
    client: &Client,
    client_id: &str,
    locate_id: Uuid,
) -> Result<Vec<StoredLocate>, DatabaseError> {
    let sql = "SELECT a.log, a.epoch, a.position, a.recorded_at, a.canonical FROM locates AS l \
               JOIN audit_log AS a USING (log, epoch, position) \
               WHERE l.locate_id = $1::text::uuid AND l.client_id = $2 \
                 AND (l.order_id IS NULL OR l.sequence = (SELECT max(n.sequence) FROM locates AS n WHERE n.locate_id = $1::text::uuid)) \
               ORDER BY l.sequence";
    let rows = client
        .query(sql, &[&locate_id.to_string(), &client_id])
        .await
        .map_err(DatabaseError::query("reading a locate"))?;
    Ok(steps(rows).collect())
}
