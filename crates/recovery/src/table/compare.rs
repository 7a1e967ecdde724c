//! Rows of that moment against rows of now, by key, or by whole rows without a key. The preview and the check after the
//! merge use the same figures.

use postgres_physical::server::sql::{Client, quote_identifier};
use postgres_physical::wire::WireError;

use super::{Mode, Request, Table, TableError, consequences};

const SAMPLES: u32 = 3;
/// Numbers the staged rows of a table without a key; no column of anybody's is called so.
pub(super) const PLACE: &str = "\"bre place\"";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    pub mode: Mode,
    pub tables: Vec<TablePreview>,
}

impl Preview {
    /// The table is what the mode wants it to be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.tables
            .iter()
            .all(|table| !table.dropped && table.counts.left(self.mode).is_none())
    }
}

/// A row as JSON, in the backup and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub backup: Option<String>,
    pub now: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePreview {
    pub table: String,
    /// It is not there now, and is made again.
    pub dropped: bool,
    /// What tells rows apart; empty: whole rows do.
    pub key: Vec<String>,
    pub counts: Counts,
    /// How many of the rows that differ do so in which column.
    pub changed_columns: Vec<(String, u64)>,
    pub missing: Vec<Sample>,
    pub different: Vec<Sample>,
    /// What else to know before saying yes.
    pub notes: Vec<String>,
    /// What PostgreSQL will refuse.
    pub obstacles: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Of the backup, those that were asked for.
    pub rows_then: u64,
    pub rows_now: u64,
    /// In the backup, not now.
    pub missing: u64,
    /// In the backup and now, with another content.
    pub different: u64,
    /// There now, not in the backup: written since. Not counted when only a part of that moment was asked for.
    pub only_now: Option<u64>,
}

impl Counts {
    /// What the mode still has to do.
    pub(super) fn left(&self, mode: Mode) -> Option<String> {
        let mut left = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                left.push(format!("{count} {what}"));
            }
        };
        add(self.missing, "rows to put back");
        if mode != Mode::Missing {
            add(self.different, "rows to change back");
        }
        if mode == Mode::Exact {
            add(self.only_now.unwrap_or(0), "rows to delete");
        }
        (!left.is_empty()).then(|| left.join(", "))
    }
}

/// SQL about one table that is there on both sides: `s` is a row of that moment, `l` a row of now.
pub(super) struct Sides<'a> {
    pub(super) table: &'a Table,
    pub(super) live: String,
}

impl<'a> Sides<'a> {
    pub(super) fn of(table: &'a Table) -> Self {
        Self {
            table,
            live: table.name.sql(),
        }
    }

    fn is_keyed(&self) -> bool {
        !self.table.shape().key.is_empty()
    }

    pub(super) fn same_key(&self) -> String {
        let keys = self.table.shape().key.iter().map(|key| {
            let name = quote_identifier(&key.name);
            format!("s.{name} {} l.{name}", key.equals)
        });
        keys.collect::<Vec<_>>().join(" AND ")
    }

    /// What whole rows are told apart by: columns whose equality is that of their bytes as they are, others by the text
    /// that they are written as. All of it can be hashed, whatever the types.
    fn whole_row(&self, side: &str) -> Vec<String> {
        let columns = self.table.columns.iter();
        let told_apart = columns.map(|name| {
            let column = format!("{side}.{}", quote_identifier(name));
            let kind = self.table.shape().column(name).map(|it| it.kind.as_str());
            match kind.unwrap_or_default() {
                "boolean" | "smallint" | "integer" | "bigint" | "oid" | "uuid" | "date"
                | "bytea" => column,
                "timestamp with time zone" | "timestamp without time zone" => column,
                // Two texts may be equal to a collation and differ.
                "text" | "character varying" => format!("{column} COLLATE pg_catalog.\"C\""),
                // The quicker way to text, where it leaves nothing out.
                "numeric" | "real" | "double precision" | "json" | "jsonb" => {
                    format!("{column}::text")
                }
                kind if kind.starts_with("numeric(") => format!("{column}::text"),
                _ => format!("ROW({column})::text"),
            }
        });
        told_apart.collect()
    }

    /// Whole rows of that moment that are not there as often now: where one of each lies, and how many are missing.
    /// Both sides are gone through once and counted in one hash table, which takes to the disk what does not fit.
    fn missing_whole_rows(&self) -> String {
        let one_side = |side: &str, table: &str, place: &str| {
            let columns = self.whole_row(side).into_iter().enumerate();
            let columns = columns.map(|(number, column)| format!("{column} AS bre_{number}, "));
            let columns: String = columns.collect();
            format!("SELECT {columns}{place} AS bre_place FROM {table} {side}")
        };
        let keys: Vec<String> = (0..self.table.columns.len())
            .map(|number| format!("bre_{number}"))
            .collect();
        // Of a table without a column all rows are one.
        let group = match keys.is_empty() {
            true => String::new(),
            false => format!("GROUP BY {} ", keys.join(", ")),
        };
        // Only rows of that moment have a place: as many rows without one are there now.
        format!(
            "SELECT max(bre_place) AS bre_place, 2 * count(bre_place) - count(*) AS bre_count \
             FROM ({} UNION ALL {}) bre_both {group}HAVING 2 * count(bre_place) > count(*)",
            one_side("s", &self.table.staged, &format!("s.{PLACE}")),
            one_side("l", &self.live, "NULL::bigint")
        )
    }

    pub(super) fn columns(&self, side: &str) -> String {
        let columns = self.table.columns.iter();
        let named = columns.map(|name| format!("{side}.{}", quote_identifier(name)));
        named.collect::<Vec<_>>().join(", ")
    }

    /// By the bytes of every column: every type has some, not every type has equality.
    pub(super) fn differs(&self) -> String {
        format!(
            "ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record",
            self.columns("s"),
            self.columns("l")
        )
    }

    /// The rows of that moment that are missing, as a query over `s`.
    pub(super) fn missing(&self, what: &str) -> String {
        let (staged, live) = (&self.table.staged, &self.live);
        if self.is_keyed() {
            return format!(
                "SELECT {what} FROM {staged} s WHERE NOT EXISTS (SELECT FROM {live} l WHERE {})",
                self.same_key()
            );
        }
        // Whole rows, each as often as it is missing.
        format!(
            "SELECT {what} FROM ({}) m JOIN {staged} s ON s.{PLACE} = m.bre_place, LATERAL generate_series(1, m.bre_count)",
            self.missing_whole_rows()
        )
    }

    /// How many whole rows are missing, and a few of them, in one pass.
    fn whole_rows(&self, now: &mut Client) -> Result<(u64, Vec<Sample>), WireError> {
        let sql = format!(
            "WITH m AS MATERIALIZED ({}) SELECT (SELECT coalesce(sum(bre_count), 0) FROM m), \
             (SELECT row_to_json(r) FROM (SELECT {}) r) FROM (SELECT) one \
             LEFT JOIN (SELECT s.* FROM (SELECT * FROM m LIMIT {SAMPLES}) m JOIN {} s ON s.{PLACE} = m.bre_place, \
             LATERAL generate_series(1, m.bre_count) LIMIT {SAMPLES}) s ON true",
            self.missing_whole_rows(),
            self.columns("s"),
            self.table.staged
        );
        let rows = now.query(&sql)?.rows;
        let first = rows
            .first()
            .and_then(|row| row.first()?.as_deref()?.parse().ok());
        let missing: u64 =
            first.ok_or_else(|| WireError::Protocol(format!("no number in answer to {sql}")))?;
        let samples = rows.into_iter().filter_map(|row| {
            let backup = row.into_iter().nth(1)?;
            Some(Sample { backup, now: None })
        });
        let samples = if missing > 0 {
            samples.collect()
        } else {
            Vec::new()
        };
        Ok((missing, samples))
    }

    /// Of the backup, not one row is there: all of it can go in by COPY, which asks no row whether it is missing.
    pub(super) fn none_is_there(&self, now: &mut Client) -> Result<bool, WireError> {
        let (staged, live) = (&self.table.staged, &self.live);
        let sql = match self.is_keyed() {
            true => format!(
                "SELECT EXISTS (SELECT FROM {staged} s JOIN {live} l ON {})",
                self.same_key()
            ),
            false => format!("SELECT EXISTS (SELECT FROM {live})"),
        };
        Ok(now.value(&sql)?.as_deref() == Some("f"))
    }

    pub(super) fn counts(&self, now: &mut Client, whole: bool) -> Result<Counts, WireError> {
        Ok(self.counted(now, whole)?.0)
    }

    /// The figures, and of whole rows a few that are missing: they come with the same pass.
    fn counted(&self, now: &mut Client, whole: bool) -> Result<(Counts, Vec<Sample>), WireError> {
        let (staged, live) = (&self.table.staged, &self.live);
        let rows_now = number(now, &format!("SELECT count(*) FROM {live}"))?;
        let mut samples = Vec::new();
        let (rows_then, missing, different) = match self.is_keyed() {
            false => {
                let rows_then = number(now, &format!("SELECT count(*) FROM {staged}"))?;
                let (missing, some) = self.whole_rows(now)?;
                samples = some;
                (rows_then, missing, 0)
            }
            true => self.compared(now)?,
        };
        let kept = rows_then.saturating_sub(missing);
        let counts = Counts {
            rows_then,
            rows_now,
            missing,
            different,
            only_now: whole.then(|| rows_now.saturating_sub(kept)),
        };
        Ok((counts, samples))
    }

    /// In one pass: rows of that moment, those that are missing, those that differ.
    fn compared(&self, now: &mut Client) -> Result<(u64, u64, u64), WireError> {
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE l.tableoid IS NULL), count(*) FILTER (WHERE l.tableoid IS NOT NULL AND {}) \
             FROM {} s LEFT JOIN {} l ON {}",
            self.differs(),
            self.table.staged,
            self.live,
            self.same_key()
        );
        let row = now.query(&sql)?.rows.into_iter().next().unwrap_or_default();
        let mut counts = row.into_iter().map(|count| count?.parse().ok());
        let mut next = || {
            let count = counts.next().flatten();
            count.ok_or_else(|| WireError::Protocol(format!("no number in answer to {sql}")))
        };
        Ok((next()?, next()?, next()?))
    }

    /// A few rows of each kind. What differs is found as for the count, and only then a few are taken: a LIMIT on the
    /// comparison itself would have PostgreSQL go through the other side once for each row.
    fn samples(&self, now: &mut Client, counts: &Counts) -> Result<[Vec<Sample>; 2], WireError> {
        let (staged, live) = (&self.table.staged, &self.live);
        let backup = format!(
            "(SELECT row_to_json(r) FROM (SELECT {}) r)",
            self.columns("s")
        );
        let mut samples = [Vec::new(), Vec::new()];
        if counts.missing > 0 && self.is_keyed() {
            let sql = format!(
                "WITH d AS MATERIALIZED ({}) SELECT {backup} FROM (SELECT place FROM d LIMIT {SAMPLES}) d JOIN {staged} s ON s.ctid = d.place",
                self.missing("s.ctid AS place")
            );
            samples[0] = sampled(now, &sql)?;
        }
        if counts.different > 0 {
            let sql = format!(
                "WITH d AS MATERIALIZED (SELECT s.ctid AS place FROM {staged} s JOIN {live} l ON {key} WHERE {differs}) \
                 SELECT {backup}, (SELECT row_to_json(r) FROM (SELECT {now}) r) \
                 FROM (SELECT place FROM d LIMIT {SAMPLES}) d JOIN {staged} s ON s.ctid = d.place JOIN {live} l ON {key}",
                key = self.same_key(),
                differs = self.differs(),
                now = self.columns("l")
            );
            samples[1] = sampled(now, &sql)?;
        }
        Ok(samples)
    }

    fn changed_columns(&self, now: &mut Client) -> Result<Vec<(String, u64)>, WireError> {
        let counted = self.table.columns.iter().map(|name| {
            let name = quote_identifier(name);
            format!("count(*) FILTER (WHERE s.{name}::text IS DISTINCT FROM l.{name}::text)")
        });
        let sql = format!(
            "SELECT {} FROM {} s JOIN {} l ON {} WHERE {}",
            counted.collect::<Vec<_>>().join(", "),
            self.table.staged,
            self.live,
            self.same_key(),
            self.differs()
        );
        let row = now.query(&sql)?.rows.into_iter().next().unwrap_or_default();
        let counts = row
            .into_iter()
            .map(|count| count.and_then(|count| count.parse().ok()).unwrap_or(0));
        let named = self.table.columns.iter().cloned().zip(counts);
        Ok(named.filter(|(_, count)| *count > 0).collect())
    }
}

fn sampled(now: &mut Client, sql: &str) -> Result<Vec<Sample>, WireError> {
    let rows = now.query(sql)?.rows.into_iter();
    let sample = |row: Vec<Option<String>>| {
        let mut fields = row.into_iter();
        Sample {
            backup: fields.next().flatten(),
            now: fields.next().flatten(),
        }
    };
    Ok(rows.map(sample).collect())
}

pub(super) fn number(client: &mut Client, sql: &str) -> Result<u64, WireError> {
    let text = client.value(sql)?.unwrap_or_default();
    let parsed = text.parse();
    parsed.map_err(|_| WireError::Protocol(format!("{text:?} in answer to {sql}")))
}

pub(super) fn preview(
    table: &Table,
    all: &[Table],
    request: &Request<'_>,
    (backup, now): (&mut Client, &mut Client),
) -> Result<TablePreview, TableError> {
    let sides = Sides::of(table);
    let mut preview = TablePreview {
        table: table.name.to_string(),
        dropped: table.now.is_none(),
        key: table
            .shape()
            .key
            .iter()
            .map(|key| key.name.clone())
            .collect(),
        counts: Counts::default(),
        changed_columns: Vec::new(),
        missing: Vec::new(),
        different: Vec::new(),
        notes: Vec::new(),
        obstacles: Vec::new(),
    };
    if preview.dropped {
        let rows = number(now, &format!("SELECT count(*) FROM {}", table.staged))?;
        (preview.counts.rows_then, preview.counts.missing) = (rows, rows);
        consequences::of_dropped(table, backup, now, &mut preview)?;
        return Ok(preview);
    }
    let (counts, whole_rows) = sides.counted(now, request.only.is_none())?;
    preview.counts = counts;
    if preview.counts.different > 0 {
        preview.changed_columns = sides.changed_columns(now)?;
    }
    [preview.missing, preview.different] = sides.samples(now, &preview.counts)?;
    preview.missing.extend(whole_rows);
    consequences::of_present(table, all, request, now, &mut preview)?;
    Ok(preview)
}
