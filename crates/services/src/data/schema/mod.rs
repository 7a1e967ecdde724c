//! The engine's tables as they are against what the migrations make: kinds, owners, columns, constraints, unique indexes, triggers and the
//! functions behind them, rules, policies, rights; by which name a session finds them; and what the serving role could do to them.
//!
//! `manifest.txt` says what the migrations make, at every version; a test makes a database by them, version by version, and compares. What
//! else there is in the database is nobody's fault: docs/decisions/0084-the-schema-is-compared-with-a-manifest.md.

mod catalog;
mod manifest;
#[cfg(test)]
mod manifest_tests;
mod names;
pub(crate) mod rights;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::database::DatabaseError;
use super::migrations;
use super::verifying::Verifying;
use catalog::Catalog;
use manifest::Manifest;

/// Something that is not as the migrations make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `trigger append_only of quotes`.
    pub object: String,
    /// In which way, and where it says something, what to do.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// What the comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SchemaReport {
    /// The newest migration that the database has; by its tables where the list of migrations may not be read.
    pub version: i64,
    /// The newest that this program knows.
    pub newest: i64,
    /// How many objects were compared.
    pub compared: u64,
    pub findings: Vec<Finding>,
    /// No faults: what was not compared, and why.
    pub notes: Vec<String>,
}

impl SchemaReport {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// The role that serves: the migrations grant to it by this name.
pub(crate) const SERVICE: &str = "bre_service";
/// The role that the tables belong to, where the instance has one of this name.
const OWNER: &str = "bre_owner";
/// The list of migrations, which belongs to refinery: it differs with refinery's version.
const HISTORY: &str = "refinery_schema_history";

/// A table and one thing of it, or nothing and a function; what that is.
type Facts = BTreeMap<(String, String), String>;

/// `table` itself and what belongs to it.
const TABLE: &str = "table";

fn named((table, object): &(String, String)) -> String {
    match (table.as_str(), object.as_str()) {
        ("", object) => object.to_owned(),
        (table, TABLE) => format!("table {table}"),
        (table, object) if object.starts_with(RIGHTS) => format!("{object} on {table}"),
        (table, object) => format!("{object} of {table}"),
    }
}

const RIGHTS: &str = "rights of ";
const BODY: &str = "body of ";

/// The engine's schema of a database, by itself. Reads only.
pub async fn check_schema(database: &str) -> Result<SchemaReport, DatabaseError> {
    let session = Verifying::begin(database).await?;
    session
        .client()
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await
        .map_err(failed)?;
    compare(&session).await
}

fn failed(error: tokio_postgres::Error) -> DatabaseError {
    DatabaseError::query("reading the engine's schema")(error)
}

/// In the transaction that the session is in.
pub(crate) async fn compare(session: &Verifying) -> Result<SchemaReport, DatabaseError> {
    let manifest = Manifest::embedded();
    let known = migrations::known();
    let newest = known.last().map_or(0, |migration| migration.version);
    let mut report = SchemaReport {
        newest,
        findings: session.disobeyed().to_vec(),
        ..SchemaReport::default()
    };
    let catalog = Catalog {
        client: session.client(),
        schema: session.schema(),
    };
    let owner = catalog.owner().await.map_err(failed)?;
    let found = catalog
        .facts(&manifest.tables(), &owner)
        .await
        .map_err(failed)?;
    if !found.keys().any(|(_, object)| object == TABLE) {
        report.findings.push(Finding {
            object: format!("schema {}", session.schema()),
            what: "it holds no table of the engine".to_owned(),
        });
        return Ok(report);
    }
    report.version = match catalog.history().await.map_err(failed)? {
        Some(history) => {
            report
                .findings
                .extend(migrations::compared(&known, &history));
            history.iter().map(|row| row.version).max().unwrap_or(0)
        }
        None => best_fit(&manifest, &known, &found),
    };
    if report.version > newest {
        report.findings.push(Finding {
            object: "schema version".to_owned(),
            what: format!(
                "the database is at {}, this program knows {newest}: its tables were not compared. Verify it with the program that it is used with",
                report.version
            ),
        });
    } else {
        if report.version < newest {
            report.notes.push(format!(
                "schema version {} of {newest}: compared with what was made up to there; the engine's next start brings it up to date",
                report.version
            ));
        }
        let expected = manifest.at(report.version);
        report.compared = expected.len() as u64;
        report.findings.extend(compared(&expected, &found));
    }
    let expected = manifest.at(report.version.min(newest));
    let tables: Vec<&str> = tables_of(&expected);
    let functions: Vec<&str> = expected
        .keys()
        .filter_map(|(_, object)| function_name(object))
        .collect();
    let objects = names::Objects {
        tables: &tables,
        functions: &functions,
    };
    report.findings.extend(
        names::findings(&catalog, &objects, &owner)
            .await
            .map_err(failed)?,
    );
    let rights = rights::Rights {
        client: catalog.client,
        schema: catalog.schema,
        tables: &tables,
    };
    report
        .findings
        .extend(rights.findings(SERVICE).await.map_err(failed)?);
    Ok(report)
}

fn tables_of(facts: &Facts) -> Vec<&str> {
    let tables = facts.keys().filter(|(_, object)| object == TABLE);
    tables.map(|(table, _)| table.as_str()).collect()
}

/// The name of a function, of `function NAME(ARGUMENTS)`.
fn function_name(object: &str) -> Option<&str> {
    Some(object.strip_prefix("function ")?.split_once('(')?.0)
}

/// The version whose tables differ least from these; the newest of several.
fn best_fit(manifest: &Manifest, known: &[migrations::OwnMigration], found: &Facts) -> i64 {
    let differences = |version: i64| compared(&manifest.at(version), found).len();
    let versions = known.iter().rev().map(|migration| migration.version);
    versions
        .min_by_key(|version| differences(*version))
        .unwrap_or(0)
}

/// Everything that is missing, otherwise, or too much.
fn compared(expected: &Facts, found: &Facts) -> Vec<Finding> {
    // Of a table that is none, nothing else needs saying.
    let is_table = |table: &str| {
        let key = (table.to_owned(), TABLE.to_owned());
        table.is_empty() || (expected.get(&key).is_some() && expected.get(&key) == found.get(&key))
    };
    let concerns = |key: &(String, String)| key.1 == TABLE || is_table(&key.0);
    let mut findings = Vec::new();
    for (key, is) in expected.iter().filter(|(key, _)| concerns(key)) {
        let what = match found.get(key) {
            Some(other) if other == is => continue,
            None => "is missing".to_owned(),
            Some(_) if key.1.starts_with(BODY) => {
                "is not the one that the migrations make".to_owned()
            }
            Some(other) => format!("is {other:?}; the migrations make {is:?}"),
        };
        findings.push(Finding {
            object: named(key),
            what,
        });
    }
    let functions: Vec<&str> = expected
        .keys()
        .filter_map(|(_, object)| function_name(object))
        .collect();
    for (key, is) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
        let (table, object) = key;
        let guarded = match table.is_empty() {
            true => function_name(object).is_some_and(|name| functions.contains(&name)),
            false => is_table(table) && !is_harmless(object, is),
        };
        if guarded {
            findings.push(Finding {
                object: named(key),
                what: format!("the migrations make no such thing: {is}"),
            });
        }
    }
    findings
}

/// Rights to look, for whoever the owner likes.
fn is_harmless(object: &str, is: &str) -> bool {
    object.starts_with(RIGHTS)
        && is
            .split(", ")
            .all(|right| ["SELECT", "MAINTAIN"].contains(&right))
}
