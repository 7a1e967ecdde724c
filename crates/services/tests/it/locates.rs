//! Locates from offer to end: what is answered, what is refused, what a new file means, and that nothing is granted twice.

use std::sync::Arc;

use jiff::{Span, Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::api::check;
use crate::harness::{Answer, Instance, Options, http_client, until};

/// The sample book is older than any desk would grant by.
pub fn options() -> Options {
    let mut options = Options::default();
    let ages = &mut options.settings.feeds.rate_age_seconds_max;
    ages.insert("sample".to_owned(), u32::MAX);
    options
}

pub fn wanted(ticker: &str, shares: u64) -> Value {
    json!({ "ticker": ticker, "shares": shares, "share_price": "25.50", "loan_days": 1, "client_id": "standard" })
}

pub async fn post(url: String, key: &str, idempotency: Option<&str>, body: &Value) -> Answer {
    let mut request = http_client()
        .post(url)
        .header("X-API-Key", key)
        .header("X-Request-ID", "test-1");
    if let Some(name) = idempotency {
        request = request.header("Idempotency-Key", name);
    }
    Answer::of(request.json(body)).await
}

struct Fixture {
    instance: Instance,
    key: String,
}

impl Fixture {
    async fn with(options: Options) -> Fixture {
        let instance = Instance::with(options).await;
        let key = instance.key_for("standard").await;
        Fixture { instance, key }
    }

    async fn ask(&self, body: &Value) -> Answer {
        post(self.instance.url("/api/v1/locates"), &self.key, None, body).await
    }

    async fn step(&self, id: &str, step: &str, body: &Value) -> Answer {
        let url = self.instance.url(&format!("/api/v1/locates/{id}/{step}"));
        post(url, &self.key, None, body).await
    }

    /// An offer's id.
    async fn offer(&self, ticker: &str, shares: u64) -> String {
        let answer = self.ask(&wanted(ticker, shares)).await;
        assert_eq!(answer.json()["locate_status"], "offered", "{}", answer.body);
        answer.json()["locate_id"].as_str().unwrap().to_owned()
    }

    /// What became of an offer and its acceptance: status, granted, reason.
    async fn take(&self, ticker: &str, shares: u64) -> (String, i64, String) {
        let offered = self.ask(&wanted(ticker, shares)).await.json();
        if offered["locate_status"] != "offered" {
            return outcome(&offered);
        }
        let id = offered["locate_id"].as_str().unwrap();
        outcome(&self.step(id, "accept", &json!({})).await.json())
    }

    async fn remaining(&self, ticker: &str) -> i64 {
        let path = format!("/api/v1/availability/{ticker}");
        self.instance.get(&self.key, &path).await.json()["remaining"]
            .as_i64()
            .unwrap()
    }

    async fn import(&self, rows: &[(&str, &str)], age: Span) {
        let (status, body) = self
            .instance
            .control("POST", IMPORT, &file(rows, age))
            .await;
        assert_eq!(status, 200, "{body}");
    }
}

pub const IMPORT: &str = "/internal/import?kind=ibkr&accept_jumps=true";

/// A lender's list of that age, each row a symbol and its availability.
pub fn file(rows: &[(&str, &str)], age: Span) -> Vec<u8> {
    let made = Timestamp::now() - age;
    let mut text = format!(
        "#BOF|{}\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n",
        made.strftime("%Y.%m.%d|%H:%M:%S")
    );
    for (symbol, available) in rows {
        text.push_str(&format!(
            "{symbol}|USD|NAME|1|XXXXXXX00001|3.3000|1.0000|{available}|X1|\n"
        ));
    }
    text.push_str(&format!("#EOF|{}\n", rows.len()));
    text.into_bytes()
}

fn outcome(answer: &Value) -> (String, i64, String) {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (
        text("locate_status"),
        answer["granted"].as_i64().unwrap_or(-1),
        text("reason"),
    )
}

fn code(answer: &Answer) -> (u16, String) {
    let code = answer.json()["error_code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locates_life() {
    let desk = Fixture::with(options()).await;
    let mut order = wanted("BRK.A", 1000);
    order["limit_rate"] = json!(0.5);
    order["type"] = json!("reusable");
    let offered = desk.ask(&order).await;
    let id = offered.json()["locate_id"].as_str().unwrap().to_owned();
    check("locate_offered", offered);
    assert_eq!(desk.remaining("BRK.A").await, 900, "an offer holds nothing");
    // 900 of the 1000 are there.
    check("locate_filled", desk.step(&id, "accept", &json!({})).await);
    assert_eq!(desk.remaining("BRK.A").await, 0);
    assert_eq!(
        desk.take("BRK A", 100).await,
        ("rejected".into(), 0, "insufficient_availability".into())
    );
    check(
        "locate_returned",
        desk.step(&id, "return", &json!({ "shares": 300 })).await,
    );
    assert_eq!(desk.remaining("BRK.A").await, 300);
    check(
        "locate_cancelled",
        desk.step(&id, "return", &json!({})).await,
    );
    assert_eq!(desk.remaining("BRK.A").await, 900);
    check(
        "locate_life",
        desk.instance
            .get(&desk.key, &format!("/api/v1/locates/{id}"))
            .await,
    );
    let declined = desk.offer("BRK.A", 100).await;
    let answer = desk.step(&declined, "decline", &json!({})).await.json();
    assert_eq!(answer["locate_status"], "declined");
    let list = desk
        .instance
        .get(
            &desk.key,
            "/api/v1/locates?locate_status=declined&ticker=BRK.A",
        )
        .await;
    assert_eq!(list.json()["pagination"]["total"], 1, "{}", list.body);
    let by_request = desk
        .instance
        .get(&desk.key, "/api/v1/locates?request_id=test-1&limit=1")
        .await
        .json();
    assert_eq!(by_request["pagination"]["total"], 3);
    // The record that Reg SHO 203(b)(1) wants is an entry, and the client reads it.
    let entries = desk
        .instance
        .get(&desk.key, "/api/v1/audit?ticker=BRK.A&page_size=100")
        .await
        .json();
    let steps = entries["items"].as_array().unwrap().iter();
    assert_eq!(
        steps
            .filter(|entry| entry["kind"] == "LocateChanged")
            .count(),
        7
    );
    let report = desk.instance.verify().await;
    assert_eq!((report.log.reason.as_deref(), report.locates), (None, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_nothing_is_granted_twice() {
    let desk = Fixture::with(options()).await;
    let with = |name: &str, value: Value| {
        let mut order = wanted("GME", 100);
        order[name] = value;
        order
    };
    check(
        "locate_bad_order",
        desk.ask(&json!({ "shares": 0, "type": "forever", "limit_rate": -1, "quote_id": 7 }))
            .await,
    );
    for shares in [
        json!(0),
        json!(-100),
        json!(1_000_000_000_000_u64),
        json!(150),
        json!(100.5),
        json!("1e3"),
        json!(null),
    ] {
        assert_eq!(
            code(&desk.ask(&with("shares", shares.clone())).await),
            (400, "INVALID_PARAMETER".into()),
            "{shares}"
        );
    }
    check(
        "locate_not_lots",
        desk.ask(&with("shares", json!(150))).await,
    );
    assert_eq!(
        code(&desk.ask(&with("client_id", json!("premium"))).await).0,
        403
    );
    assert_eq!(
        code(&desk.ask(&with("ticker", json!("NOPE"))).await),
        (404, "TICKER_NOT_FOUND".into())
    );
    assert_eq!(
        desk.ask(&with("limit_rate", json!("0.0001"))).await.json()["reason"],
        "rate_above_limit"
    );
    let mut whole = with("shares", json!(400_000));
    whole["all_or_none"] = json!(true);
    assert_eq!(
        desk.ask(&whole).await.json()["reason"],
        "insufficient_availability"
    );

    // Another client's quote, and its locate, are none.
    let stranger = desk.instance.key_for("premium").await;
    let quote = desk
        .instance
        .locate(&desk.key, crate::harness::GME)
        .await
        .json();
    let quoted = json!({ "quote_id": quote["quote_id"], "shares": 100 });
    let url = desk.instance.url("/api/v1/locates");
    check(
        "locate_quote_of_others",
        post(url.clone(), &stranger, None, &quoted).await,
    );
    let shares_missing = json!({ "quote_id": quote["quote_id"] });
    assert_eq!(code(&desk.ask(&shares_missing).await).0, 400);
    let id = desk.ask(&quoted).await.json()["locate_id"]
        .as_str()
        .unwrap()
        .to_owned();
    check("locate_quote_used", desk.ask(&quoted).await);
    let theirs = desk.instance.url(&format!("/api/v1/locates/{id}/accept"));
    check(
        "locate_of_others",
        post(theirs, &stranger, None, &json!({})).await,
    );
    let past = desk
        .instance
        .get(&stranger, &format!("/api/v1/locates/{id}"))
        .await;
    assert_eq!(past.status, 404);

    // Two accepts at once: one is granted.
    let nothing = json!({});
    let (one, two) = tokio::join!(
        desk.step(&id, "accept", &nothing),
        desk.step(&id, "accept", &nothing)
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", one.body, two.body);
    check(
        "locate_accepted_twice",
        desk.step(&id, "accept", &json!({})).await,
    );
    assert_eq!(
        code(&desk.step(&id, "decline", &json!({})).await),
        (409, "LOCATE_NOT_OPEN".into())
    );
    check(
        "locate_return_too_large",
        desk.step(&id, "return", &json!({ "shares": 200 })).await,
    );
    assert_eq!(
        code(&desk.step(&id, "return", &json!({ "shares": 50 })).await).0,
        400
    );
    assert_eq!(
        code(&desk.step(&id, "accept", &json!({ "shares": 1 })).await).0,
        400
    );
    assert_eq!(
        code(&desk.step("nonsense", "accept", &json!({})).await).0,
        400
    );
    assert_eq!(desk.remaining("GME").await, 350_000 - 100);
    let declined = desk.offer("GME", 100).await;
    desk.step(&declined, "decline", &json!({})).await;
    assert_eq!(
        code(&desk.step(&declined, "accept", &json!({})).await),
        (409, "LOCATE_NOT_OPEN".into())
    );
    assert_eq!(desk.remaining("GME").await, 350_000 - 100);
    assert_eq!(desk.instance.verify().await.log.reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_its_first_answer() {
    let desk = Fixture::with(options()).await;
    let url = desk.instance.url("/api/v1/locates");
    let ask = async |name: &str, shares: u64| {
        post(url.clone(), &desk.key, Some(name), &wanted("GME", shares)).await
    };
    // All at once, and again later: one offer.
    let answers = futures_util::future::join_all((0..8).map(|_| ask("order-1", 500))).await;
    let bodies: std::collections::BTreeSet<_> =
        answers.into_iter().map(|answer| answer.body).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let first = bodies.into_iter().next().unwrap();
    let id = serde_json::from_str::<Value>(&first).unwrap()["locate_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let accept = desk.instance.url(&format!("/api/v1/locates/{id}/accept"));
    let accepted = post(
        accept.clone(),
        &desk.key,
        Some("order-1-accept"),
        &json!({}),
    )
    .await;
    assert_eq!(accepted.json()["granted"], 500);
    let again = post(
        accept.clone(),
        &desk.key,
        Some("order-1-accept"),
        &json!({}),
    )
    .await;
    assert_eq!((again.status, &again.body), (200, &accepted.body));
    assert_eq!(
        ask("order-1", 500).await.body,
        first,
        "also when the locate went on"
    );
    check("idempotency_key_reused", ask("order-1", 600).await);
    let decline = accept.replace("accept", "decline");
    assert_eq!(
        post(decline, &desk.key, Some("order-1-accept"), &json!({}))
            .await
            .status,
        422
    );
    assert_eq!(code(&ask("no spaces", 500).await).0, 400);
    // Keys are the client's own.
    let theirs = desk.instance.key_for("premium").await;
    let mut order = wanted("GME", 500);
    order["client_id"] = json!("premium");
    let other = post(url.clone(), &theirs, Some("order-1"), &order).await;
    assert_eq!(other.json()["locate_status"], "offered", "{}", other.body);
    assert_eq!(desk.remaining("GME").await, 350_000 - 500);
    assert_eq!(desk.instance.verify().await.log.reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_is_what_counts() {
    let desk = Fixture::with(options()).await;
    desk.import(
        &[("GME", "1000"), ("AMC", ">10000000"), ("TSLA", "")],
        50.minutes(),
    )
    .await;
    assert_eq!(
        desk.take("GME", 600).await,
        ("filled".into(), 600, String::new())
    );
    // Lower than what is granted already: nothing more, and nothing is taken back.
    desk.import(
        &[("GME", "400"), ("AMC", ">10000000"), ("TSLA", "")],
        40.minutes(),
    )
    .await;
    assert_eq!(desk.take("GME", 100).await.2, "insufficient_availability");
    assert_eq!(desk.remaining("GME").await, 0);
    // Higher: what is granted already still counts.
    desk.import(
        &[("GME", "2000"), ("AMC", ">10000000"), ("TSLA", "")],
        30.minutes(),
    )
    .await;
    assert_eq!(
        desk.take("GME", 5000).await,
        ("filled".into(), 1400, String::new())
    );
    // "More than" is as much as it says, and no more.
    assert_eq!(
        desk.take("AMC", 20_000_000).await,
        ("filled".into(), 10_000_000, String::new())
    );
    // A source that names no number, while another, invented book does: the first that knows.
    assert_eq!(desk.take("TSLA", 100).await.0, "filled");
    // An offer from before the ticker left the list is rejected when it is accepted.
    desk.import(&[("GME", "5000"), ("AMC", ">10000000")], 20.minutes())
        .await;
    let id = desk.offer("GME", 100).await;
    desk.import(&[("AMC", ">10000000"), ("TSLA", "5")], 10.minutes())
        .await;
    let gone = desk.step(&id, "accept", &json!({})).await.json();
    assert_eq!(outcome(&gone), ("rejected".into(), 0, "not_listed".into()));
    assert_eq!(desk.instance.verify().await.log.reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_or_unknown_is_not_granted() {
    // The sample book is from 2025, and nobody said that it may be old.
    let desk = Fixture::with(Options::default()).await;
    assert_eq!(
        desk.take("GME", 100).await,
        ("rejected".into(), 0, "availability_stale".into())
    );
    let answer = desk
        .instance
        .get(&desk.key, "/api/v1/availability/GME")
        .await
        .json();
    assert_eq!(answer["reason"], "availability_stale");
    let file = r#"[{"ticker":"ZZZ","rate":0.15,"status":"HARD"}]"#;
    let import = format!(
        "/internal/import?kind=seclend&accept_jumps=true&valid_at={}",
        Timestamp::now()
    );
    let (status, body) = desk
        .instance
        .control("POST", &import, file.as_bytes())
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        desk.take("ZZZ", 100).await,
        ("rejected".into(), 0, "availability_unknown".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn time_ends_offers_and_a_late_accept_gets_nothing() {
    let mut options = options();
    options.settings.quote_valid = std::time::Duration::from_secs(3);
    let desk = Fixture::with(options).await;
    let id = desk.offer("GME", 100).await;
    let path = format!("/api/v1/locates/{id}");
    let life = until(
        "the offer expires",
        async || desk.instance.get(&desk.key, &path).await.json(),
        |life| life["locate_status"] == "expired",
    )
    .await;
    assert_eq!(
        (life["reason"].as_str(), life["steps"][1]["actor"].as_str()),
        (Some("offer_lapsed"), Some("engine"))
    );
    check("locate_expired", desk.step(&id, "accept", &json!({})).await);
    assert_eq!(desk.remaining("GME").await, 350_000);
    let quote = desk
        .instance
        .value("SELECT max(quote_id::text) FROM quotes")
        .await;
    let late = desk.ask(&json!({ "quote_id": quote, "shares": 100 })).await;
    assert_eq!(late.status, 409, "{}", late.body);
    assert_eq!(desk.instance.verify().await.log.reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_recovery_that_may_have_lost_grants_an_operator_reopens_the_day() {
    let mut desk = Fixture::with(options()).await;
    assert_eq!(desk.take("GME", 100).await.0, "filled");
    let fact = services::RecoveryFact {
        restore_id: "20261123T120000Z-00000001".to_owned(),
        timeline: 2,
        target_lsn: 0x0100_0000,
    };
    desk.instance.stop().await;
    desk.instance.options.recovery = Some(fact);
    desk.instance.launch().await;
    desk.instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    assert_eq!(
        desk.take("GME", 100).await,
        ("rejected".into(), 0, "recovery_unsettled".into())
    );
    let health = async || desk.instance.get(&desk.key, "/api/v1/health").await.json();
    let told = health().await;
    let why = told["locates"]["reason"].as_str().unwrap_or_default();
    assert!(
        told["status"] == "degraded" && told["locates"]["served"] == false,
        "{told}"
    );
    for words in [
        "recovery_unsettled",
        "POST /api/v1/admin/locates/reopen",
        "bre locate reopen",
    ] {
        assert!(why.contains(words), "{words}: {why}");
    }
    let order = br#"{"role":"operator","client_id":"night-desk","by":"test"}"#;
    let (_, made) = desk.instance.control("POST", "/internal/keys", order).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let operator = made["api_key"].as_str().unwrap().to_owned();
    let reopen = post(
        desk.instance.url("/api/v1/admin/locates/reopen"),
        &operator,
        None,
        &json!({}),
    )
    .await;
    assert_eq!(reopen.status, 200, "{}", reopen.body);
    let told = health().await;
    assert_eq!(told["locates"], json!({ "served": true }));
    // And what `bre locate reopen` asks for.
    let (status, again) = desk
        .instance
        .control("POST", "/internal/locates/reopen", b"{}")
        .await;
    assert_eq!(status, 200, "{again}");
    assert_eq!(desk.take("GME", 100).await.0, "filled");
    assert_eq!(desk.remaining("GME").await, 350_000 - 200);
    assert_eq!(desk.instance.verify().await.log.reason, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_of_a_locate_or_its_ledger_is_found() {
    let desk = Arc::new(Fixture::with(options()).await);
    desk.take("GME", 100).await;
    desk.take("GME", 200).await;
    let instance = &desk.instance;
    instance.sql("CREATE TABLE kept_l AS SELECT * FROM locates; CREATE TABLE kept_s AS SELECT * FROM availability_ledger").await;
    let off = "SET session_replication_role = replica; ALTER TABLE locates DISABLE TRIGGER ALL; ALTER TABLE availability_ledger DISABLE TRIGGER ALL; \
         ALTER TABLE locates DROP CONSTRAINT IF EXISTS locates_order_whole;";
    let mut changes = vec![
        ("DELETE FROM availability_ledger WHERE sequence = 2".to_owned(), "row in availability_ledger is missing".to_owned()),
        ("DELETE FROM locates WHERE status = 'filled'".to_owned(), "row in locates is missing".to_owned()),
        ("INSERT INTO availability_ledger SELECT log, epoch, 999, recorded_at, ticker, trade_date, 3, gen_random_uuid(), change, available, outstanding + change, source, valid_at, known_at FROM availability_ledger WHERE sequence = 2".to_owned(), "no such entry".to_owned()),
    ];
    let columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_name IN ('locates', 'availability_ledger')";
    for column in instance.sql(columns).await {
        let [table, name, sql_type] = &column[..] else {
            panic!()
        };
        let other = match (name.as_str(), sql_type.as_str()) {
            ("status", _) => "'expired'".to_owned(),
            ("kind", _) => "'pre_borrow'".to_owned(),
            ("idempotency_key" | "idempotency_digest", _) => continue,
            (_, "uuid") => "gen_random_uuid()".to_owned(),
            (_, "text") => format!("coalesce({name}, '') || 'x'"),
            (_, "date") => format!("{name} + 1"),
            (_, "timestamp with time zone") => format!("{name} + interval '1 microsecond'"),
            ("returned", _) => "1".to_owned(),
            (_, "numeric") => format!("{name} + 0.0001"),
            ("granted", _) => format!("{name} - 1"),
            _ => format!("coalesce({name}, 0) + 7"),
        };
        let reason = match name.as_str() {
            "log" | "epoch" | "position" => "row in".to_owned(),
            _ => format!("{table}.{name}"),
        };
        let row = if table == "locates" {
            "status = 'filled' AND shares = 200"
        } else {
            "sequence = 2"
        };
        changes.push((
            format!("UPDATE {table} SET {name} = {other} WHERE {row}"),
            reason,
        ));
    }
    for (change, reason) in changes {
        instance.sql(&format!("{off} {change}")).await;
        let told = instance.verify().await.log.reason.unwrap_or_default();
        assert!(told.contains(&reason), "{change}: {told}");
        instance.sql("TRUNCATE locates, availability_ledger; INSERT INTO locates SELECT * FROM kept_l; INSERT INTO availability_ledger SELECT * FROM kept_s").await;
    }
    assert_eq!(instance.verify().await.log.reason, None);
}
