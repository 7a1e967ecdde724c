//! When a line was written, as it says itself.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// No stamp begins later in a line.
const LOOKED_AT_BYTES: usize = 256;

/// Microseconds; none where the line does not say it in a form that is known here: the start of the line, or a field
/// `timestamp` of JSON, in ISO 8601, with a zone that is UTC or a number.
pub(super) fn time_of(line: &[u8]) -> Option<i64> {
    let start = &line[..line.len().min(LOOKED_AT_BYTES)];
    let start = String::from_utf8_lossy(start);
    let stamp = match start.split_once("\"timestamp\":\"") {
        Some((before, rest)) if before.starts_with('{') => rest,
        _ => &start,
    };
    let stamp = stamp.trim_start_matches(['"', '[']);
    let (date, rest) = stamp.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', ' '])?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.' && c != ',');
    let (time, zone) = rest.split_at(end.unwrap_or(rest.len()));
    let local: DateTime = format!("{date}T{}", time.replace(',', ".")).parse().ok()?;
    let zone = zone.trim_start();
    let utc = ["Z", "UTC", "GMT"]
        .iter()
        .any(|name| zone.starts_with(name));
    let offset = match utc {
        true => Offset::UTC,
        false => numeric(zone)?,
    };
    let at = local.to_zoned(TimeZone::fixed(offset)).ok()?;
    Some(at.timestamp().as_microsecond())
}

/// `+02`, `-0330`, `+05:30`.
fn numeric(zone: &str) -> Option<Offset> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = zone[1..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ':')
        .filter(char::is_ascii_digit)
        .collect();
    let number = |text: Option<&str>| text?.parse::<i32>().ok();
    let hours = number(digits.get(..2))?;
    let minutes = match digits.len() {
        2 => 0,
        _ => number(digits.get(2..4))?,
    };
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_their_time_in_the_usual_forms() {
        // Any day: the stamps are data.
        let expected = "2026-11-30T22:33:01.250Z"
            .parse::<jiff::Timestamp>()
            .unwrap();
        for line in [
            r#"{"timestamp":"2026-11-30T22:33:01.250000Z","level":"INFO"}"#,
            r#"{"timestamp":"2026-11-30 22:33:01.250 UTC","pid":7}"#,
            "2026-11-30 22:33:01.250 UTC [7] LOG:  x",
            "2026-11-30 22:33:01.250 GMT,,,7",
            "[2026-11-30T22:33:01,250Z] x",
            "2026-12-01T00:33:01.250+02:00 x",
            "2026-11-30 19:03:01.250-0330 x",
        ] {
            assert_eq!(
                time_of(line.as_bytes()),
                Some(expected.as_microsecond()),
                "{line}"
            );
        }
        for line in [
            "",
            "x",
            "2026-11-30",
            "2026-11-30 22:33:01 CET x",
            "2026-13-30 22:33:01Z",
        ] {
            assert_eq!(time_of(line.as_bytes()), None, "{line}");
        }
    }
}
