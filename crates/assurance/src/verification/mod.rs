//! The guide's verification scripts as checks with a verdict each: of a running database, and of one that a restore proof
//! brought back.
//!
//! Entry point: [`cluster`]. A check that could not be made is `skipped` and says why; it never counts as passed.

mod amcheck;
mod constraints;
mod engine_tables;
mod freshness;
mod indexes;
mod sequences;

pub use freshness::{Freshness, fresh_enough};

use postgres_physical::server::sql::{Client, quote_identifier};
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

    fn new(name: &str, verdict: Verdict, why: Option<String>, detail: Value) -> Self {
        let detail = match detail {
            Value::Object(detail) => detail,
            _ => Map::new(),
        };
        Self {
            name: name.to_owned(),
            verdict,
            why,
            detail,
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let word = match self.verdict {
            Verdict::Passed => "passed ",
            Verdict::Failed => "FAILED ",
            Verdict::Skipped => "skipped",
        };
        match &self.why {
            Some(why) => format!("{word}  {}: {why}", self.name),
            None => format!("{word}  {}", self.name),
        }
    }
}

/// Every check was made and passed.
#[must_use]
pub fn all_passed(checks: &[Check]) -> bool {
    !checks.is_empty() && checks.iter().all(|check| check.verdict == Verdict::Passed)
}

/// How hard to look.
pub struct Options<'a> {
    /// The cluster is a throw-away copy: what is missing may be installed, and locks hurt nobody.
    pub scratch: bool,
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
struct Gathered {
    looked_at: u64,
    wrong: Vec<String>,
    not_made: Option<String>,
}

/// How many of what is wrong are named.
const NAMED: usize = 20;

impl Gathered {
    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    fn skip(&mut self, why: String) {
        self.not_made.get_or_insert(why);
    }

    fn into_check(self, name: &str, noun: &str) -> Check {
        let named: Vec<&String> = self.wrong.iter().take(NAMED).collect();
        let detail =
            json!({ "checked": self.looked_at, "wrong": self.wrong.len(), "named": named });
        match (self.wrong.first(), self.not_made) {
            (Some(first), _) => {
                let why = match self.wrong.len() {
                    1 => first.clone(),
                    more => format!("{more} {noun}; the first: {first}"),
                };
                Check::failed(name, why, detail)
            }
            (None, Some(why)) => Check::skipped(name, why),
            (None, None) => Check::passed(name, detail),
        }
    }
}

/// One connected database and how to name its things.
struct Database<'a> {
    client: Client,
    name: String,
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

type Checker = fn(&mut Database<'_>, &mut Gathered) -> Result<(), WireError>;

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

/// Everything that can be asked of a cluster over SQL, in the order of a report. `connect` is a superuser where the amcheck
/// extension must be installed or used, and names the engine's database.
pub fn cluster(connect: &ConnectOptions, options: &Options<'_>) -> Vec<Check> {
    let (mut checks, names) = match connectivity(connect) {
        Ok((check, names)) => (vec![check], names),
        Err(error) => return without_connection(&error),
    };
    let mut gathered: Vec<Gathered> = EVERYWHERE.iter().map(|_| Gathered::default()).collect();
    for name in &names {
        let mut database = match open(connect, name, options) {
            Ok(database) => database,
            Err(error) => {
                for gathered in &mut gathered {
                    gathered.wrong(format!("database {name} cannot be looked at: {error}"));
                }
                continue;
            }
        };
        for ((_, _, checker), gathered) in EVERYWHERE.iter().zip(&mut gathered) {
            if (options.cancelled)() {
                gathered.skip(INTERRUPTED.to_owned());
            } else if let Err(error) = checker(&mut database, gathered) {
                gathered.wrong(format!("database {name}: {error}"));
            }
        }
    }
    for ((name, noun, _), gathered) in EVERYWHERE.iter().zip(gathered) {
        checks.push(gathered.into_check(name, noun));
    }
    checks.extend(engine(connect, options));
    checks
}

const INTERRUPTED: &str = "interrupted";

fn without_connection(error: &WireError) -> Vec<Check> {
    let mut checks = vec![Check::failed(
        "connectivity",
        error.to_string(),
        Value::Null,
    )];
    let names = EVERYWHERE.iter().map(|(name, ..)| *name);
    for name in names.chain(engine_tables::NAMES) {
        checks.push(Check::skipped(name, "there is no connection"));
    }
    checks
}

fn connectivity(connect: &ConnectOptions) -> Result<(Check, Vec<String>), WireError> {
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
    let names = client
        .query("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname")?
        .rows
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect();
    Ok((Check::passed("connectivity", detail), names))
}

fn open<'a>(
    connect: &ConnectOptions,
    name: &str,
    options: &'a Options<'a>,
) -> Result<Database<'a>, WireError> {
    let mut client = Client::connect(&connect.clone().with_database(name))?;
    // Whatever the server's settings are: a check is long, waits for nobody's commit, and believes no index about a table.
    client.query(
        "SET statement_timeout = 0; SET synchronous_commit = local; SET search_path = pg_catalog; \
         SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off",
    )?;
    let in_recovery = client.value("SELECT pg_is_in_recovery()")?.as_deref() == Some("t");
    Ok(Database {
        client,
        name: name.to_owned(),
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
