//! What several sources say of one ticker, and which of them is believed: the rule `precedence-1`. Of the sources whose rate is not
//! too old for them, the one that the settings prefer; where all are too old, the newest, marked stale.

use std::collections::HashMap;
use std::sync::Arc;

use pricing::{Rate, SourcedValue, UnconfirmedValue};
use serde::Serialize;

use super::{BaseRate, FeedSettings, HeldFigure};

pub(super) const RULE: &str = "precedence-1";

/// One rate a source, the preferred one first.
#[derive(Debug)]
pub(super) struct Offers(Vec<Offer>);

#[derive(Debug)]
struct Offer {
    rate: BaseRate,
    fresh_until_micros: i64,
}

/// How far the sources are apart that were considered: those that are fresh, or all where none is, in the chosen one's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Dispersion {
    pub(crate) min: Rate,
    pub(crate) max: Rate,
    pub(crate) count: usize,
    /// The rule that chose.
    pub(crate) rule: &'static str,
}

#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) rate: &'a BaseRate,
    stale: bool,
    pub(super) dispersion: Dispersion,
}

impl Offers {
    pub(super) fn by_ticker(rates: &[BaseRate], feeds: &FeedSettings) -> HashMap<Arc<str>, Offers> {
        let mut all: HashMap<Arc<str>, Offers> = HashMap::with_capacity(rates.len());
        for rate in rates {
            let life = feeds.rate_age_seconds_max(&rate.source) * 1_000_000;
            let offers = all
                .entry(Arc::clone(&rate.ticker))
                .or_insert_with(|| Offers(Vec::with_capacity(1)));
            offers.0.push(Offer {
                rate: rate.clone(),
                fresh_until_micros: rate.valid_at_micros.saturating_add(life),
            });
        }
        for offers in all.values_mut().filter(|offers| offers.0.len() > 1) {
            offers.0.sort_by_key(|offer| {
                (
                    feeds.rank(&offer.rate.source),
                    -offer.rate.valid_at_micros,
                    Arc::clone(&offer.rate.source),
                )
            });
        }
        all
    }

    /// Source and ticker of those whose source says something newer that is not believed.
    pub(super) fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        let held = |offer: &&Offer| {
            offer
                .rate
                .held
                .as_ref()
                .is_some_and(|held| held.value.is_some())
        };
        self.0
            .iter()
            .filter(held)
            .map(|offer| (&*offer.rate.source, &*offer.rate.ticker))
    }

    pub(super) fn choose(&self, now_micros: i64) -> Option<Chosen<'_>> {
        let fresh = |offer: &&Offer| offer.fresh_until_micros >= now_micros;
        let preferred = self.0.iter().find(fresh);
        let stale = preferred.is_none();
        let newest = || {
            self.0
                .iter()
                .rev()
                .max_by_key(|offer| offer.rate.valid_at_micros)
        };
        let offer = preferred.or_else(newest)?;
        let considered = self
            .0
            .iter()
            .filter(|other| stale || fresh(other))
            .filter(|other| other.rate.currency == offer.rate.currency);
        let chosen = offer.rate.rate;
        let mut dispersion = Dispersion {
            min: chosen,
            max: chosen,
            count: 0,
            rule: RULE,
        };
        for other in considered {
            dispersion.min = dispersion.min.min(other.rate.rate);
            dispersion.max = dispersion.max.max(other.rate.rate);
            dispersion.count += 1;
        }
        Some(Chosen {
            rate: &offer.rate,
            stale,
            dispersion,
        })
    }
}

/// As an answer carries it beside the figure in force.
pub(super) fn unconfirmed<T: Clone>(held: &HeldFigure<T>) -> Box<UnconfirmedValue<T>> {
    Box::new(UnconfirmedValue {
        value: held.value.clone(),
        at_micros: held.valid_at_micros,
        reason: Arc::clone(&held.reason),
    })
}

impl Chosen<'_> {
    pub(super) fn sourced(&self) -> SourcedValue<Rate> {
        SourcedValue {
            stale: self.stale,
            unconfirmed: self.rate.held.as_ref().map(unconfirmed),
            ..SourcedValue::new(
                self.rate.rate,
                Arc::clone(&self.rate.source),
                Some(self.rate.valid_at_micros),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(source: &str, rate: &str, seconds: i64) -> BaseRate {
        BaseRate {
            ticker: "GME".into(),
            rate: rate.parse().unwrap(),
            currency: "USD".into(),
            source: source.into(),
            valid_at_micros: seconds * 1_000_000,
            known_at_micros: 0,
            available: None,
            available_or_more: false,
            status: None,
            held: None,
        }
    }

    #[track_caller]
    fn check(now_seconds: i64, rates: &[BaseRate], expected: &str) {
        let all = Offers::by_ticker(rates, &FeedSettings::default());
        let chosen = all["GME"].choose(now_seconds * 1_000_000).unwrap();
        let Dispersion {
            min, max, count, ..
        } = chosen.dispersion;
        let stale = if chosen.stale { " stale" } else { "" };
        let found = format!("{}{stale} of {count}: {min} to {max}", chosen.rate.source);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_preferred_source_wins_while_it_is_fresh() {
        let day = 86_400;
        let polled = rate("seclend", "0.20", 1000);
        let file = rate("ibkr", "0.15", 900);
        let other = rate("another", "0.10", 1100);
        let all = [file.clone(), other.clone(), polled.clone()];
        check(1100, &all, "seclend of 3: 0.10000000 to 0.20000000");
        check(1000 + 1800, &all, "seclend of 3: 0.10000000 to 0.20000000");
        check(1000 + 1801, &all, "ibkr of 2: 0.10000000 to 0.15000000");
        check(901 + day, &all, "another of 1: 0.10000000 to 0.10000000");
        check(
            1101 + day,
            &all,
            "another stale of 3: 0.10000000 to 0.20000000",
        );
        check(1800, &[polled], "seclend of 1: 0.20000000 to 0.20000000");
    }

    #[test]
    fn currencies_are_not_compared() {
        let foreign = BaseRate {
            currency: "CAD".into(),
            ..rate("another", "0.10", 1000)
        };
        check(
            1000,
            &[rate("ibkr", "0.15", 900), foreign],
            "ibkr of 1: 0.15000000 to 0.15000000",
        );
    }
}
