//! The names that clients of the engine before this one know, beside ours.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::{Answer, Instance, http_client};

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_find_what_they_know() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let open = async |path: &str| Answer::of(Client::new().get(instance.url(path))).await;
    let health = open("/api/v1/health").await.json();
    assert_eq!(health["timestamp"], health["time"]);
    let words = json!({
        "database": "connected", "cache": "disabled", "external_apis": "not_configured",
    });
    assert_eq!(health["component_status"], words);
    assert!(health["components"]["database"].is_object());
    for path in ["/api/v1/health?format=flat", "/health?format=flat"] {
        let flat = open(path).await;
        assert_eq!((flat.status, &flat.json()["components"]), (200, &words));
    }
    let at_root = open("/health").await;
    assert_eq!(
        (at_root.status, &at_root.json()["components"]["database"]),
        (200, &health["components"]["database"])
    );
    assert_eq!(open("/health?format=tree").await.status, 400);
    // A monitor's own parameters are nobody's business.
    assert_eq!(open("/health?x=1").await.status, 200);

    let config = instance.get(&key, "/api/v1/config").await.json();
    let older = json!({
        "api_version": "1.0.0",
        "supported_features": ["borrow_rates", "locate_fees", "volatility_adjustment"],
        // As this instance is set.
        "rate_limits": { "default": 1_000_000, "premium": 300 },
    });
    assert_eq!(config["config"], older);
}

/// Whatever takes JSON: a body that is none is one error, of `body`, and says what would have been taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_one_error_and_null_is_absence() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let order = br#"{"role":"operator","client_id":"night-desk","by":"test"}"#;
    let (_, made) = instance.control("POST", "/internal/keys", order).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let operator = made["api_key"].as_str().unwrap().to_owned();
    let send = async |key: &str, method: Method, path: &str, body: &str| {
        let request = http_client().request(method, instance.url(path));
        let request = request
            .header("X-API-Key", key)
            .header("Content-Type", "application/json");
        Answer::of(request.body(body.to_owned())).await
    };
    let none = "0190163d-8694-739b-aea5-966c26f8ad91";
    for (key, method, path) in [
        (&key, Method::POST, "/api/v1/calculate-locate".to_owned()),
        (&key, Method::POST, "/api/v1/locates".to_owned()),
        (&key, Method::POST, format!("/api/v1/locates/{none}/return")),
        (&operator, Method::POST, "/api/v1/admin/api-keys".to_owned()),
        (
            &operator,
            Method::PUT,
            "/api/v1/admin/clients/desk_9".to_owned(),
        ),
        (&operator, Method::POST, "/api/v1/admin/policies".to_owned()),
        (
            &operator,
            Method::POST,
            "/api/v1/admin/conventions".to_owned(),
        ),
    ] {
        for body in ["{\"ticker\":", "[]", "null", "{'a':1}"] {
            let answer = send(key, method.clone(), &path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
            let json = answer.json();
            let errors = json["validation_errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{path}: {}", answer.body);
            assert_eq!(
                (&errors[0]["field"], &errors[0]["location"]),
                (&json!("body"), &json!("body"))
            );
            assert!(
                errors[0]["message"]
                    .as_str()
                    .is_some_and(|text| text.len() > 10)
            );
            assert!(
                !json["valid_params"].as_array().unwrap().is_empty(),
                "{path}"
            );
        }
    }

    let nulls = |mut body: Value, names: &[&str]| {
        for name in names {
            body[*name] = Value::Null;
        }
        body.to_string()
    };
    let position =
        json!({"ticker": "GME", "position_value": 100, "loan_days": 30, "client_id": "standard"});
    let all = ["shares", "share_price", "as_of", "known_at"];
    let answer = send(
        &key,
        Method::POST,
        "/api/v1/calculate-locate",
        &nulls(position.clone(), &all),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = send(
        &key,
        Method::POST,
        "/api/v1/calculate-locate",
        &nulls(position, &["ticker"]),
    )
    .await;
    assert_eq!(
        answer.json()["validation_errors"][0]["message"],
        "is required",
        "{}",
        answer.body
    );
    let terms = json!({"markup_percent": 5, "fee_type": "FLAT", "fee_amount": 25});
    let all = ["tier", "convention", "policy", "active"];
    let answer = send(
        &operator,
        Method::PUT,
        "/api/v1/admin/clients/desk_9",
        &nulls(terms, &all),
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["active"]),
        (200, &json!(true)),
        "{}",
        answer.body
    );
    let convention =
        json!({"name": "desk", "version": 1, "collateral": "position-value", "basis_days": 360});
    let body = nulls(convention, &["basis_days_of"]);
    let answer = send(&operator, Method::POST, "/api/v1/admin/conventions", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}
