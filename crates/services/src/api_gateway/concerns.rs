//! Why health is not `healthy`: each part that is not as it should be, with what it says itself. Health and metrics tell the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use pricing::Policy;
use serde::Serialize;

use super::Gateway;
use crate::cache::CacheState;
use crate::data::{FeedState, LOG_DAMAGED, SAMPLE, WriteError};
use crate::domain::time::rfc3339;
use crate::market::{Calendar, MarketView};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Concern {
    pub(super) part: String,
    pub(super) reason: String,
}

impl Concern {
    fn new(part: impl Into<String>, reason: impl Into<String>) -> Concern {
        Concern {
            part: part.into(),
            reason: reason.into(),
        }
    }
}

/// All of them, at `now` (in microseconds since 1970).
/// Of a cache that two systems write into.
pub(super) const DISPUTED: &str = "another system writes into the same Redis; its objects are not read. Give each system a Redis, or a database number, of its own";

pub(super) fn concerns(gateway: &Gateway, now: i64) -> Vec<Concern> {
    let mut all = Vec::new();
    let market = &gateway.calculator.market;
    if !market.database_up() {
        all.push(Concern::new("database", "it does not answer"));
    }
    match gateway.calculator.writer.refusal() {
        Some(WriteError::Refused { part, reason }) if part == LOG_DAMAGED => {
            all.push(Concern::new("audit_log", reason));
        }
        Some(refusal) => all.push(Concern::new("locates", refusal.to_string())),
        None => {}
    }
    if let Some(why) = gateway.calculator.writer.closed() {
        all.push(Concern::new("locates", why));
    }
    match gateway.cache.state() {
        CacheState::Off | CacheState::Up => {}
        CacheState::Down => all.push(Concern::new("cache", "it does not answer")),
        CacheState::Refused(word) => all.push(Concern::new("cache", word)),
    }
    if gateway.cache.is_disputed(now) {
        all.push(Concern::new("cache", DISPUTED));
    }
    if let Some(word) = gateway.limits_trouble() {
        all.push(Concern::new("rate_limits", word));
    }
    if let Some(alarm) = gateway.stream.report().alarm {
        all.push(Concern::new("wal_stream", alarm.to_string()));
    }
    let public = gateway.public_log.as_ref().map(|log| log.troubles());
    for (part, why) in public.into_iter().flatten() {
        all.push(Concern::new(part, why));
    }
    if let Some(alarm) = gateway.wrong_keys.alarm(now) {
        all.push(Concern::new("api_keys", alarm));
    }
    if !gateway.peers.are_up() {
        all.push(Concern::new(
            "services",
            "one of those that this one depends on does not answer",
        ));
    }
    if let Ok(view) = market.view() {
        all.extend(of_market(&view, now));
    }
    // Not while none has been read yet: then the database is away, which is said.
    all.extend(
        market
            .calendar()
            .and_then(|calendar| of_calendar(&calendar, now)),
    );
    all.extend(of_feeds(&feed_states(gateway)));
    all
}

/// Before a calendar ends somebody has to find and import another.
const CALENDAR_DAYS_MIN: i64 = 30;

fn of_calendar(calendar: &Calendar, now: i64) -> Option<Concern> {
    let days = calendar.days_left(now);
    let when = match days {
        ..0 => "ended",
        0..CALENDAR_DAYS_MIN => "ends",
        _ => return None,
    };
    let reason = format!(
        "{} {when} on {}; nothing can be located for days after it: bre import calendar FILE",
        calendar.id(),
        calendar.last_day
    );
    Some(Concern::new("calendar", reason))
}

/// How the feeds do that are asked: here, or in the data-service elsewhere.
pub(super) fn feed_states(gateway: &Gateway) -> BTreeMap<String, FeedState> {
    let mut sources = gateway.calculator.writer.feeds();
    sources.extend(gateway.refresher.board.all());
    sources
}

fn of_feeds(sources: &BTreeMap<String, FeedState>) -> Vec<Concern> {
    let troubled = sources
        .iter()
        .filter_map(|(source, state)| Some((source, state.trouble()?)));
    troubled
        .map(|(source, trouble)| Concern::new(format!("feeds.{source}"), trouble))
        .collect()
}

/// So many names are enough to look for the others.
const NAMES_MAX: usize = 10;
const DAY_SECONDS: i64 = 86_400;

fn of_market(view: &MarketView, now: i64) -> Vec<Concern> {
    let mut all = Vec::new();
    for (source, subjects) in view.held() {
        let first: Vec<&str> = subjects.iter().take(NAMES_MAX).copied().collect();
        let more = if subjects.len() > first.len() {
            ", …"
        } else {
            ""
        };
        let reason = format!(
            "{} figures are held, and newer ones say otherwise: {}{more}; see `bre feed held`",
            subjects.len(),
            first.join(", ")
        );
        all.push(Concern::new(format!("feeds.{source}"), reason));
    }
    for refusal in view.refusals() {
        let reason = format!(
            "its newest delivery ({}) was refused at {} ({}); prices rest on the one before",
            refusal.kind,
            rfc3339(refusal.known_at_micros),
            refusal.rule
        );
        all.push(Concern::new(format!("feeds.{}", refusal.source), reason));
    }
    // The sample is old on every day, and says what it is.
    if let Some((source, at)) = view.market_index().filter(|(source, _)| *source != SAMPLE) {
        let age_seconds = now.saturating_sub(at) / 1_000_000;
        let age_seconds_max = Policy::standard_1().freshness.volatility_age_seconds_max;
        if age_seconds > age_seconds_max {
            let reason = format!(
                "the market's volatility index is of {}, {} days old; {} days are allowed",
                rfc3339(at),
                age_seconds / DAY_SECONDS,
                age_seconds_max / DAY_SECONDS
            );
            all.push(Concern::new(format!("feeds.{source}"), reason));
        }
    }
    all
}

/// A gauge for each part that ever had one, so that what is well again is told as such.
pub(super) fn measure(concerns: &[Concern]) {
    static PARTS: OnceLock<Mutex<BTreeSet<String>>> = OnceLock::new();
    let mut parts = PARTS
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    parts.extend(concerns.iter().map(|concern| concern.part.clone()));
    for part in &*parts {
        let on = concerns.iter().any(|concern| concern.part == *part);
        ::metrics::gauge!("bre_degraded", "part" => part.clone()).set(u32::from(on));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::{
        BaseRate, FeedSettings, HeldFigure, MarketData, RefusedDelivery, Volatility,
    };

    const DAY: i64 = 86_400_000_000;

    #[track_caller]
    fn check(data: &MarketData, now: i64, expected: &[&str]) {
        let view = MarketView::new(data, &FeedSettings::default());
        let found: Vec<String> = of_market(&view, now)
            .into_iter()
            .map(|concern| format!("{}: {}", concern.part, concern.reason))
            .collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    fn index(source: &str) -> Volatility {
        Volatility {
            subject: "MARKET".into(),
            index: pricing::Index::whole(20),
            source: source.into(),
            valid_at_micros: 100 * DAY,
            held: None,
        }
    }

    #[test]
    fn an_index_that_grows_old_is_no_health() {
        let data = MarketData {
            volatility: vec![index("vix")],
            ..MarketData::default()
        };
        check(&data, 104 * DAY, &[]);
        check(
            &data,
            105 * DAY,
            &[
                "feeds.vix: the market's volatility index is of 1970-04-11T00:00:00.000000Z, 5 days old",
            ],
        );
        let sample = MarketData {
            volatility: vec![index("sample")],
            ..MarketData::default()
        };
        check(&sample, 900 * DAY, &[]);
    }

    #[test]
    fn figures_that_are_held_and_deliveries_that_were_refused_are_no_health() {
        let rate = BaseRate {
            ticker: "GME".into(),
            rate: pricing::Rate::whole(1),
            currency: "USD".into(),
            source: "ibkr".into(),
            valid_at_micros: 100 * DAY,
            known_at_micros: 100 * DAY,
            available: None,
            available_or_more: false,
            status: None,
            held: Some(HeldFigure {
                value: Some(pricing::Rate::whole(60)),
                valid_at_micros: 101 * DAY,
                reason: "rate_jumped".into(),
            }),
        };
        let refusal = RefusedDelivery {
            kind: "vix".into(),
            source: "vix".into(),
            rule: "header".into(),
            valid_at_micros: 101 * DAY,
            known_at_micros: 101 * DAY,
        };
        let data = MarketData {
            rates: vec![rate],
            refusals: vec![refusal],
            ..MarketData::default()
        };
        check(
            &data,
            101 * DAY,
            &[
                "feeds.ibkr: 1 figures are held, and newer ones say otherwise: GME;",
                "feeds.vix: its newest delivery (vix) was refused at 1970-04-12T00:00:00.000000Z (header)",
            ],
        );
    }

    #[test]
    fn a_feed_that_answers_for_a_part_only_is_no_health() {
        let state = |state: FeedState| BTreeMap::from([("volatility".to_owned(), state)]);
        let reasons = |all: Vec<Concern>| -> Vec<String> {
            all.into_iter().map(|concern| concern.reason).collect()
        };
        let well = FeedState {
            breaker: Some("closed".to_owned()),
            last_failure: Some("long ago".to_owned()),
            ..FeedState::default()
        };
        assert!(of_feeds(&state(well.clone())).is_empty());
        let ill = FeedState {
            breaker: Some("half_open".to_owned()),
            failing: vec!["AAPL".to_owned()],
            failing_count: 12,
            unasked_count: 3,
            ..well
        };
        assert_eq!(
            reasons(of_feeds(&state(ill))),
            [
                "its circuit breaker is half open (long ago); no usable answer for 12 of what it is asked for: AAPL, …; 3 not asked for"
            ]
        );
    }
}
