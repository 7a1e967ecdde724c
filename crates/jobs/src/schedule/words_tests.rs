//! The words that came after the first six, time zones, and appointments by the calendar.

use super::*;

const ZONES: [&str; 5] = [
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Africa/Cairo",
];

fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[test]
fn what_is_written_is_read_and_written_the_same() {
    for (text, same) in [
        ("weekly", "weekly monday 00:00"),
        ("weekly sunday 03:05", "weekly sunday 03:05"),
        ("weekly Sunday", "weekly sunday 00:00"),
        ("monthly", "monthly 1 00:00"),
        ("monthly 31 23:59", "monthly 31 23:59"),
        ("quarterly 15 04:00", "quarterly 15 04:00"),
        ("semi-annual 04:00", "semi-annual 1 04:00"),
        ("daily 01:30 UTC", "daily 01:30"),
        ("daily 01:30 Europe/Berlin", "daily 01:30 Europe/Berlin"),
        ("monthly Asia/Tokyo", "monthly 1 00:00 Asia/Tokyo"),
        ("on change", "on change"),
        ("continuous", "continuous"),
        ("manual", "manual"),
        (
            "after database.full, cache.rdb",
            "after database.full, cache.rdb",
        ),
        ("after every snapshot", "after every snapshot"),
    ] {
        let trigger: Trigger = text.parse().unwrap();
        assert_eq!(trigger.to_string(), same, "{text}");
        assert_eq!(same.parse::<Trigger>().unwrap(), trigger, "{text}");
    }
}

#[test]
fn what_is_no_schedule_says_why_and_what_would_be_one() {
    for (text, why) in [
        (
            "daily 01:30 Europe/Atlantis",
            "no time zone is called \"Europe/Atlantis\"",
        ),
        ("daily 01:30 EST5", "no time zone is called"),
        ("hourly :15 Europe/Berlin", "takes no time zone"),
        ("every 5 minutes Asia/Tokyo", "takes no time zone"),
        ("monthly 32 01:00", "1 to 31"),
        ("monthly 0", "1 to 31"),
        ("weekly someday", "no day is called \"someday\""),
        ("weekly sunday 24:00", "is no schedule;"),
        ("daily 01:30 Europe/Berlin twice", "is no schedule;"),
        ("after every", "is no schedule;"),
        ("after Full", "is no schedule;"),
        ("after a,,b", "is no schedule;"),
        ("on", "is no schedule;"),
    ] {
        let error = text.parse::<Trigger>().unwrap_err().to_string();
        assert!(
            error.contains(why) && error.contains("semi-annual D HH:MM"),
            "{error}"
        );
    }
}

#[test]
fn appointments_by_the_calendar() {
    let check = |text: &str, now: &str, last: &str, next: &str| {
        let trigger: Trigger = text.parse().unwrap();
        let at = |micros: Option<i64>| {
            jiff::Timestamp::from_microsecond(micros.unwrap())
                .unwrap()
                .to_string()
        };
        let now = micros(now);
        assert_eq!(at(trigger.last_appointment(now)), last, "{text}: last");
        assert_eq!(at(trigger.next_appointment(now)), next, "{text}: next");
    };
    // An appointment is its own last one.
    check(
        "weekly sunday 03:00",
        "2026-11-29T03:00:00Z",
        "2026-11-29T03:00:00Z",
        "2026-12-06T03:00:00Z",
    );
    check(
        "weekly sunday 03:00",
        "2026-11-29T02:59:59Z",
        "2026-11-22T03:00:00Z",
        "2026-11-29T03:00:00Z",
    );
    check(
        "monthly 31 12:00",
        "2028-02-29T12:00:00Z",
        "2028-02-29T12:00:00Z",
        "2028-03-31T12:00:00Z",
    );
    check(
        "monthly 31 12:00",
        "2027-03-01T00:00:00Z",
        "2027-02-28T12:00:00Z",
        "2027-03-31T12:00:00Z",
    );
    check(
        "quarterly 15 04:00",
        "2027-01-01T00:00:00Z",
        "2026-10-15T04:00:00Z",
        "2027-01-15T04:00:00Z",
    );
    check(
        "semi-annual",
        "2026-12-31T23:59:59Z",
        "2026-07-01T00:00:00Z",
        "2027-01-01T00:00:00Z",
    );
    check(
        "monthly Pacific/Kiritimati",
        "2026-11-30T09:59:59Z",
        "2026-10-31T10:00:00Z",
        "2026-11-30T10:00:00Z",
    );
    // Skipped: 02:30 runs when the clock has gone forward. Repeated: the first 02:30.
    check(
        "daily 02:30 Europe/Berlin",
        "2027-03-28T00:59:59Z",
        "2027-03-27T01:30:00Z",
        "2027-03-28T01:00:00Z",
    );
    check(
        "daily 02:30 Europe/Berlin",
        "2027-10-31T01:30:00Z",
        "2027-10-31T00:30:00Z",
        "2027-11-01T01:30:00Z",
    );
}

#[test]
fn last_and_next_agree_and_appointments_are_counted() {
    let mut texts = vec![
        "weekly friday 23:30".to_owned(),
        "monthly 30 01:00".to_owned(),
    ];
    for zone in ZONES {
        texts.push(format!("daily 00:30 {zone}"));
        texts.push(format!("quarterly 31 02:30 {zone}"));
    }
    let (from, to) = (
        micros("2023-06-01T00:00:00Z"),
        micros("2026-06-01T00:00:00Z"),
    );
    for text in texts {
        let trigger: Trigger = text.parse().unwrap();
        let (mut at, mut count) = (trigger.next_appointment(from).unwrap(), 0);
        let first = at;
        while at <= to {
            count += 1;
            let next = trigger.next_appointment(at).unwrap();
            assert!(next > at, "{text}");
            for moment in [at, at + 1, next - 1] {
                assert_eq!(
                    trigger.last_appointment(moment),
                    Some(at),
                    "{text} at {moment}"
                );
                assert_eq!(
                    trigger.next_appointment(moment),
                    Some(next),
                    "{text} at {moment}"
                );
            }
            at = next;
        }
        assert_eq!(
            trigger.appointments(from, to),
            Some((count, first)),
            "{text}"
        );
    }
    let minutely: Trigger = "every 1 minutes".parse().unwrap();
    assert_eq!(
        minutely.appointments(0, 90 * DAY),
        Some((90 * 1440, MINUTE))
    );
    assert_eq!(minutely.appointments(MINUTE, MINUTE), None);
}

/// Every transition from 2000 to 2040 in five zones, at times of day that are skipped, repeated, or neither.
#[test]
fn a_daily_job_runs_once_a_day_whatever_the_clock_of_its_zone_does() {
    for zone in ZONES {
        let rules = jiff::tz::TimeZone::get(zone).unwrap();
        let end: jiff::Timestamp = "2040-01-01T00:00:00Z".parse().unwrap();
        let start: jiff::Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
        let transitions = rules.following(start).take_while(|it| it.timestamp() < end);
        let mut seen = 0;
        for transition in transitions {
            seen += 1;
            let around = transition.timestamp().to_zoned(rules.clone());
            for (hour, minute) in [
                (0, 0),
                (0, 15),
                (0, 45),
                (1, 30),
                (1, 45),
                (2, 30),
                (2, 45),
                (3, 30),
                (23, 45),
            ] {
                let text = format!("daily {hour:02}:{minute:02} {zone}");
                let trigger: Trigger = text.parse().unwrap();
                let mut day = around
                    .date()
                    .checked_sub(jiff::Span::new().days(2))
                    .unwrap();
                let midnight = day.to_zoned(rules.clone()).unwrap().timestamp();
                let mut at = midnight.as_microsecond() - 1;
                for _ in 0..5 {
                    at = trigger.next_appointment(at).unwrap();
                    let moment = jiff::Timestamp::from_microsecond(at).unwrap();
                    let local = moment.to_zoned(rules.clone());
                    // One for each day of the calendar, none for a day twice.
                    assert_eq!(local.date(), day, "{text} at {local}");
                    let wanted = day.at(hour, minute, 0, 0);
                    if local.datetime() != wanted {
                        // That time does not exist on that day: it runs when the clock has gone forward.
                        assert_eq!(moment, transition.timestamp(), "{text} at {local}");
                        assert!(local.datetime() > wanted, "{text} at {local}");
                    }
                    day = day.tomorrow().unwrap();
                }
            }
        }
        assert!(seen > 0, "{zone} has no transition");
    }
}

#[test]
fn what_runs_all_the_time_waits_only_where_it_fails_soon() {
    let at = |seconds: u64| Now {
        wall_micros: 1_795_421_730_000_000 + i64::try_from(seconds).unwrap() * 1_000_000,
        steady: Duration::from_secs(seconds),
    };
    let continuous = ScheduledJob {
        trigger: Trigger::Continuous,
        after: Vec::new(),
        covered_by: Vec::new(),
        locks: Vec::new(),
        priority: 0,
        past: Past::default(),
    };
    let mut scheduler = Scheduler::new(at(0), vec![continuous]);
    let mut ran = |from: u64, to: u64| {
        let due = scheduler.due(at(from), |_| true)?;
        scheduler.started(&due, at(from));
        scheduler.ended(0, at(to), false);
        Some(due.cause)
    };
    assert_eq!(ran(0, 1), Some(Cause::Continuous));
    assert_eq!(ran(30, 31), None, "30 s after it failed");
    assert_eq!(ran(31, 32), Some(Cause::Continuous));
    assert_eq!(ran(91, 92), None, "then twice as long");
    assert_eq!(ran(92, 600), Some(Cause::Continuous));
    assert_eq!(
        ran(600, 601),
        Some(Cause::Continuous),
        "it had run for minutes"
    );
    assert_eq!(ran(630, 631), None, "and failed at once");
    assert_eq!(ran(631, 632), Some(Cause::Continuous));
}
