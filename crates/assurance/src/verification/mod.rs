//! The guide's verification scripts as checks with a verdict each: for a running database, and for one that a restore
//! test restored.
//!
//! Entry point: [`cluster`]. A check that could not be made is `skipped` with a reason; it never counts as passed,
//! unless there is nothing to check (`not_applicable`). What is no fault but needs attention is a warning of a check
//! that passed.

mod amcheck;
mod constraints;
mod engine_tables;
mod freshness;
mod indexes;
mod known_loss;
mod sequences;

pub use freshness::{Freshness, fresh_enough};

use postgres_physical::server::sql::{Client, quote_identifier};
use postgres_physical::server::{ListedDatabase, databases};
use postgres_physical::wire::{ConnectOptions, WireError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Passed,
    Failed,
    /// Not made; `why` says what it takes.
    Skipped,
}

/// One check: what was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// What is wrong, or why it was not looked at; absent where it passed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// Skipped because there is nothing here that it could look at, not because it could not.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub not_applicable: bool,
    /// No faults: unfinished work, and what was not looked at, each with what to do.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Figures and, of what is wrong, the first few by name.
    pub detail: Map<String, Value>,
}

impl Check {
    pub fn passed(name: &str, detail: Value) -> Self {
        Self::new(name, Verdict::Passed, None, detail)
    }

    pub fn failed(name: &str, why: impl Into<String>, detail: Value) -> Self {
        Self::new(name, Verdict::Failed, Some(why.into()), detail)
    }

    pub fn skipped(name: &str, why: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, Some(why.into()), Value::Null)
    }

    /// There is nothing here that it could look at.
    pub fn not_applicable(name: &str, why: impl Into<String>) -> Self {
        Self {
            not_applicable: true,
            ..Self::skipped(name, why)
        }
    }

    fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }

    fn new(name: &str, verdict: Verdict, why: Option<String>, detail: Value) -> Self {
        let detail = match detail {
            Value::Object(detail) => detail,
            _ => Map::new(),
        };
        Self {
            name: name.to_owned(),
            verdict,
            why,
            not_applicable: false,
            warnings: Vec::new(),
            detail,
        }
    }
}

/// Every check was made and passed, as far as there is anything here that it could look at.
#[must_use]
pub fn passed(checks: &[Check]) -> bool {
    let good = |check: &Check| check.verdict == Verdict::Passed || check.not_applicable;
    !checks.is_empty() && checks.iter().all(good)
}

/// Every check was made and passed, and none had a warning.
#[must_use]
pub fn passed_strictly(checks: &[Check]) -> bool {
    let good = |check: &Check| check.verdict == Verdict::Passed && check.warnings.is_empty();
    !checks.is_empty() && checks.iter().all(good)
}

/// How hard to look.
pub struct Options<'a> {
    /// The cluster is a throw-away copy: what is missing may be installed, and locks hurt nobody.
    pub scratch: bool,
    /// The database that is named must be an engine's.
    pub engine_expected: bool,
    /// Whose signatures count under an engine's audit log: what one of these keys says is lost is no fault.
    pub trusted: &'a [audit::VerifyingKey],
    /// Asked between two statements.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options(scratch: {})", self.scratch)
    }
}

/// What a check of all databases gathers.
#[derive(Default)]
struct CheckFindings {
    looked_at: u64,
    wrong: Vec<String>,
    warnings: Vec<String>,
    /// Databases that this check passed over for a reason that is nobody's fault.
    left_out: Vec<String>,
    not_made: Option<String>,
}

/// How many of what is wrong are named.
const NAMED: usize = 20;

impl CheckFindings {
    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    fn warn(&mut self, what: String) {
        self.warnings.push(what);
    }

    fn skip(&mut self, why: String) {
        self.not_made.get_or_insert(why);
    }

    fn into_check(self, name: &str, noun: &str) -> Check {
        let named: Vec<&String> = self.wrong.iter().take(NAMED).collect();
        let mut detail =
            json!({ "checked": self.looked_at, "wrong": self.wrong.len(), "named": named });
        if !self.left_out.is_empty() {
            detail["left_out"] = json!(self.left_out);
        }
        let mut warnings = self.warnings;
        if let more @ 1.. = warnings.len().saturating_sub(NAMED) {
            warnings.truncate(NAMED);
            warnings.push(format!("and {more} more"));
        }
        let check = match (self.wrong.first(), self.not_made) {
            (Some(first), _) => {
                let why = match self.wrong.len() {
                    1 => first.clone(),
                    more => format!("{more} {noun}; the first: {first}"),
                };
                Check::failed(name, why, detail)
            }
            (None, Some(why)) => Check::skipped(name, why),
            (None, None) => Check::passed(name, detail),
        };
        check.with_warnings(warnings)
    }
}

/// One connected database and how to name its things.
struct Database<'a> {
    client: Client,
    name: String,
    template: bool,
    options: &'a Options<'a>,
    in_recovery: bool,
}

impl Database<'_> {
    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, WireError> {
        let rows = self.client.query(sql)?.rows;
        Ok(rows
            .into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
            .collect())
    }

    fn number(&mut self, sql: &str) -> Result<u64, WireError> {
        let value = self.client.value(sql)?;
        Ok(value.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// `database.schema.relation`, as people say it.
    fn named(&self, thing: &str) -> String {
        format!("{}.{thing}", self.name)
    }
}

type Checker = fn(&mut Database<'_>, &mut CheckFindings) -> Result<(), WireError>;

/// Of every database: name of the check, what is counted, how.
const EVERYWHERE: [(&str, &str, Checker); 5] = [
    ("invalid_indexes", "invalid indexes", indexes::invalid),
    ("amcheck_indexes", "indexes with faults", amcheck::indexes),
    ("amcheck_tables", "tables with faults", amcheck::tables),
    (
        "referential_integrity",
        "foreign keys with orphan rows",
        constraints::foreign_keys,
    ),
    (
        "sequences",
        "sequences behind their columns",
        sequences::behind,
    ),
];

/// Everything that can be asked of a cluster over SQL, in the order of a report. `connect` is a superuser where the
/// amcheck extension must be installed or used, and names the engine's database.
pub fn cluster(connect: &ConnectOptions, options: &Options<'_>) -> Vec<Check> {
    let (mut checks, listed) = match connectivity(connect) {
        Ok((check, listed)) => (vec![check], listed),
        Err(error) => return without_connection(&error),
    };
    let mut gathered: Vec<CheckFindings> = EVERYWHERE
        .iter()
        .map(|_| CheckFindings::default())
        .collect();
    let mut entered = DatabaseCoverage::default();
    for listed in &listed {
        let mut database = match entered.enter(connect, listed, options) {
            Some(database) => database,
            None => continue,
        };
        for ((_, _, checker), gathered) in EVERYWHERE.iter().zip(&mut gathered) {
            if (options.cancelled)() {
                gathered.skip(INTERRUPTED.to_owned());
            } else if let Err(error) = checker(&mut database, gathered) {
                gathered.wrong(format!("database {}: {error}", listed.name));
            }
        }
    }
    checks.push(entered.into_check());
    for ((name, noun, _), gathered) in EVERYWHERE.iter().zip(gathered) {
        checks.push(gathered.into_check(name, noun));
    }
    checks.extend(engine(connect, options));
    checks
}

const INTERRUPTED: &str = "interrupted";
const DATABASES: &str = "databases";

/// Which databases were looked at, and which were not: the other checks speak of the former only.
#[derive(Default)]
struct DatabaseCoverage {
    looked_at: Vec<String>,
    not_looked_at: Vec<Value>,
    failed: Vec<String>,
    warnings: Vec<String>,
}

impl DatabaseCoverage {
    fn enter<'a>(
        &mut self,
        connect: &ConnectOptions,
        listed: &ListedDatabase,
        options: &'a Options<'a>,
    ) -> Option<Database<'a>> {
        let name = &listed.name;
        let why = match listed.why_closed() {
            None => match open(connect, name, options) {
                Ok(database) => {
                    self.looked_at.push(name.clone());
                    return Some(Database {
                        template: listed.template,
                        ..database
                    });
                }
                Err(error) => {
                    let why = format!("it cannot be entered: {error}");
                    self.failed.push(format!("database {name:?}: {why}"));
                    why
                }
            },
            Some(_) if listed.is_pristine_template() => {
                "it takes no connections, so it cannot have changed".to_owned()
            }
            Some(why) => {
                self.warnings
                    .push(format!("database {name:?} was not looked at: {why}"));
                why
            }
        };
        self.not_looked_at
            .push(json!({ "database": name, "why": why }));
        None
    }

    fn into_check(self) -> Check {
        let detail = json!({ "looked_at": self.looked_at, "not_looked_at": self.not_looked_at });
        let check = match self.failed.is_empty() {
            true => Check::passed(DATABASES, detail),
            false => Check::failed(DATABASES, self.failed.join("; "), detail),
        };
        check.with_warnings(self.warnings)
    }
}

fn without_connection(error: &WireError) -> Vec<Check> {
    let mut checks = vec![Check::failed(
        "connectivity",
        error.to_string(),
        Value::Null,
    )];
    let names = EVERYWHERE.iter().map(|(name, ..)| *name);
    for name in [DATABASES]
        .into_iter()
        .chain(names)
        .chain(engine_tables::NAMES)
    {
        checks.push(Check::skipped(name, "there is no connection"));
    }
    checks
}

fn connectivity(connect: &ConnectOptions) -> Result<(Check, Vec<ListedDatabase>), WireError> {
    let mut client = Client::connect(connect)?;
    let rows = client.query(
        "SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('data_checksums'), \
         pg_postmaster_start_time()",
    )?;
    let field = |at: usize| rows.rows.first().and_then(|row| row.get(at)?.clone());
    let detail = json!({
        "server_version": field(0),
        "in_recovery": field(1).as_deref() == Some("t"),
        "data_checksums": field(2),
        "started_at": field(3),
    });
    let listed = databases(&mut client)?;
    Ok((Check::passed("connectivity", detail), listed))
}

fn open<'a>(
    connect: &ConnectOptions,
    name: &str,
    options: &'a Options<'a>,
) -> Result<Database<'a>, WireError> {
    let mut client = Client::connect(&connect.clone().with_database(name))?;
    // Regardless of the server's settings: a check does not wait for any commit, and does not trust an index about a
    // table. What is missing in a copy is installed there, whoever may write.
    client.query(
        "SET default_transaction_read_only = off; SET synchronous_commit = local; SET search_path = pg_catalog, pg_temp; \
         SET ROLE NONE; SET row_security = off; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET transform_null_equals = off; \
         SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off",
    )?;
    let in_recovery = client.value("SELECT pg_is_in_recovery()")?.as_deref() == Some("t");
    Ok(Database {
        client,
        name: name.to_owned(),
        template: false,
        options,
        in_recovery,
    })
}

fn engine(connect: &ConnectOptions, options: &Options<'_>) -> Vec<Check> {
    let name = connect.database.clone();
    match open(connect, &name, options) {
        Ok(mut database) => engine_tables::checks(&mut database),
        Err(error) => engine_tables::NAMES
            .iter()
            .map(|check| Check::failed(check, format!("database {name}: {error}"), Value::Null))
            .collect(),
    }
}

/// A schema's or a table's name for use in SQL.
fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}
