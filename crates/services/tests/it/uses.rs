//! What orders do with a locate: it is available, reserved, used. The database's own rules hold it, and the record shows it.

use serde_json::{Value, json};

use crate::harness::{Answer, Instance};
use crate::locates::{options, post, wanted};

struct Trader {
    instance: Instance,
    key: String,
}

impl Trader {
    async fn new() -> Trader {
        let instance = Instance::with(options()).await;
        let key = instance.key_for("standard").await;
        Trader { instance, key }
    }

    /// A locate of that kind, accepted.
    async fn locate(&self, kind: &str, shares: u64) -> String {
        let mut order = wanted("GME", shares);
        order["type"] = json!(kind);
        let url = self.instance.url("/api/v1/locates");
        let offered = post(url.clone(), &self.key, None, &order).await.json();
        let id = offered["locate_id"].as_str().unwrap().to_owned();
        let filled = post(format!("{url}/{id}/accept"), &self.key, None, &json!({})).await;
        assert_eq!(filled.json()["granted"], shares, "{}", filled.body);
        id
    }

    async fn send(&self, id: &str, body: &Value) -> Answer {
        let url = self.instance.url(&format!("/api/v1/locates/{id}/uses"));
        post(url, &self.key, None, body).await
    }

    /// What is available, reserved and used after it, or why it was refused.
    async fn order(
        &self,
        id: &str,
        order_id: &str,
        side: &str,
        state: &str,
        shares: i64,
    ) -> String {
        let body = json!({ "order_id": order_id, "side": side, "state": state, "shares": shares });
        told(&self.send(id, &body).await)
    }

    async fn get(&self, path: &str) -> Value {
        self.instance.get(&self.key, path).await.json()
    }
}

fn three(value: &Value) -> String {
    format!(
        "{} {} {}",
        value["available"], value["reserved"], value["used"]
    )
}

fn told(answer: &Answer) -> String {
    let body = answer.json();
    match answer.status {
        200 => three(&body),
        status => format!("{status} {}", body["error_code"].as_str().unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locate_is_available_reserved_and_used() {
    let trader = Trader::new().await;
    let single = trader.locate("single_use", 500).await;
    let reusable = trader.locate("reusable", 300).await;
    let at = async |path: &str| three(&trader.get(path).await);
    let of_single = format!("/api/v1/locates/{single}/availability");
    assert_eq!(at(&of_single).await, "500 0 0");

    let sell = "sell_short";
    let plain = json!({ "order_id": "o-1", "side": "sell", "shares": 200 });
    let first = trader.send(&single, &plain).await;
    assert_eq!(told(&first), "300 0 200");
    // Once for each order: the same answer, byte for byte, and nothing happens twice.
    assert_eq!(trader.send(&single, &plain).await.body, first.body);
    assert_eq!(
        trader.order(&single, "o-1", sell, "used", 100).await,
        "422 ORDER_ID_REUSED"
    );
    assert_eq!(
        trader.order(&single, "o-2", sell, "reserved", 250).await,
        "50 250 200"
    );
    assert_eq!(
        trader.order(&single, "o-3", sell, "used", 51).await,
        "409 USE_TOO_LARGE"
    );
    assert_eq!(
        trader.order(&single, "o-2", sell, "used", 100).await,
        "200 0 300"
    );
    // A cover makes a reusable locate's shares available again, never a single-use one's.
    let covered = trader
        .send(
            &single,
            &json!({ "order_id": "o-4", "side": "cover", "shares": 300 }),
        )
        .await;
    assert_eq!(
        (told(&covered), &covered.json()["order"]["credited"]),
        ("200 0 300".into(), &json!(0))
    );
    assert_eq!(
        trader.order(&reusable, "o-1", sell, "used", 300).await,
        "0 0 300"
    );
    let covered = trader
        .send(
            &reusable,
            &json!({ "order_id": "o-5", "side": "buy_to_cover", "shares": 200 }),
        )
        .await;
    assert_eq!(
        (told(&covered), &covered.json()["order"]["credited"]),
        ("200 0 100".into(), &json!(200))
    );
    assert_eq!(
        trader.order(&reusable, "o-6", sell, "reserved", 150).await,
        "50 150 100"
    );
    assert_eq!(
        trader.order(&reusable, "o-6", sell, "released", 150).await,
        "200 0 100"
    );
    assert_eq!(
        trader.order(&reusable, "o-7", sell, "released", 150).await,
        "409 CONFLICT"
    );
    assert_eq!(
        trader.order(&reusable, "o-8", "cover", "used", 101).await,
        "409 USE_TOO_LARGE"
    );

    // May I sell 300 now? Asked of a locate, of all of them, and of the ticker.
    assert_eq!(at(&of_single).await, "200 0 300");
    let all = trader.get("/api/v1/locates/availability").await;
    assert_eq!(three(&all["items"][0]), "400 0 400", "{all}");
    assert_eq!(all["items"][0]["locates"], 2);
    let none = trader.get("/api/v1/locates/availability?ticker=AMC").await;
    assert_eq!(none["items"], json!([]));
    let ticker = trader.get("/api/v1/availability/GME").await;
    assert_eq!(three(&ticker["yours"]), "400 0 400", "{ticker}");
    let now = trader.get(&format!("/api/v1/locates/{single}")).await;
    assert_eq!(
        (three(&now), now["steps"].as_array().unwrap().len()),
        ("200 0 300".into(), 2)
    );
    let uses = trader
        .get(&format!("/api/v1/locates/{single}/uses?limit=2"))
        .await;
    assert_eq!(
        (&uses["pagination"]["total"], &uses["items"][0]["order_id"]),
        (&json!(4), &json!("o-4"))
    );
    let list = trader.get("/api/v1/locates?locate_status=filled").await;
    assert_eq!(list["pagination"]["total"], 2, "{list}");

    // Only what no order holds or has sold is given back.
    let give = trader
        .instance
        .url(&format!("/api/v1/locates/{single}/return"));
    let refused = post(give.clone(), &trader.key, None, &json!({ "shares": 300 })).await;
    assert_eq!(told(&refused), "409 RETURN_TOO_LARGE");
    assert_eq!(
        told(&post(give, &trader.key, None, &json!({})).await),
        "0 0 300"
    );
    assert_eq!(
        trader.order(&single, "o-9", sell, "used", 1).await,
        "409 USE_TOO_LARGE"
    );

    // What cannot be read, and whose it is not.
    for body in [
        json!({ "side": "sell", "shares": 1 }),
        json!({ "order_id": "a b", "side": "sell", "shares": 1 }),
        json!({ "order_id": "a", "side": "long", "shares": 1 }),
        json!({ "order_id": "a", "side": "sell", "shares": 0 }),
        json!({ "order_id": "a", "side": "cover", "shares": 1, "state": "reserved" }),
    ] {
        let answer = trader.send(&reusable, &body).await;
        assert_eq!(told(&answer), "400 INVALID_PARAMETER", "{body}");
    }
    let stranger = trader.instance.key_for("premium").await;
    for path in ["uses", "availability"] {
        let path = format!("/api/v1/locates/{single}/{path}");
        assert_eq!(
            trader.instance.get(&stranger, &path).await.status,
            404,
            "{path}"
        );
    }

    let report = trader.instance.verify().await;
    assert_eq!((report.log.reason.as_deref(), report.uses), (None, 8));
    the_database_refuses(&trader.instance, &reusable).await;
}

/// Whatever an engine with a fault writes: each is refused by a rule of the table, for the owner too.
async fn the_database_refuses(instance: &Instance, locate_id: &str) {
    let columns = "SELECT string_agg(column_name, ', ' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = 'locates'";
    let columns = instance.value(columns).await;
    // The newest step: 200 available, nothing reserved, 100 used.
    let next = |changed: &[(&str, &str)]| {
        let value = |name: &str| {
            let usual = match name {
                "sequence" => "sequence + 1",
                "order_id" => "'forged'",
                "order_side" => "'sell_short'",
                "order_state" => "'used'",
                "order_shares" => "1",
                "used" => "used + 1",
                name => name,
            };
            let found = changed.iter().find(|(changed, _)| *changed == name);
            found.map_or(usual, |(_, value)| value).to_owned()
        };
        let values: Vec<String> = columns.split(", ").map(value).collect();
        format!(
            "INSERT INTO locates SELECT {} FROM locates WHERE locate_id = '{locate_id}' ORDER BY sequence DESC LIMIT 1",
            values.join(", ")
        )
    };
    let refused = async |changed: &[(&str, &str)]| {
        let sql = next(changed);
        let text = format!(
            "DO $do$ BEGIN {sql}; RAISE 'taken'; EXCEPTION WHEN check_violation OR unique_violation THEN NULL; END $do$"
        );
        let (client, connection) =
            tokio_postgres::connect(&instance.login("postgres"), tokio_postgres::NoTls)
                .await
                .unwrap();
        let driver = tokio::spawn(connection);
        let ran = client.batch_execute(&text).await;
        drop(client);
        driver.await.unwrap().unwrap();
        ran.map_err(|error| error.as_db_error().map(|error| error.message().to_owned()))
    };
    // One that follows is taken; the block takes it back.
    assert_eq!(refused(&[]).await, Err(Some("taken".to_owned())));
    for changed in [
        // More than is held, in one step or by a wrong sum.
        &[("order_shares", "201"), ("used", "used + 201")][..],
        &[("used", "used + 2")],
        &[("used", "used")],
        &[("order_state", "'reserved'")],
        &[
            ("order_state", "'reserved'"),
            ("used", "used"),
            ("reserved", "201"),
            ("order_shares", "201"),
        ],
        &[("order_state", "'released'"), ("used", "used")],
        &[("order_side", "'buy_to_cover'")],
        &[
            ("order_side", "'buy_to_cover'"),
            ("used", "used - 101"),
            ("order_shares", "101"),
        ],
        // An order that is known, another step's number, without an order, with a return beside it.
        &[("order_id", "'o-5'")],
        &[("sequence", "sequence")],
        &[("sequence", "sequence + 2")],
        &[
            ("order_id", "NULL"),
            ("order_side", "NULL"),
            ("order_state", "NULL"),
            ("order_shares", "NULL"),
        ],
        &[("order_id", "NULL")],
        &[("returned", "returned + 100")],
        &[("status", "'cancelled'")],
        // Shares that are used are not given back.
        &[
            ("order_id", "NULL"),
            ("order_side", "NULL"),
            ("order_state", "NULL"),
            ("order_shares", "NULL"),
            ("used", "used"),
            ("returned", "300"),
            ("status", "'cancelled'"),
        ],
    ] {
        assert_eq!(refused(changed).await, Ok(()), "{changed:?}");
    }
}
