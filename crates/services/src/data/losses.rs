//! What recoveries did not bring back: stretches of the log whose entries were acknowledged and are lost.

use std::time::SystemTime;

use audit::{Entry, expand};
use serde::Serialize;
use tokio_postgres::Client;

use super::database::DatabaseError;
use super::verifying::Verifying;
use crate::domain::time::{micros, rfc3339};

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
fn sql(table: &str) -> String {
    format!(
        "WITH RECURSIVE first AS (
     (SELECT log, epoch, position FROM {table} ORDER BY log, epoch, position LIMIT 1)
     UNION ALL
     SELECT n.log, n.epoch, n.position FROM first AS f CROSS JOIN LATERAL (
         SELECT a.log, a.epoch, a.position FROM {table} AS a WHERE (a.log, a.epoch) > (f.log, f.epoch)
         ORDER BY a.log, a.epoch, a.position LIMIT 1) AS n
   )
   SELECT a.canonical, a.recorded_at, coalesce(p.recorded_at, a.recorded_at) FROM first JOIN {table} AS a USING (log, epoch, position)
   LEFT JOIN LATERAL (SELECT b.recorded_at FROM {table} AS b WHERE b.log = a.log AND b.epoch < a.epoch
       AND b.position < a.position ORDER BY b.epoch DESC, b.position DESC LIMIT 1) AS p ON true
   WHERE a.kind = 2 ORDER BY a.log, a.epoch"
    )
}

/// Of all logs, oldest first.
pub(crate) async fn losses_in(client: &Client) -> Result<Vec<Loss>, DatabaseError> {
    losses_of(client, "audit_log").await
}

async fn losses_of(client: &Client, table: &str) -> Result<Vec<Loss>, DatabaseError> {
    let failed = DatabaseError::query("looking for what recoveries lost");
    let rows = client.query(&sql(table), &[]).await.map_err(&failed)?;
    let opening = |row: &tokio_postgres::Row| {
        let bytes: Vec<u8> = row.try_get(0)?;
        Ok((bytes, row.try_get(1)?, row.try_get(2)?))
    };
    let loss = |(bytes, until, since): (Vec<u8>, SystemTime, SystemTime)| {
        let entry = Entry::parse(&expand(&bytes)).ok()?;
        let number = |name: &str| entry.fields.get(name)?.parse::<u64>().ok();
        let is_recovery = entry.fields.get("reason") != Some("created");
        let entries = number("known_lost");
        if !is_recovery || entries == Some(0) {
            return None;
        }
        let (until_micros, since_micros) = (micros(until), micros(since));
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
    let openings: Result<Vec<_>, tokio_postgres::Error> = rows.iter().map(opening).collect();
    let openings = openings.map_err(&failed)?;
    Ok(openings.into_iter().filter_map(loss).collect())
}

/// The entries that opened the epochs of a log, oldest first.
pub(crate) async fn openings_in(client: &Client, log: u16) -> Result<Vec<Entry>, DatabaseError> {
    let failed = DatabaseError::query("looking for what opened the epochs");
    let rows = client
        .query(&sql("audit_log"), &[])
        .await
        .map_err(&failed)?;
    let damaged = |error: audit::EntryError| DatabaseError::Query {
        what: "an opening is damaged",
        detail: error.to_string(),
    };
    let entries = rows
        .iter()
        .map(|row| {
            let bytes: Vec<u8> = row.try_get(0).map_err(&failed)?;
            Entry::parse(&expand(&bytes)).map_err(damaged)
        })
        .collect::<Result<Vec<Entry>, _>>()?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.log == log)
        .collect())
}

/// What recoveries lost of one log, for a command.
pub async fn losses(database: &str, log: u16) -> Result<Vec<Loss>, DatabaseError> {
    let session = Verifying::begin(database).await?;
    let mut losses = losses_of(session.client(), &session.table("audit_log")).await?;
    losses.retain(|loss| loss.log == log);
    Ok(losses)
}
