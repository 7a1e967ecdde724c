//! What prices and who asks: every table that decides it is compared with the log, row by row.

use std::collections::{BTreeMap, BTreeSet};

use audit::{Chain, Entry, EpochOpening, Kind};
use jiff::ToSpan;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::{Answer, GME, Instance, until};
use crate::operators::Operator;

/// docs/formats/audit_log.md §12: what is repeated by entries, what is digested by them, and what is neither, and why.
const STATED: [&str; 9] = [
    "api_keys",
    "brokers",
    "policies",
    "conventions",
    "stocks",
    "minimum_rates",
    "aliases",
    "feed_refusals",
    "locate_reopenings",
];
const DIGESTED: [&str; 7] = [
    "feed_batches",
    "base_rates",
    "volatility",
    "events",
    "held_figures",
    "calendars",
    "quarantine",
];

async fn import(instance: &Instance, query: &str, body: &str) -> (u16, Value) {
    let path = format!("/internal/import?{query}&by=tester");
    let (status, body) = instance.control("POST", &path, body.as_bytes()).await;
    (status, serde_json::from_str(&body).unwrap())
}

async fn ask(
    instance: &Instance,
    operator: &Operator,
    method: Method,
    path: &str,
    body: Value,
) -> Value {
    let url = instance.url(&format!("/api/v1/admin{path}"));
    let request = Client::new().request(method, url);
    let answer = Answer::of(request.header("X-API-Key", &operator.token).json(&body)).await;
    assert!(answer.status < 300, "{path}: {}", answer.body);
    answer.json()
}

/// An instance with rows in every table that is covered, each by the door that it has.
async fn furnished() -> Instance {
    let instance = Instance::start().await;
    let operator = Operator::of(&instance).await;
    let key = instance.key_for("standard").await;
    let order = json!({"client_id": "premium", "days": 30});
    let made = ask(
        &instance,
        &operator,
        Method::POST,
        "/api-keys",
        order.clone(),
    )
    .await;
    let rotate = format!("/api-keys/{}/rotate", made["key_id"].as_str().unwrap());
    let overlap = json!({"overlap_hours": 2});
    ask(&instance, &operator, Method::POST, &rotate, overlap).await;
    let made = ask(&instance, &operator, Method::POST, "/api-keys", order).await;
    let revoke = format!("/api-keys/{}", made["key_id"].as_str().unwrap());
    ask(&instance, &operator, Method::DELETE, &revoke, json!({})).await;

    let config = instance.get(&key, "/api/v1/config").await.json();
    for (what, path) in [("policies", "/policies"), ("conventions", "/conventions")] {
        let mut own = config[what][0].clone();
        own.as_object_mut().unwrap().remove("id");
        own["name"] = json!("desk-seven");
        ask(&instance, &operator, Method::POST, path, own).await;
    }
    let terms = json!({"markup_percent": 4, "fee_type": "FLAT", "fee_amount": "5", "policy": "desk-seven-1", "convention": "act365-1"});
    ask(&instance, &operator, Method::PUT, "/clients/desk_7", terms).await;
    let minimum = json!({"minimum_rate": "0.01"});
    ask(
        &instance,
        &operator,
        Method::PUT,
        "/stocks/GME/minimum-rate",
        minimum,
    )
    .await;

    let today = jiff::Zoned::now().date();
    let calendar = format!(
        "# calendar: test\n# version: 1\n# source: a test\n# first_day: {}\n# last_day: {}\n# close: 16:00\n# session_end: 20:00\n\
         day,trading,settlement,close,session_end,name\n{},no,no,,,closed for a test\n",
        today - 30.days(),
        today + 90.days(),
        today + 60.days()
    );
    let events = format!(
        "symbol,name,reportDate,fiscalDateEnding,estimate,currency\nGME,G,{0},,,USD\nAMC,A,{0},,,USD\nX,X,never,,,USD\n",
        today + 9.days()
    );
    let moment = |minutes: i64| {
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
        format!("kind=seclend&valid_at={then}")
    };
    let lender = |rate: &str| {
        format!(
            r#"[{{"ticker":"GME","rate":{rate},"status":"HARD"}},{{"ticker":"AMC","rate":0.02,"status":"HARD"}}]"#
        )
    };
    for (query, body) in [
        ("kind=calendar", calendar.as_str()),
        ("kind=events", &events),
        (
            "kind=aliases",
            "source,symbol,ticker,valid_from,valid_to\napi,GAMESTOP,GME,,\n",
        ),
        (
            "kind=stocks",
            "ticker,minimum_rate,valid_from,valid_to\nGME,0.02,,\nKO,,,\n",
        ),
        (
            "kind=brokers",
            "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active\ndesk_8,5.0,FLAT,25.00,standard,act365-1,standard-1,true\n",
        ),
        (
            &format!("{}&accept_jumps=true", moment(30)),
            &lender("0.0025"),
        ),
        // Not believed, and so held.
        (&moment(20), &lender("0.60")),
    ] {
        let (status, answer) = import(&instance, query, body).await;
        assert_eq!(status, 200, "{query}: {answer}");
    }
    assert_eq!(import(&instance, &moment(5), "<html>").await.0, 400);
    let accept = "/internal/feeds/held/accept?source=seclend&subject=GME&by=tester";
    assert_eq!(instance.control("POST", accept, b"").await.0, 200);
    let (status, body) = instance
        .control("POST", "/internal/locates/reopen", b"{}")
        .await;
    assert_eq!(status, 200, "{body}");
    for _ in 0..2 {
        assert_eq!(instance.locate(&key, GME).await.status, 200);
    }
    instance
}

/// Whoever owns the tables may do what he likes with them.
async fn unlock(instance: &Instance) {
    let tables = [STATED.as_slice(), DIGESTED.as_slice()].concat();
    let names = tables
        .iter()
        .map(|table| format!("'{table}'"))
        .collect::<Vec<_>>()
        .join(", ");
    instance
        .sql(&format!(
            "DO $$ DECLARE c record; BEGIN \
             FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE conrelid::regclass::text IN ({names}) AND contype <> 'n' LOOP \
                 EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', c.t, c.conname); \
             END LOOP; END $$"
        ))
        .await;
    for table in tables {
        instance
            .sql(&format!(
                "CREATE TABLE kept_{table} AS SELECT * FROM {table}"
            ))
            .await;
    }
}

async fn tampered(instance: &Instance, change: &str) -> services::AuditReport {
    let quiet = "SET session_replication_role = replica; ";
    instance.sql(&format!("{quiet}{change}")).await;
    let report = instance.verify().await;
    let touched = STATED.into_iter().chain(DIGESTED);
    let touched = touched.filter(|table| change.contains(table));
    let back: String = touched
        .map(|table| {
            format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}; ")
        })
        .collect();
    instance.sql(&format!("{quiet}{back}")).await;
    report
}

fn other_value(column: &str, data_type: &str) -> String {
    match data_type {
        "uuid" => "gen_random_uuid()".to_owned(),
        "text" => format!("coalesce({column}, '') || 'x'"),
        "boolean" => format!("NOT {column}"),
        "bytea" => "sha256('evil')".to_owned(),
        "date" => format!("CASE WHEN isfinite({column}) THEN {column} + 1 ELSE current_date END"),
        "timestamp with time zone" => format!(
            "CASE WHEN isfinite({column}) THEN {column} + interval '1 microsecond' ELSE now() END"
        ),
        _ => format!("coalesce({column}, 0) + 1"),
    }
}

/// The change is found, and the first thing said is of this table. Returns what is said.
async fn found(instance: &Instance, table: &str, change: &str) -> services::Difference {
    let report = tampered(instance, change).await;
    let first = report.tables.differences.first().cloned();
    let first = first.unwrap_or_else(|| panic!("{change}: not found: {report:?}"));
    assert_eq!(
        (first.table, report.verdict),
        (table, "rewritten"),
        "{change}: {first:?}"
    );
    let said = report.log.reason.unwrap_or_default();
    assert_eq!(said, first.reason);
    assert!(said.starts_with(&format!("{table}: ")), "{said}");
    for rust in ["Some(", "None", "\"", "Ok("] {
        assert!(!said.contains(rust), "{said}");
    }
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_whatever_prices_or_asks_is_found_and_named() {
    let mut instance = furnished().await;
    instance.stop().await;
    let sound = instance.verify().await;
    assert_eq!(
        (
            sound.log.reason,
            sound.tables.verdict,
            sound.tables.not_covered_before
        ),
        (None, "as_recorded", None)
    );
    every_table_is_in_the_format_document(&instance).await;
    unlock(&instance).await;
    // The reproductions of a superuser, and the words that are said of them.
    for (table, change, words) in [
        (
            "api_keys",
            "UPDATE api_keys SET hash = sha256('evil')",
            "hash is not what entry",
        ),
        (
            "api_keys",
            "UPDATE api_keys SET tier = 'premium'",
            "tier is premium, and entry",
        ),
        (
            "api_keys",
            "UPDATE api_keys SET role = 'operator'",
            "role is operator, and entry",
        ),
        (
            "api_keys",
            "UPDATE api_keys SET expires_at = expires_at + interval '9 years'",
            "expires_at is 20",
        ),
        (
            "api_keys",
            "UPDATE api_keys SET revoked_at = NULL",
            "revoked_at is nothing, and entry",
        ),
        (
            "api_keys",
            "INSERT INTO api_keys VALUES ('key_evil', sha256('bre_evil'), 'standard', 'internal', now(), now() + interval '1 day', NULL, 'operator')",
            "key_id key_evil: no entry of the log made this row",
        ),
        (
            "api_keys",
            "DELETE FROM api_keys WHERE role = 'operator'",
            "(KeyChanged) speaks of is gone",
        ),
        (
            "brokers",
            "UPDATE brokers SET markup_percent = 0",
            "markup_percent is 0.00000000, and entry",
        ),
        (
            "base_rates",
            "UPDATE base_rates SET rate = rate * 0.1 WHERE ticker = 'GME'",
            ", ticker GME: it is not the row that entry",
        ),
        (
            "base_rates",
            "UPDATE base_rates SET available = available * 10",
            ": it is not the row that entry",
        ),
        (
            "base_rates",
            "DELETE FROM base_rates WHERE ticker = 'GME'",
            "rows are there, and entry",
        ),
        (
            "base_rates",
            "INSERT INTO base_rates SELECT 'EVIL', valid_at, known_at, rate, rebate, currency, available, available_or_more, source, \
                 symbol, name, isin, figi, batch_id, status FROM base_rates ORDER BY batch_id LIMIT 1",
            "rows are there, and entry",
        ),
        (
            "base_rates",
            "INSERT INTO base_rates (ticker, valid_at, known_at, rate, currency, source, symbol, batch_id) \
             SELECT 'GME', valid_at, known_at, 0, 'USD', source, 'GME', batch_id FROM feed_batches WHERE kind = 'vix'",
            "speaks of none",
        ),
        (
            "feed_batches",
            "UPDATE feed_batches SET sha256 = sha256('other')",
            "sha256 is not what entry",
        ),
        (
            "feed_batches",
            "UPDATE feed_batches SET known_at = known_at + interval '1 hour'",
            "known_at is not what entry",
        ),
        (
            "feed_batches",
            "UPDATE feed_batches SET rows = rows + 1, loaded = loaded + 1",
            "rows is ",
        ),
        (
            "feed_batches",
            "INSERT INTO feed_batches SELECT '00000000-0000-0000-0000-00000000000e', kind, source, sha256, rows, loaded, quarantined, valid_at, known_at \
             FROM feed_batches LIMIT 1",
            "no entry of the log brought this delivery",
        ),
        (
            "feed_batches",
            "DELETE FROM feed_batches WHERE kind = 'vix'",
            "the delivery that entry",
        ),
        (
            "stocks",
            "UPDATE stocks SET minimum_rate = 0.5 WHERE ticker = 'GME'",
            "minimum_rate is 0.50000000, and entry",
        ),
        (
            "stocks",
            "DELETE FROM stocks WHERE ticker = 'GME'",
            "ticker GME: the row that entry",
        ),
        (
            "policies",
            "UPDATE policies SET definition = '{}'",
            "definition is not what entry",
        ),
        (
            "aliases",
            "UPDATE aliases SET ticker = 'AMC' WHERE symbol = 'BRK B' AND source = 'ibkr'",
            "ticker is AMC, and entry",
        ),
    ] {
        let first = found(&instance, table, change).await;
        assert!(first.reason.contains(words), "{change}: {}", first.reason);
    }
    // All that there are, column by column, one of each table at a time: whoever adds one to a migration finds it here.
    let mut columns: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let sql = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2";
    for row in instance.sql(sql).await {
        let table = row[0].as_str();
        if STATED.contains(&table) || DIGESTED.contains(&table) {
            let column = (row[1].clone(), row[2].clone());
            columns.entry(row[0].clone()).or_default().push(column);
        }
    }
    let most = columns.values().map(Vec::len).max().unwrap();
    for round in 0..most {
        let (mut changes, mut changed) = (String::new(), Vec::new());
        for (table, columns) in &columns {
            if let Some((column, data_type)) = columns.get(round) {
                let other = other_value(column, data_type);
                changes.push_str(&format!(
                    "UPDATE {table} SET {column} = {other} WHERE ctid = (SELECT min(ctid) FROM {table}); "
                ));
                changed.push((table, column));
            }
        }
        let report = tampered(&instance, &changes).await;
        for (table, column) in changed {
            let mut told = report.tables.differences.iter();
            let told = told.find(|told| told.table == table);
            // Whatever names the row makes it another row; digests say no column.
            let told = told.unwrap_or_else(|| panic!("{table}.{column}: {report:?}"));
            let named = told.column.is_none_or(|named| named == column);
            assert!(named || table == "base_rates", "{table}.{column}: {told:?}");
        }
    }
    // A row twice; none at all.
    for change in [
        "INSERT INTO TABLE SELECT * FROM TABLE LIMIT 1; ",
        "DELETE FROM TABLE; ",
    ] {
        let tables = STATED.into_iter().chain(DIGESTED);
        let changes: String = tables.map(|table| change.replace("TABLE", table)).collect();
        let report = tampered(&instance, &changes).await;
        let told: BTreeSet<&str> = report
            .tables
            .differences
            .iter()
            .map(|told| told.table)
            .collect();
        assert_eq!(
            told.len(),
            STATED.len() + DIGESTED.len(),
            "{change}: {told:?}"
        );
    }
    // A table that is not as the engine made it.
    for (table, change, words) in [
        (
            "brokers",
            "ALTER TABLE brokers RENAME COLUMN tier TO level",
            "does not exist",
        ),
        (
            "stocks",
            "ALTER TABLE stocks ALTER ticker TYPE bytea USING convert_to(ticker, 'UTF8')",
            "ticker is of another type",
        ),
    ] {
        instance.sql(&format!("BEGIN; {change}; COMMIT")).await;
        let said = instance.verify().await.log.reason.unwrap_or_default();
        let begins = format!("{table}: it cannot be read as the engine made it: ");
        assert!(said.starts_with(&begins) && said.contains(words), "{said}");
        assert!(!said.contains("Rust"), "{said}");
        let back = match table {
            "brokers" => "ALTER TABLE brokers RENAME COLUMN level TO tier",
            _ => "ALTER TABLE stocks ALTER ticker TYPE text USING convert_from(ticker, 'UTF8')",
        };
        instance.sql(back).await;
    }
    // An innocent one: statistics, an index and a table of the DBA's own, rows written anew in another order.
    instance
        .sql("CREATE TABLE notes (t text); CREATE INDEX mine ON base_rates (symbol); CLUSTER base_rates USING mine; ANALYZE")
        .await;
    let sound = instance.verify().await;
    assert_eq!(
        (sound.log.reason, sound.tables.verdict),
        (None, "as_recorded")
    );
}

/// Long lists go on in entries of their own; nobody but the writer says what is in the tables; and who asked is known before.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_one_entry_cannot_hold_is_covered_whole_and_a_key_that_no_entry_made_is_found()
{
    let instance = Instance::start().await;
    let mut aliases = "source,symbol,ticker,valid_from,valid_to\n".to_owned();
    for number in 0..3000 {
        aliases.push_str(&format!("api,A{number},T{number},,\n"));
    }
    let (status, answer) = import(&instance, "kind=aliases", &aliases).await;
    assert_eq!(status, 200, "{answer}");
    let forged = br#"{"kind":"ConfigurationChanged","fields":{"rows.api_keys":"[]"}}"#;
    let (status, body) = instance
        .control("POST", "/internal/audit/entries", forged)
        .await;
    assert!(
        status == 400 && body.contains("rows.api_keys"),
        "{status} {body}"
    );
    let report = instance.verify().await;
    assert_eq!(
        (report.log.reason, report.tables.verdict),
        (None, "as_recorded")
    );
    assert!(report.tables.compared > 3000, "{:?}", report.tables);
    let following = "SELECT count(*) FROM audit_log WHERE kind = 6 AND position > 8";
    assert_ne!(instance.value(following).await, "0");
    instance
        .sql("CREATE TABLE kept_aliases AS SELECT * FROM aliases")
        .await;
    let change = "UPDATE aliases SET ticker = 'EVIL' WHERE symbol = 'A2999'";
    let first = found(&instance, "aliases", change).await;
    assert_eq!(
        (first.column, first.row.contains("A2999")),
        (Some("ticker"), true)
    );

    instance
        .sql("INSERT INTO api_keys VALUES ('key_evil', sha256('bre_evil'), 'standard', 'internal', now(), now() + interval '1 day', NULL, 'client')")
        .await;
    let price = async || instance.locate("bre_evil", GME).await.status;
    until("the key is taken", price, |status| *status == 200).await;
    instance
        .sql("DELETE FROM api_keys WHERE key_id = 'key_evil'")
        .await;
    let report = instance.verify().await;
    let said = report.log.reason.unwrap_or_default();
    assert!(
        said.contains("asked for with key_evil, and no entry before it made such a key"),
        "{said}"
    );
    let last = instance.value("SELECT max(position) FROM audit_log").await;
    assert_eq!(report.log.first_bad.unwrap().position.to_string(), last);
    assert_eq!(report.tables.verdict, "not_compared");
}

/// What an engine did that knew nothing of this: the same entries without what they say of the tables.
async fn as_an_older_engine_left_it(instance: &Instance) {
    let rows = instance
        .sql("SELECT encode(canonical, 'hex') FROM audit_log ORDER BY position")
        .await;
    let mut chain = Chain::new(0);
    instance
        .sql("ALTER TABLE audit_log DISABLE TRIGGER ALL")
        .await;
    for row in rows {
        let bytes = audit::hex::decode(&row[0]).unwrap();
        let entry = Entry::parse(&audit::expand(&bytes)).unwrap();
        let own = |name: &str| {
            name == "baseline"
                || ["rows.", "prints.", "before."]
                    .iter()
                    .any(|own| name.starts_with(own))
        };
        let at = entry.recorded_at_micros;
        let sealed = match entry.kind {
            Kind::EpochOpened => {
                let opening = EpochOpening::Created { timeline: 1 };
                chain.open_epoch(at, &opening, &instance.key).unwrap()
            }
            kind => {
                let fields = entry.fields.iter().filter(|(name, _)| !own(name));
                let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                chain.append(kind, at, fields).unwrap()
            }
        };
        let (bytes, hash) = (audit::hex::encode(&sealed.bytes), sealed.hash);
        let position = sealed.entry.position;
        instance
            .sql(&format!(
                "UPDATE audit_log SET canonical = '\\x{bytes}', hash = '\\x{hash}' WHERE position = {position}"
            ))
            .await;
    }
    instance
        .sql("ALTER TABLE audit_log ENABLE TRIGGER ALL; INSERT INTO baseline_due DEFAULT VALUES")
        .await;
    instance.outside.heads.lock().unwrap().clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_database_is_stated_once_and_covered_from_there() {
    let mut instance = furnished().await;
    instance.stop().await;
    as_an_older_engine_left_it(&instance).await;
    let old = instance.verify().await;
    assert_eq!((old.log.reason, old.tables.verdict), (None, "not_covered"));
    let entries = old.log.entries;
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let key = instance.key_for("premium").await;
    assert_eq!(
        instance
            .locate(&key, &GME.replace("standard", "premium"))
            .await
            .status,
        200
    );
    instance.stop().await;
    let report = instance.verify().await;
    let start = report.tables.not_covered_before.map(|start| start.position);
    assert_eq!(
        (report.log.reason, report.tables.verdict, start),
        (None, "as_recorded", Some(entries + 1))
    );
    let baseline = instance.entry(&format!("0-1-{}", entries + 1)).await;
    assert_eq!(baseline.fields.get("reason"), Some("upgrade"));
    unlock(&instance).await;
    for (table, change, words) in [
        (
            "base_rates",
            "UPDATE base_rates SET rate = 0 WHERE ticker = 'GME'",
            "deliveries before entry",
        ),
        (
            "volatility",
            "DELETE FROM volatility WHERE ctid = (SELECT min(ctid) FROM volatility)",
            "speaks of",
        ),
        (
            "api_keys",
            "UPDATE api_keys SET tier = 'internal' WHERE role = 'client'",
            "tier is internal, and entry",
        ),
        (
            "brokers",
            "DELETE FROM brokers WHERE client_id = 'desk_8'",
            "is gone",
        ),
    ] {
        let first = found(&instance, table, change).await;
        assert!(first.reason.contains(words), "{change}: {}", first.reason);
    }
    // Whoever makes the engine state everything once more, with his own rows among it, is found by that.
    instance
        .sql("UPDATE brokers SET markup_percent = 0; INSERT INTO baseline_due DEFAULT VALUES")
        .await;
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let report = instance.verify().await;
    let said = report.log.reason.unwrap_or_default();
    assert!(
        said.contains("it states all tables a second time"),
        "{said}"
    );
}

/// A table or a column that a migration adds is in the format document, with what is done about it, or this fails.
async fn every_table_is_in_the_format_document(instance: &Instance) {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let columns = "SELECT c.table_name, c.column_name FROM information_schema.columns AS c WHERE c.table_schema = 'public'";
    for row in instance.sql(columns).await {
        found
            .entry(row[0].clone())
            .or_default()
            .insert(row[1].clone());
    }
    let page =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/audit_log.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, page) = page.split_once("<!-- tables -->").unwrap();
    let (page, _) = page.split_once("<!-- end of tables -->").unwrap();
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for table in names(cells[1]) {
            told.insert(table, names(cells[2]));
        }
    }
    for (table, columns) in &found {
        let Some(said) = told.get(table) else {
            panic!(
                "{table} decides a price, or who asks, or it does not: say which in audit_log.md §12, and cover it in tables/covered.rs"
            );
        };
        // Those that are compared by other means are only named.
        let is_covered = STATED.contains(&table.as_str()) || DIGESTED.contains(&table.as_str());
        assert!(
            !is_covered || said == columns,
            "{table}: {said:?} {columns:?}"
        );
    }
    let gone: Vec<_> = told
        .keys()
        .filter(|table| !found.contains_key(*table))
        .collect();
    assert_eq!(gone, Vec::<&String>::new());
}
