//! `bre audit verify` against a database: the chain and its heads by `audit`, and here every column of `audit_log`, of
//! `quotes` and of the tables of locates against the entry's own bytes, in both directions.

use audit::{Entry, Head, Kind, StoredEntry, Verifier, VerifyingKey};
use connection::Landing;
use futures_util::{TryStreamExt, pin_mut};
use serde::Serialize;
use tokio_postgres::{Client, Row};

use super::database::{DatabaseError, connect};
use super::locates;
use super::quotes::{COLUMNS, REPEATED, RecordedQuote, text_of, timestamp_text};
use super::tables::{Followed, TablesReport};
use super::writer::{entries_from, log_number};
use crate::time::rfc3339;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    #[serde(flatten)]
    pub log: audit::Report,
    /// One of `audit::Verdict`: of the entries and the heads that were given; whoever knows what else there should be, says more.
    pub verdict: &'static str,
    /// Rows of `quotes` that belong to an entry.
    pub quotes: u64,
    /// Steps of locates, each with its rows.
    pub locates: u64,
    /// Of these, the ones that orders made.
    pub uses: u64,
    /// The tables that decide prices and access.
    pub tables: TablesReport,
}

/// Columns of `audit_log` before those of `quotes` in the comparison's answer.
const ENTRY_COLUMNS: usize = 10;
/// Columns of `quotes` that repeat its place: log, epoch, position and recorded_at.
const PLACE_COLUMNS: usize = 2;

/// Reads the whole log in the order of its positions. `heads` have had their signatures verified.
pub async fn verify(
    database: &str,
    log: u16,
    heads: &[Head],
    keys: &[VerifyingKey],
) -> Result<AuditReport, DatabaseError> {
    let failed = DatabaseError::query("reading the audit log");
    let session = connect(database, "bre audit verify", Landing::Any).await?;
    let client = &session.client;
    // One snapshot for both questions: an engine may be writing meanwhile.
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await
        .map_err(&failed)?;
    let mut followed = Followed::default();
    let others = follow_others(client, log, heads, keys, &mut followed).await?;
    let mut verifier = Verifier::new(log, heads, keys);
    let (mut quotes, mut locates, mut uses) = (0, 0, 0);
    let parameters = [&log_number(log) as &(dyn tokio_postgres::types::ToSql + Sync)];
    let rows = client
        .query_raw(&sql(), parameters)
        .await
        .map_err(&failed)?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await.map_err(&failed)? {
        let stored = StoredEntry {
            epoch: row.get(0),
            position: row.get(1),
            bytes: audit::expand(row.get(2)).into_owned(),
            hash: row.get(3),
        };
        let Some(entry) = verifier.push(&stored) else {
            continue;
        };
        match compare(&entry, &row).and_then(|found| followed.take(&entry).map(|()| found)) {
            Ok((is_quote, is_step, is_use)) => {
                quotes += u64::from(is_quote);
                locates += u64::from(is_step);
                uses += u64::from(is_use);
            }
            Err(reason) => verifier.reject(stored.epoch, stored.position, reason),
        }
    }
    let mut report = verifier.finish();
    if report.is_sound()
        && let Some((epoch, position, reason)) = stray(client, log).await?
    {
        report.verified = report
            .verified
            .min(u64::try_from(position).unwrap_or(1).saturating_sub(1));
        report.first_bad = Some(audit::BadEntry { epoch, position });
        report.reason = Some(reason);
    }
    let mut tables = TablesReport::not_compared();
    if report.is_sound() {
        tables = followed.compare(client).await?;
        if let Some((epoch, position, reason)) = others.or_else(|| tables.first()) {
            report.first_bad = Some(audit::BadEntry { epoch, position });
            report.reason = Some(reason);
        }
    }
    Ok(AuditReport {
        verdict: report.verdict(),
        log: report,
        quotes,
        locates,
        uses,
        tables,
    })
}

/// What other logs of the same database say of its tables. They must be opened by a key that is trusted here, or anybody could open one and
/// say whatever he likes; where one is not sound: where, and why.
async fn follow_others(
    client: &Client,
    log: u16,
    heads: &[Head],
    keys: &[VerifyingKey],
    followed: &mut Followed,
) -> Result<Option<(i64, i64, String)>, DatabaseError> {
    let failed = DatabaseError::query("reading the other logs");
    // From one number to the next along the index: the log may have millions of entries.
    let sql = "WITH RECURSIVE logs AS (SELECT min(log) AS log FROM audit_log \
                   UNION ALL SELECT (SELECT min(a.log) FROM audit_log AS a WHERE a.log > l.log) FROM logs AS l WHERE l.log IS NOT NULL) \
               SELECT log FROM logs WHERE log IS NOT NULL AND log <> $1";
    let logs = client
        .query(sql, &[&log_number(log)])
        .await
        .map_err(&failed)?;
    for row in logs {
        let other = row.get::<_, i16>(0).cast_unsigned();
        let mut verifier = Verifier::new(other, heads, keys);
        let rows = entries_from(client, other, 1).await.map_err(&failed)?;
        pin_mut!(rows);
        while let Some(stored) = rows.try_next().await.map_err(&failed)? {
            let Some(entry) = verifier.push(&stored) else {
                break;
            };
            if let Err(reason) = followed.take_of_another(&entry) {
                verifier.reject(stored.epoch, stored.position, reason);
                break;
            }
        }
        let report = verifier.finish();
        if let (Some(bad), Some(reason)) = (report.first_bad, report.reason) {
            let reason = format!("log {other} of the same database: {reason}");
            return Ok(Some((bad.epoch, bad.position, reason)));
        }
    }
    Ok(None)
}

/// A row that belongs to nothing in the log: where it stands, and what is wrong with it.
async fn stray(client: &Client, log: u16) -> Result<Option<(i64, i64, String)>, DatabaseError> {
    let quote = stray_quote(client).await?.map(|(epoch, position, quote_id)| {
        (epoch, position, format!("quote {quote_id} stands in quotes for this place, but the log has no such quote"))
    });
    if quote.is_some() {
        return Ok(quote);
    }
    let locate = locates::verify::stray(client).await?;
    if locate.is_some() {
        return Ok(locate);
    }
    let entry = stray_entry(client, log).await?;
    Ok(entry.map(|(epoch, position, other)| {
        (
            epoch,
            position,
            format!("an entry stands at this place of log {other}, which was never opened"),
        )
    }))
}

fn sql() -> String {
    let mut sql = format!(
        "SELECT a.epoch::bigint, a.position, a.canonical, a.hash, a.kind, {}",
        timestamp_text("a.recorded_at")
    );
    for name in REPEATED {
        sql.push_str(&format!(", a.{name}::text"));
    }
    sql.push_str(&format!(
        ", q.position IS NOT NULL, {}",
        timestamp_text("q.recorded_at")
    ));
    for column in COLUMNS {
        sql.push_str(&format!(", {}", text_of("q", column)));
    }
    sql.push_str(&format!(
        "{} FROM audit_log AS a LEFT JOIN quotes AS q USING (log, epoch, position){} WHERE a.log = $1 ORDER BY a.position, a.epoch",
        locates::verify::select(),
        locates::verify::JOINS,
    ));
    sql
}

/// Whether the entry is a quote, a step of a locate, one that an order made, or which column disagrees with it.
fn compare(entry: &Entry, row: &Row) -> Result<(bool, bool, bool), String> {
    let same = |table: &str, column: &str, found: Option<&str>, expected: Option<&str>| {
        if found == expected {
            return Ok(());
        }
        let show =
            |text: Option<&str>| text.map_or("nothing".to_owned(), |text| format!("{text:?}"));
        Err(format!(
            "{table}.{column} is {}, but the entry says {}",
            show(found),
            show(expected)
        ))
    };
    let kind: i16 = row.get(4);
    same(
        "audit_log",
        "kind",
        Some(&kind.to_string()),
        Some(&entry.kind.number().to_string()),
    )?;
    let recorded_at = rfc3339(entry.recorded_at_micros);
    same("audit_log", "recorded_at", row.get(5), Some(&recorded_at))?;
    for (index, name) in REPEATED.iter().enumerate() {
        same(
            "audit_log",
            name,
            row.get(6 + index),
            entry.fields.get(name),
        )?;
    }
    let has_row: bool = row.get(ENTRY_COLUMNS);
    let is_quote = entry.kind == Kind::Quote;
    if has_row != is_quote {
        let reason = if is_quote {
            "its row in quotes is missing"
        } else {
            "quotes has a row for it, but it is no quote"
        };
        return Err(reason.to_owned());
    }
    if is_quote {
        same(
            "quotes",
            "recorded_at",
            row.get(ENTRY_COLUMNS + 1),
            Some(&recorded_at),
        )?;
        let expected = RecordedQuote::read(&entry.fields)?;
        for (index, (column, expected)) in COLUMNS.iter().zip(expected.values()).enumerate() {
            same(
                "quotes",
                column.name,
                row.get(ENTRY_COLUMNS + PLACE_COLUMNS + index),
                expected.printed().as_deref(),
            )?;
        }
    }
    let after_quotes = ENTRY_COLUMNS + PLACE_COLUMNS + COLUMNS.len();
    let (is_step, is_use) = locates::verify::compare(entry, row, after_quotes)?;
    Ok((is_quote, is_step, is_use))
}

/// A row in `quotes` without an entry at its place, in whatever log it claims to be.
async fn stray_quote(client: &Client) -> Result<Option<(i64, i64, String)>, DatabaseError> {
    let sql = "SELECT q.epoch::bigint, q.position, q.quote_id::text FROM quotes AS q \
               WHERE NOT EXISTS (SELECT FROM audit_log AS a WHERE (a.log, a.epoch, a.position) = (q.log, q.epoch, q.position)) \
               ORDER BY q.position, q.epoch LIMIT 1";
    let row = client
        .query_opt(sql, &[])
        .await
        .map_err(DatabaseError::query("looking for quotes without an entry"))?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}

/// A row of `audit_log` in a log that has no beginning.
async fn stray_entry(client: &Client, log: u16) -> Result<Option<(i64, i64, u16)>, DatabaseError> {
    let sql = "SELECT a.epoch::bigint, a.position, a.log FROM audit_log AS a WHERE a.log <> $1 \
               AND NOT EXISTS (SELECT FROM audit_log AS first WHERE first.log = a.log AND first.position = 1) ORDER BY 2, 1 LIMIT 1";
    let row = client
        .query_opt(sql, &[&log_number(log)])
        .await
        .map_err(DatabaseError::query("looking for entries without a log"))?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get::<_, i16>(2).cast_unsigned())))
}
