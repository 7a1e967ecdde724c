//! The session of whoever verifies. It believes no setting that role, database or server bring, names every table with its schema, and does
//! not say what it is for: a view that looks at `application_name` sees what every other session of the engine's would show it.

use connection::Landing;
use tokio_postgres::Client;

use super::database::{DatabaseError, Session, connect};
use super::schema::Finding;

/// A session of its own settings in the engine's database.
#[derive(Debug)]
pub(crate) struct Verifying {
    session: Session,
    /// Where the engine's tables are.
    schema: String,
    /// Settings that the server did not take.
    disobeyed: Vec<Finding>,
}

/// Names and values, in the order in which they are set: what could end the session meanwhile comes first. What the server's session says of
/// itself afterwards must be these same words.
const SETTINGS: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // First, for it changes how the next one is written.
    ("quote_all_identifiers", "off"),
    // Nothing is found but what PostgreSQL made, unless it is named with its schema; a temporary table comes last.
    ("search_path", "pg_catalog, pg_temp"),
    ("role", "none"),
    // A policy that would hide rows is an error instead.
    ("row_security", "off"),
    ("application_name", NAME),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // What a constraint says of a table is not believed instead of reading it.
    ("constraint_exclusion", "partition"),
    ("transform_null_equals", "off"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
    ("client_min_messages", "warning"),
];

/// What every session of a verification calls itself.
const NAME: &str = "bre";

/// Schemas that a migration of ours went into; `public` first, where an engine's tables are unless somebody chose otherwise.
const SCHEMAS: &str = "SELECT n.nspname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE c.relname IN ('refinery_schema_history', 'audit_log') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
       AND n.nspname !~ '^pg_temp' \
     GROUP BY n.nspname ORDER BY n.nspname <> 'public', count(*) DESC, n.nspname LIMIT 1";

impl Verifying {
    pub(crate) async fn begin(database: &str) -> Result<Verifying, DatabaseError> {
        let session = connect(database, NAME, Landing::Any).await?;
        let disobeyed = take_settings(&session.client).await?;
        let schema = session.client.query_opt(SCHEMAS, &[]).await;
        let schema = schema
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(DatabaseError::query("looking for the engine's schema"))?;
        Ok(Verifying {
            session,
            schema: schema.unwrap_or_else(|| "public".to_owned()),
            disobeyed,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.session.client
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// A table's name with its schema, for SQL.
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}.{name}", quoted(&self.schema))
    }

    pub(crate) fn disobeyed(&self) -> &[Finding] {
        &self.disobeyed
    }
}

/// As an SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes the session its own, and returns what the server did not do.
async fn take_settings(client: &Client) -> Result<Vec<Finding>, DatabaseError> {
    let failed = DatabaseError::query("making the session its own");
    // Statements alone, without a function that somebody could have put in the way.
    let mut sql = String::new();
    for (name, value) in SETTINGS {
        match *name {
            "search_path" | "DateStyle" | "role" => {
                sql.push_str(&format!("SET {name} = {value}; "))
            }
            _ => sql.push_str(&format!("SET {name} = '{value}'; ")),
        }
    }
    client.batch_execute(&sql).await.map_err(&failed)?;
    // Not every version has them.
    client
        .batch_execute(
            "SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings AS s \
             WHERE s.name OPERATOR(pg_catalog.=) ANY (ARRAY['transaction_timeout', 'idle_session_timeout']::pg_catalog.text[])",
        )
        .await
        .map_err(&failed)?;
    let asked: Vec<String> = SETTINGS
        .iter()
        .map(|(name, _)| format!("pg_catalog.current_setting('{name}')"))
        .collect();
    let row = client
        .query_one(&format!("SELECT {}", asked.join(", ")), &[])
        .await
        .map_err(&failed)?;
    let mut disobeyed = Vec::new();
    for (index, (name, value)) in SETTINGS.iter().enumerate() {
        let found: String = row.try_get(index).map_err(&failed)?;
        if found != *value {
            disobeyed.push(Finding {
                object: format!("setting {name}"),
                what: format!("the server keeps {found:?} although this session asked for {value:?}: what it answers cannot be relied on"),
            });
        }
    }
    Ok(disobeyed)
}
