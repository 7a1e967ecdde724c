//! An earnings calendar, `symbol,name,reportDate,fiscalDateEnding,estimate,currency`: who reports on which day. What a coming day
//! is worth as a risk factor is decided when a price is made, by the rule in `calculation::event_risk`.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::columns::{Column, Layout, Slashes, date, required};
use super::{EventRow, FeedError, QuarantinedRow, lines, names, refuse_mostly_bad};

/// In the order in which a row is taken apart; what else there is (name, estimate …) says nothing of the risk.
const COLUMNS: [Column; 2] = [
    required("symbol", &["ticker"]),
    required("reportDate", &["date", "earningsDate"]),
];
/// Nobody announces earlier, and no old calendar is of use.
const YEARS: i64 = 2;

#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    /// By the feed's own symbols.
    pub(super) rows: Vec<(usize, EventRow, String)>,
    pub(super) quarantined: Vec<QuarantinedRow>,
}

pub(super) fn parse(bytes: &[u8], now: Timestamp) -> Result<ParsedFile, FeedError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = lines(&text);
    let layout = Layout::find(&mut lines, &COLUMNS)?;
    let rows: Vec<(usize, &str, Option<[String; 2]>)> = lines
        .map(|(line, row)| (line, row, layout.row(row)))
        .collect();
    let dates = rows
        .iter()
        .flat_map(|(_, _, cells)| cells)
        .map(|cells| cells[1].as_str());
    let slashes = Slashes::of(dates);
    let mut parsed = ParsedFile::default();
    let mut seen = HashSet::new();
    for (line, row, cells) in rows {
        match read_row(cells, slashes, now) {
            Ok(event) if seen.insert((event.ticker.clone(), event.date)) => {
                parsed.rows.push((line, event, row.to_owned()));
            }
            other => {
                let reason = other.err().unwrap_or("event_repeated");
                parsed
                    .quarantined
                    .push(QuarantinedRow::unread(line, reason, row));
            }
        }
    }
    refuse_mostly_bad(parsed.rows.len(), &parsed.quarantined)?;
    Ok(parsed)
}

fn read_row(
    cells: Option<[String; 2]>,
    slashes: Slashes,
    now: Timestamp,
) -> Result<EventRow, &'static str> {
    let [symbol, day] = cells.ok_or("row_malformed")?;
    let symbol = names::symbol(&symbol)?;
    let date = date(&day, slashes).ok_or("date_malformed")?;
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

    const HEADER: &str = "symbol,name,reportDate,fiscalDateEnding,estimate,currency";

    #[track_caller]
    fn check(rows: &str, expected: &str) {
        let now = "2025-07-01T12:00:00Z".parse().unwrap();
        let text = format!("{HEADER}\n{rows}");
        let found = match parse(text.as_bytes(), now) {
            Err(error) => error.to_string(),
            Ok(parsed) => parsed
                .rows
                .iter()
                .map(|(_, row, _)| format!("{} {}", row.ticker, row.date))
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

    #[test]
    fn a_calendar_that_was_changed_on_its_way_is_read_all_the_same() {
        let now = "2025-07-01T12:00:00Z".parse().unwrap();
        for text in [
            "A calendar, as is\nticker,earningsDate\nBRK-B,8/2/2025\nBF-B,8/28/2025\n",
            "reportDate;symbol;more\n2025-08-02;BRK-B;x\n2025-08-28;BF-B;\n;;\n",
        ] {
            let parsed = parse(text.as_bytes(), now).unwrap();
            let found: Vec<String> = parsed
                .rows
                .iter()
                .map(|(_, row, _)| format!("{} {}", row.ticker, row.date))
                .collect();
            assert_eq!(found, ["BRK-B 2025-08-02", "BF-B 2025-08-28"], "{text}");
        }
        let error = parse(b"symbol,name\nGME,G\n", now).unwrap_err().to_string();
        assert!(
            error.starts_with("line 1: the columns reportDate are missing"),
            "{error}"
        );
    }
}
