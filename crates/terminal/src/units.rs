//! Figures for people: bytes, lengths of time, moments and how long ago they were.

use jiff::Timestamp;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// `1.18 GiB`.
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// The number and its noun: `1 file`, `1,312 files`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", indicatif::HumanCount(number))
}

/// Microseconds since 1970 for people: UTC, whole seconds. What a machine reads is [`super::time`].
pub fn moment(micros: i64) -> String {
    let second = micros.div_euclid(SECOND);
    Timestamp::from_second(second).map_or_else(
        |_| micros.to_string(),
        |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

/// A moment that came as RFC 3339 from the engine; anything else as it is.
pub fn instant(text: &str) -> String {
    text.parse::<Timestamp>()
        .map_or_else(|_| text.to_owned(), |at| moment(at.as_microsecond()))
}

/// The first whole second that is not before it: where something begins, the second before would be a moment that is
/// not there.
pub fn moment_from(micros: i64) -> String {
    moment(micros.saturating_add(SECOND - 1))
}

/// How long something takes or took, in its largest unit; two of them below ten: `40 s`, `3 min`, `1 h 20 min`, `5
/// days`.
pub fn duration(micros: i64) -> String {
    let micros = micros.max(0);
    let two = |large: i64, unit: &str, small: i64, smaller: &str| {
        let (whole, rest) = (micros / large, micros % large / small);
        match (whole, rest) {
            (10.., _) | (_, 0) => format!("{whole} {unit}"),
            _ => format!("{whole} {unit} {rest} {smaller}"),
        }
    };
    match micros {
        0..SECOND => "0 s".to_owned(),
        SECOND..MINUTE => format!("{} s", micros / SECOND),
        MINUTE..HOUR => format!("{} min", micros / MINUTE),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        _ if micros < 2 * DAY => two(DAY, "day", HOUR, "h"),
        _ => format!("{} days", micros / DAY),
    }
}

/// Seen from now: `3 min ago`, `in 40 s`, `now`.
pub fn age(now_micros: i64, at_micros: i64) -> String {
    match now_micros.saturating_sub(at_micros) {
        past @ SECOND.. => format!("{} ago", duration(past)),
        ahead if ahead <= -SECOND => format!("in {}", duration(-ahead)),
        _ => "now".to_owned(),
    }
}

/// The moment, and how long ago it was.
pub fn moment_and_age(now_micros: i64, at_micros: i64) -> String {
    format!("{} ({})", moment(at_micros), age(now_micros, at_micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_told_in_the_unit_that_a_person_would_use() {
        for (micros, expected) in [
            (-5, "0 s"),
            (999_999, "0 s"),
            (59 * SECOND, "59 s"),
            (61 * SECOND, "1 min"),
            (HOUR + 20 * MINUTE, "1 h 20 min"),
            (11 * HOUR + 20 * MINUTE, "11 h"),
            (DAY, "1 day"),
            (DAY + 3 * HOUR, "1 day 3 h"),
            (91 * DAY, "91 days"),
        ] {
            assert_eq!(duration(micros), expected, "{micros}");
        }
        assert_eq!(age(10 * MINUTE, 7 * MINUTE), "3 min ago");
        assert_eq!(age(0, 40 * SECOND), "in 40 s");
        assert_eq!(age(5, 0), "now");
        assert_eq!(age(i64::MAX, i64::MIN), age(i64::MAX, 0).as_str());
    }

    #[test]
    fn a_moment_that_begins_something_is_rounded_up_and_others_down() {
        let at = "2026-04-01T10:31:00.25Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_microsecond();
        assert_eq!(moment(at), "2026-04-01 10:31:00Z");
        assert_eq!(moment_from(at), "2026-04-01 10:31:01Z");
        assert_eq!(moment_from(at - 250_000), "2026-04-01 10:31:00Z");
        assert_eq!(moment(-1), "1969-12-31 23:59:59Z");
        // Beyond any calendar: the figure itself, and no panic.
        assert_eq!(moment(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn one_thing_is_no_things() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(count(1312, "file"), "1,312 files");
    }
}
