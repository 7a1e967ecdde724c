//! What recoveries did not bring back: stretches of the log whose entries were acknowledged and are lost.

use audit::{Entry, expand};
use connection::Landing;
use serde::Serialize;
use tokio_postgres::Client;

use super::database::{DatabaseError, connect};
use crate::time::{micros, rfc3339};

/// A recovery that lost entries, or that cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    pub log: u16,
    /// The epoch whose entries are lost.
    pub epoch: u32,
    /// The first position that is.
    pub from: u64,
    /// How many, where that is known.
    pub entries: Option<u64>,
    /// The epoch that the recovery opened.
    pub recovered_as: u32,
    /// Between these two moments they were recorded; RFC 3339.
    pub since: String,
    pub until: String,
    #[serde(skip)]
    since_micros: i64,
    #[serde(skip)]
    until_micros: i64,
}

/// An id is made a little before its entry is recorded.
const MADE_BEFORE_MICROS: i64 = 5_000_000;

impl Loss {
    /// Whether an entry of this place was lost.
    #[must_use]
    pub fn holds(&self, position: u64) -> bool {
        let end = self.entries.map_or(u64::MAX, |entries| {
            self.from.saturating_add(entries).saturating_sub(1)
        });
        (self.from..=end).contains(&position)
    }

    /// Whether an id was made while they were recorded: it holds the millisecond.
    #[must_use]
    pub fn is_of(&self, id: uuid::Uuid) -> bool {
        let Some((seconds, nanos)) = id.get_timestamp().map(|at| at.to_unix()) else {
            return false;
        };
        let made = i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(nanos / 1000));
        (self.since_micros - MADE_BEFORE_MICROS..=self.until_micros).contains(&made)
    }

    /// The same of an id as somebody typed it.
    #[must_use]
    pub fn is_of_text(&self, id: &str) -> bool {
        uuid::Uuid::parse_str(id).is_ok_and(|id| self.is_of(id))
    }

    /// In a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let entries = match self.entries {
            Some(1) => "1 entry".to_owned(),
            Some(entries) => format!("{entries} entries"),
            None => "entries, nobody knows how many".to_owned(),
        };
        format!(
            "of epoch {}, lost: the recovery that opened epoch {} did not bring back {entries} from position {} on, recorded between {} and {}",
            self.epoch, self.recovered_as, self.from, self.since, self.until
        )
    }
}

/// The first entry of each epoch, by the primary key alone, and when the entry before it was recorded.
const SQL: &str = "WITH RECURSIVE first AS (
     (SELECT log, epoch, position FROM audit_log ORDER BY log, epoch, position LIMIT 1)
     UNION ALL
     SELECT n.log, n.epoch, n.position FROM first AS f CROSS JOIN LATERAL (
         SELECT a.log, a.epoch, a.position FROM audit_log AS a WHERE (a.log, a.epoch) > (f.log, f.epoch)
         ORDER BY a.log, a.epoch, a.position LIMIT 1) AS n
   )
   SELECT a.canonical, a.recorded_at, coalesce(p.recorded_at, a.recorded_at) FROM first JOIN audit_log AS a USING (log, epoch, position)
   LEFT JOIN LATERAL (SELECT b.recorded_at FROM audit_log AS b WHERE b.log = a.log AND b.epoch < a.epoch
       AND b.position < a.position ORDER BY b.epoch DESC, b.position DESC LIMIT 1) AS p ON true
   WHERE a.kind = 2 ORDER BY a.log, a.epoch";

/// Of all logs, oldest first.
pub(crate) async fn losses_in(client: &Client) -> Result<Vec<Loss>, DatabaseError> {
    let rows = client
        .query(SQL, &[])
        .await
        .map_err(DatabaseError::query("looking for what recoveries lost"))?;
    let loss = |row: &tokio_postgres::Row| {
        let entry = Entry::parse(&expand(row.get(0))).ok()?;
        let number = |name: &str| entry.fields.get(name)?.parse::<u64>().ok();
        let is_recovery = entry.fields.get("reason") == Some("recovery");
        let entries = number("known_lost");
        if !is_recovery || entries == Some(0) {
            return None;
        }
        let (until_micros, since_micros) = (micros(row.get(1)), micros(row.get(2)));
        Some(Loss {
            log: entry.log,
            epoch: u32::try_from(number("old_epoch")?).ok()?,
            from: number("recovered_size")? + 1,
            entries,
            recovered_as: entry.epoch,
            since: rfc3339(since_micros),
            until: rfc3339(until_micros),
            since_micros,
            until_micros,
        })
    };
    Ok(rows.iter().filter_map(loss).collect())
}

/// The same, for a command.
pub async fn losses(database: &str, log: u16) -> Result<Vec<Loss>, DatabaseError> {
    let session = connect(database, "bre audit", Landing::Any).await?;
    let mut losses = losses_in(&session.client).await?;
    losses.retain(|loss| loss.log == log);
    Ok(losses)
}
