//! What else a merge touches, and what prevents it: named before an operator says yes.

use postgres_physical::server::sql::{Client, quote_identifier};
use postgres_physical::wire::WireError;

use super::compare::{Sides, TablePreview, number};
use super::{Mode, Request, Table};

/// One row of texts of an answer.
pub(super) fn texts(client: &mut Client, sql: &str) -> Result<Vec<Vec<String>>, WireError> {
    let rows = client.query(sql)?.rows.into_iter();
    let row = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect();
    Ok(rows.map(row).collect())
}

pub(super) fn of_present(
    table: &Table,
    all: &[Table],
    request: &Request<'_>,
    now: &mut Client,
    preview: &mut TablePreview,
) -> Result<(), WireError> {
    columns(table, preview);
    rows(request.mode, preview);
    triggers(table, request.fire_triggers, now, preview)?;
    parents(table, all, now, preview)?;
    children(table, all, request.mode, now, preview)?;
    if preview.counts.missing > 0 {
        unique(table, now, preview)?;
    }
    Ok(())
}

fn columns(table: &Table, preview: &mut TablePreview) {
    let Some(now) = &table.now else { return };
    for column in &table.backup.columns {
        match now.column(&column.name) {
            None => preview.notes.push(format!(
                "the column {} was dropped since: its values do not come back",
                column.name
            )),
            Some(there) if there.kind != column.kind => preview.notes.push(format!(
                "the column {} was {} then and is {} now: its values are read as the new type",
                column.name, column.kind, there.kind
            )),
            Some(there) if there.generated => preview.notes.push(format!(
                "the column {} is generated: it is computed again",
                column.name
            )),
            Some(_) => {}
        }
        if column.kind == "oid" {
            preview.notes.push(format!(
                "the column {} may name large objects: the objects themselves are not restored",
                column.name
            ));
        }
    }
    for column in &now.columns {
        if table.backup.column(&column.name).is_none() && !column.generated {
            let value = if column.has_default {
                "its default"
            } else {
                "NULL"
            };
            preview.notes.push(format!(
                "the column {} was added since: rows that come back have {value} there",
                column.name
            ));
        }
    }
}

fn rows(mode: Mode, preview: &mut TablePreview) {
    let counts = preview.counts;
    if preview.key.is_empty() {
        preview.notes.push(
            "no key tells its rows apart, so whole rows are compared: a row that was changed since comes back beside \
             its newer form"
                .to_owned(),
        );
    }
    if mode == Mode::Missing && counts.different > 0 {
        preview.notes.push(format!(
            "{} rows differ from then and stay as they are now (--mode changed gives them their old content)",
            counts.different
        ));
    }
    if mode != Mode::Exact && counts.only_now.unwrap_or(0) > 0 {
        preview.notes.push(format!(
            "{} rows were written since and stay",
            counts.only_now.unwrap_or(0)
        ));
    }
}

/// Name and `tgenabled` of the triggers that fire in an ordinary session.
pub(super) fn firing(table: &Table, now: &mut Client) -> Result<Vec<(String, String)>, WireError> {
    let Some(shape) = &table.now else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = {} AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY tgname",
        shape.oid
    );
    let rows = texts(now, &sql)?.into_iter();
    Ok(rows
        .filter_map(|row| {
            let mut fields = row.into_iter();
            Some((fields.next()?, fields.next()?))
        })
        .collect())
}

fn triggers(
    table: &Table,
    fire: bool,
    now: &mut Client,
    preview: &mut TablePreview,
) -> Result<(), WireError> {
    let names: Vec<String> = firing(table, now)?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    let oid = table.shape().oid.as_str();
    let kind = now.value(&format!("SELECT relkind FROM pg_class WHERE oid = {oid}"))?;
    match (fire, kind.as_deref()) {
        (true, _) => preview.notes.push(format!(
            "its triggers fire for every row that is merged: {names}"
        )),
        (false, Some("p")) => preview.obstacles.push(format!(
            "it is partitioned and has triggers ({names}), which cannot be switched off for all partitions at once: \
             say --fire-triggers, or name the partitions"
        )),
        (false, _) => preview.notes.push(format!(
            "its triggers do not fire for what is merged, and are on again when it is committed: {names} \
             (--fire-triggers lets them)"
        )),
    }
    Ok(())
}

/// Rows whose parent is gone, by foreign key.
fn parents(
    table: &Table,
    all: &[Table],
    now: &mut Client,
    preview: &mut TablePreview,
) -> Result<(), WireError> {
    let oid = table.shape().oid.as_str();
    let sql = format!(
        "SELECT f.oid, f.conname, f.confrelid, f.confrelid::regclass, string_agg(format('p.%I OPERATOR(%I.%s) s.%I', b.attname, n.nspname, o.oprname, a.attname), ' AND '), \
            string_agg(format('s.%I IS NOT NULL', a.attname), ' AND '), string_agg(a.attname, chr(1)) \
         FROM pg_constraint f CROSS JOIN LATERAL unnest(f.conkey, f.confkey, f.conpfeqop) AS k (child, parent, equals) \
         JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.child JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = k.parent \
         JOIN pg_operator o ON o.oid = k.equals JOIN pg_namespace n ON n.oid = o.oprnamespace \
         WHERE f.contype = 'f' AND f.conrelid = {oid} AND f.convalidated GROUP BY f.oid, f.conname, f.confrelid ORDER BY f.conname"
    );
    for row in texts(now, &sql)? {
        let [_, name, parent_oid, parent, same, set, columns] = &row[..] else {
            continue;
        };
        let known = columns
            .split('\u{1}')
            .all(|it| table.columns.iter().any(|c| c == it));
        let restored = all
            .iter()
            .any(|other| other.now.as_ref().is_some_and(|now| now.oid == *parent_oid));
        if !known || restored || preview.counts.missing == 0 {
            continue;
        }
        let missing = Sides::of(table).missing("s.*");
        let orphans = format!(
            "SELECT count(*) FROM ({missing}) s WHERE {set} AND NOT EXISTS (SELECT FROM {parent} p WHERE {same})"
        );
        let count = number(now, &orphans)?;
        if count > 0 {
            preview.obstacles.push(format!(
                "{count} rows refer by {name} to rows of {parent} that are gone: bring both back, --table {parent},{}",
                table.name
            ));
        }
    }
    Ok(())
}

/// Who refers to it: their rows may have gone with its rows, and would go with rows that are deleted.
fn children(
    table: &Table,
    all: &[Table],
    mode: Mode,
    now: &mut Client,
    preview: &mut TablePreview,
) -> Result<(), WireError> {
    let oid = table.shape().oid.as_str();
    let sql = format!(
        "SELECT DISTINCT conrelid, conrelid::regclass, confdeltype FROM pg_constraint WHERE contype = 'f' AND confrelid = {oid} \
         AND conrelid <> confrelid AND conparentid = 0 ORDER BY 2"
    );
    for row in texts(now, &sql)? {
        let [child_oid, child, action] = &row[..] else {
            continue;
        };
        let restored = all
            .iter()
            .any(|other| other.now.as_ref().is_some_and(|now| now.oid == *child_oid));
        let what = match action.as_str() {
            "c" => "rows of it that referred to deleted rows were deleted too",
            "n" | "d" => "what referred to deleted rows was set to NULL or to its default",
            _ => continue,
        };
        if !restored && preview.counts.missing > 0 {
            preview.notes.push(format!(
                "{child} refers to it: {what} (--table {},{child} brings back both)",
                table.name
            ));
        }
        if mode == Mode::Exact && preview.counts.only_now.unwrap_or(0) > 0 {
            preview.obstacles.push(format!(
                "deleting the {} rows written since would reach into {child} (its foreign key deletes or changes what \
                 refers to them): delete them by hand, or use --mode changed",
                preview.counts.only_now.unwrap_or(0)
            ));
        }
    }
    Ok(())
}

/// Rows of now that hold a unique value of a missing row under another key.
fn unique(table: &Table, now: &mut Client, preview: &mut TablePreview) -> Result<(), WireError> {
    let oid = table.shape().oid.as_str();
    let sql = format!(
        "SELECT i.indexrelid::regclass, string_agg(a.attname, chr(1) ORDER BY k.place) FROM pg_index i \
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts \
         GROUP BY i.indexrelid ORDER BY 1"
    );
    for row in texts(now, &sql)? {
        let [index, columns] = &row[..] else { continue };
        let columns: Vec<&str> = columns.split('\u{1}').collect();
        let is_key = columns.len() == preview.key.len()
            && columns
                .iter()
                .all(|name| preview.key.iter().any(|key| key == name));
        let known = columns
            .iter()
            .all(|name| table.columns.iter().any(|c| c == name));
        if is_key || !known {
            continue;
        }
        let same = columns.iter().map(|name| {
            let name = quote_identifier(name);
            format!("s.{name}::text = l.{name}::text")
        });
        let sql = format!(
            "SELECT count(*) FROM ({}) s WHERE EXISTS (SELECT FROM {} l WHERE {})",
            Sides::of(table).missing("s.*"),
            table.name.sql(),
            same.collect::<Vec<_>>().join(" AND ")
        );
        let count = number(now, &sql)?;
        if count > 0 {
            preview.obstacles.push(format!(
                "{count} rows cannot come back because rows written since hold their value in {index} ({}): leave \
                 them out with --where, or change the newer rows",
                columns.join(", ")
            ));
        }
    }
    Ok(())
}

/// The table comes back with its own indexes, constraints and triggers; what lay outside it does not.
pub(super) fn of_dropped(
    table: &Table,
    backup: &mut Client,
    now: &mut Client,
    preview: &mut TablePreview,
) -> Result<(), WireError> {
    preview.notes.push(
        "it was dropped: it is made again as it was, with its indexes, constraints, triggers, owner and rights".to_owned(),
    );
    let oid = table.backup.oid.as_str();
    let sql = format!(
        "SELECT conrelid::regclass, format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) \
         FROM pg_constraint WHERE contype = 'f' AND confrelid = {oid} AND conrelid <> confrelid AND conparentid = 0 ORDER BY 2"
    );
    for row in texts(backup, &sql)? {
        let [child, statement] = &row[..] else {
            continue;
        };
        preview.notes.push(format!(
            "{child} referred to it, which is not put back by itself: {statement}"
        ));
    }
    let sql = format!(
        "SELECT DISTINCT r.ev_class::regclass FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass \
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid} AND r.ev_class <> {oid} ORDER BY 1"
    );
    for row in texts(backup, &sql)? {
        preview.notes.push(format!(
            "the view {} showed it and is not made again by itself",
            row.first().map_or("", String::as_str)
        ));
    }
    let schema = postgres_physical::server::sql::quote_literal(&table.name.schema);
    let there = format!("SELECT 1 FROM pg_namespace WHERE nspname = {schema}");
    if now.value(&there)?.is_none() {
        preview.obstacles.push(format!(
            "the schema {0} is gone too: CREATE SCHEMA {0} first",
            quote_identifier(&table.name.schema)
        ));
    }
    Ok(())
}
