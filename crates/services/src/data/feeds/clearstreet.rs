//! Clear Street's indicative rates, `ETF,borrow_rate_pct,rate_id,timestamp,…`: percent a year with the sign of a rebate, so that the
//! borrower pays what is negative. A positive one is money to the borrower: no borrow rate of ours, and set aside.

use jiff::Timestamp;

use super::columns::{Column, Layout, required};
use super::{FeedError, QuarantinedRow, RateRow, lines, names, refuse_mostly_bad, scaled};
use crate::market::FeedLimits;

/// In the order in which a row is taken apart.
const COLUMNS: [Column; 3] = [
    required("ETF", &["symbol", "ticker"]),
    required("borrow_rate_pct", &["borrow_rate_percent"]),
    required("timestamp", &["time"]),
];

#[derive(Debug)]
pub(super) struct ParsedFile {
    /// Of the newest row.
    pub(super) valid_at: Timestamp,
    pub(super) rows: Vec<RateRow>,
    pub(super) quarantined: Vec<QuarantinedRow>,
}

pub(super) fn parse(
    bytes: &[u8],
    now: Timestamp,
    limits: &FeedLimits,
) -> Result<ParsedFile, FeedError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = lines(&text);
    let layout = Layout::find(&mut lines, &COLUMNS)?;
    let mut newest = None;
    let (mut rows, mut quarantined) = (Vec::new(), Vec::new());
    for (line, row) in lines {
        match read_row(&layout, line, row) {
            Ok((rate, at)) => {
                newest = newest.max(Some(at));
                rows.push(rate);
            }
            Err(reason) => {
                let symbol = layout.row(row).and_then(|[symbol]: [String; 1]| {
                    names::symbol(&symbol).ok().map(str::to_owned)
                });
                quarantined.push(QuarantinedRow::silent(line, reason, row, symbol));
            }
        }
    }
    refuse_mostly_bad(rows.len(), &quarantined)?;
    let valid_at = newest.ok_or(FeedError::Empty)?;
    super::not_ahead(valid_at, now, limits)?;
    Ok(ParsedFile {
        valid_at,
        rows,
        quarantined,
    })
}

fn read_row(layout: &Layout, line: usize, row: &str) -> Result<(RateRow, Timestamp), &'static str> {
    let [symbol, percent, time] = layout.row(row).ok_or("row_malformed")?;
    let symbol = names::symbol(&symbol)?;
    if percent.is_empty() {
        return Err("rate_not_available");
    }
    // Percent with 6 decimals is a fraction with 8: the same integer.
    let rebate = scaled(&percent, 6).ok_or("rate_malformed")?;
    if rebate > 0 {
        return Err("rate_negative");
    }
    let at: Timestamp = time.parse().map_err(|_| "time_malformed")?;
    let rate = RateRow {
        line,
        row: row.to_owned(),
        ticker: symbol.to_owned(),
        symbol: symbol.to_owned(),
        currency: "USD".to_owned(),
        rate: -rebate,
        ..RateRow::default()
    };
    Ok((rate, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "ETF,borrow_rate_pct,rate_id,timestamp,indicative_rate_expiry,raw_security,raw_security_type";

    #[test]
    fn the_sign_is_turned_and_the_newest_time_counts() {
        let check = |rows: &str, expected: &str| {
            let now = "2026-04-08T00:00:00Z".parse().unwrap();
            let text = format!("{HEADER}\n{rows}");
            let found = match parse(text.as_bytes(), now, &FeedLimits::default()) {
                Err(error) => error.to_string(),
                Ok(parsed) => {
                    let rates = parsed.rows.iter().map(|row| {
                        format!("{} {}", row.ticker, super::super::eight_decimals(row.rate))
                    });
                    let aside = parsed
                        .quarantined
                        .iter()
                        .map(|row| format!("{}: {}", row.line, row.reason));
                    let rows: Vec<String> = rates.chain(aside).collect();
                    format!("{}: {}", parsed.valid_at, rows.join("; "))
                }
            };
            assert_eq!(found, expected);
        };
        check(
            "AALG,-10.5354,f3ab,2026-04-07T14:35:35.249392-04:00,2026-04-07T22:00:00-04:00,AALG,TICKER\n\
             AAOX,-0.25,f3ab,2026-04-07T14:35:34-04:00,2026-04-07T22:00:00-04:00,AAOX,TICKER\n\
             AAPU,0.5,f3ab,2026-04-07T14:35:34-04:00,2026-04-07T22:00:00-04:00,AAPU,TICKER\n",
            "2026-04-07T18:35:35.249392Z: AALG 0.10535400; AAOX 0.00250000; 4: rate_negative",
        );
        check(
            "AALG,-10.5354,f3ab,2026-04-09T14:35:35-04:00,x,AALG,TICKER\n",
            "the file's time 2026-04-09T18:35:35Z lies in the future; check the feed's clock",
        );
    }
}
