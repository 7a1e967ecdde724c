//! What is held and what confirms it; and that one switch has one meaning.

use super::*;

/// Thirty-nine steady names and one that moves, as a lender's JSON.
fn lender(rate: &str) -> String {
    let steady: String = (1..40)
        .map(|name| format!(r#"{{"ticker":"T{name}","rate":0.01}},"#))
        .collect();
    format!(r#"[{steady}{{"ticker":"GME","rate":{rate}}}]"#)
}

/// Each file a day after the one before, through the guard; what GME is at after each.
#[track_caller]
fn follow(files: &[&str], expected: &[&str]) {
    let mut last = Baseline::default();
    let mut found = Vec::new();
    for (day, text) in (1..).zip(files) {
        let at = format!("2025-07-{day:02}T12:00:00Z");
        let load = load("seclend", text.as_bytes(), &at, None).unwrap();
        let load = guarded(load, &last).unwrap();
        last = believed(&load, last);
        let gme = &last.rates["GME"];
        let held = gme.held.as_ref().map_or(String::new(), |held| {
            format!(" not {}", eight_decimals(held.value))
        });
        found.push(format!("{}{held}", eight_decimals(gme.rate)));
    }
    assert_eq!(found, expected);
}

#[test]
fn what_a_guard_withholds_is_confirmed_by_a_later_delivery_up_or_down() {
    let (low, high, higher) = (lender("0.0025"), lender("0.60"), lender("0.61"));
    follow(
        &[&low, &high, &higher],
        &["0.00250000", "0.00250000 not 0.60000000", "0.61000000"],
    );
    follow(
        &[&high, &low, &lender("0.0024")],
        &["0.60000000", "0.60000000 not 0.00250000", "0.00240000"],
    );
    // The same bytes again say nothing new; other bytes do.
    follow(
        &[&low, &high, &high, &higher],
        &[
            "0.00250000",
            "0.00250000 not 0.60000000",
            "0.00250000 not 0.60000000",
            "0.61000000",
        ],
    );
    // Back where it was: the mad row never was a price. Somewhere else: held anew.
    follow(
        &[&low, &high, &lender("0.0026"), &high],
        &[
            "0.00250000",
            "0.00250000 not 0.60000000",
            "0.00260000",
            "0.00260000 not 0.60000000",
        ],
    );
    follow(
        &[&lender("0.0001"), &high, &lender("49")],
        &[
            "0.00010000",
            "0.00010000 not 0.60000000",
            "0.00010000 not 49.00000000",
        ],
    );
    // A book of one name has no half that could be mad.
    let alone = |rate: &str| format!(r#"[{{"ticker":"GME","rate":{rate}}}]"#);
    follow(
        &[&alone("0.0025"), &alone("0.60"), &alone("0.61")],
        &["0.00250000", "0.00250000 not 0.60000000", "0.61000000"],
    );
}

#[test]
fn one_switch_has_one_meaning() {
    let book = |date: &str, fee: &str, rebate: &str| {
        let rows: String = (0..30)
            .map(|row| format!("T{row}|USD|N|1|X|{rebate}|{fee}|1|F|\n"))
            .collect();
        format!(
            "#BOF|{date}|00:00:00\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n{rows}#EOF|30\n"
        )
    };
    let read = |text: &str| load("ibkr", text.as_bytes(), "2025-07-10T00:00:00Z", None).unwrap();
    let last = read(&book("2025.07.02", "1.0000", "2.6400"));
    let last = believed(&last, Baseline::default());
    let check =
        |date: &str, fee: &str, rebate: &str, accept: Accept, expected: Result<&[&str], &str>| {
            let mut load = read(&book(date, fee, rebate));
            let found = load.guard(&last, &FeedLimits::default(), accept);
            let found = found
                .map(|()| load.accepted.clone())
                .map_err(|error| error.rule());
            assert_eq!(
                found.as_deref(),
                expected.as_ref().copied(),
                "{date} {fee} {accept:?}"
            );
        };
    let both = Accept {
        jumps: true,
        older: true,
    };
    let none = Accept::default();
    let (steady, jumped) = (("1.0000", "2.6400"), ("9.0000", "-5.3600"));
    check(
        "2025.07.01",
        steady.0,
        steady.1,
        none,
        Err("older_than_loaded"),
    );
    check(
        "2025.07.01",
        steady.0,
        steady.1,
        JUMPS,
        Err("older_than_loaded"),
    );
    check(
        "2025.07.01",
        steady.0,
        steady.1,
        OLDER,
        Ok(&["older_than_loaded"]),
    );
    check("2025.07.03", jumped.0, jumped.1, OLDER, Err("rates_moved"));
    check(
        "2025.07.03",
        jumped.0,
        jumped.1,
        JUMPS,
        Ok(&["rates_moved", "median_moved"]),
    );
    check("2025.07.01", jumped.0, jumped.1, OLDER, Err("rates_moved"));
    check(
        "2025.07.01",
        jumped.0,
        jumped.1,
        both,
        Ok(&["older_than_loaded", "rates_moved", "median_moved"]),
    );
}
