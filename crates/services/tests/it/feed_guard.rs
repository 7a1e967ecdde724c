//! A feed that goes mad changes no price, and both what it sent and what was decided are on the record.

use crate::feeds::real;
use crate::harness::{GME, Instance};

const CONTENTS: &str = "SELECT (SELECT count(*) FROM base_rates), (SELECT count(*) FROM feed_batches), (SELECT count(*) FROM quarantine)";

async fn import(instance: &Instance, query: &str, body: &[u8]) -> (u16, serde_json::Value) {
    let path = format!("/internal/import?{query}&by=tester");
    let (status, body) = instance.control("POST", &path, body).await;
    (status, serde_json::from_str(&body).unwrap())
}

/// The answer without its word on the delivery that was refused for `reason`.
fn but_for_what_is_told(mut rate: serde_json::Value, reason: &str) -> serde_json::Value {
    let source = rate["data_sources"]["base_rate"].as_object_mut().unwrap();
    let told = source.remove("unconfirmed").unwrap_or_default();
    assert_eq!(told["reason"], reason, "{told}");
    rate
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
    let before = instance.get(&key, "/api/v1/rates/GME").await.json();
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
    let after = instance.get(&key, "/api/v1/rates/GME").await.json();
    assert_eq!(but_for_what_is_told(after, "count"), before);
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
    let before = instance.get(&key, "/api/v1/rates/GME").await.json();
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
    let after = instance.get(&key, "/api/v1/rates/GME").await.json();
    assert_eq!(but_for_what_is_told(after, "names_missing"), before);
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

/// Thirty-nine steady names and one that moves, as a lender's JSON.
fn lender(rate: &str) -> String {
    let row = |ticker: &str, rate: &str| {
        format!(r#"{{"ticker":"{ticker}","rate":{rate},"available":100000}}"#)
    };
    let mut rows: Vec<String> = (1..40)
        .map(|name| row(&format!("T{name}"), "0.01"))
        .collect();
    rows.push(row("GME", rate));
    format!("[{}]", rows.join(","))
}

/// So many minutes ago, as a query has it.
fn minutes_ago(minutes: i64) -> String {
    let at = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
    at.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_withholds_is_told_wherever_it_is_read() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let take = async |minutes: i64, text: &str| {
        let query = format!("kind=seclend&valid_at={}", minutes_ago(minutes));
        import(&instance, &query, text.as_bytes()).await
    };
    let gme = async || instance.get(&key, "/api/v1/rates/GME").await.json();
    let health = async || instance.get(&key, "/api/v1/health").await.json();
    let wanted = serde_json::json!({
        "ticker": "GME", "shares": 100, "share_price": "25.50", "loan_days": 1, "client_id": "standard"
    });
    let locate = async || {
        let url = instance.url("/api/v1/locates");
        crate::locates::post(url, &key, None, &wanted).await.json()
    };
    let accept = async |id: &str| {
        let url = instance.url(&format!("/api/v1/locates/{id}/accept"));
        let answer = crate::locates::post(url, &key, None, &serde_json::json!({})).await;
        answer.json()
    };
    let metric = async |name: &str| {
        let text = instance.get(&key, "/metrics").await.body;
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        line.unwrap_or_default()
    };
    assert_eq!(take(25, &lender("0.0025")).await.0, 200);
    assert_eq!(health().await["status"], "healthy", "{}", health().await);
    let offered = locate().await;
    assert_eq!(offered["locate_status"], "offered", "{offered}");

    // A newer figure that nothing has confirmed: both are told, and nothing is granted by the old one.
    let (status, report) = take(20, &lender("0.60")).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["reasons"]["rate_jumped"], 1, "{report}");
    let rate = gme().await;
    assert_eq!(rate["base_rate"].to_string(), "0.0025");
    let newer = &rate["data_sources"]["base_rate"]["unconfirmed"];
    assert_eq!(
        (newer["value"].as_str(), newer["reason"].as_str()),
        (Some("0.60000000"), Some("rate_jumped")),
        "{rate}"
    );
    assert_eq!(
        gme().await["data_sources"]["base_rate"]["source"],
        "seclend"
    );
    let quote = instance.locate(&key, GME).await.json();
    assert_eq!(
        &quote["data_sources"]["base_rate"]["unconfirmed"], newer,
        "{quote}"
    );
    let id = quote["quote_id"].as_str().unwrap();
    let explained = instance
        .get(&key, &format!("/api/v1/quotes/{id}/explanation"))
        .await
        .json();
    assert_eq!(explained["replayed"], true, "{explained}");
    let origin = &explained["explanation"]["origins"][0];
    assert_eq!(
        origin["unconfirmed"], "0.60000000 (rate_jumped)",
        "{explained}"
    );
    let other = instance.get(&key, "/api/v1/rates/T1").await.json();
    assert!(
        other["data_sources"]["base_rate"]["unconfirmed"].is_null(),
        "{other}"
    );
    let told = health().await;
    assert_eq!(told["status"], "degraded", "{told}");
    assert_eq!(told["degraded"][0]["part"], "feeds.seclend", "{told}");
    assert_eq!(told["components"]["feeds"]["held"]["seclend"], 1, "{told}");
    assert_eq!(
        metric("bre_degraded{part=\"feeds.seclend\"}").await,
        "bre_degraded{part=\"feeds.seclend\"} 1"
    );
    let rejected = locate().await;
    assert_eq!(
        (
            rejected["locate_status"].as_str(),
            rejected["reason"].as_str()
        ),
        (Some("rejected"), Some("rate_unconfirmed")),
        "{rejected}"
    );
    // The offer was made before.
    let late = accept(offered["locate_id"].as_str().unwrap()).await;
    assert_eq!(
        (late["locate_status"].as_str(), late["reason"].as_str()),
        (Some("rejected"), Some("rate_unconfirmed")),
        "{late}"
    );

    // The same bytes again are no second opinion; other bytes are.
    assert_eq!(take(15, &lender("0.60")).await.0, 200);
    assert_eq!(gme().await["base_rate"].to_string(), "0.0025");
    let (status, report) = take(14, &lender("0.61")).await;
    assert_eq!(
        (status, &report["confirmed"]),
        (200, &serde_json::json!(1)),
        "{report}"
    );
    let rate = gme().await;
    assert_eq!(rate["base_rate"].to_string(), "0.61");
    assert!(
        rate["data_sources"]["base_rate"]["unconfirmed"].is_null(),
        "{rate}"
    );
    assert_eq!(health().await["status"], "healthy", "{}", health().await);
    assert_eq!(locate().await["locate_status"], "offered");

    // Down again, and somebody has looked.
    assert_eq!(take(10, &lender("0.0024")).await.0, 200);
    let (_, body) = instance.control("GET", "/internal/feeds/held", b"").await;
    let held: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (
            held["items"][0]["in_force"].as_str(),
            held["items"][0]["held"].as_str()
        ),
        (Some("0.61000000"), Some("0.00240000")),
        "{held}"
    );
    let order = "/internal/feeds/held/accept?source=seclend&subject=GME&by=tester";
    let (status, body) = instance.control("POST", order, b"").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(gme().await["base_rate"].to_string(), "0.0024");
    assert_eq!(locate().await["locate_status"], "offered");
    let (status, body) = instance.control("POST", order, b"").await;
    assert!(
        status == 400 && body.contains("bre feed held"),
        "{status} {body}"
    );
    let on_record = "SELECT count(*) FROM audit_log WHERE kind = 3 AND position(convert_to('accepted', 'UTF8') IN canonical) > 0 \
                     AND position(convert_to('tester', 'UTF8') IN canonical) > 0 AND ticker = 'GME'";
    assert_eq!(instance.value(on_record).await, "1");

    // A delivery that is refused as a whole is told of every figure that it might have changed, until one is believed.
    assert_eq!(take(5, "<html>").await.0, 400);
    let rate = gme().await;
    let newer = &rate["data_sources"]["base_rate"]["unconfirmed"];
    assert_eq!(newer["reason"], "answer", "{rate}");
    assert!(newer["value"].is_null(), "{rate}");
    let told = health().await;
    assert_eq!(told["status"], "degraded", "{told}");
    assert_eq!(
        told["components"]["feeds"]["refused"][0]["rule"], "answer",
        "{told}"
    );
    assert_eq!(
        metric("bre_feed_refused{source=\"seclend\"}").await,
        "bre_feed_refused{source=\"seclend\"} 1"
    );
    assert_eq!(take(4, &lender("0.0023")).await.0, 200);
    assert_eq!(health().await["status"], "healthy", "{}", health().await);
    assert_eq!(gme().await["base_rate"].to_string(), "0.0023");
    assert_eq!(
        metric("bre_feed_refused{source=\"seclend\"}").await,
        "bre_feed_refused{source=\"seclend\"} 0"
    );
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_late_is_judged_by_what_was_before_its_own_time() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let text = |name: &str, fee: i64| {
        let rows: String = (0..30)
            .map(|row| format!("{name}{row},USD,N,1,X,{}.0000,{fee}.0000,1\n", 4 - fee))
            .collect();
        format!("sym,cur,name,con,isin,rebaterate,feerate,available\n{rows}#EOF,30\n")
    };
    let take = async |days: i64, text: String, more: &str| {
        let query = format!("kind=ibkr&valid_at={}{more}", minutes_ago(days * 24 * 60));
        import(&instance, &query, text.as_bytes()).await
    };
    // Three months ago, and yesterday: everything has moved meanwhile.
    assert_eq!(take(90, text("T", 1), "").await.0, 200);
    let (status, answer) = take(1, text("T", 30), "").await;
    assert!(
        status == 400
            && answer["details"]
                .as_str()
                .unwrap()
                .contains("--accept-jumps"),
        "{answer}"
    );
    assert_eq!(take(1, text("T", 30), "&accept_jumps=true").await.0, 200);
    // What was true a day after the first file moved no rate of it, whatever came later.
    let (status, answer) = take(89, text("T", 2), "").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["accepted"].is_null(), "{answer}");
    // Against the file before its own time it would have jumped.
    let (status, answer) = take(88, text("T", 30), "").await;
    assert_eq!(status, 400, "{answer}");
    let now = instance.get(&key, "/api/v1/rates/T1").await.json();
    assert_eq!(now["base_rate"].to_string(), "0.3", "{now}");
    assert!(
        now["data_sources"]["base_rate"]["unconfirmed"].is_null(),
        "{now}"
    );
    let as_of = minutes_ago(88 * 24 * 60 + 1);
    let known = jiff::Timestamp::now();
    let path = format!("/api/v1/rates/T1?as_of={as_of}&known_at={known}");
    let then = instance.get(&key, &path).await.json();
    assert_eq!(then["base_rate"].to_string(), "0.02", "{then}");
}
