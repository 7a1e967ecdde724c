//! An earnings calendar, `symbol,name,reportDate,fiscalDateEnding,estimate,currency`: who reports on which day. What a coming day
//! is worth as a risk factor is decided when a price is made, by the rule in `calculation::event_risk`.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::{EventRow, FeedError, Quarantined, head, lines, refuse_mostly_bad, split_csv};

const HEADER: &str = "symbol,name,reportDate,fiscalDateEnding,estimate,currency";
/// Nobody announces earlier, and no old calendar is of use.
const YEARS: i64 = 2;

#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) rows: Vec<EventRow>,
    pub(super) quarantined: Vec<Quarantined>,
}

pub(super) fn parse(bytes: &[u8], now: Timestamp) -> Result<Parsed, FeedError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = lines(&text);
    let (line, header) = lines.next().ok_or(FeedError::Empty)?;
    if header != HEADER {
        return Err(FeedError::Header {
            line,
            expected: HEADER,
            found: head(header),
        });
    }
    let mut parsed = Parsed::default();
    let mut seen = HashSet::new();
    for (line, row) in lines {
        match read_row(row, now) {
            Ok(event) if seen.insert((event.ticker.clone(), event.date)) => parsed.rows.push(event),
            other => parsed.quarantined.push(Quarantined {
                line,
                reason: other.err().unwrap_or("event_repeated"),
                row: row.to_owned(),
            }),
        }
    }
    refuse_mostly_bad(parsed.rows.len(), &parsed.quarantined)?;
    Ok(parsed)
}

fn read_row(row: &str, now: Timestamp) -> Result<EventRow, &'static str> {
    let fields = split_csv(row).ok_or("row_malformed")?;
    let [symbol, _name, date, _fiscal, _estimate, _currency] = &fields[..] else {
        return Err("row_malformed");
    };
    let symbol = symbol.trim();
    if symbol.is_empty() {
        return Err("symbol_missing");
    }
    if !crate::api_gateway::is_ticker(symbol) {
        return Err("symbol_malformed");
    }
    let date: jiff::civil::Date = match date.trim() {
        text if text.len() == 10 => text.parse().map_err(|_| "date_malformed")?,
        _ => return Err("date_malformed"),
    };
    let today = now.to_zoned(TimeZone::UTC).date();
    let years = Span::new().years(YEARS);
    let within = |limit: Result<jiff::civil::Date, jiff::Error>, ahead: bool| {
        limit.is_ok_and(|limit| if ahead { date <= limit } else { date >= limit })
    };
    if !within(today.checked_add(years), true) || !within(today.checked_sub(years), false) {
        return Err("date_out_of_range");
    }
    Ok(EventRow {
        ticker: symbol.to_owned(),
        date,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rows: &str, expected: &str) {
        let now = "2025-07-01T12:00:00Z".parse().unwrap();
        let text = format!("{HEADER}\n{rows}");
        let found = match parse(text.as_bytes(), now) {
            Err(error) => error.to_string(),
            Ok(parsed) => parsed
                .rows
                .iter()
                .map(|row| format!("{} {}", row.ticker, row.date))
                .chain(
                    parsed
                        .quarantined
                        .iter()
                        .map(|row| format!("{}: {}", row.line, row.reason)),
                )
                .collect::<Vec<_>>()
                .join("; "),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn days_are_read_and_odd_rows_kept_aside() {
        check(
            "GME,GAMESTOP,2025-07-03,2025-06-30,0.1,USD\nAMC,\"AMC, INC\",2025-07-30,2025-06-30,,USD\nGME,GAMESTOP,2025-07-03,2025-06-30,0.1,USD\n\
             ,X,2025-07-03,,,USD\nJPM,J,2025-07-08,,,USD\nV,V,2025-07-09,,,USD\nAAPL,A,2199-01-01,,,USD\nMSFT,M,07/03/2025,,,USD\n",
            "GME 2025-07-03; AMC 2025-07-30; JPM 2025-07-08; V 2025-07-09; 4: event_repeated; 5: symbol_missing; 8: date_out_of_range; \
             9: date_malformed",
        );
        check("", "the file is empty; send the feed's own file unchanged");
    }
}
