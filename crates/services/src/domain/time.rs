//! Times as they are stored, sent and recorded: microseconds since 1970, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

pub(crate) fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

/// `2026-11-23T08:15:30.123456Z`, always six decimals.
pub(crate) fn rfc3339(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => micros.to_string(),
    }
}

pub(crate) fn system_time(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

pub(crate) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

pub(crate) fn as_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_the_same_time() {
        for (number, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_795_421_730_123_456, "2026-11-23T08:15:30.123456Z"),
        ] {
            assert_eq!(rfc3339(number), text);
            assert_eq!(text.parse::<Timestamp>().unwrap().as_microsecond(), number);
            assert_eq!(micros(system_time(number)), number);
        }
    }
}
