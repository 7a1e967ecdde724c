//! A calendar of an exchange: docs/formats/calendar.md. Taken whole or not at all.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};

use super::columns::split;
use super::{FeedError, head, lines};
use crate::market::{Calendar, SpecialDay};

const COLUMNS: &str = "day,trading,settlement,close,session_end,name";
const HEADS: [&str; 7] = [
    "calendar",
    "version",
    "source",
    "first_day",
    "last_day",
    "close",
    "session_end",
];
/// An exchange is closed on some ten weekdays a year; a file that says more has its columns mixed up.
const CLOSED_A_YEAR_MAX: usize = 40;

fn wrong(line: usize, message: impl Into<String>) -> FeedError {
    FeedError::Line {
        line,
        message: message.into(),
    }
}

/// What the file says, whatever day it is read on.
pub(crate) fn read_calendar(bytes: &[u8]) -> Result<Calendar, FeedError> {
    let text = std::str::from_utf8(bytes).map_err(|_| wrong(1, "it is not UTF-8 text"))?;
    let mut heads: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut rows = lines(text).peekable();
    while let Some((line, row)) = rows.next_if(|(_, row)| row.starts_with('#')) {
        let named = row.trim_start_matches('#').trim().split_once(": ");
        let (name, value) = named
            .ok_or_else(|| wrong(line, "it must be `# name: value`, such as `# close: 16:00`"))?;
        if !HEADS.contains(&name) {
            let message = format!("{name:?} is not one of {}", HEADS.join(", "));
            return Err(wrong(line, message));
        }
        if heads.insert(name, (line, value.trim())).is_some() {
            return Err(wrong(line, format!("{name} is there twice")));
        }
    }
    let (line, found) = rows.next().ok_or(FeedError::Empty)?;
    if let Some(missing) = HEADS.iter().find(|name| !heads.contains_key(*name)) {
        let message = format!("`# {missing}: …` is missing before the columns");
        return Err(wrong(line, message));
    }
    if found != COLUMNS {
        return Err(FeedError::Header {
            line,
            expected: COLUMNS,
            found: head(found),
        });
    }
    let text_of = |name: &str| heads.get(name).copied().unwrap_or_default();
    let day_of = |name: &str| {
        let (line, value) = text_of(name);
        day(value).ok_or_else(|| wrong(line, format!("{name} must be a date such as 2030-12-31")))
    };
    let time_of = |name: &str| {
        let (line, value) = text_of(name);
        time(value).ok_or_else(|| wrong(line, format!("{name} must be a time such as 16:00")))
    };
    let mut calendar = Calendar {
        name: label("calendar", text_of("calendar"))?,
        version: label("version", text_of("version"))?,
        source: text_of("source").1.to_owned(),
        first_day: day_of("first_day")?,
        last_day: day_of("last_day")?,
        close: time_of("close")?,
        session_end: time_of("session_end")?,
        days: BTreeMap::new(),
    };
    if calendar.last_day < calendar.first_day {
        return Err(wrong(text_of("last_day").0, "last_day is before first_day"));
    }
    if calendar.session_end < calendar.close {
        let line = text_of("session_end").0;
        return Err(wrong(line, "session_end is before close"));
    }
    for (line, row) in rows {
        let (day, special) = special(line, row, &calendar)?;
        if calendar
            .days
            .last_key_value()
            .is_some_and(|(last, _)| *last >= day)
        {
            let message =
                format!("{day} is not after the day before it: days stand in order, each once");
            return Err(wrong(line, message));
        }
        calendar.days.insert(day, special);
    }
    plausible(&calendar)?;
    Ok(calendar)
}

/// One that has something to say of today.
pub(super) fn importable(bytes: &[u8], now: Timestamp) -> Result<Calendar, FeedError> {
    let calendar = read_calendar(bytes)?;
    calendar
        .trade_date(now.as_microsecond())
        .map_err(|beyond| {
            let message = format!(
                "its days go from {} to {}, and {} is not among them: nothing could be located",
                beyond.first_day, beyond.last_day, beyond.day
            );
            wrong(1, message)
        })?;
    Ok(calendar)
}

fn special(line: usize, row: &str, calendar: &Calendar) -> Result<(Date, SpecialDay), FeedError> {
    let fields = split(row, ',').unwrap_or_default();
    let [date, trading, settlement, close, session_end, name] = &fields[..] else {
        return Err(wrong(
            line,
            format!("it does not have the columns {COLUMNS}"),
        ));
    };
    let date = day(date).ok_or_else(|| wrong(line, "day must be a date such as 2026-12-25"))?;
    if !(calendar.first_day..=calendar.last_day).contains(&date) {
        let message = format!("{date} is not from first_day to last_day");
        return Err(wrong(line, message));
    }
    let yes = |column: &str, text: &str| match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(wrong(line, format!("{column} must be yes or no"))),
    };
    let maybe_time = |column: &str, text: &str| match text {
        "" => Ok(None),
        text => time(text).map(Some).ok_or_else(|| {
            wrong(
                line,
                format!("{column} must be a time such as 13:00, or empty"),
            )
        }),
    };
    let special = SpecialDay {
        trades: yes("trading", trading)?,
        settles: yes("settlement", settlement)?,
        close: maybe_time("close", close)?,
        session_end: maybe_time("session_end", session_end)?,
        name: name.trim().to_owned(),
    };
    let closes = special.close.unwrap_or(calendar.close);
    if special.session_end.unwrap_or(calendar.session_end) < closes {
        return Err(wrong(line, "session_end is before close"));
    }
    if special.close.is_some() && special.session_end.is_none() {
        return Err(wrong(line, "a close of its own needs a session_end"));
    }
    if !special.trades && (special.close.is_some() || special.session_end.is_some()) {
        return Err(wrong(line, "a day without trading has no close"));
    }
    Ok((date, special))
}

fn plausible(calendar: &Calendar) -> Result<(), FeedError> {
    let mut closed: BTreeMap<i16, usize> = BTreeMap::new();
    for (day, special) in &calendar.days {
        let weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        if !weekend && !special.trades {
            *closed.entry(day.year()).or_default() += 1;
        }
    }
    match closed.iter().find(|(_, days)| **days > CLOSED_A_YEAR_MAX) {
        None => Ok(()),
        Some((year, days)) => Err(wrong(
            1,
            format!("it is closed on {days} weekdays of {year}: that is no exchange's calendar"),
        )),
    }
}

/// It is written into the record of what was decided by it.
fn label(name: &str, (line, text): (usize, &str)) -> Result<String, FeedError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=40).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    let message = format!("{name} must be 1 to 40 letters, digits, '-', '.' or '_'");
    Err(wrong(line, message))
}

fn day(text: &str) -> Option<Date> {
    (text.len() == 10).then(|| text.parse().ok())?
}

fn time(text: &str) -> Option<Time> {
    (text.len() == 5).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# calendar: test\n# version: 1\n# source: nobody\n# first_day: 2026-01-01\n# last_day: 2026-12-31\n\
                        # close: 16:00\n# session_end: 20:00\n";

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match read_calendar(text.as_bytes()) {
            Ok(calendar) => format!("{} days", calendar.days.len()),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn a_calendar_is_taken_whole_or_not_at_all() {
        let with = |rows: &str| format!("{HEAD}{COLUMNS}\n{rows}");
        check(
            &with(
                "2026-11-26,no,no,,,Thanksgiving\n2026-11-27,yes,yes,13:00,17:00,\"short, as ever\"\n",
            ),
            "2 days",
        );
        check(&with(""), "0 days");
        check("", "the file is empty");
        check(HEAD, "the file is empty");
        check(COLUMNS, "line 1: `# calendar: …` is missing");
        check(
            &format!("# x: 1\n{HEAD}{COLUMNS}\n"),
            "line 1: \"x\" is not one of",
        );
        check(
            &format!("{HEAD}{HEAD}{COLUMNS}\n"),
            "line 8: calendar is there twice",
        );
        check(
            &format!("{HEAD}day,trading\n"),
            "line 8: expected day,trading,settlement",
        );
        for (row, expected) in [
            ("2026-11-26,no", "line 9: it does not have the columns"),
            ("26/11/2026,no,no,,,", "line 9: day must be a date"),
            (
                "2027-01-01,no,no,,,",
                "line 9: 2027-01-01 is not from first_day",
            ),
            (
                "2026-11-26,maybe,no,,,",
                "line 9: trading must be yes or no",
            ),
            ("2026-11-26,no,,,,", "line 9: settlement must be yes or no"),
            (
                "2026-11-27,yes,yes,1 pm,17:00,",
                "line 9: close must be a time",
            ),
            (
                "2026-11-27,yes,yes,13:00,,",
                "line 9: a close of its own needs a session_end",
            ),
            (
                "2026-11-27,yes,yes,13:00,12:00,",
                "line 9: session_end is before close",
            ),
            (
                "2026-11-26,no,no,13:00,17:00,",
                "line 9: a day without trading",
            ),
        ] {
            check(&with(row), expected);
        }
        let twice = "2026-11-26,no,no,,,\n2026-11-26,no,no,,,\n";
        check(
            &with(twice),
            "line 10: 2026-11-26 is not after the day before it",
        );
        check(
            &HEAD.replace("16:00", "21:00").add(COLUMNS),
            "line 7: session_end is before close",
        );
        check(
            &HEAD.replace("2026-12-31", "2025-12-31").add(COLUMNS),
            "line 5: last_day is before",
        );
        check(
            &HEAD.replace("version: 1", "version: 1, or 2").add(COLUMNS),
            "line 2: version must be",
        );
    }

    /// Columns mixed up would close the exchange for most of the year.
    #[test]
    fn a_year_of_holidays_is_no_calendar() {
        let mut text = format!("{HEAD}{COLUMNS}\n");
        let mut day: Date = "2026-01-01".parse().unwrap();
        while day.year() == 2026 {
            text.push_str(&format!("{day},no,yes,,,\n"));
            day = day.tomorrow().unwrap();
        }
        check(&text, "line 1: it is closed on 261 weekdays of 2026");
    }

    use std::ops::Add;
}
