//! Minimum rates are set on the record, for a time; quotes, books and the past read one view, and see every change at once.

use serde_json::{Value, json};

use crate::harness::{Answer, Instance, http_client, until};
use crate::operators::Operator;

struct Fixture {
    instance: Instance,
    key: String,
}

impl Fixture {
    /// The minimum that a rate is made from, and the time it began.
    async fn minimum(&self, query: &str) -> (String, String) {
        let path = format!("/api/v1/rates/GME{query}");
        let answer = self.instance.get(&self.key, &path).await;
        let body = answer.json();
        assert_eq!(answer.status, 200, "{body}");
        minimum_of(&body)
    }

    /// The same as a book says it.
    async fn in_a_book(&self) -> String {
        let book = b"ticker,client,days,value\nGME,standard,30,100000\n";
        let (status, body) = self.instance.control("POST", "/internal/book", book).await;
        assert_eq!(status, 200, "{body}");
        let line: Value = serde_json::from_str(body.lines().nth(1).unwrap()).unwrap();
        number(&line["borrow_rate"])
    }

    async fn quoted(&self) -> String {
        let quote = self.instance.locate(&self.key, crate::harness::GME).await;
        number(&quote.json()["borrow_rate_used"])
    }
}

fn minimum_of(body: &Value) -> (String, String) {
    let source = &body["data_sources"]["minimum_rate"];
    (
        source["source"].as_str().unwrap_or_default().to_owned(),
        number(&body["current_rate"]),
    )
}

fn number(value: &Value) -> String {
    value.as_f64().unwrap_or(-1.0).to_string()
}

fn stamp(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_secs(seconds)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minimum_rate_is_set_on_the_record_and_one_view_shows_it_everywhere() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let operator = Operator::of(&instance).await.token;
    let desk = Fixture { instance, key };
    let instance = &desk.instance;
    let (source, usual) = desk.minimum("").await;
    assert_eq!(source, "stocks");
    let before = stamp(0);

    let put = async |ticker: &str, body: Value| {
        let url = instance.url(&format!("/api/v1/admin/stocks/{ticker}/minimum-rate"));
        let request = http_client().put(url).header("X-API-Key", &operator);
        Answer::of(request.json(&body)).await
    };
    let set = put("GME", json!({ "minimum_rate": "0.5" })).await;
    assert_eq!(set.status, 200, "{}", set.body);
    // At once, and the same for each that asks.
    assert_eq!(
        desk.minimum("").await,
        ("minimum_rates".into(), "0.5".into())
    );
    assert_eq!(
        (desk.quoted().await, desk.in_a_book().await),
        ("0.5".into(), "0.5".into())
    );
    assert_eq!(desk.minimum(&format!("?as_of={}", stamp(0))).await.1, "0.5");
    // The past is as it was known.
    let past = desk
        .minimum(&format!("?as_of={before}&known_at={before}"))
        .await;
    assert_eq!(past, ("stocks".into(), usual.clone()));
    let position = set.json()["audit"]["position"].as_u64().unwrap();
    let entry = instance.entry(&format!("0-1-{position}")).await;
    assert_eq!(entry.fields.get("name"), Some("minimum_rate GME"));
    assert!(entry.fields.get("by").unwrap().contains("night-desk"));
    assert!(entry.fields.get("after").unwrap().contains("0.50000000"));

    // For a time to come, and over when that has passed.
    let rate = async || desk.minimum("").await.1;
    let soon = put(
        "GME",
        json!({ "minimum_rate": "0.7", "valid_from": stamp(1) }),
    )
    .await;
    assert_eq!(soon.status, 200, "{}", soon.body);
    until("it has begun", rate, |rate| rate == "0.7").await;
    let brief = put(
        "GME",
        json!({ "minimum_rate": "0.9", "valid_to": stamp(2) }),
    )
    .await;
    assert_eq!(brief.status, 200, "{}", brief.body);
    until("it is over", rate, |rate| rate == "0.7").await;

    // By file, which also names new stocks; by the command line's door.
    let file = format!(
        "ticker,minimum_rate,valid_from,valid_to\nGME,0.6,,\nNEWCO,0.25,{},\n",
        stamp(-5)
    );
    let import = "/internal/import?kind=stocks&by=test";
    let (status, body) = instance.control("POST", import, file.as_bytes()).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        (rate().await, desk.in_a_book().await),
        ("0.6".into(), "0.6".into())
    );
    let new = instance.get(&desk.key, "/api/v1/rates/NEWCO").await.json();
    let fallback = &new["data_sources"]["base_rate"];
    assert_eq!(
        (&fallback["source"], &fallback["fallback"]),
        (&json!("minimum_rate"), &json!(true))
    );
    let door = "/internal/stocks/GME/minimum-rate";
    let (status, body) = instance
        .control("POST", door, br#"{"minimum_rate":"0.55","by":"jo"}"#)
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(rate().await, "0.55");
    let (status, body) = instance.control("GET", door, b"").await;
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, shown["items"].as_array().unwrap().len()),
        (200, 5),
        "{body}"
    );

    // A slip of the pen makes no stock.
    for (ticker, body, status) in [
        ("GMEE", json!({ "minimum_rate": "0.5" }), 404),
        ("GME", json!({ "minimum_rate": "5%" }), 400),
        (
            "GME",
            json!({ "minimum_rate": "0.5", "valid_to": before }),
            400,
        ),
        ("GME", json!({}), 400),
    ] {
        assert_eq!(put(ticker, body.clone()).await.status, status, "{body}");
    }
    assert_eq!(instance.verify().await.log.reason, None);
}

/// Whoever changes what prices are made from need not remember to tell: the tables do.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_any_table_that_prices_depend_on_is_seen_without_being_told() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let ask = async |path: &str| instance.get(&key, path).await.json();
    let rate = async || number(&ask("/api/v1/rates/GME").await["current_rate"]);
    instance
        .sql("INSERT INTO stocks (ticker, minimum_rate) VALUES ('GME', 0.5) ON CONFLICT (ticker) DO UPDATE SET minimum_rate = 0.5")
        .await;
    until("the stock's own minimum", rate, |rate| rate == "0.5").await;
    instance
        .sql("INSERT INTO minimum_rates VALUES ('GME', now() - interval '1 minute', NULL, now(), 0.8)")
        .await;
    until("a dated one", rate, |rate| rate == "0.8").await;
    let markup = async || {
        let quote = instance.locate(&key, crate::harness::GME).await.json();
        number(&quote["breakdown"]["markup"])
    };
    let first = markup().await;
    instance
        .sql("INSERT INTO brokers SELECT client_id, 9, fee_type, fee_amount, tier, convention, policy, active, now() FROM brokers WHERE client_id = 'standard'")
        .await;
    until("other terms", markup, |markup| *markup != first).await;
    instance
        .sql(
            "INSERT INTO aliases VALUES ('api', 'GAMESTOP', 'GME', '-infinity', 'infinity', now())",
        )
        .await;
    let alias = async || ask("/api/v1/rates/GAMESTOP").await["ticker"].to_string();
    until("an alias", alias, |ticker| ticker == "\"GME\"").await;
    instance.sql("UPDATE api_keys SET revoked_at = now()").await;
    let status = async || instance.get(&key, "/api/v1/rates/GME").await.status;
    until("a key is revoked", status, |status| *status == 401).await;
}
