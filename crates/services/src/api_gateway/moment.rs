//! `as_of` and `known_at`: asking for the past.

use jiff::Timestamp;

use super::Gateway;
use super::errors::ApiError;
use super::parameters::Parameters;
use crate::domain::moment::Moment;
use crate::domain::time::now_micros;

const TIME_RULE: &str = "must be a time with its offset, not in the future, for example 2026-04-01T10:31:00-04:00 (in a URL write + as %2B)";

/// As asked, before the database was asked what was known then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct AsOf {
    as_of_micros: Option<i64>,
    known_at_micros: Option<i64>,
}

impl AsOf {
    pub(super) fn read(parameters: &mut Parameters) -> AsOf {
        let as_of_micros = parameters.maybe("as_of", TIME_RULE, past);
        let known_at_micros = parameters.maybe("known_at", TIME_RULE, past);
        if parameters.optional("known_at").is_some() && parameters.optional("as_of").is_none() {
            parameters.refuse("known_at", "needs an as_of beside it");
        }
        AsOf {
            as_of_micros,
            known_at_micros,
        }
    }

    /// `None`: the present was asked for.
    pub(super) async fn settle(self, gateway: &Gateway) -> Result<Option<Moment>, ApiError> {
        match self.as_of_micros {
            None => Ok(None),
            Some(as_of) => Ok(Some(
                gateway
                    .refresher
                    .moment(as_of, self.known_at_micros)
                    .await?,
            )),
        }
    }
}

fn past(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    let micros = time.as_microsecond();
    // PostgreSQL's own beginning of time is long before any market's; this one is plainly a mistake.
    (time >= Timestamp::UNIX_EPOCH && micros <= now_micros()).then_some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Option<(Option<i64>, Option<i64>)>) {
        let mut parameters = Parameters::from_query(Some(query), &["as_of", "known_at"]);
        let asked = AsOf::read(&mut parameters);
        let found = parameters.finish().ok();
        let found = found.map(|()| (asked.as_of_micros, asked.known_at_micros));
        assert_eq!(found, expected, "{query}");
    }

    #[test]
    fn only_times_of_the_past_with_an_offset() {
        check("", Some((None, None)));
        let day = 1_775_001_600_000_000;
        check("as_of=2026-04-01T00:00:00Z", Some((Some(day), None)));
        check("as_of=2026-03-31T20:00:00-04:00", Some((Some(day), None)));
        check(
            "as_of=2026-04-01T02:00:00%2B02:00&known_at=2026-04-01T00:00:00.000001Z",
            Some((Some(day), Some(day + 1))),
        );
        for query in [
            "as_of=2026-04-01T02:00:00+02:00",
            "as_of=2026-04-01",
            "as_of=2026-04-01T00:00:00",
            "as_of=9999-01-01T00:00:00Z",
            "as_of=1969-12-31T00:00:00Z",
            "as_of=now",
            "as_of=",
            "as_of=1775001600",
            "known_at=2026-04-01T00:00:00Z",
        ] {
            check(query, None);
        }
    }
}
