//! Trade dates end at 20:00 in New York, summer and winter. The time zone comes with the program.

use jiff::Timestamp;
use jiff::ToSpan;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

static NEW_YORK: TimeZone = jiff::tz::get!("America/New_York");
const CLOSE_HOUR: i8 = 20;

/// The weekday whose close comes next. Holidays are not known here: what is located for one expires unused.
pub(crate) fn trade_date(now_micros: i64) -> Date {
    let now = Timestamp::from_microsecond(now_micros).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = now.to_zoned(NEW_YORK.clone());
    let after_close = local.hour() >= CLOSE_HOUR;
    weekday_from(local.date().saturating_add(i32::from(after_close).days()))
}

/// The last trade date of a loan that begins on that one.
pub(super) fn last_date(trade_date: Date, loan_days: u32) -> Date {
    weekday_from(trade_date.saturating_add(i64::from(loan_days).days()))
}

fn weekday_from(date: Date) -> Date {
    let to_monday = match date.weekday() {
        Weekday::Saturday => 2,
        Weekday::Sunday => 1,
        _ => 0,
    };
    date.saturating_add(to_monday.days())
}

/// The moment at which a trade date ends. A date beyond all calendars has ended.
pub(super) fn close_of(date: Date) -> i64 {
    let close = date.at(CLOSE_HOUR, 0, 0, 0).to_zoned(NEW_YORK.clone());
    close.map_or(0, |close| close.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(now: &str, date: &str, close: &str) {
        let now: Timestamp = now.parse().unwrap();
        let found = trade_date(now.as_microsecond());
        assert_eq!(found.to_string(), date, "{now}");
        let ends = Timestamp::from_microsecond(close_of(found)).unwrap();
        assert_eq!(ends.to_string(), close, "{now}");
    }

    #[test]
    fn a_day_ends_at_eight_in_the_evening_in_new_york() {
        // Winter: five hours behind.
        check("2026-11-23T11:30:00Z", "2026-11-23", "2026-11-24T01:00:00Z");
        check(
            "2026-11-24T00:59:59.999999Z",
            "2026-11-23",
            "2026-11-24T01:00:00Z",
        );
        check("2026-11-24T01:00:00Z", "2026-11-24", "2026-11-25T01:00:00Z");
        // Summer: four.
        check("2026-07-01T23:59:59Z", "2026-07-01", "2026-07-02T00:00:00Z");
        check("2026-07-02T00:00:00Z", "2026-07-02", "2026-07-03T00:00:00Z");
        // Past midnight in London it is still yesterday there.
        check("2026-07-02T03:00:00Z", "2026-07-02", "2026-07-03T00:00:00Z");
    }

    #[test]
    fn a_weekend_belongs_to_monday_also_when_the_clocks_change_in_it() {
        // Friday evening before the spring change of 2026-03-08: Monday is in summer time already.
        check("2026-03-06T17:00:00Z", "2026-03-06", "2026-03-07T01:00:00Z");
        check("2026-03-07T01:00:00Z", "2026-03-09", "2026-03-10T00:00:00Z");
        check("2026-03-08T06:59:59Z", "2026-03-09", "2026-03-10T00:00:00Z");
        check("2026-03-08T07:00:00Z", "2026-03-09", "2026-03-10T00:00:00Z");
        // Autumn change of 2026-11-01.
        check("2026-10-30T23:59:59Z", "2026-10-30", "2026-10-31T00:00:00Z");
        check("2026-10-31T00:00:00Z", "2026-11-02", "2026-11-03T01:00:00Z");
        check("2026-11-01T06:30:00Z", "2026-11-02", "2026-11-03T01:00:00Z");
    }

    #[test]
    fn a_loan_ends_on_a_weekday() {
        let date: Date = "2026-11-23".parse().unwrap();
        assert_eq!(last_date(date, 1).to_string(), "2026-11-24");
        assert_eq!(last_date(date, 5).to_string(), "2026-11-30");
        assert_eq!(close_of(Date::MAX), 0);
    }
}
