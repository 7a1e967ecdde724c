//! What a log is opened in, and the entries that opened its epochs.

use audit::{Entry, expand};
use tokio_postgres::Client;

use super::open::{OpenError, log_number};

/// Whose log it is in.
pub(super) struct Server {
    pub(super) timeline: u32,
    pub(super) system: String,
}

impl Server {
    pub(super) async fn of(client: &Client) -> Result<Server, OpenError> {
        let sql = "SELECT timeline_id, (SELECT system_identifier::text FROM pg_control_system()) FROM pg_control_checkpoint()";
        let row = client.query_one(sql, &[]).await?;
        Ok(Server {
            timeline: u32::try_from(row.get::<_, i32>(0)).unwrap_or(1),
            system: row.get(1),
        })
    }
}

/// The first entry of each epoch, by the primary key alone.
pub(super) async fn openings(client: &Client, log: u16) -> Result<Vec<Entry>, OpenError> {
    let sql = "WITH RECURSIVE first AS (
         (SELECT epoch, position FROM audit_log WHERE log = $1 ORDER BY epoch, position LIMIT 1)
         UNION ALL
         SELECT n.epoch, n.position FROM first AS f CROSS JOIN LATERAL (SELECT a.epoch, a.position FROM audit_log AS a
             WHERE a.log = $1 AND a.epoch > f.epoch ORDER BY a.epoch, a.position LIMIT 1) AS n)
       SELECT a.canonical FROM first AS f JOIN audit_log AS a ON (a.log, a.epoch, a.position) = ($1, f.epoch, f.position)";
    let rows = client.query(sql, &[&log_number(log)]).await?;
    let parsed = rows
        .iter()
        .filter_map(|row| Entry::parse(&expand(row.get(0))).ok());
    Ok(parsed.collect())
}
