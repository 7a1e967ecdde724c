//! Stocks and their minimum rates, as an operator writes them: `ticker,minimum_rate,valid_from,valid_to`. Taken whole or not at all.

use std::collections::HashSet;

use jiff::Timestamp;
use pricing::Rate;

use super::FeedError;
use super::columns::{Column, required};
use super::operator::{table, wrong};
use crate::data::stocks::StockTerms;
use crate::domain::digits::Digits;
use crate::market::MinimumRate;

const STOCKS: [Column; 4] = [
    required("ticker", &[]),
    required("minimum_rate", &[]),
    required("valid_from", &[]),
    required("valid_to", &[]),
];
pub(crate) const MINIMUM_RULE: &str =
    "must be a plain decimal fraction a year from 0 to 50 (0.05 is 5 %), with at most 8 decimals";
pub(crate) const MOMENT_RULE: &str =
    "must be a time with its offset, such as 2026-12-01T09:30:00-05:00";

/// A rate that a stock's minimum may be.
pub(crate) fn minimum(digits: &Digits) -> Option<Rate> {
    let rate: Rate = digits.parse()?;
    (rate >= Rate::ZERO && rate <= Rate::whole(50)).then_some(rate)
}

/// From 1970 on: what lies before is plainly a mistake.
pub(crate) fn moment(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    (time >= Timestamp::UNIX_EPOCH).then(|| time.as_microsecond())
}

/// `valid_at`: from when on a line counts that does not say so.
pub(super) fn stocks(
    bytes: &[u8],
    valid_at_micros: i64,
    known_at_micros: i64,
) -> Result<Vec<StockTerms>, FeedError> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (line, [ticker, rate, from, to]) in table(bytes, STOCKS)? {
        if !crate::domain::identifiers::is_ticker(&ticker) {
            return Err(wrong(line, format!("ticker {ticker:?} is not a ticker")));
        }
        let time = |name: &str, text: &str| match text {
            "" => Ok(None),
            text => moment(text)
                .map(Some)
                .ok_or_else(|| wrong(line, format!("{name} {MOMENT_RULE}, or empty"))),
        };
        let from = time("valid_from", &from)?;
        let to = time("valid_to", &to)?;
        let begin = from.unwrap_or(valid_at_micros);
        if to.is_some_and(|end| end <= begin) {
            return Err(wrong(line, "valid_to must be after valid_from"));
        }
        let minimum = match rate.as_str() {
            "" if from.is_none() && to.is_none() => None,
            "" => {
                return Err(wrong(line, "a time without a minimum_rate says nothing"));
            }
            text => {
                let digits = Digits::of_text(text)
                    .map_err(|ambiguous| wrong(line, format!("minimum_rate {ambiguous}")))?;
                let rate = minimum(&digits)
                    .ok_or_else(|| wrong(line, format!("minimum_rate {MINIMUM_RULE}, or empty")))?;
                Some(MinimumRate {
                    minimum_rate: rate,
                    valid_from_micros: begin,
                    valid_to_micros: to,
                    known_at_micros,
                })
            }
        };
        if !seen.insert((ticker.clone(), begin)) {
            let message = format!("{ticker} has another line that begins then");
            return Err(wrong(line, message));
        }
        all.push(StockTerms { ticker, minimum });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rows: &str, expected: &str) {
        let found = match stocks(
            format!("ticker,minimum_rate,valid_from,valid_to\n{rows}").as_bytes(),
            7,
            8,
        ) {
            Ok(all) => all
                .iter()
                .map(|terms| terms.words().to_string())
                .collect::<Vec<_>>()
                .join("; "),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn stocks_are_taken_whole_or_not_at_all() {
        check(
            "GME,0.05,2026-12-01T09:30:00-05:00,2026-12-31T00:00:00Z\n",
            r#"{"minimum_rate":"0.05000000","ticker":"GME","valid_from":"2026-12-01T14:30:00.000000Z","valid_to":"2026-12-31T00:00:00.000000Z"}"#,
        );
        check(
            "BRK.B,,,\nGME,0,,\n",
            r#"{"minimum_rate":null,"ticker":"BRK.B","valid_from":null,"valid_to":null}; {"minimum_rate":"0.00000000""#,
        );
        for (rows, expected) in [
            ("gme,0.05,,", "line 2: ticker \"gme\" is not a ticker"),
            ("GME,5%,,", "line 2: minimum_rate must be a plain decimal"),
            (
                "GME,1.000,,",
                "line 2: minimum_rate was sent as text, and 1.000 can be read",
            ),
            ("GME,51,,", "line 2: minimum_rate must be a plain decimal"),
            (
                "GME,0.05,2026-12-01,",
                "line 2: valid_from must be a time with its offset",
            ),
            (
                "GME,0.05,2026-12-01T00:00:00Z,2026-12-01T00:00:00Z",
                "line 2: valid_to must be after",
            ),
            (
                "GME,,2026-12-01T00:00:00Z,",
                "line 2: a time without a minimum_rate",
            ),
            ("GME,0.05", "line 2: it does not have the 4 columns"),
            (
                "GME,0.05,,\nGME,0.06,,",
                "line 3: GME has another line that begins then",
            ),
            ("", "the file is empty"),
        ] {
            check(rows, expected);
        }
    }
}
