use super::*;

const DAY: i64 = 86_400_000_000;
/// 2025-07-01.
const NOW: i64 = 20_270 * DAY;

fn rate(ticker: &str, source: &str) -> BaseRate {
    BaseRate {
        ticker: ticker.into(),
        rate: "0.15".parse().unwrap(),
        currency: "USD".into(),
        source: source.into(),
        valid_at_micros: NOW,
        known_at_micros: NOW,
        available: None,
        available_or_more: false,
        status: None,
        held: None,
    }
}

fn index(subject: &str) -> Volatility {
    Volatility {
        subject: subject.into(),
        index: Index::whole(20),
        source: "volatility".into(),
        valid_at_micros: NOW,
        held: None,
    }
}

#[test]
fn every_spelling_of_a_class_is_the_same_share() {
    let event = |ticker: &str| AnnouncedEvent {
        ticker: ticker.into(),
        date: "2025-07-02".parse().unwrap(),
        source: "events".into(),
        valid_at_micros: NOW,
    };
    let data = MarketData {
        rates: vec![
            rate("HEI A", "ibkr"),
            rate("BRK.B", "ibkr"),
            rate("GME", "ibkr"),
        ],
        announced: vec![event("HEI.A"), event("BRK.B")],
        volatility: vec![index("MARKET"), index("HEI/A")],
        ..MarketData::default()
    };
    let view = MarketView::new(&data, &FeedSettings::default());
    for (asked, ticker, factor) in [
        ("HEI A", "HEI A", 8),
        ("HEI.A", "HEI A", 8),
        ("HEI/A", "HEI A", 8),
        ("BRK.B", "BRK.B", 8),
        ("BRK B", "BRK.B", 8),
        ("GME", "GME", 0),
    ] {
        let inputs = view.inputs(asked, NOW).unwrap();
        let found = (&*inputs.ticker, inputs.event_risk_factor.value);
        assert_eq!(found, (ticker, factor), "{asked}");
    }
    assert!(view.inputs("HEI.B", NOW).is_err());
}

#[test]
fn a_ticker_without_the_figure_that_it_should_have_says_so() {
    let named = |tickers: &[&str]| {
        Some(HttpSettings {
            tickers: tickers.iter().map(|ticker| (*ticker).to_owned()).collect(),
            ..HttpSettings::at("http://feed:1")
        })
    };
    let feeds = FeedSettings {
        seclend: named(&["AAPL", "GME"]),
        volatility: named(&["AAPL", "GME"]),
        events: named(&["AAPL", "GME"]),
        ..FeedSettings::default()
    };
    let data = MarketData {
        rates: vec![
            rate("AAPL", "ibkr"),
            rate("GME", "seclend"),
            rate("AMC", "ibkr"),
        ],
        volatility: vec![index("MARKET"), index("GME")],
        events: vec![EventRisk {
            subject: "GME".into(),
            factor: 0,
            source: "events".into(),
            valid_at_micros: NOW,
        }],
        ..MarketData::default()
    };
    let view = MarketView::new(&data, &feeds);
    for (ticker, fallback) in [("AAPL", true), ("GME", false), ("AMC", false)] {
        let inputs = view.inputs(ticker, NOW).unwrap();
        let found = [
            inputs.base_rate.fallback,
            inputs.volatility_index.fallback,
            inputs.event_risk_factor.fallback,
        ];
        assert_eq!(found, [fallback; 3], "{ticker}");
    }
}

#[test]
fn a_refused_delivery_is_told_of_what_is_priced_from_its_source() {
    let refusal = |kind: &str, source: &str| RefusedDelivery {
        kind: kind.to_owned(),
        source: source.to_owned(),
        rule: "count".into(),
        valid_at_micros: NOW,
        known_at_micros: NOW,
    };
    let data = MarketData {
        rates: vec![rate("AAPL", "ibkr"), rate("GME", "seclend")],
        volatility: vec![index("MARKET")],
        refusals: vec![refusal("ibkr", "ibkr"), refusal("events", "events")],
        ..MarketData::default()
    };
    let view = MarketView::new(&data, &FeedSettings::default());
    for (ticker, told) in [("AAPL", true), ("GME", false)] {
        let inputs = view.inputs(ticker, NOW).unwrap();
        assert_eq!(inputs.base_rate.unconfirmed.is_some(), told, "{ticker}");
        assert!(inputs.volatility_index.unconfirmed.is_none());
        // What a calendar would have said of a ticker without events nobody knows.
        assert!(inputs.event_risk_factor.unconfirmed.is_some());
        assert!(!inputs.base_rate.is_contradicted(), "it holds no figure");
    }
}
