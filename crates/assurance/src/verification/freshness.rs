//! Ages against the plan: the guide's "time since last successful backup, more than 125 % of schedule".

use serde_json::json;

use super::Check;
use crate::objectives::AGE_MAX_PERCENT;

/// Something that the plan says happens every so often.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    pub last_micros: Option<i64>,
    pub now_micros: i64,
    /// `None`: the plan has no schedule for it.
    pub every_seconds: Option<u64>,
}

/// `noun` names the thing in the sentence: "complete backup".
#[must_use]
pub fn fresh_enough(name: &str, noun: &str, freshness: Freshness) -> Check {
    let Some(every) = freshness.every_seconds else {
        return Check::not_applicable(name, format!("the plan has no schedule for a {noun}"));
    };
    let max = every.saturating_mul(AGE_MAX_PERCENT) / 100;
    let Some(last) = freshness.last_micros else {
        let detail = json!({ "age_seconds_max": max });
        return Check::failed(name, format!("there is no {noun}"), detail);
    };
    // A clock that was set back: it happened "in the future", and nobody knows how old it is.
    let age_micros = freshness.now_micros - last;
    let age = age_micros / 1_000_000;
    let detail = json!({ "age_seconds": age, "age_seconds_max": max, "schedule_seconds": every });
    if age < -60 {
        let why = format!(
            "the newest {noun} is {} s in the future: check the clock",
            -age
        );
        return Check::failed(name, why, detail);
    }
    if u64::try_from(age).unwrap_or(0) > max {
        let why = format!("the newest {noun} is {age} s old; the plan allows {max} s");
        return Check::failed(name, why, detail);
    }
    Check::passed(name, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verification::Verdict;

    #[test]
    fn the_guides_125_percent() {
        let check = |last: Option<i64>, every: Option<u64>| {
            let freshness = Freshness {
                last_micros: last,
                now_micros: 10_000_000_000,
                every_seconds: every,
            };
            fresh_enough("backup_age", "complete backup", freshness).verdict
        };
        let before = |seconds: i64| Some(10_000_000_000 - seconds * 1_000_000);
        assert_eq!(check(before(4500), Some(3600)), Verdict::Passed);
        assert_eq!(check(before(4501), Some(3600)), Verdict::Failed);
        assert_eq!(check(before(-61), Some(3600)), Verdict::Failed);
        assert_eq!(check(None, Some(3600)), Verdict::Failed);
        assert_eq!(check(before(0), None), Verdict::Skipped);
    }
}
