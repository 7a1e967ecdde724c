//! The tables against what the entries said: every row, in both directions, and the first that differs by its name.

use std::collections::BTreeMap;

use audit::{Entry, Hash, RowDigest};
use futures_util::{TryStreamExt, pin_mut};
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::batches::{BeforeTree, PreviousBatches, each_batch};
use super::covered::{API_KEYS, BATCHED, CoveredTable, FEED_BATCHES, Form, STATED};
use super::followed::{Claim, EntryPosition, FollowedLog, StatedRow};
use super::keys;
use super::prints::{Prints, Said, Unlike};
use super::row::{RowReader, Values, from_json, hash_of, name_of};
use crate::data::database::{DatabaseError, describe};
use crate::data::writer::log_number;

/// Of one table's differences in the report.
const DIFFERENCES_MAX: usize = 5;

/// How the tables that decide prices and access compare with the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TablesReport {
    /// `as_recorded`, `differ`, `not_covered` (no entry states them: an older engine wrote all of this log) or `not_compared` (the log itself
    /// is not sound).
    pub verdict: &'static str,
    /// What lies before this entry was not stated when it was recorded, but by this entry, as it stood then.
    pub not_covered_before: Option<CoverageStart>,
    /// Rows and deliveries that were compared.
    pub compared: u64,
    /// The first five of each table.
    pub differences: Vec<Difference>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CoverageStart {
    pub log: u16,
    pub epoch: u32,
    pub position: u64,
}

/// A row that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub table: &'static str,
    /// The columns that name it.
    pub row: String,
    /// The first that differs, where the row is there and one can be told.
    pub column: Option<&'static str>,
    /// The entry that says otherwise, or else the last one: none says so.
    pub epoch: u32,
    pub position: u64,
    /// A sentence for people.
    pub reason: String,
}

impl TablesReport {
    pub(crate) fn not_compared() -> TablesReport {
        TablesReport {
            verdict: "not_compared",
            ..TablesReport::default()
        }
    }

    /// Where, and what: as the report of the log says it.
    pub(crate) fn first(&self) -> Option<(i64, i64, String)> {
        let first = self.differences.first()?;
        let position = i64::try_from(first.position).unwrap_or(i64::MAX);
        Some((i64::from(first.epoch), position, first.reason.clone()))
    }
}

/// One of a delivery's tables, or a whole one, that cannot be read as the engine made it.
struct Unreadable(&'static CoveredTable, tokio_postgres::Error);

/// A row that differs, before it is known in which column.
struct RowDifference {
    found: Values,
    /// What it must be, where that is known without reading the entry again.
    expected: Option<Values>,
    place: EntryPosition,
}

impl FollowedLog {
    /// Compares the tables, in the transaction that the log was read in.
    pub(crate) async fn compare(mut self, client: &Client) -> Result<TablesReport, DatabaseError> {
        let mut report = TablesReport {
            verdict: "not_covered",
            ..TablesReport::default()
        };
        if self.baseline.is_none() {
            return Ok(report);
        }
        report.not_covered_before = self.not_covered_before().map(|place| CoverageStart {
            log: place.log,
            epoch: place.epoch,
            position: place.position,
        });
        if let Err(Unreadable(table, error)) = self.compare_all(client, &mut report).await {
            let why = unlike_made(table, &error).ok_or_else(|| failed(error))?;
            let reason = format!(
                "{}: it cannot be read as the engine made it: {why}",
                table.name
            );
            let difference = difference(table, String::new(), None, self.end, reason);
            report.differences.push(difference);
        }
        report.verdict = match report.differences.is_empty() {
            true => "as_recorded",
            false => "differ",
        };
        Ok(report)
    }

    async fn compare_all(
        &mut self,
        client: &Client,
        report: &mut TablesReport,
    ) -> Result<(), Unreadable> {
        let mut expected: Vec<BTreeMap<String, StatedRow>> =
            STATED.iter().map(|_| BTreeMap::new()).collect();
        for ((index, name), stated) in std::mem::take(&mut self.rows) {
            expected[index].insert(name, stated);
        }
        let mut own: BTreeMap<String, Values> = BTreeMap::new();
        for (row, place) in std::mem::take(&mut self.keys).into_rows() {
            let (name, hash) = (name_of(&API_KEYS, &row), keys::hash(&row));
            expected[0].insert(name.clone(), StatedRow { hash, place });
            own.insert(name, row);
        }
        for (table, expected) in STATED.into_iter().zip(expected) {
            self.compare_stated(client, table, expected, &own, report)
                .await
                .map_err(|error| Unreadable(table, error))?;
        }
        self.claims
            .sort_by_key(|claim| (claim.table, claim.batch, claim.place.position));
        for (index, table) in BATCHED.into_iter().enumerate() {
            self.compare_batched(client, index, table, report)
                .await
                .map_err(|error| Unreadable(table, error))?;
        }
        Ok(())
    }

    async fn compare_stated(
        &self,
        client: &Client,
        table: &'static CoveredTable,
        mut expected: BTreeMap<String, StatedRow>,
        own: &BTreeMap<String, Values>,
        report: &mut TablesReport,
    ) -> Result<(), tokio_postgres::Error> {
        let mut found: BTreeMap<String, RowFault> = BTreeMap::new();
        let sql = format!("SELECT {} FROM {} AS t", table.select("t"), table.name);
        let rows = client.query_raw(&sql, NOTHING).await?;
        pin_mut!(rows);
        let mut reader = RowReader::of(table);
        while let Some(row) = rows.try_next().await? {
            report.compared += 1;
            let values = reader.values(&row)?;
            let name = name_of(table, &values);
            let odd = match expected.remove(&name) {
                Some(stated) if stated.hash == hash_of(table, &values) => continue,
                Some(stated) => RowFault::Different(RowDifference {
                    found: values,
                    expected: own.get(&name).cloned(),
                    place: stated.place,
                }),
                None => RowFault::Unknown,
            };
            found.insert(name, odd);
            // The first by name are told; memory does not grow with what somebody has put there.
            if found.len() > DIFFERENCES_MAX {
                found.pop_last();
            }
        }
        for (name, stated) in expected.into_iter().take(DIFFERENCES_MAX) {
            found.insert(name, RowFault::Missing(stated.place));
        }
        for (name, odd) in found.into_iter().take(DIFFERENCES_MAX) {
            report
                .differences
                .push(self.told(client, table, name, odd).await?);
        }
        Ok(())
    }

    async fn told(
        &self,
        client: &Client,
        table: &'static CoveredTable,
        name: String,
        odd: RowFault,
    ) -> Result<Difference, tokio_postgres::Error> {
        let (column, place, what) = match odd {
            RowFault::Unknown => (
                None,
                self.end,
                "no entry of the log made this row".to_owned(),
            ),
            RowFault::Missing(place) => (
                None,
                place,
                format!("the row that {place} speaks of is gone"),
            ),
            RowFault::Different(odd) => {
                let place = odd.place;
                let expected = match odd.expected {
                    Some(expected) => Some(expected),
                    None => stated_in(client, table, &name, place).await?,
                };
                let (column, what) = first_difference(table, &odd.found, expected, place);
                (column, place, what)
            }
        };
        let reason = format!("{}: {name}: {what}", table.name);
        Ok(difference(table, name, column, place, reason))
    }

    async fn compare_batched(
        &self,
        client: &Client,
        index: usize,
        table: &'static CoveredTable,
        report: &mut TablesReport,
    ) -> Result<(), tokio_postgres::Error> {
        let mut deliveries = Deliveries::of(&self.claims, index);
        each_batch(client, table, None, |batch, digest| {
            deliveries.take(batch, digest);
        })
        .await?;
        report.compared += deliveries.rows;
        let (odd, before, first_before) = deliveries.finish();
        for odd in odd {
            let told = self.told_of_batch(client, table, odd).await?;
            report.differences.push(told);
        }
        let Some(baseline) = &self.baseline else {
            return Ok(());
        };
        let said = baseline.before[index].unwrap_or_else(|| BeforeTree::default().finish());
        if before == said {
            return Ok(());
        }
        let place = baseline.place;
        let (row, what) = match first_before {
            Some(batch) if said.batches == 0 => (
                format!("batch_id {batch}"),
                "no entry of the log brought this delivery".to_owned(),
            ),
            _ => (
                format!("deliveries before {place}"),
                unlike_before(before, said, place),
            ),
        };
        let reason = format!("{}: {row}: {what}", table.name);
        report
            .differences
            .push(difference(table, row, None, place, reason));
        Ok(())
    }

    async fn told_of_batch(
        &self,
        client: &Client,
        table: &'static CoveredTable,
        odd: OddBatch,
    ) -> Result<Difference, tokio_postgres::Error> {
        let OddBatch {
            batch,
            found,
            said,
            place,
        } = odd;
        let mut row = format!("batch_id {batch}");
        let mut column = None;
        let what = if std::ptr::eq(table, &FEED_BATCHES) {
            match found {
                None => format!("the delivery that {place} speaks of is gone"),
                Some(found) if found.rows != said.rows => {
                    format!("it stands there {} times", found.rows)
                }
                Some(_) => {
                    let expected = delivery_in(client, place).await?;
                    let mut found = read_batch(client, table, batch).await?;
                    let found = found.pop().unwrap_or_default();
                    let (differs, what) = first_known_difference(table, &found, &expected, place);
                    column = differs;
                    what
                }
            }
        } else {
            let rows = read_batch(client, table, batch).await?;
            let unlike = unlike_prints(client, table, rows, said, place).await?;
            match found {
                None => format!("the {} rows that {place} speaks of are gone", said.rows),
                Some(found) if found.rows != said.rows => {
                    let speaks = match said.rows {
                        0 => format!("{place} speaks of none"),
                        said => format!("{place} speaks of {said}"),
                    };
                    let at = unlike.map(|unlike| format!("; {unlike}"));
                    format!(
                        "{} rows are there, and {speaks}{}",
                        found.rows,
                        at.unwrap_or_default()
                    )
                }
                Some(_) => match (
                    self.unlike_its_delivery(client, table, batch).await?,
                    unlike,
                ) {
                    (Some((name, differs)), _) => {
                        row = name;
                        column = Some(differs);
                        format!("{differs} is not what the delivery's is, nor what {place} says")
                    }
                    (None, Some(Unlike::Row(name))) => {
                        row = name;
                        format!("it is not the row that {place} was written with")
                    }
                    (None, Some(unlike)) => {
                        format!("a row is not the one that {place} was written with: {unlike}")
                    }
                    (None, None) => format!(
                        "at least one of its rows was changed: {place} was written with others"
                    ),
                },
            }
        };
        let reason = format!("{}: {row}: {what}", table.name);
        Ok(difference(table, row, column, place, reason))
    }

    /// The first row whose source or times are not those of the delivery that it came with.
    async fn unlike_its_delivery(
        &self,
        client: &Client,
        table: &'static CoveredTable,
        batch: Uuid,
    ) -> Result<Option<(String, &'static str)>, tokio_postgres::Error> {
        let mut deliveries = read_batch(client, &FEED_BATCHES, batch).await?;
        let Some(delivery) = deliveries.pop() else {
            return Ok(None);
        };
        let of_delivery = |name: &str| {
            let mut columns = FEED_BATCHES.columns.iter();
            let index = columns.position(|(column, _)| *column == name)?;
            delivery.get(index)
        };
        // Indices have times of their own.
        let own_times = !matches!(table.name, "base_rates" | "calendars");
        let mut rows = read_batch(client, table, batch).await?;
        rows.sort();
        for row in rows {
            for ((column, _), value) in table.columns.iter().zip(&row) {
                let repeats = match *column {
                    "source" | "known_at" => true,
                    "valid_at" => !own_times,
                    _ => false,
                };
                if repeats && of_delivery(column) != Some(value) {
                    return Ok(Some((name_of(table, &row), column)));
                }
            }
        }
        Ok(None)
    }
}

enum RowFault {
    Unknown,
    Missing(EntryPosition),
    Different(RowDifference),
}

/// What the error says of the table's making; `None` where it says something of the server, the connection or the reader's rights.
fn unlike_made(table: &'static CoveredTable, error: &tokio_postgres::Error) -> Option<String> {
    if let Some(db) = error.as_db_error() {
        let code = db.code().code();
        let of_its_making =
            code.starts_with("42") && *db.code() != SqlState::INSUFFICIENT_PRIVILEGE;
        return (of_its_making || code.starts_with("22")).then(|| describe(error));
    }
    let text = error.to_string();
    let index = text.strip_prefix("error deserializing column ")?;
    let (index, _) = index.split_once(':').unwrap_or((index, ""));
    let column = index
        .parse::<usize>()
        .ok()
        .and_then(|index| table.columns.get(index));
    let column = column.map_or("a column", |(name, _)| name);
    Some(format!("{column} is of another type"))
}

fn failed(error: tokio_postgres::Error) -> DatabaseError {
    DatabaseError::query("comparing the tables with the log")(error)
}

const NOTHING: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];

fn difference(
    table: &'static CoveredTable,
    row: String,
    column: Option<&'static str>,
    place: EntryPosition,
    reason: String,
) -> Difference {
    Difference {
        table: table.name,
        row,
        column,
        epoch: place.epoch,
        position: place.position,
        reason,
    }
}

/// A delivery whose rows are not those of its entry. `said`: what the entry has of them; nothing where it speaks of
/// none.
struct OddBatch {
    batch: Uuid,
    found: Option<RowDigest>,
    said: RowDigest,
    place: EntryPosition,
}

/// Walks the deliveries of a table beside the claims about them; both ascend.
struct Deliveries<'a> {
    claims: std::iter::Peekable<std::slice::Iter<'a, Claim>>,
    /// Of the deliveries themselves: whose rows in any table are covered.
    covered: &'a [Claim],
    before: BeforeTree,
    first_before: Option<Uuid>,
    rows: u64,
    odd: Vec<OddBatch>,
}

impl<'a> Deliveries<'a> {
    /// `claims` are sorted.
    fn of(claims: &'a [Claim], table: usize) -> Deliveries<'a> {
        let of = |table: usize| {
            let from = claims.partition_point(|claim| claim.table < table);
            let to = claims.partition_point(|claim| claim.table <= table);
            &claims[from..to]
        };
        Deliveries {
            claims: of(table).iter().peekable(),
            covered: of(0),
            before: BeforeTree::default(),
            first_before: None,
            rows: 0,
            odd: Vec::new(),
        }
    }

    fn take(&mut self, batch: Uuid, found: RowDigest) {
        self.rows += found.rows;
        while let Some(claim) = self.claims.next_if(|claim| claim.batch < batch) {
            self.missing(claim);
        }
        if let Some(claim) = self.claims.next_if(|claim| claim.batch == batch) {
            if claim.digest != found {
                self.note(batch, Some(found), claim.digest, claim.place);
            }
            return;
        }
        match self
            .covered
            .binary_search_by_key(&batch, |claim| claim.batch)
        {
            Ok(index) => self.note(batch, Some(found), NO_ROWS, self.covered[index].place),
            Err(_) => {
                self.before.push(found);
                self.first_before = self.first_before.or(Some(batch));
            }
        }
    }

    fn missing(&mut self, claim: &Claim) {
        self.note(claim.batch, None, claim.digest, claim.place);
    }

    fn note(
        &mut self,
        batch: Uuid,
        found: Option<RowDigest>,
        said: RowDigest,
        place: EntryPosition,
    ) {
        if self.odd.len() < DIFFERENCES_MAX {
            self.odd.push(OddBatch {
                batch,
                found,
                said,
                place,
            });
        }
    }

    fn finish(mut self) -> (Vec<OddBatch>, PreviousBatches, Option<Uuid>) {
        while let Some(claim) = self.claims.next() {
            self.missing(claim);
        }
        (self.odd, self.before.finish(), self.first_before)
    }
}

const NO_ROWS: RowDigest = RowDigest {
    rows: 0,
    root: Hash::ZERO,
};

fn unlike_before(found: PreviousBatches, said: PreviousBatches, place: EntryPosition) -> String {
    if (found.batches, found.rows) == (said.batches, said.rows) {
        return format!("at least one of their rows was changed: {place} was written with others");
    }
    format!(
        "{} rows of {} deliveries are there, and {place} speaks of {} of {}",
        found.rows, found.batches, said.rows, said.batches
    )
}

/// The entry at a place, whole; nothing where it cannot be read any more.
async fn entry_at(
    client: &Client,
    place: EntryPosition,
) -> Result<Option<Entry>, tokio_postgres::Error> {
    let sql = "SELECT canonical FROM audit_log WHERE log = $1 AND epoch = $2 AND position = $3";
    let position = i64::try_from(place.position).unwrap_or(i64::MAX);
    let row = client
        .query_opt(
            sql,
            &[
                &log_number(place.log),
                &place.epoch.cast_signed(),
                &position,
            ],
        )
        .await?;
    let parse = |row: Row| Entry::parse(&audit::expand(row.get(0))).ok();
    Ok(row.and_then(parse))
}

/// The row of that name, as the entry states it.
async fn stated_in(
    client: &Client,
    table: &'static CoveredTable,
    name: &str,
    place: EntryPosition,
) -> Result<Option<Values>, tokio_postgres::Error> {
    let entry = entry_at(client, place).await?;
    let find = |entry: Entry| {
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(entry.fields.get(&table.field())?).ok()?;
        rows.iter()
            .filter_map(|row| from_json(table, row))
            .find(|row| name_of(table, row) == name)
    };
    Ok(entry.and_then(find))
}

/// What the entry of a delivery says of it beside the digest, by the columns of `feed_batches`.
async fn delivery_in(
    client: &Client,
    place: EntryPosition,
) -> Result<Vec<(&'static str, String)>, tokio_postgres::Error> {
    let Some(entry) = entry_at(client, place).await? else {
        return Ok(Vec::new());
    };
    let said = |(name, _): &(&'static str, Form)| {
        let field = match *name {
            "kind" => "feed",
            name => name,
        };
        Some((*name, entry.fields.get(field)?.to_owned()))
    };
    Ok(FEED_BATCHES.columns.iter().filter_map(said).collect())
}

/// The first rows of which the entry has other digits.
async fn unlike_prints(
    client: &Client,
    table: &'static CoveredTable,
    rows: Vec<Values>,
    digest: RowDigest,
    place: EntryPosition,
) -> Result<Option<Unlike>, tokio_postgres::Error> {
    let Some(entry) = entry_at(client, place).await? else {
        return Ok(None);
    };
    let Some(runs) = entry.fields.get(&table.field_prints()) else {
        return Ok(None);
    };
    let mut prints = Prints::default();
    for row in rows {
        prints.push(name_of(table, &row), hash_of(table, &row));
    }
    Ok(prints.unlike(Said {
        digest,
        runs,
        places: entry.fields.get(&table.field_places()),
    }))
}

async fn read_batch(
    client: &Client,
    table: &'static CoveredTable,
    batch: Uuid,
) -> Result<Vec<Values>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT {} FROM {} AS t WHERE t.batch_id = $1::text::uuid",
        table.select("t"),
        table.name
    );
    let rows = client.query(&sql, &[&batch.to_string()]).await?;
    let mut reader = RowReader::of(table);
    rows.iter().map(|row| reader.values(row)).collect()
}

fn first_difference(
    table: &'static CoveredTable,
    found: &Values,
    expected: Option<Values>,
    place: EntryPosition,
) -> (Option<&'static str>, String) {
    let Some(expected) = expected else {
        return (None, format!("it is not what {place} says"));
    };
    let columns = table.columns.iter().zip(found.iter().zip(&expected));
    let mut unlike = columns.filter(|(_, (found, expected))| found != expected);
    match unlike.next() {
        Some(((column, form), (found, expected))) => (
            Some(column),
            unlike_words(column, *form, found, expected, place),
        ),
        None => (None, format!("it is not what {place} says")),
    }
}

/// Of a delivery: the columns that its entry repeats are compared one by one, and when they agree it is one of the others.
fn first_known_difference(
    table: &'static CoveredTable,
    found: &Values,
    expected: &[(&'static str, String)],
    place: EntryPosition,
) -> (Option<&'static str>, String) {
    let mut known_at = None;
    for ((column, form), found) in table.columns.iter().zip(found) {
        match expected.iter().find(|(name, _)| name == column) {
            Some((_, expected)) if found.as_ref() != Some(expected) => {
                let what = unlike_words(column, *form, found, &Some(expected.clone()), place);
                return (Some(column), what);
            }
            Some(_) => {}
            None => known_at = Some(*column),
        }
    }
    match known_at {
        Some(column) => (
            Some(column),
            format!("{column} is not what {place} was written with"),
        ),
        None => (None, format!("it is not what {place} says")),
    }
}

fn unlike_words(
    column: &str,
    form: Form,
    found: &Option<String>,
    expected: &Option<String>,
    place: EntryPosition,
) -> String {
    /// Longer ones fill a screen and say no more.
    const SHOWN_MAX: usize = 60;
    let plain = |value: &Option<String>| match value {
        Some(value) if value.is_empty() => "empty".to_owned(),
        Some(value) => value.clone(),
        None => "nothing".to_owned(),
    };
    let (found, expected) = (plain(found), plain(expected));
    if form == Form::Hex || found.len() > SHOWN_MAX || expected.len() > SHOWN_MAX {
        return format!("{column} is not what {place} says");
    }
    format!("{column} is {found}, and {place} says {expected}")
}
