//! A SecLend-type answer: `{"rate":0.15,"status":"HARD"}` for one ticker; for many an array of such objects that name their
//! `ticker`, or an object that holds the array as `borrows`. Other names that such services have for the same are known. Rates are fractions a year. Unknown members are passed over.

use pricing::BorrowStatus;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::number;
use super::{FeedError, QuarantinedRow, RateRow, names, refuse_mostly_bad};
use crate::domain::identifiers::{class_key, is_currency};
use crate::domain::text_number::ambiguity;

const CURRENCY: &str = "USD";

#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    pub(super) rows: Vec<RateRow>,
    pub(super) quarantined: Vec<QuarantinedRow>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, alias = "rates", alias = "data", alias = "results")]
    borrows: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Borrow<'a> {
    #[serde(alias = "symbol")]
    ticker: Option<String>,
    #[serde(borrow, alias = "borrow_rate", alias = "current_rate")]
    rate: Option<&'a RawValue>,
    #[serde(alias = "borrow_status")]
    status: Option<String>,
    currency: Option<String>,
    #[serde(borrow)]
    available: Option<&'a RawValue>,
}

/// `ticker`: the one that was asked for, where the answer is for one.
pub(super) fn parse(bytes: &[u8], ticker: Option<&str>) -> Result<ParsedFile, FeedError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| FeedError::Answer("it is not UTF-8 text".to_owned()))?
        .trim();
    if text.is_empty() {
        return Err(FeedError::Empty);
    }
    let not_json = |error: serde_json::Error| FeedError::Answer(error.to_string());
    let items: Vec<&RawValue> = match ticker {
        Some(_) => vec![serde_json::from_str(text).map_err(not_json)?],
        None if text.starts_with('[') => serde_json::from_str(text).map_err(not_json)?,
        None => {
            serde_json::from_str::<Batch<'_>>(text)
                .map_err(not_json)?
                .borrows
        }
    };
    let mut parsed = ParsedFile::default();
    for (index, item) in items.into_iter().enumerate() {
        match read(item.get(), ticker) {
            Ok(row) => parsed.rows.push(RateRow {
                line: index + 1,
                row: item.get().to_owned(),
                ..row
            }),
            Err(reason) => {
                let symbol = symbol_of(item.get(), ticker);
                let line = index + 1;
                parsed
                    .quarantined
                    .push(QuarantinedRow::silent(line, reason, item.get(), symbol));
            }
        }
    }
    refuse_mostly_bad(parsed.rows.len(), &parsed.quarantined)?;
    Ok(parsed)
}

/// Of a row whose rate cannot be used.
fn symbol_of(item: &str, asked: Option<&str>) -> Option<String> {
    let borrow: Borrow<'_> = serde_json::from_str(item).ok()?;
    let named = borrow.ticker.or_else(|| asked.map(str::to_owned))?;
    names::symbol(&named).ok().map(str::to_owned)
}

/// A feed may spell the class of a share in its own way.
pub(super) fn is_same(named: &str, asked: &str) -> bool {
    named == asked || class_key(named) == class_key(asked)
}

fn read(item: &str, asked: Option<&str>) -> Result<RateRow, &'static str> {
    let borrow: Borrow<'_> = serde_json::from_str(item).map_err(|_| "row_malformed")?;
    let symbol = match (borrow.ticker, asked) {
        (Some(named), Some(asked)) if !is_same(&named, asked) => {
            return Err("ticker_not_asked_for");
        }
        (Some(named), _) => named,
        (None, Some(asked)) => asked.to_owned(),
        (None, None) => return Err("symbol_missing"),
    };
    let symbol = names::symbol(&symbol)?.to_owned();
    let rate = borrow.rate.ok_or("rate_not_available")?;
    if rate.get() == "null" {
        return Err("rate_not_available");
    }
    let rate = number(rate, 8).ok_or("rate_malformed")?;
    if rate < 0 {
        return Err("rate_negative");
    }
    let status = match borrow.status.as_deref() {
        None | Some("") => None,
        Some(word) => Some(
            word.parse::<BorrowStatus>()
                .map_err(|_| "status_malformed")?,
        ),
    };
    let currency = borrow.currency.unwrap_or_else(|| CURRENCY.to_owned());
    if !is_currency(&currency) {
        return Err("currency_malformed");
    }
    let available = match borrow.available {
        None => None,
        Some(raw) if raw.get() == "null" => None,
        // A string is text, a number is not.
        Some(raw)
            if ambiguity(raw.get().trim_matches('"')).is_some() && raw.get().starts_with('"') =>
        {
            return Err("availability_ambiguous");
        }
        Some(raw) => Some(
            number(raw, 0)
                .filter(|count| *count >= 0)
                .ok_or("availability_malformed")?,
        ),
    };
    Ok(RateRow {
        ticker: symbol.clone(),
        symbol,
        currency,
        rate,
        available,
        status,
        ..RateRow::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, ticker: Option<&str>, expected: &str) {
        let found = match parse(text.as_bytes(), ticker) {
            Err(error) => error.to_string(),
            Ok(parsed) => parsed
                .rows
                .iter()
                .map(|row| {
                    format!(
                        "{} {} {:?}",
                        row.ticker,
                        super::super::eight_decimals(row.rate),
                        row.status
                    )
                })
                .chain(
                    parsed
                        .quarantined
                        .iter()
                        .map(|row| format!("{}: {}", row.line, row.reason)),
                )
                .collect::<Vec<_>>()
                .join("; "),
        };
        assert!(found.starts_with(expected), "{text}: {found}");
    }

    #[test]
    fn answers_for_one_and_for_many() {
        check(
            r#"{"rate":0.15,"status":"HARD"}"#,
            Some("GME"),
            "GME 0.15000000 Some(Hard)",
        );
        check(r#"{"rate":"0.15"}"#, Some("GME"), "GME 0.15000000 None");
        check(
            r#"{"borrows":[{"ticker":"GME","rate":0.15,"more":[1]},{"ticker":"AMC","rate":1e-3,"status":"EASY"}],"page":1}"#,
            None,
            "GME 0.15000000 None; AMC 0.00100000 Some(Easy)",
        );
        check(
            r#"[{"ticker":"GME","rate":0.15},{"ticker":"AMC","rate":1e-3},{"ticker":"V","rate":0.1},{"ticker":"A","rate":1e400},{"ticker":"B","rate":-0.1},
                {"rate":0.1}]"#,
            None,
            "GME 0.15000000 None; AMC 0.00100000 None; V 0.10000000 None; 4: rate_malformed; 5: rate_negative; 6: symbol_missing",
        );
    }

    #[test]
    fn other_spellings_of_the_same_answer_are_read() {
        check(
            r#"{"rates":[{"symbol":"GME","borrow_rate":0.15,"borrow_status":"HARD"}]}"#,
            None,
            "GME 0.15000000 Some(Hard)",
        );
        check(
            r#"{"data":[{"ticker":"GME","current_rate":0.15}]}"#,
            None,
            "GME 0.15000000 None",
        );
        check(
            r#"{"rate":0.15,"borrow_rate":15}"#,
            Some("GME"),
            "1 of 1 rows failed their checks (row_malformed: 1)",
        );
    }

    #[test]
    fn a_count_that_two_people_read_differently_is_set_aside_when_it_is_text() {
        let one = |available: &str| format!(r#"{{"rate":0.15,"available":{available}}}"#);
        let check = |available: &str, expected: &str| check(&one(available), Some("GME"), expected);
        check("1.000", "GME 0.15000000");
        check("\"1000\"", "GME 0.15000000");
        check(
            "\"1.000\"",
            "1 of 1 rows failed their checks (availability_ambiguous: 1)",
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        check("", None, "the file is empty");
        check("<html>", None, "the answer is not what this feed sends");
        check(
            "{}",
            None,
            "the answer is not what this feed sends: missing field",
        );
        check("[]", None, "the file is empty");
        check(
            "{}",
            Some("GME"),
            "1 of 1 rows failed their checks (rate_not_available: 1)",
        );
        check(
            r#"{"rate":0.1,"rate":10}"#,
            Some("GME"),
            "1 of 1 rows failed their checks (row_malformed: 1)",
        );
        check(
            r#"{"ticker":"AMC","rate":0.1}"#,
            Some("GME"),
            "1 of 1 rows failed their checks (ticker_not_asked_for: 1)",
        );
        check(
            r#"{"rate":0.1,"status":"SOFT"}"#,
            Some("GME"),
            "1 of 1 rows failed their checks (status_malformed: 1)",
        );
    }
}
