//! What the volatility and the event services answer. Numbers are read as the text they were sent as.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::FeedError;
use super::super::json::number;
use crate::market::FeedLimits;

#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    /// By the name that the service, or our own answer, has for it.
    #[serde(borrow, alias = "volatility_index", alias = "index", alias = "vix")]
    volatility: Option<&'a RawValue>,
}

/// `{"value":18.7}`, `{"volatility":18.7}` or `{"volatility_index":18.7}`: an index in 10^-8.
pub(in crate::data::feeds) fn index(bytes: &[u8], limits: &FeedLimits) -> Result<i64, FeedError> {
    let answer: Index<'_> = json(bytes)?;
    let raw = match (answer.value, answer.volatility) {
        (Some(raw), None) | (None, Some(raw)) => raw,
        (None, None) => {
            return Err(wrong(
                "it has none of value, volatility, volatility_index, index and vix",
            ));
        }
        (Some(_), Some(_)) => return Err(wrong("it names its index twice")),
    };
    // Six decimals are what an index holds.
    let index = number(raw, 6).map(|value| value.saturating_mul(100));
    match index {
        Some(index) if index > 0 && index <= i64::from(limits.index_max) * 100_000_000 => Ok(index),
        _ => Err(FeedError::Answer(format!(
            "{} is no index above 0 and up to {} with at most 6 decimals",
            super::super::head(raw.get()),
            limits.index_max
        ))),
    }
}

#[derive(Deserialize)]
struct Risk<'a> {
    #[serde(borrow, alias = "event_risk_factor", alias = "factor", alias = "value")]
    risk_factor: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Option<Vec<Event<'a>>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    date: Option<String>,
    #[serde(borrow, alias = "event_risk_factor", alias = "factor")]
    risk_factor: &'a RawValue,
}

/// A factor from 0 to 10: bare, as `risk_factor`, or the highest of the coming `events`.
pub(in crate::data::feeds) fn risk(bytes: &[u8], now: Timestamp) -> Result<u8, FeedError> {
    let raw: &RawValue = json(bytes)?;
    if !raw.get().starts_with('{') {
        return factor(raw);
    }
    let answer: Risk<'_> = json(bytes)?;
    match (answer.risk_factor, answer.events) {
        (Some(raw), None) => factor(raw),
        (None, Some(events)) => {
            let today = now.to_zoned(TimeZone::UTC).date();
            let mut highest = 0;
            for event in events {
                let date: Option<Date> = match event.date.as_deref() {
                    None => None,
                    Some(text) => Some(
                        text.get(..10)
                            .and_then(|day| day.parse().ok())
                            .ok_or_else(|| wrong("an event has no date that can be read"))?,
                    ),
                };
                let factor = factor(event.risk_factor)?;
                if date.is_none_or(|date| date >= today) {
                    highest = highest.max(factor);
                }
            }
            Ok(highest)
        }
        _ => Err(wrong("it must have either risk_factor or events")),
    }
}

fn factor(raw: &RawValue) -> Result<u8, FeedError> {
    let whole = number(raw, 0).and_then(|value| u8::try_from(value).ok());
    whole.filter(|factor| *factor <= 10).ok_or_else(|| {
        FeedError::Answer(format!(
            "{} is no whole number from 0 to 10",
            super::super::head(raw.get())
        ))
    })
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FeedError> {
    if bytes.is_empty() {
        return Err(FeedError::Empty);
    }
    serde_json::from_slice(bytes).map_err(|error| FeedError::Answer(error.to_string()))
}

fn wrong(why: &str) -> FeedError {
    FeedError::Answer(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_exactly_or_refused() {
        let read = |text: &str| index(text.as_bytes(), &FeedLimits::default()).ok();
        assert_eq!(read(r#"{"value":18.7}"#), Some(1_870_000_000));
        assert_eq!(
            read(r#"{"volatility":"18.7","more":1}"#),
            Some(1_870_000_000)
        );
        for name in ["value", "volatility", "volatility_index", "index", "vix"] {
            let answer = format!(r#"{{"ticker":"GME","{name}":85.7}}"#);
            assert_eq!(read(&answer), Some(8_570_000_000), "{answer}");
        }
        for bad in [
            "",
            "{}",
            "18.7",
            r#"{"value":18.7,"volatility":18.7}"#,
            r#"{"volatility_index":18.7,"volatility":18.7}"#,
            r#"{"value":1e400}"#,
            r#"{"value":-1}"#,
            r#"{"value":0}"#,
            r#"{"value":200.1}"#,
            r#"{"value":NaN}"#,
            r#"{"value":null}"#,
            r#"{"value":1,"value":2}"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_factor_is_a_whole_number_or_the_highest_of_what_is_coming() {
        let now = "2025-07-01T12:00:00Z".parse().unwrap();
        let read = |text: &str| risk(text.as_bytes(), now).ok();
        assert_eq!(read("7"), Some(7));
        assert_eq!(read(r#"{"risk_factor":10}"#), Some(10));
        assert_eq!(read(r#"{"factor":"3"}"#), Some(3));
        assert_eq!(
            read(
                r#"{"events":[{"date":"2025-06-30","risk_factor":9},{"date":"2025-07-01T16:00:00Z","risk_factor":4}]}"#
            ),
            Some(4)
        );
        assert_eq!(read(r#"{"events":[]}"#), Some(0));
        for bad in [
            "",
            "11",
            "-1",
            "7.5",
            "1e400",
            "{}",
            "[]",
            r#"{"risk_factor":null}"#,
            r#"{"events":[{"risk_factor":11}]}"#,
            r#"{"events":[{"date":"x","risk_factor":1}]}"#,
            r#"{"risk_factor":1,"events":[]}"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
