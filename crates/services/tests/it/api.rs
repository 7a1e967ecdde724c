//! Whole answers, as clients see them.

use reqwest::Client;

use crate::harness::{Answer, GME, Instance, Options};

#[track_caller]
pub(crate) fn check(name: &str, answer: Answer) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, answer.show());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn answers() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let get = async |path: &str| instance.get(&key, path).await;
    check("rate", get("/api/v1/rates/GME").await);
    check("rate_with_a_dot", get("/api/v1/rates/ticker/BRK.A").await);
    check("rate_unknown", get("/api/v1/rates/A%2FB%20C").await);
    check("rate_malformed", get("/api/v1/rates/gme").await);
    check("locate", instance.locate(&key, GME).await);
    let query = "ticker=GME&position_value=100000.00&loan_days=30&client_id=standard";
    check(
        "locate_by_query",
        get(&format!("/api/v1/calculate-locate?{query}")).await,
    );
    let strings =
        r#"{"ticker":"BRK.A","position_value":"0.01","loan_days":"365","client_id":"standard"}"#;
    check("locate_of_a_cent", instance.locate(&key, strings).await);
    check(
        "health",
        Answer::of(
            Client::new()
                .get(instance.url("/api/v1/health"))
                .header("X-Request-ID", "test-1"),
        )
        .await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors() {
    let mut options = Options::default();
    options.settings.body_bytes_max = 1024;
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let locate = async |body: &str| instance.locate(&key, body).await;
    check("missing", locate("{}").await);
    check(
        "out_of_range",
        locate(r#"{"ticker":"gme","position_value":1e400,"loan_days":366,"client_id":"x","speed":1,"shares":[1]}"#).await
    );
    check(
        "too_many_decimals",
        locate(
            r#"{"ticker":"GME","position_value":0.001,"loan_days":30.5,"client_id":"standard"}"#,
        )
        .await,
    );
    check("unparsable", locate("{\"ticker\":").await);
    check("not_an_object", locate("[]").await);
    check(
        "too_long",
        locate(&format!("{{\"ticker\":\"{}\"}}", "A".repeat(2000))).await,
    );
    check(
        "other_client",
        locate(&GME.replace("standard", "premium")).await,
    );
    check("unknown_ticker", locate(&GME.replace("GME", "NOPE")).await);
    let stranger = instance.key_for("stranger").await;
    check(
        "unknown_client",
        instance
            .locate(&stranger, &GME.replace("standard", "stranger"))
            .await,
    );
    let url = instance.url("/api/v1/calculate-locate");
    let with = |request: reqwest::RequestBuilder| {
        request
            .header("X-Request-ID", "test-1")
            .header("X-API-Key", &key)
    };
    check(
        "wrong_type",
        Answer::of(with(
            Client::new()
                .post(&url)
                .header("Content-Type", "text/plain")
                .body(GME),
        ))
        .await,
    );
    check(
        "wrong_method",
        Answer::of(with(Client::new().delete(&url))).await,
    );
    let head = Answer::of(with(Client::new().head(format!(
        "{url}?ticker=GME&position_value=1&loan_days=1&client_id=standard"
    ))))
    .await;
    assert_eq!(
        head.status, 405,
        "HEAD would record a quote that nobody sees"
    );
    check(
        "unknown_path",
        Answer::of(with(Client::new().get(instance.url("/api/v2/rates")))).await,
    );
    check(
        "unknown_quote",
        instance
            .get(&key, "/api/v1/quotes/0190163d-8694-739b-aea5-966c26f8ad91")
            .await,
    );
    check(
        "no_key",
        Answer::of(
            Client::new()
                .get(instance.url("/api/v1/rates/GME"))
                .header("X-Request-ID", "test-1"),
        )
        .await,
    );
    check(
        "wrong_key",
        instance.get("bre_0000", "/api/v1/rates/GME").await,
    );
    assert_eq!(
        instance.value("SELECT count(*) FROM quotes").await,
        "0",
        "an error recorded a quote"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_limits() {
    let mut options = Options::default();
    options.settings.requests_per_minute.standard = 2;
    let instance = Instance::with(options).await;
    let (status, body) = instance
        .control(
            "POST",
            "/internal/keys",
            br#"{"client_id":"standard","tier":"standard"}"#,
        )
        .await;
    assert_eq!(status, 200, "{body}");
    let created: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (key, id) = (
        created["api_key"].as_str().unwrap(),
        created["key_id"].as_str().unwrap(),
    );
    // Three requests cannot all fall into different minutes: at most one of them starts a new one.
    let mut refused = Vec::new();
    for _ in 0..5 {
        let answer = instance.get(key, "/api/v1/rates/GME").await;
        refused.extend((answer.status == 429).then_some(answer));
    }
    check("limited", refused.into_iter().next().unwrap());
    let stored = instance
        .value("SELECT encode(hash, 'hex') FROM api_keys")
        .await;
    assert!(!stored.contains(&key[4..]) && stored.len() == 64);
    let days = "SELECT extract(day FROM expires_at - created_at) FROM api_keys";
    assert_eq!(instance.value(days).await, "90");
    let (status, _) = instance
        .control("DELETE", &format!("/internal/keys/{id}"), b"")
        .await;
    assert_eq!(status, 200);
    check("revoked", instance.get(key, "/api/v1/rates/GME").await);
    let (status, body) = instance.control("GET", "/internal/keys", b"").await;
    assert!(
        status == 200 && body.contains(id) && !body.contains("api_key\""),
        "{body}"
    );
    assert_eq!(
        instance
            .value("SELECT count(*) FROM audit_log WHERE kind = 4")
            .await,
        "2"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(instance.socket()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    // Who goes on with a key that opens nothing is counted, slowed and told of; others from the same place are served.
    for number in 0..21 {
        let wrong = format!("bre_{number:064}");
        let answer = instance.get(&wrong, "/api/v1/rates/GME").await;
        assert_eq!(answer.status, 401, "{}", answer.body);
    }
    let right = instance.key_for("standard").await;
    let served = instance.get(&right, "/api/v1/rates/GME").await;
    assert_eq!(served.status, 200, "{}", served.body);
    let health = instance.get("", "/api/v1/health").await;
    let health: serde_json::Value = serde_json::from_str(&health.body).unwrap();
    let concerns = health["degraded"].to_string();
    assert!(
        concerns.contains("api_keys") && concerns.contains("127.0.0.1"),
        "{concerns}"
    );
    let metrics = Answer::of(Client::new().get(instance.url("/metrics"))).await;
    for name in [
        "bre_requests_total{",
        "bre_database_up 1",
        "bre_locates_served 1",
        "bre_audit_position",
        "bre_wrong_keys_total{door=\"public\"} 22",
    ] {
        assert!(metrics.body.contains(name), "{name} in {}", metrics.body);
    }
}
