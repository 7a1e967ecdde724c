//! References that lead nowhere, in any schema: a foreign key is checked row by row on writes, so damage breaks it
//! silently.

use postgres_physical::wire::WireError;

use super::{CheckFindings, Database, INTERRUPTED};

/// Per key: its name, both tables, "no column is null", "the columns are equal" by the key's own operators, which may
/// lie in any schema.
const KEYS: &str = "SELECT k.conname, cn.nspname || '.' || c.relname, pn.nspname || '.' || p.relname, \
     format('%I.%I', cn.nspname, c.relname), format('%I.%I', pn.nspname, p.relname), \
     (SELECT string_agg(format('child.%I IS NOT NULL', a.attname), ' AND ') FROM unnest(k.conkey) AS u (n) \
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.n), \
     (SELECT string_agg(format('parent.%I OPERATOR(%I.%s) child.%I', b.attname, onsp.nspname, o.oprname, a.attname), ' AND ') \
        FROM unnest(k.conkey, k.confkey, k.conpfeqop) AS u (n, m, op) \
        JOIN pg_operator AS o ON o.oid = u.op JOIN pg_namespace AS onsp ON onsp.oid = o.oprnamespace \
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.n \
        JOIN pg_attribute AS b ON b.attrelid = k.confrelid AND b.attnum = u.m) \
     FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_class AS p ON p.oid = k.confrelid \
     JOIN pg_namespace AS cn ON cn.oid = c.relnamespace JOIN pg_namespace AS pn ON pn.oid = p.relnamespace \
     WHERE k.contype = 'f' AND k.conparentid = 0 AND k.convalidated ORDER BY 2, 1";

pub(super) fn foreign_keys(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
) -> Result<(), WireError> {
    for key in database.rows(KEYS)? {
        if (database.options.cancelled)() {
            gathered.skip(INTERRUPTED.to_owned());
            return Ok(());
        }
        let [name, child, parent, child_sql, parent_sql, not_null, equal] = &key[..] else {
            continue;
        };
        gathered.looked_at += 1;
        let orphans = database.number(&format!(
            "SELECT count(*) FROM {child_sql} AS child WHERE {not_null} AND NOT EXISTS (SELECT FROM {parent_sql} AS parent WHERE {equal})"
        ))?;
        if orphans > 0 {
            gathered.wrong(format!(
                "{orphans} rows of {} refer to nothing in {parent} ({name})",
                database.named(child)
            ));
        }
    }
    Ok(())
}
