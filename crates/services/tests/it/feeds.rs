//! Imports over the control socket, with files of our own and, where they are, the real ones.
//! any day: they are old on every day, and no test grants or refuses anything because of it.

use std::path::PathBuf;

use crate::harness::{GME, Instance, Options};

/// The real files are not part of the project.
pub fn real(name: &str) -> Option<Vec<u8>> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let folder = std::env::var_os("BRE_MARKET_DATA").map_or(beside, PathBuf::from);
    let file = std::fs::read(folder.join(name)).ok();
    if file.is_none() {
        testkit::skip!(
            "market-data",
            "{name} is not in {} (set BRE_MARKET_DATA)",
            folder.display()
        );
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn real_snapshots_are_loaded_and_their_missing_symbols_kept_aside() {
    let name = "ibkr_snapshots/usa_2026-03-23T13-23-27530aae.csv.gz";
    let Some(packed) = real(name) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot.csv.gz");
    std::fs::write(&path, packed).unwrap();
    let unpacked = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(&path)
        .output()
        .unwrap();
    assert!(unpacked.status.success());
    let instance = Instance::start().await;
    let import = "/internal/import?kind=ibkr&valid_at=2026-03-23T13:23:00Z";
    let (status, body) = instance.control("POST", import, &unpacked.stdout).await;
    assert_eq!(status, 200, "{body}");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(number("rows"), 18_797);
    assert_eq!(number("loaded") + number("quarantined"), 18_797);
    assert_eq!(
        report["reasons"],
        serde_json::json!({ "rate_not_available": 144, "symbol_missing": 1 })
    );
    assert_eq!(report["valid_at"], "2026-03-23T13:23:00.000000Z");
    let benchmarks =
        serde_json::json!({ "CAD": "0.02250000", "EUR": "0.01932000", "USD": "0.03640000" });
    assert_eq!(report["benchmarks"], benchmarks);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_book_and_history_are_loaded_and_every_row_is_accounted_for() {
    let (Some(book), Some(history)) = (real("ibkr_usa_2025-12-28.txt"), real("vix-daily.csv"))
    else {
        return;
    };
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let (status, body) = instance
        .control("POST", "/internal/import?kind=ibkr", &book)
        .await;
    assert_eq!(status, 200, "{body}");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(
        (number("rows"), number("loaded"), number("quarantined")),
        (16_860, 16_749, 111),
        "{body}"
    );
    assert_eq!(
        report["reasons"],
        serde_json::json!({ "rate_not_available": 111 })
    );
    assert_eq!(
        report["benchmarks"],
        serde_json::json!({ "CAD": "0.02250000", "USD": "0.03640000" })
    );
    let stored = "SELECT (SELECT count(*) FROM base_rates JOIN feed_batches USING (batch_id) WHERE feed_batches.source = 'ibkr'), \
                  (SELECT count(*) FROM quarantine), (SELECT max(rate) FROM base_rates)";
    assert_eq!(
        instance.sql(stored).await[0],
        ["16749", "111", "10.16584800"]
    );
    let (status, body) = instance
        .control("POST", "/internal/import?kind=vix", &history)
        .await;
    assert_eq!(status, 200, "{body}");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["rows"], 9235, "{body}");
    // The next price is of the new book: 1.5340 % and the newest close, 18.70.
    let answer = instance.locate(&key, GME).await;
    assert!(
        answer.body.contains("\"borrow_rate_used\":0.01820858"),
        "{}",
        answer.body
    );
    for ticker in ["BRK.A", "JPM%20PRC", "A"] {
        assert_eq!(
            instance
                .get(&key, &format!("/api/v1/rates/{ticker}"))
                .await
                .status,
            200,
            "{ticker}"
        );
    }
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_fails_changes_nothing() {
    let instance = Instance::with(Options::default()).await;
    let before = instance
        .sql("SELECT (SELECT count(*) FROM base_rates), (SELECT count(*) FROM feed_batches)")
        .await;
    let cut = "#BOF|2025.12.01|15:14:44\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\nGME|USD|G|1|X|3.3900|0.2500|1|F|\n";
    let (status, body) = instance
        .control("POST", "/internal/import?kind=ibkr", cut.as_bytes())
        .await;
    assert!(
        status == 400 && body.contains("cut short"),
        "{status} {body}"
    );
    let (status, body) = instance
        .control("POST", "/internal/import?kind=gossip", b"x")
        .await;
    assert!(
        status == 400 && body.contains("must be one of ibkr, seclend"),
        "{status} {body}"
    );
    let after = instance
        .sql("SELECT (SELECT count(*) FROM base_rates), (SELECT count(*) FROM feed_batches)")
        .await;
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_book_counts_from_the_next_price_on_and_an_older_one_does_not() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let file = |date: &str, fee: &str, rebate: &str| {
        format!(
            "#BOF|{date}|00:00:00\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\nGME|USD|G|1|X|{rebate}|{fee}|>10000000|F|\n#EOF|1\n"
        )
    };
    let base = async || {
        instance.get(&key, "/api/v1/rates/GME").await.json()["base_rate"]
            .as_f64()
            .unwrap()
    };
    let import = async |text: String| {
        instance
            .control(
                "POST",
                "/internal/import?kind=ibkr&by=tester",
                text.as_bytes(),
            )
            .await
    };
    assert_eq!(
        import(file("2025.07.01", "50.0000", "-46.0000")).await.0,
        200
    );
    assert_eq!(base().await, 0.5);
    let (status, body) = import(file("2025.06.01", "7.0000", "-3.0000")).await;
    assert!(
        status == 400 && body.contains("before the newest loaded batch's"),
        "{status} {body}"
    );
    assert_eq!(base().await, 0.5, "an older book overtook a newer one");
}
