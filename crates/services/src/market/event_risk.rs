//! What a coming event is worth as a risk factor, by the days until it: the rule `earnings-proximity-1`. Days are calendar days in
//! UTC. A day that has passed is worth nothing; of several events the riskiest counts.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

use super::AnnouncedEvent;

/// Up to so many days ahead, and the factor.
const STEPS: [(i32, u8); 4] = [(1, 8), (3, 6), (7, 4), (14, 2)];

/// The riskiest of a ticker's events, if any is near.
pub(super) fn riskiest(
    events: &[AnnouncedEvent],
    now_micros: i64,
) -> Option<(u8, &AnnouncedEvent)> {
    let today = Timestamp::from_microsecond(now_micros)
        .ok()?
        .to_zoned(TimeZone::UTC)
        .date();
    events
        .iter()
        .map(|event| (factor(today, event.date), event))
        .filter(|(factor, _)| *factor > 0)
        .max_by_key(|(factor, event)| (*factor, event.valid_at_micros))
}

fn factor(today: Date, event: Date) -> u8 {
    let Ok(span) = today.until((Unit::Day, event)) else {
        return 0;
    };
    let days = span.get_days();
    if days < 0 {
        return 0;
    }
    let step = STEPS.iter().find(|(until, _)| days <= *until);
    step.map_or(0, |(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_the_riskier_and_what_has_passed_is_nothing() {
        let today: Date = "2025-07-01".parse().unwrap();
        for (date, expected) in [
            ("2025-06-30", 0),
            ("2025-07-01", 8),
            ("2025-07-02", 8),
            ("2025-07-03", 6),
            ("2025-07-04", 6),
            ("2025-07-05", 4),
            ("2025-07-08", 4),
            ("2025-07-09", 2),
            ("2025-07-15", 2),
            ("2025-07-16", 0),
            ("2026-07-01", 0),
        ] {
            assert_eq!(factor(today, date.parse().unwrap()), expected, "{date}");
        }
    }
}
