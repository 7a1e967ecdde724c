//! The guide's first question after every recovery: are there invalid indexes?

use postgres_physical::wire::WireError;

use super::{Database, Gathered};

/// Invalid, not ready, or being dropped: left behind by a `CREATE INDEX CONCURRENTLY` that failed, for instance.
pub(super) fn invalid(
    database: &mut Database<'_>,
    gathered: &mut Gathered,
) -> Result<(), WireError> {
    gathered.looked_at += database.number("SELECT count(*) FROM pg_index")?;
    let rows = database.rows(
        "SELECT n.nspname || '.' || c.relname, t.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid \
         JOIN pg_class AS t ON t.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) ORDER BY 1",
    )?;
    for row in rows {
        gathered.wrong(format!(
            "index {} on {} is invalid: REINDEX or drop it",
            database.named(&row[0]),
            row[1]
        ));
    }
    Ok(())
}
