//! Structure: each B-tree against itself and its table, each table's rows against each other and their TOAST.

use postgres_physical::server::sql::quote_literal;
use postgres_physical::wire::WireError;

use super::{CheckFindings, Database, INTERRUPTED, qualified};

/// What PostgreSQL says when the role may not call the functions.
const NO_PRIVILEGE: &str = "42501";

/// The schema of the extension, installed first where that hurts nobody; a missing one is said, never passed over.
fn extension(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
) -> Result<Option<String>, WireError> {
    let sql = "SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
    let mut found = database.client.value(sql)?;
    if found.is_none() && database.options.scratch {
        match database
            .client
            .query("CREATE EXTENSION amcheck SCHEMA pg_catalog")
        {
            Ok(_) => found = database.client.value(sql)?,
            Err(error) => {
                gathered.skip(format!(
                    "amcheck cannot be installed in database {}: {error}. Install PostgreSQL's contrib package",
                    database.name
                ));
                return Ok(None);
            }
        }
    }
    if found.is_none() && database.template {
        // Nobody works in it, and what is in it was looked at in what was made of it.
        gathered.left_out.push(format!(
            "{}, a template without the extension amcheck",
            database.name
        ));
    } else if found.is_none() {
        gathered.skip(format!(
            "database {} has no extension amcheck. As a superuser there: CREATE EXTENSION amcheck",
            database.name
        ));
    }
    Ok(found)
}

/// `bt_index_check` with every row of the table looked up; in a scratch cluster also parents against children, which
/// locks.
pub(super) fn indexes(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
) -> Result<(), WireError> {
    let Some(schema) = extension(database, gathered)? else {
        return Ok(());
    };
    let function = match database.options.scratch {
        true => "bt_index_parent_check",
        false => "bt_index_check",
    };
    let rows = database.rows(&format!(
        "SELECT c.oid, n.nspname || '.' || c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid \
         JOIN pg_am AS a ON a.oid = c.relam JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND i.indisready AND {} ORDER BY 2",
        readable(database)
    ))?;
    for row in rows {
        let sql = format!("SELECT {}({}, true)", qualified(&schema, function), row[0]);
        look(
            database,
            gathered,
            &sql,
            &format!("index {}", database.named(&row[1])),
        )?;
        if gathered.not_made.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn tables(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
) -> Result<(), WireError> {
    let Some(schema) = extension(database, gathered)? else {
        return Ok(());
    };
    let rows = database.rows(&format!(
        "SELECT c.oid, n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam \
         JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND {} ORDER BY 2",
        readable(database)
    ))?;
    for row in rows {
        let sql = format!(
            "SELECT 'block ' || blkno || coalesce(', row ' || offnum, '') || coalesce(', column ' || attnum, '') || ': ' || msg \
             FROM {}({}, check_toast => true) LIMIT 3",
            qualified(&schema, "verify_heapam"),
            row[0]
        );
        look(
            database,
            gathered,
            &sql,
            &format!("table {}", database.named(&row[1])),
        )?;
        if gathered.not_made.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// Another session's temporary relation cannot be read, nor on a standby an unlogged one.
fn readable(database: &Database<'_>) -> &'static str {
    match database.in_recovery {
        true => "c.relpersistence = 'p'",
        false => "c.relpersistence <> 't'",
    }
}

/// Runs one check: an error of the server is a finding about this relation, a row is one, too.
fn look(
    database: &mut Database<'_>,
    gathered: &mut CheckFindings,
    sql: &str,
    what: &str,
) -> Result<(), WireError> {
    if (database.options.cancelled)() {
        gathered.skip(INTERRUPTED.to_owned());
        return Ok(());
    }
    match database.rows(sql) {
        Ok(rows) => {
            gathered.looked_at += 1;
            let found: Vec<&String> = rows
                .iter()
                .flatten()
                .filter(|text| !text.is_empty())
                .collect();
            if let Some(first) = found.first() {
                gathered.wrong(format!("{what}: {first}"));
            }
        }
        Err(error @ WireError::Server { .. }) => {
            if error.sqlstate() == Some(NO_PRIVILEGE) {
                gathered.skip(format!("amcheck needs a superuser's session: {error}"));
            } else if is_present(database, what)? {
                gathered.looked_at += 1;
                gathered.wrong(format!("{what}: {}", words(&error)));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The server's own words, without the statement that it was asked.
fn words(error: &WireError) -> String {
    match error {
        WireError::Server { server, .. } => server.to_string(),
        other => other.to_string(),
    }
}

/// A relation of a running database may have been dropped since the listing: no finding.
fn is_present(database: &mut Database<'_>, what: &str) -> Result<bool, WireError> {
    let Some((_, name)) = what.split_once(' ') else {
        return Ok(true);
    };
    let own = format!("{}.", database.name);
    let name = name.strip_prefix(&own).unwrap_or(name);
    let sql = format!(
        "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = {}",
        quote_literal(name)
    );
    Ok(database.client.value(&sql)?.is_some())
}
