//! All well: what each service answers, to whom, and how soon all of them know the same market.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::fleet::{CACHE, CALCULATION, Caller, DATA, Fleet, GATEWAY, SECRET, port};
use crate::instance::plain_http;
use crate::process::{TIMEOUT, within};

#[test]
fn a_quote_passes_through_four_processes_and_each_answers_for_itself() {
    let mut fleet = Fleet::start();
    let answer = fleet.locate().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.body["quote_id"].as_str().unwrap();
    assert!(fleet.exported_quotes().contains(id));

    proof_through_the_gateway(&fleet, id);
    internal_routes(&fleet);
    only_what_follows_from_its_inputs_is_recorded(&fleet);
    nobody_gets_in_without_the_secret(&fleet);
    the_stream_is_paused_and_resumed(&fleet);
    // The secret is on no command line and in no log.
    for name in super::fleet::ALL {
        assert!(!fleet.log(name).contains(SECRET), "{name}");
    }
    let report = fleet.bre(&["verify", "audit"]).json();
    assert_eq!(report["first_bad"], Value::Null, "{report}");
    fleet.stop_cleanly();
}

/// The data-service alone streams. Quotes are served meanwhile, and their WAL is in the repository afterwards.
fn the_stream_is_paused_and_resumed(fleet: &Fleet) {
    let until = |attached: bool| {
        let seen = within(TIMEOUT, || {
            let status = fleet.bre(&["status"]).parsed();
            let is_told = status["alarms"]
                .to_string()
                .contains("the job wal is paused");
            (status["stream"]["attached"] == attached && is_told != attached).then_some(())
        });
        assert!(seen.is_some(), "{}", fleet.bre(&["status"]).parsed());
    };
    let listed = || {
        let list = fleet.bre(&["job", "list"]).json();
        let all = list.as_array().unwrap();
        let stream = all.iter().find(|job| job["name"] == "wal.stream");
        stream.unwrap()["state"].clone()
    };
    until(true);
    fleet
        .bre(&["job", "pause", "wal", "--reason", "a test"])
        .json();
    until(false);
    // Its run ends a moment after the stream.
    let is_paused = within(TIMEOUT, || (listed() == "paused").then_some(()));
    assert!(is_paused.is_some(), "{}", listed());
    let meanwhile = fleet.locate().unwrap();
    assert_eq!(meanwhile.status, 200, "{meanwhile:?}");
    fleet.bre(&["job", "resume", "wal.stream"]).json();
    until(true);
    let runs = fleet.bre(&["job", "history", "wal"]).json();
    assert_eq!(runs["runs"][0]["outcome"], "succeeded", "{runs}");
    let id = meanwhile.body["quote_id"].as_str().unwrap();
    // Its head is signed once the repository holds its WAL.
    proof_through_the_gateway(fleet, id);
}

/// The log is published by the data-service; the gateway, another process, asks it for the path and hands out the
/// proof.
fn proof_through_the_gateway(fleet: &Fleet, id: &str) {
    let url = fleet.url(GATEWAY, &format!("/api/v1/audit/{id}/proof"));
    let asked = || {
        let request = plain_http().get(&url).header("X-API-Key", &fleet.key);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    };
    let proof = within(TIMEOUT, || match asked() {
        (200, proof) => Some(proof),
        (202, _) => None,
        other => panic!("{other:?}"),
    });
    let proof = proof.unwrap_or_else(|| panic!("no proof: {}", fleet.log(DATA)));
    let key = fleet.data().join("keys/audit_signing.pub");
    let keys = [audit::VerifyingKey::load(key).unwrap()];
    let read = audit::InclusionProof::from_json(proof.as_bytes()).unwrap();
    let proved = read.verify(&keys).unwrap();
    assert_eq!(proved.entry.fields.get("quote_id"), Some(id));
    let (epoch, position) = (proved.entry.epoch, proved.entry.position);
    let inside = format!("/internal/audit/inclusion/{epoch}/{position}");
    let path = fleet.ask("GET", DATA, &inside);
    assert!(path.body["Ok"]["Path"]["path"].is_array(), "{path:?}");
    let later = fleet.ask(
        "GET",
        DATA,
        &format!("/internal/audit/inclusion/{epoch}/999999"),
    );
    assert!(
        later.body["Ok"]["Pending"]["covered_to"].as_u64() >= Some(position),
        "{later:?}"
    );
}

fn internal_routes(fleet: &Fleet) {
    for name in super::fleet::ALL {
        let health = fleet.ask("GET", name, "/health");
        assert_eq!(health.body["services"], json!([name]), "{health:?}");
        let detailed = fleet.ask("GET", name, "/health/detailed");
        assert_eq!(detailed.body["services_here"], json!([name]));
        let metrics = fleet.ask("GET", name, "/metrics").body;
        let metrics = metrics.as_str().unwrap();
        assert!(metrics.contains("bre_database_up 1"), "{name}: {metrics}");
    }
    let rates = fleet.ask("GET", DATA, "/internal/rates/GME");
    assert_eq!((rates.status, &rates.body["ticker"]), (200, &json!("GME")));
    let unknown = fleet.ask("GET", DATA, "/internal/rates/NOSUCH");
    assert_eq!(
        (unknown.status, &unknown.body["error_code"]),
        (404, &json!("TICKER_NOT_FOUND"))
    );

    let rates_bytes = |answer: &super::fleet::Answer| {
        let kinds = answer.body["kinds"].as_array().unwrap();
        let kind = kinds.iter().find(|kind| kind["kind"] == "rates").unwrap();
        kind["bytes"].as_u64().unwrap()
    };
    let warm = fleet.ask("POST", CACHE, "/internal/cache/warm");
    assert!(rates_bytes(&warm) > 0, "{warm:?}");
    let emptied = fleet.ask("POST", CACHE, "/internal/cache/invalidate");
    assert!(emptied.body["removed"].as_u64() > Some(0), "{emptied:?}");
    assert_eq!(
        rates_bytes(&fleet.ask("GET", CACHE, "/internal/cache/stats")),
        0
    );

    let order = json!({ "request_id": "direct", "client_id": "standard", "key_id": "key_test", "ticker": "NOSUCH",
                        "worth": { "position_value": 1000, "per_share": null }, "loan_days": 1 });
    let refused = fleet.order(CALCULATION, "/internal/calculate", &order);
    assert_eq!(
        (refused.status, &refused.body["ticker"]),
        (404, &json!("NOSUCH")),
        "{refused:?}"
    );
}

#[test]
fn any_set_of_services_gives_the_same_answer() {
    let mut fleet = Fleet::start();
    let price = |fleet: &Fleet| {
        let answer = within(TIMEOUT, || {
            fleet.locate().filter(|answer| answer.status == 200)
        });
        let answer = answer.unwrap_or_else(|| panic!("{:?}", fleet.locate()));
        answer.body["total_fee"].clone()
    };
    let apart = price(&fleet);
    fleet.stop_cleanly();
    for sets in [
        &[(GATEWAY, "all")][..],
        &[
            (DATA, "data-service,cache-service"),
            (GATEWAY, "calculation-service,api-gateway"),
        ],
        &[
            (DATA, "data-service,calculation-service"),
            (GATEWAY, "api-gateway"),
        ],
    ] {
        // Where two run together, others find both at one address.
        let together = sets
            .iter()
            .any(|(_, set)| *set == "data-service,calculation-service");
        fleet.point(CALCULATION, if together { DATA } else { CALCULATION });
        for (name, set) in sets {
            fleet.up_as(name, set, fleet.port_of(name));
        }
        assert_eq!(price(&fleet), apart, "{sets:?}");
        // Well, with a complete backup, and the stream attached.
        let well = within(TIMEOUT, || {
            (fleet.bre(&["status"]).code == Some(0)).then_some(())
        });
        assert!(well.is_some(), "{:?}", fleet.bre(&["status"]));
        fleet.stop_cleanly();
    }
}

/// The secret opens the door to the record, not to what it must never hold.
fn only_what_follows_from_its_inputs_is_recorded(fleet: &Fleet) {
    let entries = || fleet.value("SELECT count(*) FROM audit_log");
    let before = entries();
    let sql = "SELECT encode(canonical, 'hex') FROM audit_log WHERE kind = 1 LIMIT 1";
    let kept = audit::hex::decode(&fleet.value(sql)).unwrap();
    let entry = audit::Entry::parse(&audit::expand(&kept)).unwrap();
    let mut fields: BTreeMap<&str, &str> = entry.fields.iter().collect();
    let cheaper = fields["outputs"].replacen("\"total_fee\":", "\"total_fee\":0", 1);
    fields.insert("outputs", &cheaper);
    let quote = fleet.order(DATA, "/internal/record/quote", &json!({ "fields": fields }));
    assert_eq!(quote.status, 503, "{quote:?}");
    assert_eq!(quote.body["refused"]["part"], json!(DATA), "{quote:?}");
    for kind in [1, 2, 3, 77] {
        let order = json!({ "kind": kind, "fields": {}, "change": "none" });
        let answer = fleet.order(DATA, "/internal/record/entry", &order);
        assert_eq!(answer.status, 503, "{kind}: {answer:?}");
    }
    for broken in [
        json!({}),
        json!({ "fields": { "quote_id": 7 } }),
        json!([1]),
    ] {
        let answer = fleet.order(DATA, "/internal/record/quote", &broken);
        assert_eq!(answer.status, 400, "{broken}: {answer:?}");
    }
    assert_eq!(entries(), before);
}

fn nobody_gets_in_without_the_secret(fleet: &Fleet) {
    let wrong = format!("Bearer {}", SECRET.replace('4', "5"));
    for (method, name, path) in [
        ("GET", DATA, "/health"),
        ("GET", DATA, "/internal/state"),
        ("POST", DATA, "/internal/record/quote"),
        ("GET", DATA, "/internal/rates/GME"),
        ("GET", DATA, "/no/such/path"),
        ("POST", CALCULATION, "/internal/calculate"),
        ("GET", CACHE, "/internal/cache/stats"),
        ("POST", CACHE, "/internal/cache/invalidate"),
        ("GET", CACHE, "/metrics"),
    ] {
        let url = fleet.url(name, path);
        for headers in [
            &[][..],
            &[("Authorization", wrong.as_str())],
            &[("Authorization", SECRET)],
            &[("X-API-Key", fleet.key.as_str())],
        ] {
            let answer = Caller::new().send(method, &url, headers, None).unwrap();
            assert_eq!(answer.status, 401, "{method} {url} {headers:?}");
        }
    }
    // Each is counted, by the door that it came to.
    let metrics = fleet.ask("GET", DATA, "/metrics").body;
    let counted = "bre_wrong_keys_total{door=\"internal\"} 10";
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
    let log = fleet.log(DATA);
    let line = log
        .lines()
        .find(|line| line.contains("wrong API keys or secrets"));
    assert!(line.is_some_and(|line| line.contains("127.0.0.1")), "{log}");
    // And nothing internal is on the public port.
    for path in ["/internal/state", "/internal/calculate", "/internal/keys"] {
        assert_eq!(fleet.get(GATEWAY, path).unwrap().status, 404, "{path}");
    }
}

#[test]
fn every_instance_knows_of_an_import_within_a_second_also_after_its_connection_broke() {
    let mut fleet = Fleet::start();
    let second = "second";
    fleet.up_as(second, "api-gateway,calculation-service", port());
    let rate = |name: &str| {
        let answer = fleet.get(name, "/api/v1/rates/GME")?;
        (answer.status == 200).then(|| answer.body["base_rate"].clone())
    };
    let all_have = |expected: Option<&Value>| {
        for name in [GATEWAY, second] {
            let seen = within(TIMEOUT, || {
                let now = rate(name)?;
                expected.is_none_or(|it| *it == now).then_some(())
            });
            assert!(seen.is_some(), "{name} has {:?}", rate(name));
        }
    };
    all_have(None);
    for minute in [31, 32] {
        let (text, fee) = book_of(minute);
        if minute == 32 {
            // Who is cut off from the news reads everything when it is connected again.
            fleet.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bre market view'");
        }
        fleet.import(&text);
        let began = Instant::now();
        let expected = serde_json::from_str(&format!("0.{fee:06}")).unwrap();
        all_have(Some(&expected));
        let took = began.elapsed();
        println!(
            "both gateways had it {} ms after the import was answered",
            took.as_millis()
        );
        // Far below the next look by the clock.
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    fleet.stop_cleanly();
}

/// The shipped book of another minute, with a fee of GME that goes up with it; and that fee, in millionths.
fn book_of(minute: i64) -> (String, i64) {
    let book = include_str!("../../../../services/sample/book.txt");
    let units = |text: &str| text.replace('.', "").parse::<i64>().unwrap();
    let print = |units: i64| {
        let sign = if units < 0 { "-" } else { "" };
        format!("{sign}{}.{:04}", units.abs() / 10_000, units.abs() % 10_000)
    };
    let mut fee = 0;
    let line = |line: &str| {
        if line.starts_with("#BOF") {
            // any day: as old as the shipped book; what is compared are files of the same day.
            return format!("#BOF|2025.06.30|15:{minute}:00");
        }
        if !line.starts_with("GME|") {
            return line.to_owned();
        }
        let mut columns: Vec<String> = line.split('|').map(ToOwned::to_owned).collect();
        let benchmark = units(&columns[5]) + units(&columns[6]);
        fee = units(&columns[6]) + minute;
        columns[5] = print(benchmark - fee);
        columns[6] = print(fee);
        columns.join("|")
    };
    let lines: Vec<String> = book.lines().map(line).collect();
    (lines.join("\n") + "\n", fee)
}
