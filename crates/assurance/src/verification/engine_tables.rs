//! The guide's row counts after a recovery, and the engine's own tables against each other and against the audit log.
//! Reads only.

use std::collections::BTreeSet;

use audit::{Entry, Kind, hex};
use postgres_physical::wire::WireError;
use serde_json::{Value, json};

use super::{Check, Database, known_loss::KnownLosses};

pub(super) const NAMES: [&str; 2] = ["row_counts", "orphan_rows"];

/// The guide's critical tables first; then what prices depend on.
const COUNTED: [&str; 10] = [
    "stocks",
    "brokers",
    "volatility",
    "api_keys",
    "audit_log",
    "quotes",
    "base_rates",
    "feed_batches",
    "events",
    "quarantine",
];
/// Entries of kinds other than quotes are read in portions of so many.
const PORTION: u64 = 5000;

pub(super) fn checks(database: &mut Database<'_>) -> Vec<Check> {
    match schema(database) {
        Ok(Some(schema)) => in_one_snapshot(database, &schema),
        Ok(None) => {
            let why = format!("database {} holds no tables of the engine", database.name);
            let check = |name: &&str| match database.options.engine_expected {
                true => Check::failed(name, &why, Value::Null),
                false => Check::not_applicable(name, &why),
            };
            NAMES.iter().map(check).collect()
        }
        Err(error) => both_failed(&error),
    }
}

fn both_failed(error: &WireError) -> Vec<Check> {
    let failed = |name: &&str| Check::failed(name, error.to_string(), Value::Null);
    NAMES.iter().map(failed).collect()
}

/// A cluster of somebody else may well have tables named `stocks` and `brokers`.
const ENOUGH: usize = 4;

/// Where the engine's tables are: the schema with most of them. Some are enough to expect all.
fn schema(database: &mut Database<'_>) -> Result<Option<String>, WireError> {
    let enough = if database.options.engine_expected {
        1
    } else {
        ENOUGH
    };
    let names: Vec<String> = COUNTED.iter().map(|name| format!("'{name}'")).collect();
    database.client.value(&format!(
        "SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relname IN ({}) AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
         GROUP BY n.nspname HAVING count(*) >= {enough} ORDER BY n.nspname <> 'public', count(*) DESC, n.nspname LIMIT 1",
        names.join(", ")
    ))
}

/// An engine may be writing meanwhile: all figures are of one moment.
fn in_one_snapshot(database: &mut Database<'_>, schema: &str) -> Vec<Check> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL search_path = pg_catalog, {}, pg_temp",
        postgres_physical::server::sql::quote_identifier(schema)
    );
    let checked = database.client.query(&begin).and_then(|_| {
        let losses = match database
            .number("SELECT count(*) FROM pg_class WHERE oid = to_regclass('audit_log')")?
        {
            0 => KnownLosses::default(),
            _ => KnownLosses::read(database, database.options.trusted)?,
        };
        let counts = row_counts(database, &losses)?;
        let orphans = orphans(database, &losses)?;
        Ok(vec![counts, orphans])
    });
    let _ = database.client.query("ROLLBACK");
    checked.unwrap_or_else(|error| both_failed(&error))
}

fn row_counts(database: &mut Database<'_>, losses: &KnownLosses) -> Result<Check, WireError> {
    let mut counts = serde_json::Map::new();
    let mut wrong = Vec::new();
    for table in COUNTED {
        let there = database
            .client
            .value(&format!("SELECT to_regclass('{table}')"))?;
        if there.is_none() {
            wrong.push(format!("table {table} is missing"));
            continue;
        }
        let rows = database.number(&format!("SELECT count(*) FROM {table}"))?;
        counts.insert(table.to_owned(), json!(rows));
    }
    let has = |table: &str| counts.contains_key(table);
    for table in ["stocks", "brokers", "audit_log"] {
        if counts.get(table) == Some(&json!(0)) {
            wrong.push(format!("table {table} is empty; the first start fills it"));
        }
    }
    let (mut expected, mut not_covered) = (Value::Null, Value::Null);
    if has("audit_log") && has("quotes") && has("api_keys") && has("feed_batches") {
        let figures = Figures::read(database, losses)?;
        for (what, found, said) in figures.compared(&counts) {
            if said.is_some_and(|said| said != found) {
                let said = said.unwrap_or_default();
                wrong.push(format!("{what}: {found} rows, the audit log says {said}"));
            }
        }
        wrong.extend(gaps(database, losses)?);
        let [_, (_, _, keys), (_, _, batches)] = figures.compared(&counts);
        expected = json!({ "quotes": figures.quotes, "api_keys": keys, "feed_batches": batches });
        if !losses.is_none() {
            not_covered = json!({ "quotes": figures.quotes_lost });
        }
    }
    let mut detail = json!({ "rows": counts, "by_the_audit_log": expected });
    if !not_covered.is_null() {
        // What followed from entries that the log signs for as lost.
        detail["not_covered"] = not_covered;
    }
    Ok(match wrong.is_empty() {
        true => Check::passed("row_counts", detail),
        false => Check::failed("row_counts", wrong.join("; "), detail),
    })
}

/// Positions of a log have no gaps but those that it signs for: as many entries as the last one's position.
fn gaps(database: &mut Database<'_>, losses: &KnownLosses) -> Result<Vec<String>, WireError> {
    let rows = database.rows(
        "SELECT log, count(*), max(position) FROM audit_log GROUP BY log HAVING count(*) <> max(position) ORDER BY log",
    )?;
    let mut sentences = Vec::new();
    for row in rows {
        let number = |at: usize| row[at].parse().unwrap_or(u64::MAX >> 1);
        let (log, entries, last): (u64, u64, u64) = (number(0), number(1), number(2));
        let known = match losses.entries(log) {
            lost if entries.saturating_add(lost) == last => continue,
            0 => String::new(),
            lost => format!(", and {lost} are known to be lost"),
        };
        sentences.push(format!(
            "audit log {log} has {entries} entries, its last position is {last}{known}"
        ));
    }
    Ok(sentences)
}

/// What the audit log's own entries say must be in other tables.
#[derive(Default)]
struct Figures {
    quotes: u64,
    /// Rows of quotes whose entries are known to be lost.
    quotes_lost: u64,
    keys: BTreeSet<String>,
    /// Of the first engines, which named no key.
    keys_unnamed: u64,
    batches: u64,
    /// Everything was stated again behind a loss; before that nothing says what the tables hold.
    is_covered: bool,
}

impl Figures {
    fn read(database: &mut Database<'_>, losses: &KnownLosses) -> Result<Self, WireError> {
        let quote = Kind::Quote.number();
        let lost = losses.condition("q");
        let mut figures = Self {
            quotes: database.number(&format!(
                "SELECT count(*) FROM audit_log WHERE kind = {quote}"
            ))?,
            quotes_lost: database
                .number(&format!("SELECT count(*) FROM quotes AS q WHERE {lost}"))?,
            is_covered: losses.is_none(),
            ..Self::default()
        };
        let mut kinds = vec![Kind::FeedLoaded, Kind::KeyChanged, Kind::BrokerChanged];
        if !losses.is_none() {
            kinds.push(Kind::ConfigurationChanged);
        }
        let kinds: Vec<String> = kinds.iter().map(|kind| kind.number().to_string()).collect();
        let kinds = kinds.join(", ");
        let mut after = (0_u64, 0_u64, 0_u64);
        loop {
            let rows = database.rows(&format!(
                "SELECT log, epoch, position, encode(canonical, 'hex') FROM audit_log \
                 WHERE kind IN ({kinds}) AND (log, epoch, position) > ({}, {}, {}) ORDER BY log, epoch, position LIMIT {PORTION}",
                after.0, after.1, after.2
            ))?;
            for row in &rows {
                let number = |at: usize| row[at].parse().unwrap_or(u64::MAX >> 1);
                after = (number(0), number(1), number(2));
                figures.note(&row[3], losses);
            }
            if (rows.len() as u64) < PORTION {
                return Ok(figures);
            }
        }
    }

    /// Bytes that do not parse are the verification's affair, not the counting's.
    fn note(&mut self, canonical: &str, losses: &KnownLosses) {
        let Some(entry) = hex::decode(canonical)
            .ok()
            .and_then(|bytes| Entry::parse(&audit::expand(&bytes)).ok())
            .filter(|entry| losses.counts(entry))
        else {
            return;
        };
        let field = |name: &str| entry.fields.get(name);
        match entry.kind {
            Kind::KeyChanged if field("change") == Some("revoked") => {}
            Kind::KeyChanged => match field("key_id") {
                Some(id) => drop(self.keys.insert(id.to_owned())),
                None => self.keys_unnamed += 1,
            },
            Kind::ConfigurationChanged => self.note_statement(&entry),
            _ => {
                let loaded = field("outcome").is_none_or(|outcome| outcome == "loaded");
                self.batches += u64::from(loaded && field("batch_id").is_some());
            }
        }
    }

    /// Behind a loss everything that is there is stated once more (audit_log.md §12).
    fn note_statement(&mut self, entry: &Entry) {
        let field = |name: &str| entry.fields.get(name);
        self.is_covered |= field("name") == Some("tables") && field("baseline").is_some();
        let rows = field("rows.api_keys").map(serde_json::from_str::<Vec<Value>>);
        for row in rows.and_then(Result::ok).into_iter().flatten() {
            if let Some(id) = row["key_id"].as_str() {
                self.keys.insert(id.to_owned());
            }
        }
        // `BATCHES ROWS ROOT`.
        let batches =
            field("before.feed_batches").and_then(|it| it.split(' ').next()?.parse().ok());
        self.batches += batches.unwrap_or(0_u64);
    }

    /// What there is, and what the log says; nothing where it cannot say.
    fn compared(
        &self,
        counts: &serde_json::Map<String, Value>,
    ) -> [(&'static str, u64, Option<u64>); 3] {
        let found = |table: &str| counts.get(table).and_then(Value::as_u64).unwrap_or(0);
        let keys = self.keys.len() as u64 + self.keys_unnamed;
        let quotes = found("quotes").saturating_sub(self.quotes_lost);
        [
            ("quotes", quotes, Some(self.quotes)),
            (
                "api_keys",
                found("api_keys"),
                self.is_covered.then_some(keys),
            ),
            (
                "feed_batches",
                found("feed_batches"),
                self.is_covered.then_some(self.batches),
            ),
        ]
    }
}

/// Rows that belong together by the engine's own rules, where no foreign key guards them. `LOST`: the entry of this row
/// of quotes is known to be lost.
const TOGETHER: [(&str, &str); 3] = [
    (
        "rows of quotes have no audit entry",
        "SELECT count(*) FROM quotes AS q WHERE NOT LOST AND NOT EXISTS (SELECT FROM audit_log AS a \
         WHERE (a.log, a.epoch, a.position) = (q.log, q.epoch, q.position) AND a.kind = 1)",
    ),
    (
        "quotes in the audit log have no row in quotes",
        "SELECT count(*) FROM audit_log AS a WHERE a.kind = 1 AND NOT EXISTS (SELECT FROM quotes AS q \
         WHERE (q.log, q.epoch, q.position) = (a.log, a.epoch, a.position))",
    ),
    (
        "feed batches have another number of quarantined rows than they say",
        "SELECT count(*) FROM feed_batches AS b LEFT JOIN (SELECT batch_id, count(*) AS rows FROM quarantine GROUP BY batch_id) AS q \
         USING (batch_id) WHERE b.quarantined <> coalesce(q.rows, 0)",
    ),
];

fn orphans(database: &mut Database<'_>, losses: &KnownLosses) -> Result<Check, WireError> {
    let mut wrong = Vec::new();
    for (what, sql) in TOGETHER {
        match database.number(&sql.replace("LOST", &losses.condition("q")))? {
            0 => {}
            rows => wrong.push(format!("{rows} {what}")),
        }
    }
    let detail = json!({ "rules": TOGETHER.len(), "broken": wrong.len() });
    Ok(match wrong.is_empty() {
        true => Check::passed("orphan_rows", detail),
        false => Check::failed("orphan_rows", wrong.join("; "), detail),
    })
}
