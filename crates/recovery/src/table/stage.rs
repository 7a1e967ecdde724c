//! The old rows beside the present table: a temporary table, which is in no backup and no WAL and ends with the
//! session.

use postgres_physical::server::sql::{Client, quote_identifier};
use postgres_physical::wire::WireError;

use super::compare::PLACE;
use super::{Table, TableError};
use crate::Progress;

pub(super) fn stage(
    table: &Table,
    only: Option<&str>,
    backup: &mut Client,
    now: &mut Client,
    progress: &dyn Progress,
) -> Result<(), TableError> {
    let is_keyless = table.shape().key.is_empty();
    let place = is_keyless.then(|| format!("{PLACE} bigint GENERATED ALWAYS AS IDENTITY"));
    let typed: Vec<String> = table
        .columns
        .iter()
        .filter_map(|name| table.shape().column(name))
        .map(|column| format!("{} {}", quote_identifier(&column.name), column.kind))
        .chain(place)
        .collect();
    // Its commits need wait for nobody: nothing of it lasts.
    now.query(&format!(
        "SET synchronous_commit = off; DROP TABLE IF EXISTS {0}; CREATE TEMPORARY TABLE {0} ({1})",
        table.staged,
        typed.join(", ")
    ))?;
    let doing = format!("copying {} as it was", table.name);
    let into = table.staged.clone();
    copy(table, only, &into, &doing, (backup, now), progress)?;
    now.query(&format!(
        "ANALYZE {}; RESET synchronous_commit",
        table.staged
    ))?;
    Ok(())
}

/// Straight from the one server into the other: COPY to COPY, in binary where that means the same on both sides. How
/// many rows.
pub(super) fn copy(
    table: &Table,
    only: Option<&str>,
    into: &str,
    doing: &str,
    (backup, now): (&mut Client, &mut Client),
    progress: &dyn Progress,
) -> Result<u64, TableError> {
    let columns: Vec<String> = table.columns.iter().map(|c| quote_identifier(c)).collect();
    let columns = columns.join(", ");
    let condition = only.map_or(String::new(), |only| format!(" WHERE ({only}\n)"));
    let format = if table.is_plain() { "binary" } else { "text" };
    let out = format!(
        "COPY (SELECT {columns} FROM {}{condition}) TO STDOUT (FORMAT {format})",
        table.name.sql()
    );
    let into = format!("COPY {into} ({columns}) FROM STDIN (FORMAT {format})");
    let size = format!("SELECT pg_relation_size({})", table.backup.oid);
    let bytes = backup.value(&size)?.and_then(|bytes| bytes.parse().ok());
    progress.total(bytes.unwrap_or(0));
    backup.query("BEGIN READ ONLY")?;
    let rows = backup
        .copy_to(&out, now, &into, &mut |bytes| {
            progress.advance(bytes);
            !progress.cancelled()
        })
        .map_err(|error| match error {
            WireError::Lost(_) if progress.cancelled() => TableError::Interrupted,
            error => TableError::refused(doing)(error),
        })?;
    backup.query("COMMIT")?;
    Ok(rows)
}
