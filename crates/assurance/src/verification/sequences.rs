//! Sequences behind their column: they would hand out numbers that are in use.

use postgres_physical::wire::WireError;

use super::{CheckFindings, Database};

const OWNED: &str = "SELECT n.nspname || '.' || s.relname, format('%I.%I', n.nspname, s.relname), format('%I.%I', tn.nspname, t.relname), \
     format('%I', a.attname), q.seqincrement FROM pg_class AS s JOIN pg_sequence AS q ON q.seqrelid = s.oid \
     JOIN pg_namespace AS n ON n.oid = s.relnamespace \
     JOIN pg_depend AS d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
       AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 \
     JOIN pg_class AS t ON t.oid = d.refobjid JOIN pg_namespace AS tn ON tn.oid = t.relnamespace \
     JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid \
     JOIN pg_type AS y ON y.oid = a.atttypid \
     WHERE s.relkind = 'S' AND s.relpersistence <> 't' AND y.typname IN ('int2', 'int4', 'int8') ORDER BY 1";

pub(super) fn behind(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
) -> Result<(), WireError> {
    for row in database.rows(OWNED)? {
        let [name, sequence, table, column, increment] = &row[..] else {
            continue;
        };
        gathered.looked_at += 1;
        let (extreme, is_behind) = match increment.starts_with('-') {
            true => ("min", "<"),
            false => ("max", ">"),
        };
        // Not called yet: the next number is `last_value` itself.
        let wrong = database.rows(&format!(
            "SELECT m.value, s.last_value FROM {sequence} AS s, (SELECT {extreme}({column})::bigint AS value FROM {table}) AS m \
             WHERE m.value {is_behind} s.last_value OR (NOT s.is_called AND m.value = s.last_value)"
        ))?;
        if let Some(found) = wrong.first() {
            gathered.wrong(format!(
                "sequence {} is at {}, {table}.{column} holds {}: setval it",
                database.named(name),
                found[1],
                found[0]
            ));
        }
    }
    Ok(())
}
