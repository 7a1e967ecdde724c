//! A feed that goes mad changes no price, and both what it sent and what was decided are on the record.

use crate::feeds::real;
use crate::harness::{GME, Instance};

const CONTENTS: &str = "SELECT (SELECT count(*) FROM base_rates), (SELECT count(*) FROM feed_batches), (SELECT count(*) FROM quarantine)";

async fn import(instance: &Instance, query: &str, body: &[u8]) -> (u16, serde_json::Value) {
    let path = format!("/internal/import?{query}&by=tester");
    let (status, body) = instance.control("POST", &path, body).await;
    (status, serde_json::from_str(&body).unwrap())
}

/// A book of forty names whose rebate and fee sum to 4.
fn book(time: &str, fee: impl Fn(usize) -> i64, names: usize) -> String {
    let mut text =
        format!("#BOF|{time}\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n");
    for index in 0..names {
        let name = if index == 0 {
            "GME".to_owned()
        } else {
            format!("T{index}")
        };
        let (fee, rebate) = (fee(index), 40_000 - fee(index));
        let percent = |units: i64| {
            format!(
                "{}{}.{:04}",
                if units < 0 { "-" } else { "" },
                units.abs() / 10_000,
                units.abs() % 10_000
            )
        };
        text.push_str(&format!(
            "{name}|USD|N|1|X|{}|{}|1000|F|\n",
            percent(rebate),
            percent(fee)
        ));
    }
    format!("{text}#EOF|{names}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mad_feed_changes_no_price_and_is_on_the_record() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let fee = |index: usize| 2_500 + 1_000 * i64::try_from(index).unwrap();
    // any day: of the past, a day apart; what is ahead of the clock is made from it.
    let good = book("2026.01.05|15:00:00", fee, 40);
    assert_eq!(import(&instance, "kind=ibkr", good.as_bytes()).await.0, 200);
    let tomorrow = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(30))
        .strftime("%Y.%m.%d|%H:%M:%S")
        .to_string();
    let before = instance.get(&key, "/api/v1/rates/GME").await.body;
    let contents = instance.sql(CONTENTS).await;
    let next = "2026.01.06|15:00:00";
    let mad = [
        ("empty", String::new()),
        ("cut_short", good[..good.len() / 2].to_owned()),
        ("names_missing", book(next, fee, 20)),
        ("median_too_high", book(next, |index| fee(index) * 100, 40)),
        ("rates_moved", book(next, |index| fee(index) * 6, 40)),
        ("older_than_loaded", book("2026.01.04|15:00:00", fee, 40)),
        ("clock_ahead", book(&tomorrow, fee, 40)),
        ("rows_repeated", book(next, fee, 40).replace("T7|", "T8|")),
        ("count", book(next, fee, 40).replace("#EOF|40", "#EOF|41")),
    ];
    for (rule, text) in &mad {
        let (status, answer) = import(&instance, "kind=ibkr", text.as_bytes()).await;
        assert_eq!(status, 400, "{rule}: {answer}");
        println!("{rule}: {}", answer["details"]);
    }
    assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.body, before);
    assert_eq!(instance.sql(CONTENTS).await, contents);
    // The bytes of an entry hold its fields as text.
    for (rule, _) in &mad {
        let found = format!(
            "SELECT count(*) FROM audit_log WHERE kind = 3 AND position(convert_to('{rule}', 'UTF8') IN canonical) > 0 \
                             AND position(convert_to('refused', 'UTF8') IN canonical) > 0"
        );
        assert_eq!(instance.value(&found).await, "1", "{rule}");
    }
    let health = instance.get(&key, "/api/v1/health").await.json();
    let feeds = &health["components"]["feeds"];
    assert_eq!(feeds["sources"]["ibkr"]["last_refusal"], "count", "{feeds}");
    let loads = feeds["last_loads"].as_array().unwrap();
    let ibkr = loads.iter().find(|load| load["source"] == "ibkr").unwrap();
    assert_eq!(ibkr["loaded"], 40, "{feeds}");
    // Whoever has looked may take it.
    let (status, report) = import(
        &instance,
        "kind=ibkr&accept_jumps=true",
        mad[4].1.as_bytes(),
    )
    .await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(
        report["accepted"],
        serde_json::json!(["rates_moved", "median_moved"])
    );
    assert_eq!(
        instance.get(&key, "/api/v1/rates/GME").await.json()["base_rate"].to_string(),
        "0.015"
    );
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_jumps_alone_keeps_its_last_good_rate() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let fee = |_| 2_500;
    // any day: both are of the past, a day apart.
    let good = book("2026.01.05|15:00:00", fee, 40);
    assert_eq!(import(&instance, "kind=ibkr", good.as_bytes()).await.0, 200);
    let jumped = book(
        "2026.01.06|15:00:00",
        |index| if index == 0 { 2_500 * 60 } else { 3_000 },
        40,
    );
    let (status, report) = import(&instance, "kind=ibkr", jumped.as_bytes()).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["reasons"], serde_json::json!({ "rate_jumped": 1 }));
    let base = async |ticker: &str| {
        instance
            .get(&key, &format!("/api/v1/rates/{ticker}"))
            .await
            .json()
    };
    assert_eq!(base("GME").await["base_rate"].to_string(), "0.0025");
    assert_eq!(
        base("GME").await["data_sources"]["base_rate"]["as_of"],
        "2026-01-05T15:00:00.000000Z"
    );
    assert_eq!(base("T1").await["base_rate"].to_string(), "0.003");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sources_show_the_chosen_one_and_how_far_they_are_apart() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let answer = r#"{"borrows":[{"ticker":"GME","rate":0.30,"status":"HARD"},{"ticker":"AMC","rate":1e-2}]}"#;
    assert_eq!(
        import(&instance, "kind=seclend", answer.as_bytes()).await.0,
        200
    );
    let now = jiff_now();
    let file = book(&now, |_| 2_500, 40);
    assert_eq!(import(&instance, "kind=ibkr", file.as_bytes()).await.0, 200);
    let rate = instance.get(&key, "/api/v1/rates/GME").await.json();
    assert_eq!(
        rate["data_sources"]["base_rate"]["source"], "seclend",
        "{rate}"
    );
    assert_eq!(rate["data_sources"]["base_rate"]["stale"], false, "{rate}");
    assert_eq!(rate["borrow_status"], "HARD");
    let dispersion = &rate["dispersion"];
    assert_eq!(
        (
            dispersion["min"].to_string(),
            dispersion["max"].to_string(),
            dispersion["count"].as_u64(),
            dispersion["rule"].as_str()
        ),
        (
            "0.0025".to_owned(),
            "0.3".to_owned(),
            Some(2),
            Some("precedence-1")
        ),
        "{rate}"
    );
    // A locate says the same.
    let locate = instance.locate(&key, GME).await.json();
    assert_eq!(
        locate["data_sources"]["base_rate"]["source"], "seclend",
        "{locate}"
    );
}

/// As a book writes its time.
fn jiff_now() -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y.%m.%d|%H:%M:%S"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_raises_the_risk_of_what_reports_soon_and_terms_and_aliases_are_imported() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let date = |days: &str| {
        let output = std::process::Command::new("date")
            .args(["-u", "-d", days, "+%Y-%m-%d"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let calendar = format!(
        "symbol,name,reportDate,fiscalDateEnding,estimate,currency\nGME,G,{},,,USD\nGME,G,{},,,USD\nAMC,A,{},,,USD\nV,V,{},,,USD\n",
        date("+3 days"),
        date("+10 days"),
        date("-1 day"),
        date("+300 days")
    );
    let (status, report) = import(&instance, "kind=events", calendar.as_bytes()).await;
    assert_eq!(status, 200, "{report}");
    let rate = async |ticker: &str| {
        instance
            .get(&key, &format!("/api/v1/rates/{ticker}"))
            .await
            .json()
    };
    // Within a test a day may end.
    let factor = rate("GME").await["event_risk_factor"].as_u64().unwrap();
    assert!(factor == 6, "{factor}");
    assert_eq!(
        rate("GME").await["data_sources"]["event_risk_factor"]["source"],
        "events"
    );
    assert_eq!(rate("AMC").await["event_risk_factor"], 0);
    assert_eq!(rate("V").await["event_risk_factor"], 0);
    // Terms: one wrong line and nothing of it is taken.
    let header = "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active\n";
    let good = format!(
        "{header}standard,7.5,FLAT,30.00,standard,act365-1,standard-1,true\nnewdesk,1.0,PERCENTAGE,0.25,premium,us-street-1,sequential-1,true\n"
    );
    for (bad, word) in [("standard-9", "policy"), ("standard-1,maybe", "columns")] {
        let (status, answer) = import(
            &instance,
            "kind=brokers",
            good.replace("standard-1", bad).as_bytes(),
        )
        .await;
        assert!(
            status == 400 && answer["details"].as_str().unwrap().contains(word),
            "{answer}"
        );
    }
    let (status, report) = import(&instance, "kind=brokers", good.as_bytes()).await;
    assert_eq!(status, 200, "{report}");
    let locate = instance.locate(&key, GME).await.json();
    assert_eq!(
        locate["breakdown"]["transaction_fees"].to_string(),
        "30.0",
        "{locate}"
    );
    let stored = "SELECT markup_percent::text, policy FROM brokers WHERE client_id = 'newdesk'";
    assert_eq!(
        instance.sql(stored).await[0],
        ["1.00000000", "sequential-1"]
    );
    let changed = "SELECT count(*) FROM audit_log WHERE kind = 5 AND position(convert_to('newdesk', 'UTF8') IN canonical) > 0";
    assert_eq!(instance.value(changed).await, "1");
    // An alias for requests.
    let aliases = "source,symbol,ticker,valid_from,valid_to\napi,GAMESTOP,GME,,\n";
    let (status, report) = import(&instance, "kind=aliases", aliases.as_bytes()).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(rate("GAMESTOP").await["ticker"], "GME");
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_book_gone_mad_over_the_control_socket_changes_no_price() {
    let Some(bytes) = real("ibkr_usa_2025-12-28.txt") else {
        return;
    };
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(import(&instance, "kind=ibkr", &bytes).await.0, 200);
    let before = instance.get(&key, "/api/v1/rates/GME").await.body;
    let text = String::from_utf8(bytes).unwrap();
    let half: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("#EOF"))
        .enumerate()
        .filter(|(index, _)| *index < 2 || index % 2 == 0)
        .map(|(_, line)| line)
        .collect();
    let half = format!("{}\n#EOF|{}\n", half.join("\n"), half.len() - 2);
    let (status, answer) = import(&instance, "kind=ibkr", half.as_bytes()).await;
    assert_eq!(status, 400);
    let report = answer["details"].as_str().unwrap();
    assert!(
        report.contains("of the last batch's 16749 names (50.0 %) are missing"),
        "{report}"
    );
    assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.body, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_each_is_found_without_reading_the_history() {
    let instance = Instance::start().await;
    let batch = "INSERT INTO feed_batches VALUES ('00000000-0000-0000-0000-000000000001', 'ibkr', 'long', decode(repeat('00', 32), 'hex'), 0, 0, 0, now(), now())";
    instance.sql(batch).await;
    // any day: long ago, and only the order counts.
    // Two thousand batches of a hundred names.
    let history = "INSERT INTO base_rates (ticker, valid_at, known_at, rate, currency, source, symbol, batch_id) \
                   SELECT 'H' || name, timestamptz '2020-01-01' + batch * interval '1 hour', now(), batch * 0.00000001, 'USD', 'long', 'H', \
                          '00000000-0000-0000-0000-000000000001' FROM generate_series(1, 2000) AS batch, generate_series(1, 100) AS name; ANALYZE base_rates";
    instance.sql(history).await;
    let plan = instance
        .sql(&format!(
            "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS) {}",
            services::NEWEST_RATES
        ))
        .await;
    let plan: Vec<String> = plan.into_iter().flatten().collect();
    let text = plan.join("\n");
    assert!(
        !text.contains("Seq Scan") && !text.contains("Sort"),
        "{text}"
    );
    assert!(text.contains("base_rates_by_source"), "{text}");
    let found = instance.sql(services::NEWEST_RATES).await;
    let long: Vec<_> = found.iter().filter(|row| row[3] == "long").collect();
    assert_eq!(long.len(), 100);
    assert!(long.iter().all(|row| row[1] == "0.00002000"), "{long:?}");
}
