use super::*;

fn now() -> Timestamp {
    "2025-07-01T12:00:00Z".parse().unwrap()
}

fn load(kind: &str, text: &str, aliases: &[Alias]) -> Result<FeedLoad, FeedError> {
    prepare(&Delivery {
        kind,
        source: None,
        bytes: text.as_bytes(),
        now: now(),
        valid_at: None,
        aliases,
        limits: &FeedLimits::default(),
        brokers: &[],
    })
}

fn book(date: &str, rows: &[&str]) -> String {
    format!(
        "#BOF|{date}|00:00:00\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|\n{}\n#EOF|{}\n",
        rows.join("\n"),
        rows.len()
    )
}

fn tickers(load: &FeedLoad) -> Vec<&str> {
    load.rates.iter().map(|row| row.ticker.as_str()).collect()
}

#[test]
fn aliases_count_for_files_of_their_dates_only() {
    let micros = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
    let alias = |symbol: &str, ticker: &str, valid_to_micros: i64| Alias {
        source: "ibkr".into(),
        symbol: symbol.into(),
        ticker: ticker.into(),
        valid_from_micros: i64::MIN,
        valid_to_micros,
    };
    let aliases = [
        alias("BRK A", "BRK.A", i64::MAX),
        alias("FB", "META", micros("2022-06-09T00:00:00Z")),
    ];
    let check = |date: &str, expected: &[&str]| {
        let rows = [
            "BRK A|USD|B|1|X|3.3900|0.2500|1|",
            "FB|USD|F|1|X|3.3900|0.2500|1|",
            "META|USD|F|1|X|3.3900|0.2500|1|",
        ];
        let load = load("ibkr", &book(date, &rows), &aliases).unwrap();
        assert_eq!(tickers(&load), expected);
        assert_eq!(load.report().rows, 3);
    };
    check("2021.01.04", &["BRK.A", "META"]);
    check("2024.01.04", &["BRK.A", "FB", "META"]);
}

#[test]
fn of_rows_that_contradict_each_other_none_is_believed() {
    let rows = [
        "AAA|USD|A|1|X|3.3900|0.2500|1|",
        "BBB|USD|B|1|X|3.3900|0.2500|1|",
        "AAA|USD|A|1|X|2.3900|1.2500|1|",
        "CCC|USD|C|1|X|3.3900|0.2500|1|",
        "BBB|USD|B|1|X|3.3900|0.2500|7|",
        "DDD|USD|D|1|X|3.3900|0.2500|1|",
    ];
    let load = load("ibkr", &book("2025.06.30", &rows), &[]).unwrap();
    assert_eq!(tickers(&load), ["BBB", "CCC", "DDD"]);
    let aside: Vec<_> = load
        .quarantined
        .iter()
        .map(|row| (row.line, row.reason))
        .collect();
    assert_eq!(
        aside,
        [
            (3, "ticker_contradicted"),
            (5, "ticker_contradicted"),
            (7, "ticker_repeated")
        ]
    );
}

#[test]
fn a_refusal_says_of_what_and_why() {
    let text = "#BOF|2025.06.30|00:00:00\n";
    let error = load("ibkr", text, &[]).unwrap_err();
    let fields = refusal_fields("ibkr", "desk", text.as_bytes(), &error);
    assert_eq!(fields.get("outcome"), Some("refused"));
    assert_eq!(fields.get("rule"), Some("empty"));
    assert_eq!(fields.get("bytes"), Some("25"));
}
