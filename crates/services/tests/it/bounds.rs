//! What a body may cost, at every endpoint that takes one and in every form: docs/operations/limits.md.

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Answer, Instance, http_client};

/// Bodies that cost their reader more than they cost their writer.
fn hostile() -> Vec<(&'static str, String)> {
    let json = |text: String| ("application/json", text);
    let deep = 7_000;
    vec![
        json("[".repeat(deep)),
        json(format!("{}{}", "[".repeat(deep), "]".repeat(deep))),
        json("{\"ticker\":".repeat(1_500)),
        json(format!(
            "{{\"ticker\":{}1{}}}",
            "[".repeat(deep),
            "]".repeat(deep)
        )),
        json(format!("{{\"position_value\":{}}}", "9".repeat(15_000))),
        json(format!("{{\"position_value\":1e{}}}", "9".repeat(10))),
        json(format!("{{{}\"a\":1}}", "\"a\":1,".repeat(2_500))),
        json(format!("\"{}\"", "\\u0000".repeat(2_500))),
        // Beyond the longest that is read.
        json(" ".repeat(17 * 1024)),
        json(format!("{{\"ticker\":\"{}\"}}", "A".repeat(1 << 20))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_of_any_endpoint_costs_more_than_its_bound() {
    let instance = Instance::start().await;
    let order = br#"{"role":"operator","client_id":"night-desk","by":"test"}"#;
    let (_, made) = instance.control("POST", "/internal/keys", order).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let keys = [
        instance.key_for("standard").await,
        made["api_key"].as_str().unwrap().to_owned(),
    ];
    let document = instance.get(&keys[0], "/openapi.json").await.json();
    let mut endpoints = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation.get("requestBody").is_some() && path != "/api/v1/book" {
                let method: Method = method.to_uppercase().parse().unwrap();
                // What stands for an id is one that is not there.
                let named = path.replace(['{', '}'], "");
                endpoints.push((method, named, path.contains('{')));
            }
        }
    }
    assert!(endpoints.len() > 5, "{endpoints:?}");
    for (method, path, has_id) in &endpoints {
        for (kind, body) in hostile() {
            let mut statuses = Vec::new();
            for key in &keys {
                let request = http_client().request(method.clone(), instance.url(path));
                let request = request
                    .header("X-API-Key", key)
                    .header("Content-Type", kind);
                let answer = Answer::of(request.body(body.clone())).await;
                assert!(
                    (400..500).contains(&answer.status),
                    "{method} {path} {}…: {} {}",
                    &body[..40],
                    answer.status,
                    answer.body
                );
                statuses.push(answer.status);
            }
            // Whoever may use the endpoint is told that it is too long, unless the id is wrong before that.
            if body.len() > 16 * 1024 && !has_id {
                assert!(statuses.contains(&413), "{method} {path}: {statuses:?}");
            }
        }
    }
}
