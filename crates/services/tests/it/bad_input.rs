//! What nobody should send: refused with a reason, and never with a 500, a hang or a silent reading of something else.

use std::fmt::Write;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Client;
use serde_json::{Value, json};

use crate::api::check;
use crate::harness::{Answer, GME, Instance, SETTLED, http_client};

/// Numbers that are none, or none of ours.
const NUMBERS: &[&str] = &[
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "-0.0",
    "0",
    "0.00",
    "0.001",
    "1.005",
    "１２",
    "٣",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1000000000.01",
    "00100",
    "+5",
    "0x10",
    "1_000",
    "1,000",
    "1 000",
    " 5",
    "5 ",
    "5\n",
    ".5",
    "5.",
    "1e",
    "--1",
    "",
    "null",
    "true",
    "[]",
    "{}",
    "\"",
    "5\u{0}",
    "½",
    "1/2",
    "1'000",
];

const TEXTS: &[&str] = &[
    "' OR '1'='1",
    "'; DROP TABLE quotes; --",
    "GME\r\nX-Injected: 1",
    "GME\n{\"level\":\"INFO\"}",
    "${jndi:ldap://x}",
    "../../etc/passwd",
    "%00",
    "\u{0}",
    "\u{202e}EMG",
    "G\u{301}ME",
    "gme",
    "GME;",
    "\\",
    "{{7*7}}",
    "<script>",
    "\u{feff}GME",
];

/// Refused as a client's fault, in our own words.
#[track_caller]
fn refused(answer: &Answer, what: &str) {
    assert!(
        matches!(
            answer.status,
            400 | 401 | 403 | 404 | 405 | 409 | 413 | 415 | 431
        ),
        "{what}: {} {}",
        answer.status,
        answer.body
    );
    let body: Value = serde_json::from_str(&answer.body).expect("an error is JSON");
    assert_eq!(body["status"], "error", "{what}");
    assert!(
        body["error_code"].is_string() && body["error"].is_string(),
        "{what}"
    );
    for (name, value) in &answer.headers {
        assert!(
            name != "x-injected" && !value.contains("injected"),
            "{what}: {name}"
        );
    }
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "%{byte:02X}");
        all
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_texts_that_nobody_means() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let fields = ["position_value", "loan_days", "shares", "share_price"];
    for (field, bad) in fields
        .iter()
        .flat_map(|field| NUMBERS.iter().map(move |bad| (*field, *bad)))
    {
        // As text, and as it stands: some are JSON numbers, most are no JSON.
        for shown in [json!(bad).to_string(), bad.to_owned()] {
            // JSON does not see the space around a number.
            if shown != shown.trim() {
                continue;
            }
            // As good as not sent: the value is then that of the shares.
            if shown == "null" && field == "position_value" {
                continue;
            }
            // A share's price has six decimals.
            if field == "share_price" && ["0.001", "1.005"].contains(&bad) {
                continue;
            }
            let mut members = json!({"ticker": "GME", "client_id": "standard"});
            for (name, good) in [
                ("position_value", 1),
                ("loan_days", 1),
                ("shares", 1),
                ("share_price", 1),
            ] {
                members[name] = json!(if name == field { -77 } else { good });
            }
            let body = members.to_string().replace("-77", &shown);
            let answer = instance.locate(&key, &body).await;
            refused(&answer, &body);
        }
    }
    for bad in TEXTS {
        for field in ["ticker", "client_id"] {
            let mut members: Value = serde_json::from_str(GME).unwrap();
            members[field] = json!(bad);
            refused(&instance.locate(&key, &members.to_string()).await, bad);
        }
        let bad = encoded(bad);
        for path in [
            format!("/api/v1/rates/{bad}"),
            format!("/api/v1/rates/status/{bad}"),
            format!("/api/v1/rates/GME/calculate?base_rate={bad}"),
            format!("/api/v1/audit?ticker={bad}"),
            format!("/api/v1/audit?start_date={bad}"),
            format!("/api/v1/audit/{bad}"),
            format!("/api/v1/quotes/{bad}"),
            // A request may be called anything, but not with these.
            format!("/api/v1/quotes?request_id={bad}%20"),
            format!("/api/v1/config/{bad}"),
        ] {
            refused(&instance.get(&key, &path).await, &path);
        }
    }
    for bad in NUMBERS
        .iter()
        .filter(|bad| !["0", "0.00", "0.001", "1.005"].contains(bad))
    {
        for field in ["volatility_index", "event_risk_factor", "base_rate"] {
            let path = format!("/api/v1/rates/GME/calculate?{field}={}", encoded(bad));
            let answer = instance.get(&key, &path).await;
            // As many decimals as a rate has are a rate.
            refused(&answer, &path);
        }
        for field in ["skip", "limit"].iter().filter(|_| *bad != "0") {
            let path = format!("/api/v1/rates/status/HARD?{field}={}", encoded(bad));
            refused(&instance.get(&key, &path).await, &path);
        }
    }
    assert_eq!(instance.value("SELECT count(*) FROM quotes").await, "0");
    let settled = instance
        .value("SELECT count(*) FROM audit_log WHERE kind = 1")
        .await;
    assert_eq!(settled, "0");
}

/// Whatever bytes come: an answer, in time, and never a fault of ours. The seed is fixed; a failure shows the request.
#[tokio::test(flavor = "multi_thread")]
async fn arbitrary_requests_get_an_answer() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let word = || {
        let known = proptest::sample::select(vec![
            "ticker",
            "position_value",
            "loan_days",
            "client_id",
            "GME",
            "100000",
            "30",
            "standard",
            "shares",
            "use_cache",
            "skip",
            "limit",
            "page",
            "1",
            "-1",
            "1e5",
            "null",
            "true",
            "{",
            "[",
            "\"",
            ":",
            ",",
        ]);
        proptest::prop_oneof![
            known.prop_map(str::to_owned),
            ".{0,12}".prop_map(|text: String| text)
        ]
    };
    let request = (
        proptest::sample::select(vec![
            "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH",
        ]),
        proptest::sample::select(vec![
            "/api/v1/calculate-locate",
            "/api/v1/rates/GME",
            "/api/v1/rates/",
            "/api/v1/rates/status/",
            "/api/v1/audit",
            "/api/v1/audit/",
            "/api/v1/quotes",
            "/api/v1/config",
            "/api/v1/admin/api-keys/",
            "/",
        ]),
        word(),
        proptest::collection::vec((word(), word()), 0..5),
        proptest::collection::vec(word(), 0..9),
    );
    let client = Client::new();
    for _ in 0..400 {
        let (method, path, part, query, body) = request.new_tree(&mut runner).unwrap().current();
        let part = if path.ends_with('/') {
            encoded(&part)
        } else {
            String::new()
        };
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        let url = instance.url(&format!("{path}{part}?{}", query.join("&")));
        let shown = format!("{method} {url} {body:?}");
        let asked = client
            .request(method.parse().unwrap(), url)
            .header("X-API-Key", &key)
            .header("Content-Type", "application/json")
            .body(body.concat());
        let answer = tokio::time::timeout(SETTLED, Answer::of(asked)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer: {shown}"));
        assert!(
            answer.status < 500,
            "{shown}: {} {}",
            answer.status,
            answer.body
        );
        assert!(
            method == "HEAD" || !answer.body.is_empty(),
            "{shown}: an empty body"
        );
    }
    assert_eq!(instance.locate(&key, GME).await.status, 200);
}

/// The two codes that are not the client's fault; `api` has the others.
#[tokio::test(flavor = "multi_thread")]
async fn faults_that_are_not_the_clients() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let broken = instance.key_for("broken").await;
    // Terms that no operator could have set over HTTP.
    instance
        .sql("INSERT INTO brokers (client_id, markup_percent, fee_type, fee_amount, tier, convention, policy, changed_at) \
              VALUES ('broken', 2000, 'FLAT', 0, 'standard', 'act365-1', 'standard-1', now()); NOTIFY bre_market")
        .await;
    let body = GME.replace("standard", "broken");
    let ask = async || instance.locate(&broken, &body).await;
    let failed =
        crate::harness::until("the terms are read", ask, |answer| answer.status != 404).await;
    check("calculation_error", failed);
    instance
        .postgres
        .stop(postgres_physical::server::StopMode::Fast);
    let ask = async || instance.locate(&key, GME).await;
    // What was being committed when the server went is unknown; what comes after is refused.
    let away = |answer: &Answer| answer.body.contains("not_recorded");
    check(
        "unavailable",
        crate::harness::until("refused", ask, away).await,
    );
    let rate = instance.get(&key, "/api/v1/rates/GME").await;
    assert_eq!(rate.status, 200, "rates go on");
    let audit = instance.get(&key, "/api/v1/audit").await;
    assert_eq!(
        (audit.status, &audit.json()["error_code"]),
        (503, &json!("EXTERNAL_API_UNAVAILABLE"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_record_cannot_hold_is_the_callers_fault() {
    let instance = Instance::start().await;
    let long = "x".repeat(65);
    for body in [
        json!({"kind": "Quote", "fields": {}}),
        json!({"kind": "quote", "fields": {}}),
        json!({"kind": "BackupRun", "fields": {"Name": "x"}}),
        json!({"kind": "BackupRun", "fields": {"": "x"}}),
        json!({"kind": "BackupRun", "fields": {long: "x"}}),
        json!({"kind": "BackupRun", "fields": {"näme": "x"}}),
        json!({"kind": "BackupRun", "fields": {"name": 1}}),
        json!({"kind": "BackupRun"}),
    ] {
        let (status, answer) = instance
            .control(
                "POST",
                "/internal/audit/entries",
                body.to_string().as_bytes(),
            )
            .await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let good = json!({"kind": "BackupRun", "fields": {"backup_id": "x", "note": "a\nb\u{0}c"}})
        .to_string();
    let (status, answer) = instance
        .control("POST", "/internal/audit/entries", good.as_bytes())
        .await;
    assert_eq!(status, 200, "{answer}");
}

/// One fact, two inputs: the value of a position, and the shares and the price that it is made of.
#[tokio::test(flavor = "multi_thread")]
async fn two_inputs_for_one_fact_are_compared() {
    let instance = Instance::start().await;
    let key = instance.key_for("discount").await;
    let terms = "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active\n\
                 discount,2.0,PERCENTAGE,0.5,standard,us-street-1,standard-1,true\n";
    let (status, answer) = instance
        .control("POST", "/internal/import?kind=brokers", terms.as_bytes())
        .await;
    assert_eq!(status, 200, "{answer}");
    let worth = r#"{"ticker":"GME","client_id":"discount","loan_days":30,"shares":10000,"share_price":100}"#;
    let with = |value: &str| worth.replace('}', &format!(",\"position_value\":{value}}}"));
    let derived = instance.locate(&key, worth).await;
    assert_eq!(derived.status, 200, "{}", derived.body);
    let fee = r#""transaction_fees":5000.0000"#;
    assert!(derived.body.contains(fee), "{}", derived.body);
    for agreeing in ["1000000", "1000000.01", "999999.99"] {
        let answer = instance.locate(&key, &with(agreeing)).await;
        assert!(answer.body.contains(fee), "{}", answer.body);
        let value = r#""position_value":1000000.00"#;
        assert!(answer.body.contains(value), "{}", answer.body);
    }
    let both = |answer: &Answer| {
        refused(answer, "they differ");
        assert!(
            answer.body.contains("1.00") && answer.body.contains("1000000.00"),
            "{}",
            answer.body
        );
        assert_eq!(
            answer.json()["validation_errors"][0]["field"],
            "position_value"
        );
    };
    both(&instance.locate(&key, &with("1")).await);
    let query =
        "ticker=GME&client_id=discount&loan_days=30&shares=10000&share_price=100&position_value=1";
    both(
        &instance
            .get(&key, &format!("/api/v1/calculate-locate?{query}"))
            .await,
    );
    let offer = http_client()
        .post(instance.url("/api/v1/locates"))
        .header("X-API-Key", &key)
        .header("Content-Type", "application/json");
    both(&Answer::of(offer.body(with("1"))).await);
    let book = "ticker,client,days,shares,price,value\nGME,discount,30,10000,100,1\nGME,discount,30,10000,100,1000000\n";
    let (status, body) = instance
        .control("POST", "/internal/book", book.as_bytes())
        .await;
    assert_eq!(status, 200, "{body}");
    let lines: Vec<&str> = body.lines().collect();
    assert!(
        lines[1].contains("is 1.00, but 10000 shares at 100.000000 are worth 1000000.00"),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains("5000.0000"), "{}", lines[2]);
}

/// Text that is one number here and another elsewhere, against numbers whose type leaves nothing open.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_in_text_has_one_reading() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let ask = async |name: &str, value: &str| {
        let mut members = json!({"ticker": "GME", "client_id": "standard", "loan_days": 30});
        members["shares"] = json!(100);
        members["share_price"] = json!(10);
        members[name] = json!(-77);
        if name == "position_value" {
            members
                .as_object_mut()
                .unwrap()
                .retain(|name, _| !name.starts_with("share"));
        }
        instance
            .locate(&key, &members.to_string().replace("-77", value))
            .await
    };
    for name in ["position_value", "loan_days", "shares", "share_price"] {
        let answer = ask(name, "\"25.000\"").await;
        refused(&answer, name);
        assert!(
            answer.body.contains("as 25 and as 25000"),
            "{}",
            answer.body
        );
        for one in ["25.000", "25.0000", "\"25.0\"", "\"25\"", "2.5e1"] {
            assert_eq!(ask(name, one).await.status, 200, "{name} {one}");
        }
    }
    for value in ["2500.5000", "\"2500.5000\""] {
        let answer = ask("position_value", value).await;
        let read = r#""position_value":2500.50"#;
        assert!(answer.body.contains(read), "{}", answer.body);
    }
    for path in [
        "/api/v1/rates/GME/calculate?volatility_index=25.000",
        "/api/v1/rates/status/HARD?limit=1.000",
        "/api/v1/calculate-locate?ticker=GME&client_id=standard&loan_days=30&position_value=1.000",
    ] {
        let answer = instance.get(&key, path).await;
        refused(&answer, path);
        assert!(answer.body.contains("can be read as"), "{}", answer.body);
    }
}
