//! Feeds that went mad. The real files, where they are, are only read; what is mad about them happens in memory.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::*;
use crate::data::feeds::{Delivery, VolatilityRow, prepare};

/// The real files are not part of the project.
fn real(name: &str) -> Option<Vec<u8>> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let folder = std::env::var_os("BRE_MARKET_DATA").map_or(beside, PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        testkit::skip!(
            "market-data",
            "{name} is not in {} (set BRE_MARKET_DATA)",
            folder.display()
        );
        return None;
    }
    if !name.ends_with(".gz") {
        return std::fs::read(path).ok();
    }
    let mut unpack = Command::new("gzip")
        .arg("-dc")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bytes = Vec::new();
    unpack
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(unpack.wait().unwrap().success());
    Some(bytes)
}

fn load(
    kind: &str,
    bytes: &[u8],
    now: &str,
    valid_at: Option<&str>,
) -> Result<FeedLoad, FeedError> {
    prepare(&Delivery {
        kind,
        source: None,
        bytes,
        now: now.parse().unwrap(),
        valid_at: valid_at.map(|at| at.parse().unwrap()),
        aliases: &[],
        limits: &FeedLimits::default(),
        brokers: &[],
    })
}

/// What a load leaves behind for the next one; as `known::baseline` reads it.
fn believed(load: &FeedLoad, before: Baseline) -> Baseline {
    let mut rates = before.rates;
    rates
        .values_mut()
        .for_each(|last| last.in_last_batch = false);
    for row in &load.rates {
        let last = LastRate {
            rate: row.rate,
            rebate: row.rebate,
            currency: row.currency.clone(),
            status: None,
            valid_at_micros: load.valid_at_micros,
            in_last_batch: true,
            held: None,
        };
        rates.insert(row.ticker.clone(), last);
    }
    for row in load.held_rates() {
        if let Some(last) = rates.get_mut(&row.ticker) {
            last.held = Some(HeldValue {
                value: row.rate,
                valid_at_micros: load.valid_at_micros,
                sha256: load.sha256.clone(),
            });
        }
    }
    Baseline {
        valid_at_micros: Some(load.valid_at_micros),
        rates,
        index: load.volatility.last().map(|row| row.index),
        indices: HashMap::new(),
        events: load.events.len(),
    }
}

fn guarded(mut load: FeedLoad, last: &Baseline) -> Result<FeedLoad, FeedError> {
    load.guard(last, &FeedLimits::default(), Accept::default())?;
    Ok(load)
}

const JUMPS: Accept = Accept {
    jumps: true,
    older: false,
};
const OLDER: Accept = Accept {
    jumps: false,
    older: true,
};

const DAY_LATER: &str = "2025-12-29T16:00:00Z";

struct Real {
    text: String,
    last: Baseline,
}

impl Real {
    fn book() -> Option<Real> {
        let bytes = real("ibkr_usa_2025-12-28.txt")?;
        let load = load("ibkr", &bytes, DAY_LATER, None).unwrap();
        let load = guarded(load, &Baseline::default()).unwrap();
        Some(Real {
            text: String::from_utf8(bytes).unwrap(),
            last: believed(&load, Baseline::default()),
        })
    }

    /// The same file a day later, each row's fields changed by `change` or the row left out, with the right count at its end.
    fn next_day(&self, change: impl Fn(usize, &mut Vec<String>) -> bool) -> String {
        let mut text = String::new();
        let mut rows = 0;
        for (index, line) in self.text.lines().enumerate() {
            if line.starts_with("#BOF") {
                text.push_str("#BOF|2025.12.29|15:14:44\n");
            } else if line.starts_with("#SYM") {
                text.push_str(line);
                text.push('\n');
            } else if !line.starts_with('#') {
                let mut fields: Vec<String> = line.split('|').map(str::to_owned).collect();
                if change(index, &mut fields) {
                    rows += 1;
                    text.push_str(&fields.join("|"));
                    text.push('\n');
                }
            }
        }
        text.push_str(&format!("#EOF|{rows}\n"));
        text
    }

    #[track_caller]
    fn refuses(&self, text: &str, rule: &str, words: &[&str]) {
        let error = load("ibkr", text.as_bytes(), DAY_LATER, None)
            .and_then(|load| guarded(load, &self.last))
            .map(|load| load.report())
            .unwrap_err();
        println!("{error}");
        assert_eq!(error.rule(), rule, "{error}");
        let report = error.to_string();
        for word in words {
            assert!(report.contains(word), "{word:?} is not in: {report}");
        }
    }
}

/// 10^-4 of a percent.
fn units(percent: &str) -> Option<i64> {
    super::super::scaled(percent, 4)
}

fn percent(units: i64) -> String {
    let sign = if units < 0 { "-" } else { "" };
    format!("{sign}{}.{:04}", units.abs() / 10_000, units.abs() % 10_000)
}

fn times(text: &str, factor: i64) -> String {
    units(text).map_or(text.to_owned(), |units| percent(units * factor))
}

/// The fee grows, and the rebate falls as much: the benchmark of 3.64 % holds.
fn grow(fields: &mut [String], factor: i64) {
    if let Some(fee) = units(&fields[6]) {
        fields[6] = percent(fee * factor);
        fields[5] = percent(36_400 - fee * factor);
    }
}

#[test]
fn a_real_book_that_went_mad_is_refused_with_a_report() {
    let Some(real) = Real::book() else { return };
    real.refuses("", "empty", &["empty"]);
    let no_rows = real.next_day(|_, _| false);
    real.refuses(&no_rows, "empty", &["empty"]);
    real.refuses(
        &real.text[..real.text.len() / 2],
        "cut_short",
        &["cut short"],
    );
    let half = real.next_day(|index, _| index % 2 == 0);
    real.refuses(
        &half,
        "names_missing",
        &[
            "8377 of the last batch's 16749 names (50.0 %) are missing",
            "limit is 25 %",
            "--accept-jumps",
        ],
    );
    // The fee alone breaks the benchmark; with the rebate to match, the movement remains.
    let fees = real.next_day(|_, fields| {
        fields[6] = times(&fields[6], 100);
        true
    });
    real.refuses(&fees, "mostly_bad", &["benchmark_unclear"]);
    let both = real.next_day(|_, fields| {
        fields[5] = times(&fields[5], 100);
        fields[6] = times(&fields[6], 100);
        true
    });
    real.refuses(&both, "median_too_high", &["rates lie above 1.6873"]);
    let to_match = real.next_day(|_, fields| {
        grow(fields, 7);
        true
    });
    real.refuses(
        &to_match,
        "rates_moved",
        &["moved by more than 5 times since the last good batch (A 0.00408100 to 0.02856700"],
    );
    let tripled = real.next_day(|_, fields| {
        grow(fields, 3);
        true
    });
    real.refuses(&tripled, "median_moved", &["went to 3.000 times"]);
}

#[test]
fn a_clock_that_is_wrong_is_refused_either_way() {
    let Some(real) = Real::book() else { return };
    let next = real.next_day(|_, _| true);
    let ahead = next.replace("#BOF|2025.12.29|15:14:44", "#BOF|2025.12.29|17:00:01");
    real.refuses(
        &ahead,
        "clock_ahead",
        &["2025-12-29T17:00:01Z lies in the future"],
    );
    let behind = next.replace("#BOF|2025.12.29", "#BOF|2025.12.27");
    real.refuses(
        &behind,
        "older_than_loaded",
        &["2025-12-27T15:14:44.000000Z lies before the newest loaded batch's, 2025-12-28T15:14:44.000000Z"],
    );
    assert!(
        load("ibkr", next.as_bytes(), DAY_LATER, None)
            .and_then(|load| guarded(load, &real.last))
            .is_ok()
    );
}

#[test]
fn rows_that_went_mad_alone_are_set_aside_and_the_rest_is_taken() {
    let Some(real) = Real::book() else { return };
    // Ten names of the file are made foreign, with a benchmark of nonsense; one name jumps; one comes twice.
    let text = real.next_day(|index, fields| {
        match fields[0].as_str() {
            "GME" => {
                fields[6] = "153.4000".into();
                fields[5] = "-149.7600".into();
            }
            "AMC" => fields[0] = "AA".into(),
            _ if (100..110).contains(&index) => {
                fields[1] = "SEK".into();
                fields[5] = format!("{}.0000", index * 7);
            }
            _ => {}
        }
        true
    });
    let load = load("ibkr", text.as_bytes(), DAY_LATER, None).unwrap();
    let load = guarded(load, &real.last).unwrap();
    let report = load.report();
    assert_eq!(report.rows, 16_860);
    assert_eq!(report.reasons["rate_jumped"], 1, "{report:?}");
    assert_eq!(report.reasons["ticker_contradicted"], 2, "{report:?}");
    assert_eq!(report.reasons["benchmark_unclear"], 10, "{report:?}");
    assert!(
        !load
            .rates
            .iter()
            .any(|row| ["GME", "AA"].contains(&row.ticker.as_str()))
    );
    assert_eq!(load.quarantined.len() + load.rates.len(), 16_860);
}

#[test]
fn many_repeated_symbols_are_no_book() {
    let Some(real) = Real::book() else { return };
    let text = real.next_day(|index, fields| {
        if index % 40 == 0 {
            fields[0] = "AAPL".into();
        }
        true
    });
    real.refuses(
        &text,
        "rows_repeated",
        &["are for a ticker that another row has already; the limit is 1 %"],
    );
}

#[test]
fn a_benchmark_that_is_consistent_and_still_nonsense_takes_no_row_in() {
    let Some(real) = Real::book() else { return };
    let text = real.next_day(|_, fields| {
        if let Some(rebate) = units(&fields[5]) {
            fields[5] = percent(rebate + 30_000);
        }
        true
    });
    real.refuses(&text, "mostly_bad", &["benchmark_jumped"]);
}

#[test]
fn an_operator_can_take_what_the_market_did_and_it_is_remembered() {
    let Some(real) = Real::book() else { return };
    let half = real.next_day(|index, _| index % 2 == 0);
    let mut load = load("ibkr", half.as_bytes(), DAY_LATER, None).unwrap();
    load.guard(&real.last, &FeedLimits::default(), JUMPS)
        .unwrap();
    assert_eq!(load.report().accepted, ["names_missing"]);
    assert_eq!(load.fields().get("accepted"), Some("names_missing"));
}

#[test]
fn the_real_snapshots_pass_one_after_the_other() {
    let names = [
        ("2026-03-23T13-23-27530aae", "2026-03-23T13:23:00Z"),
        ("2026-03-24T11-38-0ba3e14d", "2026-03-24T11:38:00Z"),
        ("2026-03-25T11-35-077a9dc1", "2026-03-25T11:35:00Z"),
        ("2026-04-01T08-15-535d786f", "2026-04-01T08:15:00Z"),
        ("2026-04-02T08-06-00d0bef3", "2026-04-02T08:06:00Z"),
        ("2026-04-08T08-12-7b23c921", "2026-04-08T08:12:00Z"),
    ];
    let Some(real_book) = Real::book() else {
        return;
    };
    let mut last = real_book.last;
    let mut jumped = Vec::new();
    for (name, at) in names {
        let Some(bytes) = real(&format!("ibkr_snapshots/usa_{name}.csv.gz")) else {
            return;
        };
        let load = load("ibkr", &bytes, "2026-04-09T00:00:00Z", Some(at)).unwrap();
        let load = guarded(load, &last).unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = load.report();
        println!("{name}: {report:?}");
        jumped.push(
            report
                .reasons
                .get("rate_jumped")
                .copied()
                .unwrap_or_default(),
        );
        assert_eq!(report.accepted, Vec::<String>::new());
        last = believed(&load, last);
    }
    // Only between batches of neighbouring days is a single rate held against the one before.
    assert_eq!(jumped, [0, 0, 3, 0, 4, 0]);
}

#[test]
fn the_real_history_of_the_index_passes_and_mad_copies_do_not() {
    let Some(bytes) = real("vix-daily.csv") else {
        return;
    };
    let now = "2026-08-01T00:00:00Z";
    let whole = guarded(
        load("vix", &bytes, now, None).unwrap(),
        &Baseline::default(),
    )
    .unwrap();
    let last = believed(&whole, Baseline::default());
    assert!(guarded(load("vix", &bytes, now, None).unwrap(), &last).is_ok());
    let text = String::from_utf8(bytes).unwrap();
    let refuses = |text: &str, rule: &str| {
        let error = load("vix", text.as_bytes(), now, None)
            .and_then(|load| guarded(load, &last))
            .map(|load| load.report())
            .unwrap_err();
        assert_eq!(error.rule(), rule, "{error}");
    };
    refuses("", "empty");
    let (first_half, _) = text.split_at(text[..text.len() / 2].rfind('\n').unwrap());
    refuses(first_half, "older_than_loaded");
    let hundredfold = text
        .lines()
        .map(|line| line.replace('.', ""))
        .collect::<Vec<_>>();
    refuses(
        &format!("DATE,OPEN,HIGH,LOW,CLOSE\n{}", hundredfold[1..].join("\n")),
        "mostly_bad",
    );
    let fourfold: Vec<String> = text
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let four = |text: &str| {
                super::super::scaled(text, 6).map_or(text.to_owned(), |units| {
                    format!("{}.{:06}", units * 4 / 1_000_000, units * 4 % 1_000_000)
                })
            };
            format!(
                "{},{},{},{},{}",
                fields[0],
                four(fields[1]),
                four(fields[2]),
                four(fields[3]),
                four(fields[4])
            )
        })
        .collect();
    refuses(
        &format!("DATE,OPEN,HIGH,LOW,CLOSE\n{}", fourfold.join("\n")),
        "index_moved",
    );
}

#[test]
fn other_real_files_pass() {
    let check = |kind: &str, name: &str, now: &str, loaded: usize, rows: usize| {
        let Some(bytes) = real(name) else { return };
        let load = guarded(load(kind, &bytes, now, None).unwrap(), &Baseline::default()).unwrap();
        let report = load.report();
        println!("{name}: {:?}", report.reasons);
        assert_eq!(
            (report.loaded, report.rows),
            (loaded, rows),
            "{:?}",
            report.reasons
        );
    };
    check(
        "clearstreet",
        "clearstreet_indicative_rates_2026-04-07.csv",
        "2026-04-08T00:00:00Z",
        283,
        393,
    );
    check(
        "events",
        "earnings_calendar_2025-05_2025-08.csv",
        "2025-06-01T00:00:00Z",
        8186,
        8464,
    );
}

#[test]
fn a_calendar_that_lost_most_of_its_days_is_refused() {
    let calendar = |count: usize| {
        let rows: String = (0..count)
            .map(|row| format!("T{row},NAME,2025-07-03,,,USD\n"))
            .collect();
        format!("symbol,name,reportDate,fiscalDateEnding,estimate,currency\n{rows}")
    };
    let now = "2025-07-01T00:00:00Z";
    let whole = load("events", calendar(100).as_bytes(), now, None).unwrap();
    let last = believed(&whole, Baseline::default());
    let check = |count: usize, expected: Option<&str>| {
        let load = load("events", calendar(count).as_bytes(), now, None).unwrap();
        let rule = guarded(load, &last).err().map(|error| error.rule());
        assert_eq!(rule, expected, "{count}");
    };
    check(75, None);
    check(74, Some("events_missing"));
}

#[test]
fn a_small_book_is_held_row_by_row() {
    let book = |rows: &[(&str, &str, &str)], date: &str| {
        let rows_text: String = rows
            .iter()
            .map(|(name, rebate, fee)| format!("{name}|USD|N|1|X|{rebate}|{fee}|1|F|\n"))
            .collect();
        format!(
            "#BOF|{date}|00:00:00\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\n{rows_text}#EOF|{}\n",
            rows.len()
        )
    };
    let read = |text: &str| load("ibkr", text.as_bytes(), "2025-07-10T00:00:00Z", None).unwrap();
    let first = read(&book(
        &[
            ("A", "3.3900", "0.2500"),
            ("B", "3.1400", "0.5000"),
            ("C", "2.6400", "1.0000"),
        ],
        "2025.07.01",
    ));
    let last = believed(&first, Baseline::default());
    let mad = [
        ("A", "-21.3600", "25.0000"),
        ("B", "3.1400", "0.5000"),
        ("C", "2.6400", "1.0000"),
    ];
    let load = guarded(read(&book(&mad, "2025.07.02")), &last).unwrap();
    assert_eq!(load.report().reasons["rate_jumped"], 1);
    // After three days it is believed: the market has had time to say otherwise.
    let later = guarded(read(&book(&mad, "2025.07.05")), &last).unwrap();
    assert_eq!(later.report().quarantined, 0);
    let all = [
        ("A", "-21.3600", "25.0000"),
        ("B", "-46.3600", "50.0000"),
        ("C", "-96.3600", "100.0000"),
    ];
    let error = guarded(read(&book(&all, "2025.07.02")), &last).unwrap_err();
    assert_eq!(error.rule(), "mostly_bad", "{error}");
}

/// 20 points for GME, then a hundredfold: GME alone is set aside, until another answer says the same, or it has said so for longer
/// than a rate is held.
#[test]
fn a_single_index_that_jumps_is_set_aside_until_it_is_confirmed() {
    let (hour, gme) = (3_600_000_000, 20_0000_0000);
    let held = |index: i64, at_micros: i64, bytes: &[u8]| HeldValue {
        value: index,
        valid_at_micros: at_micros,
        sha256: FeedLoad::empty("volatility", "volatility", bytes, Timestamp::UNIX_EPOCH).sha256,
    };
    let guarded = |index: i64, at_micros: i64, accept: Accept, before: Option<HeldValue>| {
        let figure = LastFigure {
            value: gme,
            valid_at_micros: 0,
            held: before,
        };
        let last = Baseline {
            indices: HashMap::from([
                ("GME".to_owned(), figure.clone()),
                ("MARKET".to_owned(), figure),
            ]),
            ..Baseline::default()
        };
        let valid_at = Timestamp::from_microsecond(at_micros).unwrap();
        let row = |subject: &str, index: i64| VolatilityRow {
            subject: subject.to_owned(),
            valid_at,
            index,
        };
        let mut load = FeedLoad::empty("volatility", "volatility", b"now", valid_at);
        load.volatility = vec![row("GME", index), row("MARKET", index), row("AMC", 1)];
        load.guard(&last, &FeedLimits::default(), accept).unwrap();
        let lines: Vec<_> = load
            .quarantined
            .iter()
            .map(|row| (row.line, row.reason))
            .collect();
        (load.volatility.len(), lines)
    };
    let none = Accept::default();
    let whole = (3, Vec::new());
    // Two of one answer are two rows, whatever their lines are.
    let aside = (1, vec![(1, "index_jumped"), (2, "index_jumped")]);
    assert_eq!(guarded(3 * gme, hour, none, None), whole);
    assert_eq!(guarded(100 * gme, hour, none, None), aside);
    assert_eq!(guarded(gme / 4, hour, none, None), aside);
    assert_eq!(guarded(100 * gme, 73 * hour, none, None), whole);
    assert_eq!(guarded(100 * gme, hour, JUMPS, None), whole);
    // Another answer says about the same; the same answer again, or one that says something else, does not.
    let before = |bytes: &[u8]| Some(held(90 * gme, hour, bytes));
    assert_eq!(guarded(100 * gme, 2 * hour, none, before(b"then")), whole);
    assert_eq!(guarded(100 * gme, 2 * hour, none, before(b"now")), aside);
    assert_eq!(guarded(100 * gme, hour, none, before(b"then")), aside);
    assert_eq!(guarded(10 * gme, 2 * hour, none, before(b"then")), aside);
}

#[path = "guard_held_tests.rs"]
mod held;
