//! The shipped calendar against what the exchanges and the clearing corporation have announced, and the rules that read a calendar.

use jiff::Timestamp;
use jiff::civil::Date;

use super::*;

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

#[track_caller]
fn check(now: &str, trade_date: &str, ends: &str) {
    let now: Timestamp = now.parse().unwrap();
    let calendar = Calendar::shipped();
    let found = calendar.trade_date(now.as_microsecond()).unwrap();
    assert_eq!(found.to_string(), trade_date, "{now}");
    let end = Timestamp::from_microsecond(calendar.session_end(found)).unwrap();
    assert_eq!(end.to_string(), ends, "{now}");
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
    check("2026-07-01T03:00:00Z", "2026-07-01", "2026-07-02T00:00:00Z");
}

#[test]
fn a_weekend_belongs_to_monday_also_when_the_clocks_change_in_it() {
    // Friday evening before the spring change of 2026-03-08: Monday is in summer time already.
    check("2026-03-06T17:00:00Z", "2026-03-06", "2026-03-07T01:00:00Z");
    check("2026-03-07T01:00:00Z", "2026-03-09", "2026-03-10T00:00:00Z");
    check("2026-03-08T07:00:00Z", "2026-03-09", "2026-03-10T00:00:00Z");
    // Autumn change of 2026-11-01.
    check("2026-10-30T23:59:59Z", "2026-10-30", "2026-10-31T00:00:00Z");
    check("2026-10-31T00:00:00Z", "2026-11-02", "2026-11-03T01:00:00Z");
    check("2026-11-01T06:30:00Z", "2026-11-02", "2026-11-03T01:00:00Z");
}

#[test]
fn a_holiday_and_the_evening_before_it_belong_to_the_next_trading_day() {
    // Christmas 2026 is a Friday, and the day before closes at 13:00; its late session ends at 17:00.
    check("2026-12-24T21:59:59Z", "2026-12-24", "2026-12-24T22:00:00Z");
    check("2026-12-24T22:00:00Z", "2026-12-28", "2026-12-29T01:00:00Z");
    check("2026-12-25T15:00:00Z", "2026-12-28", "2026-12-29T01:00:00Z");
    // Thanksgiving, a Thursday: the Friday behind it is short.
    check("2026-11-26T15:00:00Z", "2026-11-27", "2026-11-27T22:00:00Z");
    check("2026-11-27T22:00:00Z", "2026-11-30", "2026-12-01T01:00:00Z");
    // Good Friday, and Independence Day observed on a Friday.
    check("2026-04-03T14:00:00Z", "2026-04-06", "2026-04-07T00:00:00Z");
    check("2026-07-03T00:00:00Z", "2026-07-06", "2026-07-07T00:00:00Z");
    // Over the turn of the year.
    check("2027-01-01T15:00:00Z", "2027-01-04", "2027-01-05T01:00:00Z");
}

/// What the exchanges announced, not what a rule says: `make slow-calendars` compares all days with another reading.
#[test]
fn the_shipped_calendar_has_the_days_that_were_announced() {
    let calendar = Calendar::shipped();
    let kind = |day: &str| {
        let day = date(day);
        (
            calendar.trades(day).unwrap(),
            calendar.settles(day).unwrap(),
        )
    };
    let (closed, open, trades_only, settles_only) =
        ((false, false), (true, true), (true, false), (false, true));
    for (day, expected) in [
        ("1993-04-09", closed),       // Good Friday
        ("2001-09-11", settles_only), // until 14 September
        ("2001-09-17", open),         // the first day again
        ("2004-06-11", settles_only), // mourning for Reagan
        ("2007-01-02", settles_only), // for Ford: "business as usual" in clearing
        ("2012-10-29", settles_only), // Sandy
        ("2018-12-05", settles_only), // for Bush
        ("2025-01-09", settles_only), // for Carter
        ("2021-06-18", open),         // Juneteenth was none yet
        ("2022-06-20", closed),       // and then was, on a Monday
        ("2021-12-31", open),         // a New Year's Day on Saturday moves nothing
        ("2022-12-26", closed),       // Christmas on Sunday
        ("1995-10-09", trades_only),  // FINRA's notice 95-77
        ("2026-10-12", trades_only),  // Columbus Day
        ("2026-11-11", trades_only),  // Veterans Day
        ("2023-11-10", open),         // Veterans Day on Saturday is not observed
        ("2018-11-12", trades_only),  // on Sunday it is
        ("2026-11-26", closed),
        ("2026-11-27", open),
        ("2027-12-24", closed),
        ("2028-02-29", open),
    ] {
        assert_eq!(kind(day), expected, "{day}");
    }
    let close = |day: &str| {
        let close = calendar.special(date(day)).and_then(|day| day.close);
        close.map_or_else(
            || "usual".to_owned(),
            |close| close.strftime("%H:%M").to_string(),
        )
    };
    for (day, expected) in [
        ("2019-07-03", "13:00"),
        ("2020-07-02", "usual"),
        ("2023-07-03", "13:00"),
        ("2023-11-24", "13:00"),
        ("2024-12-24", "13:00"),
        ("2026-11-27", "13:00"),
        ("2026-12-24", "13:00"),
        ("2026-12-31", "usual"),
    ] {
        assert_eq!(close(day), expected, "{day}");
    }
    assert_eq!(
        (calendar.name.as_str(), calendar.version.as_str()),
        ("us-equities", "4.13-1")
    );
    assert!(calendar.source.contains("exchange_calendars 4.13"));
}

#[test]
fn a_loan_ends_on_a_day_that_settles() {
    let calendar = Calendar::shipped();
    let end = |from: &str, days| calendar.loan_end(date(from), days).unwrap().to_string();
    assert_eq!(end("2026-11-23", 1), "2026-11-24");
    assert_eq!(end("2026-11-23", 3), "2026-11-27");
    assert_eq!(end("2026-11-23", 5), "2026-11-30");
    assert_eq!(end("2026-10-09", 3), "2026-10-13");
    let settles = |day: &str| calendar.settlement_date(date(day)).unwrap().to_string();
    // Both are settled on the Tuesday.
    assert_eq!(settles("2026-10-09"), "2026-10-13");
    assert_eq!(settles("2026-10-12"), "2026-10-13");
    assert_eq!(settles("2026-11-25"), "2026-11-27");
    assert_eq!(settles("2026-12-24"), "2026-12-28");
}

#[test]
fn beyond_its_range_nothing_is_guessed() {
    let calendar = Calendar::shipped();
    let beyond = calendar.trades(date("2051-01-02")).unwrap_err();
    assert_eq!(
        beyond.to_string(),
        "2051-01-02 is beyond the calendar us-equities 4.13-1, which goes from 1990-01-01 to 2050-12-31: an operator imports a longer one \
         with `bre import calendar FILE`"
    );
    assert!(calendar.loan_end(date("2050-12-30"), 30).is_err());
    assert!(calendar.settlement_date(date("2050-12-30")).is_err());
    assert!(Calendar::default().trade_date(0).is_err());
    assert_eq!(calendar.session_end(Date::MAX), 0);
}
