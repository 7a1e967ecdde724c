//! A table's shape on one side, and what both sides share.

use std::fmt;
use std::str::FromStr;

use postgres_physical::server::sql::{Client, quote_identifier, quote_literal};
use postgres_physical::wire::WireError;

use super::{Mode, Request, Table, TableError};

/// `schema.name`; without a schema, `public`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a table, which looks like orders, sales.orders or \"Sales\".\"Order.Lines\""
)]
pub struct ParseNameError(String);

impl TableName {
    /// For SQL.
    #[must_use]
    pub fn sql(&self) -> String {
        format!(
            "{}.{}",
            quote_identifier(&self.schema),
            quote_identifier(&self.name)
        )
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl FromStr for TableName {
    type Err = ParseNameError;

    /// As SQL writes it: bare parts are folded to lower case, quoted ones are taken as they are.
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let bad = || ParseNameError(text.to_owned());
        let (first, rest) = part(text).ok_or_else(bad)?;
        let (schema, name, rest) = match rest.strip_prefix('.') {
            None => ("public".to_owned(), first, rest),
            Some(rest) => {
                let (name, rest) = part(rest).ok_or_else(bad)?;
                (first, name, rest)
            }
        };
        match rest.is_empty() {
            true => Ok(Self { schema, name }),
            false => Err(bad()),
        }
    }
}

/// One identifier off the front.
fn part(text: &str) -> Option<(String, &str)> {
    let (found, rest) = match text.strip_prefix('"') {
        None => {
            let end = text.find(['.', '"']).unwrap_or(text.len());
            (text[..end].to_lowercase(), &text[end..])
        }
        Some(mut rest) => {
            let mut found = String::new();
            loop {
                let end = rest.find('"')?;
                found.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(more) => {
                        found.push('"');
                        rest = more;
                    }
                    None => break (found, rest),
                }
            }
        }
    };
    (!found.is_empty() && !found.contains(char::is_whitespace) || text.starts_with('"'))
        .then_some((found, rest))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) required: bool,
    pub(super) has_default: bool,
    pub(super) generated: bool,
    /// GENERATED ALWAYS AS IDENTITY: it can be inserted, not updated.
    pub(super) fixed: bool,
    /// Of a type whose binary form means the same on both sides: PostgreSQL's own, and no name of something that may be
    /// another one since.
    pub(super) plain: bool,
}

/// A column of the key with the operator of its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    pub(super) equals: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) oid: String,
    pub(super) columns: Vec<Column>,
    pub(super) key: Vec<KeyColumn>,
}

impl Shape {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

pub(super) fn look(
    name: &TableName,
    number: usize,
    request: &Request<'_>,
    backup: &mut Client,
    now: &mut Client,
) -> Result<Table, TableError> {
    if ["pg_catalog", "information_schema", "pg_toast"].contains(&name.schema.as_str()) {
        return Err(unfit(
            name,
            "it is a part of the system. Bring the whole database back: bre restore database --to DIR",
        ));
    }
    let Some(old) = shape(name, backup)? else {
        return Err(TableError::NotThen {
            table: name.to_string(),
            database: request.backup.database.clone(),
            hint: elsewhere(name, backup)?,
        });
    };
    let new = shape(name, now)?;
    if let Some(new) = &new {
        check_writable(name, new, now)?;
    }
    let same = |column: &&Column| {
        let there = new
            .as_ref()
            .map_or(Some(*column), |new| new.column(&column.name));
        !column.generated && there.is_some_and(|there| !there.generated)
    };
    let columns: Vec<String> = old
        .columns
        .iter()
        .filter(same)
        .map(|column| column.name.clone())
        .collect();
    let mut table = Table {
        name: name.clone(),
        backup: old,
        now: new,
        columns,
        staged: format!("pg_temp.bre_then_{number}"),
    };
    check_columns(&table)?;
    if let Some(now) = &mut table.now {
        let known = now.key.iter().all(|key| table.columns.contains(&key.name));
        if !known {
            now.key.clear();
        }
        if now.key.is_empty() && request.mode != Mode::Missing {
            return Err(TableError::NoKey {
                table: name.to_string(),
                mode: request.mode.name(),
            });
        }
    }
    Ok(table)
}

fn unfit(name: &TableName, reason: impl Into<String>) -> TableError {
    TableError::Unfit {
        table: name.to_string(),
        reason: reason.into(),
    }
}

/// What was added since must have a value for rows of that moment.
fn check_columns(table: &Table) -> Result<(), TableError> {
    if table.columns.is_empty() {
        return Err(unfit(
            &table.name,
            "none of the columns that it had at that moment is there now",
        ));
    }
    let Some(now) = &table.now else {
        return Ok(());
    };
    let missing: Vec<&str> = now
        .columns
        .iter()
        .filter(|column| {
            column.required
                && !column.has_default
                && !column.generated
                && table.backup.column(&column.name).is_none()
        })
        .map(|column| column.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(unfit(
        &table.name,
        format!(
            "the columns {} were added since, must not be null and have no default, so the old rows cannot have them. \
             Give them a default: ALTER TABLE {} ALTER COLUMN {} SET DEFAULT …",
            missing.join(", "),
            table.name.sql(),
            quote_identifier(missing[0])
        ),
    ))
}

/// `None`: there is no relation of this name.
fn shape(name: &TableName, client: &mut Client) -> Result<Option<Shape>, TableError> {
    let sql = format!(
        "SELECT c.oid, c.relkind, c.relpersistence, \
            c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid), \
            c.relrowsecurity AND row_security_active(c.oid) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}",
        quote_literal(&name.schema),
        quote_literal(&name.name)
    );
    let rows = client.query(&sql)?.rows;
    let Some(row) = rows.into_iter().next() else {
        return Ok(None);
    };
    let field = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
    let what = match (field(1).as_str(), field(2).as_str()) {
        ("r" | "p", "p") => None,
        ("r" | "p", "u") => Some("it is unlogged: no WAL and no backup has its rows"),
        ("r" | "p", _) => Some("it is a temporary table"),
        ("v", _) => Some("it is a view. Restore the tables that it shows"),
        ("m", _) => Some(
            "it is a materialised view. Restore the tables that it shows, then REFRESH MATERIALIZED VIEW",
        ),
        ("f", _) => Some("it is a foreign table: its rows lie on another server"),
        _ => Some("it is not a table"),
    };
    if let Some(what) = what {
        return Err(unfit(name, what));
    }
    if field(3) == "t" {
        return Err(unfit(
            name,
            "other tables inherit from it. Name each of them",
        ));
    }
    if field(4) == "t" {
        return Err(unfit(
            name,
            "row security hides rows from this role. Use a role that it does not bind",
        ));
    }
    let oid = field(0);
    Ok(Some(Shape {
        columns: columns(&oid, client)?,
        key: key(&oid, client)?,
        oid,
    }))
}

fn columns(oid: &str, client: &mut Client) -> Result<Vec<Column>, WireError> {
    let sql = format!(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, atthasdef OR attidentity <> '', attgenerated <> '', attidentity = 'a', \
            t.oid < 10000 AND t.typtype IN ('b', 'r', 'm') AND t.typsend <> 0 AND t.typreceive <> 0 \
            AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid IN (t.oid, t.typelem) AND e.typname LIKE 'reg%') \
         FROM pg_attribute JOIN pg_type t ON t.oid = atttypid WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    );
    let rows = client.query(&sql)?.rows.into_iter();
    let column = |row: Vec<Option<String>>| {
        let text = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
        let is = |index: usize| text(index) == "t";
        Column {
            name: text(0),
            kind: text(1),
            required: is(2),
            has_default: is(3),
            generated: is(4),
            fixed: is(5),
            plain: is(6),
        }
    };
    Ok(rows.map(column).collect())
}

/// The primary key, or else a unique index of columns that are never null.
fn key(oid: &str, client: &mut Client) -> Result<Vec<KeyColumn>, WireError> {
    let sql = format!(
        "SELECT i.indexrelid, a.attname, format('OPERATOR(%I.%s)', s.nspname, o.oprname) FROM pg_index i \
         CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, place) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         JOIN pg_opclass c ON c.oid = k.opclass \
         JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amopstrategy = 3 AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype \
         JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace \
         WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts \
            AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS n (attnum, place) \
                JOIN pg_attribute b ON b.attrelid = i.indrelid AND b.attnum = n.attnum WHERE n.place <= i.indnkeyatts AND NOT b.attnotnull) \
         ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indexrelid, k.place"
    );
    let rows = client.query(&sql)?.rows;
    let first = rows.first().and_then(|row| row.first().cloned()).flatten();
    let of_first = rows
        .into_iter()
        .filter(|row| row.first().cloned().flatten() == first);
    let column = |row: Vec<Option<String>>| {
        let mut fields = row.into_iter().skip(1).flatten();
        Some(KeyColumn {
            name: fields.next()?,
            equals: fields.next()?,
        })
    };
    Ok(of_first.filter_map(column).collect())
}

/// Rules would turn the merge's statements into others.
fn check_writable(name: &TableName, shape: &Shape, client: &mut Client) -> Result<(), TableError> {
    let sql = format!(
        "SELECT string_agg(rulename, ', ') FROM pg_rewrite WHERE ev_class = {} AND ev_type <> '1' AND ev_enabled <> 'D'",
        shape.oid
    );
    match client.value(&sql)? {
        Some(rules) => Err(unfit(
            name,
            format!("rules change what is written to it ({rules}). Drop or disable them first"),
        )),
        None => Ok(()),
    }
}

fn elsewhere(name: &TableName, backup: &mut Client) -> Result<String, WireError> {
    let sql = format!(
        "SELECT string_agg(DISTINCT n.nspname || '.' || c.relname, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = {} AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
        quote_literal(&name.name)
    );
    Ok(match backup.value(&sql)? {
        Some(found) => format!("There was: {found}"),
        None => "Look at its name, name another database with --database, or choose another moment"
            .to_owned(),
    })
}

/// A row goes in after the one that it refers to.
pub(super) fn parents_first(tables: &mut Vec<Table>, backup: &mut Client) -> Result<(), WireError> {
    let oids: Vec<&str> = tables
        .iter()
        .map(|table| table.backup.oid.as_str())
        .collect();
    let sql = format!(
        "SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid AND conrelid IN ({0}) AND confrelid IN ({0})",
        oids.join(", ")
    );
    let edges: Vec<(String, String)> = backup
        .query(&sql)?
        .rows
        .into_iter()
        .filter_map(|row| {
            let mut fields = row.into_iter().flatten();
            Some((fields.next()?, fields.next()?))
        })
        .collect();
    let mut sorted: Vec<Table> = Vec::new();
    while !tables.is_empty() {
        let waits = |table: &Table| {
            let parents = edges.iter().filter(|(child, _)| *child == table.backup.oid);
            let mut parents = parents.map(|(_, parent)| parent);
            parents.any(|parent| tables.iter().any(|other| other.backup.oid == *parent))
        };
        // In a ring any of them may be first; PostgreSQL has the last word.
        let next = tables.iter().position(|table| !waits(table)).unwrap_or(0);
        sorted.push(tables.remove(next));
    }
    *tables = sorted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found: Option<TableName> = text.parse().ok();
            let found = found.as_ref().map(|n| (n.schema.as_str(), n.name.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("Orders", Some(("public", "orders")));
        check("sales.Orders", Some(("sales", "orders")));
        check("\"Sales\".\"a.\"\"b\"", Some(("Sales", "a.\"b")));
        check("\"two words\"", Some(("public", "two words")));
        for wrong in ["", ".", "a.", "a.b.c", "\"a", "two words", "a\"b\""] {
            check(wrong, None);
        }
    }
}
