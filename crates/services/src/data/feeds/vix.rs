//! The Cboe VIX history: `DATE,OPEN,HIGH,LOW,CLOSE`, one trading day a row; the close counts.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::columns::{Column, Layout, Slashes, date, optional, required};
use super::{FeedError, QuarantinedRow, VolatilityRow, lines, refuse_mostly_bad, scaled};
use crate::market::FeedLimits;

/// In the order in which a row is taken apart.
const COLUMNS: [Column; 4] = [
    required("DATE", &["Trade Date"]),
    optional("HIGH", &["VIX High"]),
    optional("LOW", &["VIX Low"]),
    required("CLOSE", &["VIX Close", "Close/Last"]),
];

// The index closes at 16:15 in New York; 21:15 UTC is never before it.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    pub(super) rows: Vec<VolatilityRow>,
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
    let rows: Vec<(usize, &str, Option<[String; 4]>)> = lines
        .map(|(line, row)| (line, row, layout.row(row)))
        .collect();
    let dates = rows
        .iter()
        .flat_map(|(_, _, cells)| cells)
        .map(|cells| cells[0].as_str());
    let slashes = match Slashes::of(dates) {
        // Cboe's own order.
        Slashes::Unknown => Slashes::MonthFirst,
        known => known,
    };
    let mut parsed = ParsedFile::default();
    let mut seen = HashSet::new();
    for (line, row, cells) in rows {
        match read_row(cells, slashes, now, limits).and_then(|row| {
            if seen.insert(row.valid_at) {
                Ok(row)
            } else {
                Err("date_repeated")
            }
        }) {
            Ok(row) => parsed.rows.push(row),
            Err(reason) => parsed
                .quarantined
                .push(QuarantinedRow::unread(line, reason, row)),
        }
    }
    refuse_mostly_bad(parsed.rows.len(), &parsed.quarantined)?;
    Ok(parsed)
}

fn read_row(
    cells: Option<[String; 4]>,
    slashes: Slashes,
    now: Timestamp,
    limits: &FeedLimits,
) -> Result<VolatilityRow, &'static str> {
    let [day, high, low, close] = cells.ok_or("row_malformed")?;
    let valid_at = close_time(&day, slashes).ok_or("date_malformed")?;
    // Today's close may be on its way to us; tomorrow's is not.
    if valid_at.as_second() > now.as_second() + 24 * 3600 {
        return Err("date_in_the_future");
    }
    // Six decimals are what the feed has and what an index holds.
    let value = |text: &str| {
        scaled(text, 6)
            .map(|value| value * 100)
            .ok_or("index_malformed")
    };
    let close = value(&close)?;
    // A file that was made for its closes alone has no others.
    let bound = |text: &str| match text {
        "" => Ok(close),
        text => value(text),
    };
    let (high, low) = (bound(&high)?, bound(&low)?);
    if close < 0 {
        return Err("index_negative");
    }
    if close == 0 || close < low || close > high {
        return Err("index_outside_the_day");
    }
    if close > i64::from(limits.index_max) * 100_000_000 {
        return Err("index_too_high");
    }
    Ok(VolatilityRow {
        subject: "MARKET".to_owned(),
        valid_at,
        index: close,
    })
}

/// `2025-06-30`, or as Cboe's own download and spreadsheets write it: `06/30/2025`, `6/30/2025`.
fn close_time(text: &str, slashes: Slashes) -> Option<Timestamp> {
    let close = date(text, slashes)?.at(21, 15, 0, 0);
    Some(close.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let now = "2025-07-01T12:00:00Z".parse().unwrap();
        let found = match parse(text.as_bytes(), now, &FeedLimits::default()) {
            Err(error) => error.to_string(),
            Ok(parsed) => {
                let rows = parsed.rows.iter().map(|row| {
                    format!(
                        "{} {}",
                        row.valid_at,
                        super::super::eight_decimals(row.index)
                    )
                });
                rows.chain(
                    parsed
                        .quarantined
                        .iter()
                        .map(|row| format!("{}: {}", row.line, row.reason)),
                )
                .collect::<Vec<_>>()
                .join("; ")
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn closes_are_read_and_odd_rows_kept_aside() {
        check(
            "DATE,OPEN,HIGH,LOW,CLOSE\n2025-06-27,16.1,17,16,16.5\n06/30/2025,16.55,17,16,16.73\n",
            "2025-06-27T21:15:00Z 16.50000000; 2025-06-30T21:15:00Z 16.73000000",
        );
        check(
            "DATE,OPEN,HIGH,LOW,CLOSE\n2025-06-24,1,1,1,1\n2025-06-25,1,1,1,1\n2025-06-26,1,1,1,1\n2025-06-26,1,1,1,1\n2025-06-27,1,2,1,NaN\n2031-06-30,1,1,1,1",
            "2025-06-24T21:15:00Z 1.00000000; 2025-06-25T21:15:00Z 1.00000000; 2025-06-26T21:15:00Z 1.00000000; 5: date_repeated; \
             6: index_malformed; 7: date_in_the_future",
        );
    }

    #[test]
    fn a_file_that_was_changed_on_its_way_is_read_all_the_same() {
        let expected = "2025-06-26T21:15:00Z 16.59000000; 2025-07-01T21:15:00Z 16.83000000";
        for text in [
            "Provided as is; see the terms.\nDATE,OPEN,HIGH,LOW,CLOSE\n06/26/2025,16.9,17.1,16.4,16.59\n07/01/2025,17,18,16,16.83\n",
            "DATE,OPEN,HIGH,LOW,CLOSE,VOLUME\n06/26/2025,16.9,17.1,16.4,16.59,0\n07/01/2025,17,18,16,16.83,0\n",
            "Date,VIX Open,VIX High,VIX Low,VIX Close\n06/26/2025,16.9,17.1,16.4,16.59\n07/01/2025,17,18,16,16.83\n",
            "DATE,OPEN,HIGH,LOW,CLOSE\n6/26/2025,16.9,17.1,16.4,16.59\n7/1/2025,17,18,16,16.83\n,,,,\n\n,,,,\n",
            "sep=;\nCLOSE;DATE\n16.59;26/06/2025\n16.83;01/07/2025\n",
        ] {
            check(text, expected);
        }
        check(
            "DATE,OPEN,HIGH,LOW\n06/26/2025,1,1,1\n",
            "line 1: the columns CLOSE are missing; found: \"DATE,OPEN,HIGH,LOW\". Columns are found by name, in any order, others beside them",
        );
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        check("", "the file is empty; send the feed's own file unchanged");
        check(
            "DATE,OPEN,HIGH,LOW,CLOSE\n",
            "the file is empty; send the feed's own file unchanged",
        );
        check(
            "<html>",
            "line 1: the columns DATE, CLOSE are missing; found: \"<html>\". Columns are found by name, in any order, others beside them",
        );
        check(
            "DATE,OPEN,HIGH,LOW,CLOSE\n2025-06-27,16.1,17,16,99\n",
            "1 of 1 rows failed their checks (index_outside_the_day: 1), more than half: the file as a whole is not believed",
        );
    }
}
