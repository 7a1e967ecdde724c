//! Generated input for every reader: nothing makes it panic, and every line is either loaded or set aside with its reason.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::data::feeds::KINDS;
use crate::data::feeds::columns::is_blank;

fn now() -> Timestamp {
    "2025-07-01T12:00:00Z".parse().unwrap()
}

const ASKED: [&str; 3] = ["seclend_one", "volatility", "event_risk"];

/// Words that break readers.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Z]{1,5}",
        "-?[0-9]{1,4}(\\.[0-9]{1,6})?",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        "2025-0[1-9]-[0-2][0-9]",
        Just("NA".to_owned()),
        Just("NaN".to_owned()),
        Just("1e400".to_owned()),
        Just("-0".to_owned()),
        Just("１２".to_owned()),
        Just("9223372036854775808".to_owned()),
        Just(">10000000".to_owned()),
        Just("\"".to_owned()),
        Just("\u{0}".to_owned()),
        Just("USD".to_owned()),
        Just("true".to_owned()),
        Just("FLAT".to_owned()),
        ".{0,6}",
    ]
}

fn header(kind: &str) -> (&'static str, char, usize) {
    match kind {
        "ibkr" => (
            "sym,cur,name,con,isin,rebaterate,feerate,available,figi",
            ',',
            9,
        ),
        "clearstreet" => (
            "ETF,borrow_rate_pct,rate_id,timestamp,indicative_rate_expiry,raw_security,raw_security_type",
            ',',
            7,
        ),
        "vix" => ("DATE,OPEN,HIGH,LOW,CLOSE", ',', 5),
        "events" => (
            "symbol,name,reportDate,fiscalDateEnding,estimate,currency",
            ',',
            6,
        ),
        "brokers" => (
            "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active",
            ',',
            8,
        ),
        _ => ("source,symbol,ticker,valid_from,valid_to", ',', 5),
    }
}

fn table() -> impl Strategy<Value = (&'static str, String)> {
    let kinds = prop::sample::select(
        KINDS
            .into_iter()
            .filter(|kind| *kind != "seclend")
            .collect::<Vec<_>>(),
    );
    (kinds, vec(vec(word(), 9), 0..12), any::<bool>()).prop_map(|(kind, rows, ended)| {
        let (header, separator, columns) = header(kind);
        let mut text = format!("{header}\n");
        for row in &rows {
            let cells: Vec<&str> = row.iter().take(columns).map(String::as_str).collect();
            text.push_str(&cells.join(&separator.to_string()));
            text.push('\n');
        }
        if kind == "ibkr" && ended {
            let count = text.lines().skip(1).filter(|line| !is_blank(line)).count();
            text.push_str(&format!("#EOF,{count}\n"));
        }
        (kind, text)
    })
}

/// A JSON value made of what numbers, words and nesting can be.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "-?[0-9]{1,3}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
        Just("1e400".to_owned()),
        Just("-0".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("\"GME\"".to_owned()),
        Just("\"HARD\"".to_owned()),
        Just("\"0.15\"".to_owned()),
        Just("\"e5\"".to_owned()),
        Just("\"\u{e9}e1\"".to_owned()),
        Just("\"2025-07-05\"".to_owned()),
        Just("\"2025-07-\u{e9}\"".to_owned()),
    ];
    let name = prop::sample::select(vec![
        "rate",
        "ticker",
        "status",
        "borrows",
        "value",
        "volatility",
        "risk_factor",
        "events",
        "date",
        "available",
        "currency",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec((name.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn accounted(report: &ImportReport) -> Result<(), TestCaseError> {
    prop_assert_eq!(report.rows, report.loaded + report.quarantined);
    prop_assert!(report.loaded > 0, "accepted, and nothing was in it");
    prop_assert_eq!(report.quarantined, report.reasons.values().sum::<usize>());
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        for kind in KINDS.into_iter().chain(ASKED) {
            if let Ok(Some(report)) = check_feed(kind, &bytes, now()) {
                accounted(&report)?;
            }
        }
    }

    #[test]
    fn tables_account_for_every_line((kind, text) in table()) {
        if let Ok(Some(report)) = check_feed(kind, text.as_bytes(), now()) {
            accounted(&report)?;
            let lines = text.lines().skip(1).filter(|line| !is_blank(line) && !line.starts_with("#EOF")).count();
            prop_assert_eq!(report.rows, lines, "{:?}", report);
        }
    }

    #[test]
    fn any_json_is_read_or_refused(text in json()) {
        for kind in ["seclend"].into_iter().chain(ASKED) {
            if let Ok(Some(report)) = check_feed(kind, text.as_bytes(), now()) {
                accounted(&report)?;
            }
        }
    }

    #[test]
    fn a_cut_or_changed_real_looking_book_is_never_taken_for_a_whole_one(cut in 0usize..400, byte in any::<u8>()) {
        let text = "#BOF|2025.06.30|15:14:44\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n\
                    AAA|USD|A|1|X|3.3900|0.2500|1|F|\nBBB|USD|B|1|X|3.3900|0.2500|1|F|\nCCC|USD|C|1|X|3.3900|0.2500|1|F|\n#EOF|3\n";
        let mut bytes = text.as_bytes().to_vec();
        let cut = cut % bytes.len();
        // All but the last line's end.
        if cut < bytes.len() - 1 {
            prop_assert!(check_feed("ibkr", &bytes[..cut], now()).is_err(), "{} bytes", cut);
        }
        bytes[cut] = byte;
        if let Ok(Some(report)) = check_feed("ibkr", &bytes, now()) {
            accounted(&report)?;
            prop_assert_eq!(report.rows, 3);
        }
    }
}
