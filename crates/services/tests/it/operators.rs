//! Administration over HTTP: who may, what changes, what is on record.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::api::check;
use crate::harness::{Answer, GME, Instance};

pub struct Operator {
    pub token: String,
}

impl Operator {
    pub async fn of(instance: &Instance) -> Operator {
        let order = br#"{"role":"operator","client_id":"night-desk","by":"test"}"#;
        let (status, body) = instance.control("POST", "/internal/keys", order).await;
        assert_eq!(status, 200, "{body}");
        let created: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(created["role"], "operator");
        Operator {
            token: created["api_key"].as_str().unwrap().to_owned(),
        }
    }

    async fn ask(&self, instance: &Instance, method: Method, path: &str, body: &Value) -> Answer {
        let url = instance.url(&format!("/api/v1/admin{path}"));
        let request = Client::new().request(method, url);
        let request = request
            .header("X-API-Key", &self.token)
            .header("X-Request-ID", "test-1");
        match body {
            Value::Null => Answer::of(request).await,
            body => Answer::of(request.json(body)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_rotated_and_revoked() {
    let instance = Instance::start().await;
    let operator = Operator::of(&instance).await;
    let ask = async |method: Method, path: &str, body: Value| {
        operator.ask(&instance, method, path, &body).await
    };
    let made = ask(
        Method::POST,
        "/api-keys",
        json!({"client_id": "standard", "days": 30}),
    )
    .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made = made.json();
    let (key, id) = (
        made["api_key"].as_str().unwrap(),
        made["key_id"].as_str().unwrap(),
    );
    let rate = async |key: &str| instance.get(key, "/api/v1/rates/GME").await;
    assert_eq!(rate(key).await.status, 200);
    // With an overlap both work; without, the old one ends at once.
    let rotate = format!("/api-keys/{id}/rotate");
    let second = ask(Method::POST, &rotate, json!({"overlap_hours": 1})).await;
    assert_eq!(second.status, 201, "{}", second.body);
    let second = second.json();
    assert_eq!(second["replaces"]["key_id"], id);
    let (second_key, second_id) = (
        second["api_key"].as_str().unwrap(),
        second["key_id"].as_str().unwrap(),
    );
    assert_eq!(
        (rate(key).await.status, rate(second_key).await.status),
        (200, 200)
    );
    let rotate = format!("/api-keys/{second_id}/rotate");
    let third = ask(Method::POST, &rotate, json!({"overlap_hours": 0}))
        .await
        .json();
    let third_key = third["api_key"].as_str().unwrap();
    check("expired", rate(second_key).await);
    check("rotated_twice", ask(Method::POST, &rotate, json!({})).await);
    let revoke = format!("/api-keys/{id}");
    assert_eq!(ask(Method::DELETE, &revoke, Value::Null).await.status, 200);
    assert_eq!(
        (rate(key).await.status, rate(third_key).await.status),
        (401, 200)
    );
    check(
        "no_such_key",
        ask(Method::DELETE, "/api-keys/key_0", Value::Null).await,
    );
    let list = ask(Method::GET, "/api-keys?limit=2", Value::Null).await;
    assert_eq!(list.json()["pagination"]["total"], 4);
    assert!(!list.body.contains(key) && !list.body.contains("api_key\""));
    check(
        "bad_key_order",
        ask(
            Method::POST,
            "/api-keys",
            json!({"client_id": "a b", "tier": "gold", "days": 0, "role": "operator"}),
        )
        .await,
    );
    let record = "SELECT count(*) FROM audit_log WHERE kind = 4";
    assert_eq!(instance.value(record).await, "5");
    // The role that serves cannot make a key live longer.
    let longer =
        "SET ROLE bre_service; UPDATE api_keys SET expires_at = expires_at + interval '1 day'";
    let refused = tokio::spawn({
        let login = instance.login("postgres");
        async move {
            let (client, connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            client.batch_execute(longer).await.is_err()
        }
    });
    assert!(refused.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_keeps_to_its_side() {
    let instance = Instance::start().await;
    let operator = Operator::of(&instance).await;
    let key = instance.key_for("standard").await;
    check(
        "client_as_operator",
        instance.get(&key, "/api/v1/admin/api-keys").await,
    );
    check(
        "operator_as_client",
        instance.get(&operator.token, "/api/v1/rates/GME").await,
    );
    let locate = instance
        .locate(&operator.token, &GME.replace("standard", "night-desk"))
        .await;
    assert_eq!(locate.status, 403);
    let config = instance.get(&operator.token, "/api/v1/config").await;
    assert_eq!(
        (config.status, &config.json()["caller"]["role"]),
        (200, &json!("operator"))
    );
    // A stolen token cannot shut the other operators out.
    let ids = instance
        .value("SELECT key_id FROM api_keys WHERE role = 'operator'")
        .await;
    let path = format!("/api-keys/{ids}");
    let revoked = operator
        .ask(&instance, Method::DELETE, &path, &Value::Null)
        .await;
    assert_eq!(revoked.status, 403);
    let (status, _) = instance
        .control("DELETE", &format!("/internal/keys/{ids}"), b"")
        .await;
    assert_eq!(status, 200);
    let ended = operator
        .ask(&instance, Method::GET, "/api-keys", &Value::Null)
        .await;
    assert_eq!(ended.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_priced_by_its_own_terms() {
    let instance = Instance::start().await;
    let operator = Operator::of(&instance).await;
    let ask = async |method: Method, path: &str, body: Value| {
        operator.ask(&instance, method, path, &body).await
    };
    let config = instance.get(&operator.token, "/api/v1/config").await.json();
    let mut policy = config["policies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|policy| policy["id"] == "standard-1")
        .unwrap()
        .clone();
    policy.as_object_mut().unwrap().remove("id");
    policy["name"] = json!("desk-seven");
    policy["slope"] = json!("0.02");
    let published = ask(Method::POST, "/policies", policy.clone()).await;
    assert_eq!(
        (published.status, &published.json()["id"]),
        (201, &json!("desk-seven-1")),
        "{}",
        published.body
    );
    check(
        "published_twice",
        ask(Method::POST, "/policies", policy.clone()).await,
    );
    policy["name"] = json!("Desk; DROP TABLE");
    assert_eq!(ask(Method::POST, "/policies", policy).await.status, 400);
    check("bad_terms", ask(Method::PUT, "/clients/desk_7", json!({"markup_percent": -1, "fee_type": "PERCENTAGE", "fee_amount": 101, "policy": "none-1", "active": "maybe"})).await);
    let terms = json!({"markup_percent": 0, "fee_type": "FLAT", "fee_amount": "0", "policy": "desk-seven-1", "convention": "us-street-1"});
    let put = ask(Method::PUT, "/clients/desk_7", terms).await;
    assert_eq!(put.status, 200, "{}", put.body);
    check(
        "terms",
        ask(Method::GET, "/clients/desk_7", Value::Null).await,
    );
    check(
        "no_terms",
        ask(Method::GET, "/clients/nobody", Value::Null).await,
    );
    let key = instance.key_for("desk_7").await;
    let body = r#"{"ticker":"GME","position_value":110000,"loan_days":1,"client_id":"desk_7"}"#;
    check("shares_missing", instance.locate(&key, body).await);
    let body = body.replace("}", r#","shares":10000,"share_price":11}"#);
    let quote = instance.locate(&key, &body).await;
    // 0.19 x (1 + 20 x 0.02) = 0.266; 11 x 1.02 up to 12, x 10000; x 0.266 / 360 = 88.6667.
    for part in [
        "\"borrow_rate_used\":0.26600000",
        "\"collateral_value\":120000.00",
        "\"total_fee\":88.6667",
        "\"policy\":\"desk-seven-1\"",
        "\"convention\":\"us-street-1\"",
    ] {
        assert!(quote.body.contains(part), "{part} in {}", quote.body);
    }
    // Newer terms win, the older ones stay on file.
    let off = json!({"markup_percent": 0, "fee_type": "FLAT", "fee_amount": 0, "active": false});
    assert_eq!(ask(Method::PUT, "/clients/desk_7", off).await.status, 200);
    assert_eq!(instance.locate(&key, &body).await.status, 404);
    let kept = "SELECT count(*) FROM brokers WHERE client_id = 'desk_7'";
    assert_eq!(instance.value(kept).await, "2");
    let report = instance.verify().await;
    assert_eq!(report.log.first_bad, None);
    let replayed = services::replay(
        &instance.login("bre_service"),
        0,
        services::Period::default(),
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!((replayed.checked, replayed.mismatches.len()), (1, 0));
}
