//! The Cboe VIX history: `DATE,OPEN,HIGH,LOW,CLOSE`, one trading day a row; the close counts.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{FeedError, FeedLimits, Quarantined, VolatilityRow, head, refuse_mostly_bad, scaled};

// The index closes at 16:15 in New York; 21:15 UTC is never before it.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) rows: Vec<VolatilityRow>,
    pub(super) quarantined: Vec<Quarantined>,
}

pub(super) fn parse(
    bytes: &[u8],
    now: Timestamp,
    limits: &FeedLimits,
) -> Result<Parsed, FeedError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    let (line, header) = lines.next().ok_or(FeedError::Empty)?;
    if !header.eq_ignore_ascii_case("DATE,OPEN,HIGH,LOW,CLOSE") {
        let found = head(header);
        return Err(FeedError::Header {
            line,
            expected: "DATE,OPEN,HIGH,LOW,CLOSE",
            found,
        });
    }
    let mut parsed = Parsed::default();
    let mut seen = HashSet::new();
    for (line, row) in lines.filter(|(_, row)| !row.is_empty()) {
        match read_row(row, now, limits).and_then(|row| {
            if seen.insert(row.valid_at) {
                Ok(row)
            } else {
                Err("date_repeated")
            }
        }) {
            Ok(row) => parsed.rows.push(row),
            Err(reason) => parsed.quarantined.push(Quarantined {
                line,
                reason,
                row: row.to_owned(),
            }),
        }
    }
    refuse_mostly_bad(parsed.rows.len(), &parsed.quarantined)?;
    Ok(parsed)
}

fn read_row(row: &str, now: Timestamp, limits: &FeedLimits) -> Result<VolatilityRow, &'static str> {
    let fields: Vec<&str> = row.split(',').map(str::trim).collect();
    let [date, open, high, low, close] = fields[..] else {
        return Err("row_malformed");
    };
    let valid_at = close_time(date).ok_or("date_malformed")?;
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
    let (_, high, low, close) = (value(open)?, value(high)?, value(low)?, value(close)?);
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

/// `2025-06-30`, or as Cboe's own download writes it `06/30/2025`.
fn close_time(text: &str) -> Option<Timestamp> {
    let date: Date = match text.split('/').collect::<Vec<_>>()[..] {
        [month, day, year] => format!("{year}-{month}-{day}").parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(
        date.at(21, 15, 0, 0)
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp(),
    )
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
    fn a_file_that_is_something_else_is_refused() {
        check("", "the file is empty; send the feed's own file unchanged");
        check(
            "DATE,OPEN,HIGH,LOW,CLOSE\n",
            "the file is empty; send the feed's own file unchanged",
        );
        check(
            "<html>",
            "line 1: expected DATE,OPEN,HIGH,LOW,CLOSE, found \"<html>\"; send the feed's own file unchanged",
        );
        check(
            "DATE,OPEN,HIGH,LOW,CLOSE\n2025-06-27,16.1,17,16,99\n",
            "1 of 1 rows failed their checks (index_outside_the_day: 1), more than half: the file as a whole is not believed",
        );
    }
}
