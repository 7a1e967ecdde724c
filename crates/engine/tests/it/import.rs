//! `bre import` of the real files, where they are: they are no part of the project.

use std::path::PathBuf;

use serde_json::json;

use crate::instance::Instance;

/// Named by `BRE_MARKET_DATA`, or beside the checkout.
fn real(name: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let folder = std::env::var_os("BRE_MARKET_DATA").map_or(beside, PathBuf::from);
    let file = folder.join(name);
    if !file.exists() {
        testkit::skip!(
            "market-data",
            "{} is not there (set BRE_MARKET_DATA)",
            file.display()
        );
        return None;
    }
    Some(file)
}

#[test]
fn the_real_book_is_accounted_for_row_by_row_and_a_cut_one_changes_nothing() {
    let (Some(book), Some(history)) = (real("ibkr_usa_2025-12-28.txt"), real("vix-daily.csv"))
    else {
        return;
    };
    let instance = Instance::start();
    let (book, history) = (book.to_str().unwrap(), history.to_str().unwrap());
    let sample = instance.quote("GME");

    let report = instance.bre(&["import", "ibkr", book]).json();
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(number("rows"), 16_860, "{report}");
    assert_eq!(number("loaded") + number("quarantined"), 16_860, "{report}");
    let reasons = report["reasons"].as_object().unwrap();
    let reasons: u64 = reasons.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(reasons, number("quarantined"), "{report}");
    instance.bre(&["import", "vix", history]).json();

    // 1.5340 % and the newest close, 18.70.
    let rate = json!(0.018_208_58);
    let quoted = instance.quote("GME");
    assert_eq!(quoted["borrow_rate_used"], rate, "{quoted}");
    assert_ne!(
        sample["borrow_rate_used"], rate,
        "the sample has this rate too: {sample}"
    );
    assert_eq!(instance.locate().body["borrow_rate_used"], rate);

    let contents = "SELECT (SELECT count(*) FROM base_rates), (SELECT count(*) FROM quarantine), \
                    (SELECT count(*) FROM feed_batches)";
    let before = instance.sql(contents);
    let text = std::fs::read(book).unwrap();
    let cut = instance.folder.join("cut.txt");
    std::fs::write(&cut, &text[..text.len() / 2]).unwrap();
    instance
        .bre(&["import", "ibkr", cut.to_str().unwrap()])
        .refused(&["cut short"]);
    assert_eq!(instance.sql(contents), before);
    assert_eq!(instance.locate().body["borrow_rate_used"], rate);
    instance.audit_is_sound();
}
