//! `bre verify audit` against a database: the chain and its heads by `audit`, and here every column of `audit_log`, of
//! `quotes` and of the tables of locates against the entry's own bytes, in both directions.

use std::fmt::Display;

use audit::{Entry, Head, Kind, StoredEntry, Verifier, VerifyingKey};
use futures_util::{TryStreamExt, pin_mut};
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::cell::Cell;
use super::database::{DatabaseError, describe};
use super::locates;
use super::quotes::{COLUMNS, QuoteEntry, REPEATED, repeated};
use super::row::Value;
use super::schema::{self, SchemaReport};
use super::tables::{FollowedLog, TablesReport};
use super::verifying::{Verifying, quoted};
use super::writer::{entries_from, log_number};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    #[serde(flatten)]
    pub log: audit::Report,
    /// One of `audit::Verdict`: of the entries, the heads that were given and what the tables are; whoever knows what else there should be, says more.
    pub verdict: &'static str,
    /// The engine's tables, and whoever may change them, against what the migrations make.
    pub schema: SchemaReport,
    /// Rows of `quotes` that belong to an entry.
    pub quotes: u64,
    /// Steps of locates, each with its rows.
    pub locates: u64,
    /// Of these, the ones that orders made.
    pub uses: u64,
    /// The tables that decide prices and access.
    pub tables: TablesReport,
}

impl AuditReport {
    /// The log as well as what it stands in.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.log.is_sound() && self.schema.is_sound()
    }
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
    let session = Verifying::begin(database).await?;
    // One snapshot for all questions: an engine may be writing meanwhile.
    session
        .client()
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await
        .map_err(DatabaseError::query("reading the audit log"))?;
    let schema = schema::compare(&session).await?;
    let mut verifier = Verifier::new(log, heads, keys);
    let mut walk = Walk::default();
    let mut others = None;
    let walked = async {
        others = follow_others(&session, log, heads, keys, &mut walk.followed).await?;
        walk.along(&session, log, &mut verifier).await
    }
    .await;
    if let Err(error) = walked {
        let reason = unreadable(error).map_err(failed)?;
        verifier.reject(walk.epoch, walk.position + 1, reason);
    }
    let mut report = verifier.finish();
    if report.is_sound() {
        let stray = match stray(&session, log).await {
            Ok(stray) => stray,
            Err(error) => {
                let reason = unreadable(error).map_err(failed)?;
                Some((walk.epoch, walk.position, reason))
            }
        };
        if let Some((epoch, position, reason)) = stray {
            let before = u64::try_from(position).unwrap_or(1).saturating_sub(1);
            report.verified = report.verified.min(before);
            report.first_bad = Some(audit::BadEntry { epoch, position });
            report.reason = Some(reason);
        }
    }
    let mut tables = TablesReport::not_compared();
    if report.is_sound() {
        tables = match compare_tables(&session, walk.followed).await {
            // The schema's findings say why.
            Err(DatabaseError::Query { .. }) if !schema.is_sound() => tables,
            compared => compared?,
        };
        if let Some((epoch, position, reason)) = others.or_else(|| tables.first()) {
            report.first_bad = Some(audit::BadEntry { epoch, position });
            report.reason = Some(reason);
        }
    }
    Ok(AuditReport {
        verdict: match schema.is_sound() {
            true => report.verdict(),
            false => audit::Verdict::Rewritten.name(),
        },
        log: report,
        schema,
        tables,
        quotes: walk.quotes,
        locates: walk.locates,
        uses: walk.uses,
    })
}

fn failed(error: tokio_postgres::Error) -> DatabaseError {
    DatabaseError::query("reading the audit log")(error)
}

/// What the server will not or cannot answer about its own tables is a finding, in its own words; that it is away, full or stopped is none.
fn unreadable(error: tokio_postgres::Error) -> Result<String, tokio_postgres::Error> {
    /// Classes of SQLSTATE: no connection, no resources, somebody stopped it, the machine.
    const NOT_ABOUT_TABLES: [&str; 4] = ["08", "53", "57", "58"];
    let about_tables = error.code().is_some_and(|code| {
        !NOT_ABOUT_TABLES
            .iter()
            .any(|class| code.code().starts_with(class))
    });
    match about_tables {
        true => Ok(format!("the server does not show it: {}", describe(&error))),
        false => Err(error),
    }
}

/// One way through the log, and what it met.
#[derive(Default)]
struct Walk {
    epoch: i64,
    position: i64,
    quotes: u64,
    locates: u64,
    uses: u64,
    followed: FollowedLog,
}

impl Walk {
    async fn along(
        &mut self,
        session: &Verifying,
        log: u16,
        verifier: &mut Verifier,
    ) -> Result<(), tokio_postgres::Error> {
        self.epoch = 1;
        let parameters = [&log_number(log) as &(dyn tokio_postgres::types::ToSql + Sync)];
        let rows = session
            .client()
            .query_raw(&sql(session), parameters)
            .await?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            let stored = match stored(&row) {
                Ok(stored) => stored,
                Err(reason) => {
                    verifier.reject(self.epoch, self.position + 1, reason);
                    return Ok(());
                }
            };
            let is_next = stored.position == self.position + 1;
            (self.epoch, self.position) = (stored.epoch, stored.position);
            let Some(entry) = verifier.push(&stored) else {
                continue;
            };
            if !is_next {
                self.followed.forget();
            }
            let compared =
                compare(&entry, &row).and_then(|found| self.followed.take(&entry).map(|()| found));
            match compared {
                Ok((is_quote, is_step, is_use)) => {
                    self.quotes += u64::from(is_quote);
                    self.locates += u64::from(is_step);
                    self.uses += u64::from(is_use);
                }
                Err(reason) => verifier.reject(stored.epoch, stored.position, reason),
            }
        }
        Ok(())
    }
}

/// An entry's place, bytes and hash: the first four columns.
fn stored(row: &Row) -> Result<StoredEntry, String> {
    let bytes = Cell::of(row, 2)?.bytes(&"audit_log.canonical", &Type::BYTEA)?;
    let hash = Cell::of(row, 3)?.bytes(&"audit_log.hash", &Type::BYTEA)?;
    Ok(StoredEntry {
        epoch: Cell::of(row, 0)?.integer(&"audit_log.epoch")?.into(),
        position: Cell::of(row, 1)?.big(&"audit_log.position")?,
        bytes: audit::expand(bytes).into_owned(),
        hash: hash.to_vec(),
    })
}

/// What other logs of the same database say of its tables. They must be opened by a key that is trusted here, or anybody could open one and
/// say whatever he likes; where one is not sound: where, and why.
async fn follow_others(
    session: &Verifying,
    log: u16,
    heads: &[Head],
    keys: &[VerifyingKey],
    followed: &mut FollowedLog,
) -> Result<Option<(i64, i64, String)>, tokio_postgres::Error> {
    let table = session.table("audit_log");
    // From one number to the next along the index: the log may have millions of entries.
    let sql = format!(
        "WITH RECURSIVE logs AS (SELECT min(log) AS log FROM {table} \
             UNION ALL SELECT (SELECT min(a.log) FROM {table} AS a WHERE a.log > l.log) FROM logs AS l WHERE l.log IS NOT NULL) \
         SELECT log FROM logs WHERE log IS NOT NULL AND log <> $1"
    );
    let logs = session.client().query(&sql, &[&log_number(log)]).await?;
    for row in logs {
        let other = row.try_get::<_, i16>(0)?.cast_unsigned();
        let mut verifier = Verifier::new(other, heads, keys);
        let rows = entries_from(session.client(), &table, other, 1).await?;
        pin_mut!(rows);
        let mut position = 0;
        while let Some(stored) = rows.try_next().await? {
            let Some(entry) = verifier.push(&stored) else {
                break;
            };
            if stored.position != position + 1 {
                followed.forget();
            }
            position = stored.position;
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

/// The tables that entries speak of. They are named without their schema there, as a session that serves names them: PostgreSQL's own names come
/// first all the same.
async fn compare_tables(
    session: &Verifying,
    followed: FollowedLog,
) -> Result<TablesReport, DatabaseError> {
    let path = format!(
        "SET LOCAL search_path = pg_catalog, {}, pg_temp",
        quoted(session.schema())
    );
    let set = session.client().batch_execute(&path).await;
    set.map_err(failed)?;
    followed.compare(session.client()).await
}

/// A row that belongs to nothing in the log: where it stands, and what is wrong with it.
async fn stray(
    session: &Verifying,
    log: u16,
) -> Result<Option<(i64, i64, String)>, tokio_postgres::Error> {
    let quote = stray_quote(session).await?.map(|(epoch, position, quote_id)| {
        (epoch, position, format!("quote {quote_id} stands in quotes for this place, but the log has no such quote"))
    });
    if quote.is_some() {
        return Ok(quote);
    }
    let locate = locates::verify::stray(session).await?;
    if locate.is_some() {
        return Ok(locate);
    }
    let entry = stray_entry(session, log).await?;
    Ok(entry.map(|(epoch, position, other)| {
        (
            epoch,
            position,
            format!("an entry stands at this place of log {other}, which was never opened"),
        )
    }))
}

fn sql(session: &Verifying) -> String {
    let mut sql =
        "SELECT a.epoch, a.position, a.canonical, a.hash, a.kind, a.recorded_at".to_owned();
    for name in REPEATED {
        sql.push_str(&format!(", a.{name}"));
    }
    sql.push_str(", q.position IS NOT NULL, q.recorded_at");
    for column in COLUMNS {
        sql.push_str(&format!(", q.{}", column.name));
    }
    sql.push_str(&format!(
        "{} FROM {} AS a LEFT JOIN {} AS q USING (log, epoch, position){} WHERE a.log = $1 ORDER BY a.position, a.epoch",
        locates::verify::select(),
        session.table("audit_log"),
        session.table("quotes"),
        locates::verify::joins(session),
    ));
    sql
}

/// Whether the entry is a quote, a step of a locate, one that an order made, or which column disagrees with it.
fn compare(entry: &Entry, row: &Row) -> Result<(bool, bool, bool), String> {
    let same = |name: &dyn Display, index: usize, expected: &Value<'_>| {
        Cell::of(row, index)?.compare(name, expected)
    };
    let recorded_at = Value::Time(entry.recorded_at_micros);
    same(
        &"audit_log.kind",
        4,
        &Value::Small(entry.kind.number().into()),
    )?;
    same(&"audit_log.recorded_at", 5, &recorded_at)?;
    let expected = repeated(|name| entry.fields.get(name));
    for (index, (name, expected)) in REPEATED.iter().zip(&expected).enumerate() {
        same(&format_args!("audit_log.{name}"), 6 + index, expected)?;
    }
    let has_row: bool = row
        .try_get(ENTRY_COLUMNS)
        .map_err(|error| error.to_string())?;
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
        same(&"quotes.recorded_at", ENTRY_COLUMNS + 1, &recorded_at)?;
        let expected = QuoteEntry::read(&entry.fields)?;
        for (index, (column, expected)) in COLUMNS.iter().zip(expected.values()).enumerate() {
            let cell = Cell::of(row, ENTRY_COLUMNS + PLACE_COLUMNS + index)?;
            cell.compare(&format_args!("quotes.{}", column.name), &expected)?;
        }
    }
    let after_quotes = ENTRY_COLUMNS + PLACE_COLUMNS + COLUMNS.len();
    let (is_step, is_use) = locates::verify::compare(entry, row, after_quotes)?;
    Ok((is_quote, is_step, is_use))
}

/// A row in `quotes` without an entry at its place, in whatever log it claims to be.
async fn stray_quote(
    session: &Verifying,
) -> Result<Option<(i64, i64, String)>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT q.epoch::bigint, q.position, q.quote_id::text FROM {} AS q \
         WHERE NOT EXISTS (SELECT FROM {} AS a WHERE (a.log, a.epoch, a.position) = (q.log, q.epoch, q.position)) \
         ORDER BY q.position, q.epoch LIMIT 1",
        session.table("quotes"),
        session.table("audit_log"),
    );
    let row = session.client().query_opt(&sql, &[]).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .transpose()
}

/// A row of `audit_log` in a log that has no beginning.
async fn stray_entry(
    session: &Verifying,
    log: u16,
) -> Result<Option<(i64, i64, u16)>, tokio_postgres::Error> {
    let table = session.table("audit_log");
    let sql = format!(
        "SELECT a.epoch::bigint, a.position, a.log FROM {table} AS a WHERE a.log <> $1 \
         AND NOT EXISTS (SELECT FROM {table} AS first WHERE first.log = a.log AND first.position = 1) ORDER BY 2, 1 LIMIT 1"
    );
    let row = session
        .client()
        .query_opt(&sql, &[&log_number(log)])
        .await?;
    row.map(|row| {
        let other: i16 = row.try_get(2)?;
        Ok((row.try_get(0)?, row.try_get(1)?, other.cast_unsigned()))
    })
    .transpose()
}
