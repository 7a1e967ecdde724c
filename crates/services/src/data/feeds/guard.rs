//! What was believed last against what comes now. A batch that moved too much is refused as a whole, with a report to decide by; a
//! single row that moved too much is held: its ticker keeps the last good rate, and says so, until a later delivery confirms it. An
//! operator may accept a batch's movement by name; what is no feed at all (empty, cut short, clock ahead) cannot be accepted.

use std::collections::{BTreeMap, HashMap};

use super::load::FeedLoad;
use super::{FeedError, HeldFigure, QuarantinedRow, RateRow, eight_decimals, refuse_mostly_bad};
use crate::domain::time::rfc3339;
use crate::market::FeedLimits;

/// 10^-8 units in one percent.
const PERCENT: i64 = 1_000_000;
/// Rates below 0.1 % count as 0.1 % where movements are measured: next to nothing has no meaningful multiple.
const RATE_FLOOR: i64 = PERCENT / 10;
const EXAMPLES: usize = 3;
/// A rate that is not believed until something confirms it.
const JUMPED: &str = "rate_jumped";
/// Of so few rows the share that jumped says nothing of the delivery.
const FEW: usize = 2;

/// What somebody who has looked lets pass. One switch for one meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Accept {
    /// The market did that.
    pub(crate) jumps: bool,
    /// It completes the past.
    pub(crate) older: bool,
}

/// What a source said last before the time of a delivery, as far as it was believed.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    /// Of its newest batch of all.
    pub(crate) valid_at_micros: Option<i64>,
    pub(crate) rates: HashMap<String, LastRate>,
    /// The newest index of the market, in 10^-8.
    pub(crate) index: Option<i64>,
    /// Of single tickers.
    pub(crate) indices: HashMap<String, LastFigure>,
    /// Rows of the newest calendar.
    pub(crate) events: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct LastRate {
    pub(crate) rate: i64,
    pub(crate) rebate: Option<i64>,
    pub(crate) currency: String,
    pub(crate) status: Option<String>,
    pub(crate) valid_at_micros: i64,
    pub(crate) in_last_batch: bool,
    /// What was said later, jumped, and was not believed.
    pub(crate) held: Option<HeldValue>,
}

/// An index, in 10^-8, and when it was true.
#[derive(Debug, Clone)]
pub(crate) struct LastFigure {
    pub(crate) value: i64,
    pub(crate) valid_at_micros: i64,
    pub(crate) held: Option<HeldValue>,
}

/// A figure in 10^-8 that waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldValue {
    pub(crate) value: i64,
    pub(crate) valid_at_micros: i64,
    /// Of the delivery that said it.
    pub(crate) sha256: Vec<u8>,
}

impl HeldValue {
    /// Another delivery that is true later says about the same. The same bytes again say nothing new.
    fn is_confirmed_by(&self, value_is_near: bool, valid_at_micros: i64, sha256: &[u8]) -> bool {
        value_is_near && valid_at_micros > self.valid_at_micros && *sha256 != *self.sha256
    }
}

struct Guard<'a> {
    last: &'a Baseline,
    limits: &'a FeedLimits,
    accept: Accept,
    accepted: Vec<&'static str>,
    confirmed: usize,
}

impl FeedLoad {
    /// Holds a load that passed its own checks against what its source said before its time. `accept`: an operator has looked.
    pub(crate) fn guard(
        &mut self,
        last: &Baseline,
        limits: &FeedLimits,
        accept: Accept,
    ) -> Result<(), FeedError> {
        let mut guard = Guard {
            last,
            limits,
            accept,
            accepted: Vec::new(),
            confirmed: 0,
        };
        guard.order(self)?;
        if !self.rates.is_empty() {
            guard.repeated(self)?;
            if self.whole {
                guard.missing(&self.rates)?;
            }
            guard.moved(&self.rates)?;
            guard.rows(self)?;
        }
        guard.index(self)?;
        guard.indices(self);
        guard.calendar(self.events.len())?;
        self.accepted = guard.accepted;
        self.confirmed = guard.confirmed;
        Ok(())
    }
}

impl Guard<'_> {
    /// A broken rule: an error, or remembered as accepted.
    fn broken(&mut self, rule: &'static str, report: String) -> Result<(), FeedError> {
        if self.accept.jumps {
            self.accepted.push(rule);
            return Ok(());
        }
        Err(FeedError::Moved { rule, report })
    }

    /// A file that says itself that it is older than what is loaded was probably sent by mistake. Where somebody named its time, they know.
    fn order(&mut self, load: &FeedLoad) -> Result<(), FeedError> {
        let newest = match self.last.valid_at_micros {
            Some(newest) if load.own_time && load.valid_at_micros < newest => newest,
            _ => return Ok(()),
        };
        if self.accept.older {
            self.accepted.push("older_than_loaded");
            return Ok(());
        }
        Err(FeedError::Older {
            at: rfc3339(load.valid_at_micros),
            newest: rfc3339(newest),
        })
    }

    fn repeated(&mut self, load: &FeedLoad) -> Result<(), FeedError> {
        let repeated = load
            .quarantined
            .iter()
            .filter(|row| row.reason.starts_with("ticker_"))
            .count();
        let rows = load.rates.len() + repeated;
        if !self.enough(rows) || !over(repeated, rows, self.limits.repeated_share_max_percent) {
            return Ok(());
        }
        let report = format!(
            "{repeated} of {rows} rows ({}) are for a ticker that another row has already; the limit is {} %",
            share(repeated, rows),
            self.limits.repeated_share_max_percent
        );
        self.broken("rows_repeated", report)
    }

    fn missing(&mut self, rows: &[RateRow]) -> Result<(), FeedError> {
        let names: std::collections::HashSet<&str> =
            rows.iter().map(|row| row.ticker.as_str()).collect();
        let before = self
            .last
            .rates
            .iter()
            .filter(|(_, last)| last.in_last_batch)
            .map(|(ticker, _)| ticker.as_str());
        let (mut gone, kept): (Vec<&str>, Vec<&str>) =
            before.partition(|name| !names.contains(name));
        gone.sort_unstable();
        let count = gone.len() + kept.len();
        let limit = self.limits.missing_share_max_percent;
        if !self.enough(count) || !over(gone.len(), count, limit) {
            return Ok(());
        }
        let report = format!(
            "{} of the last batch's {count} names ({}) are missing, {} among them; the limit is {limit} %",
            gone.len(),
            share(gone.len(), count),
            examples(gone.iter().map(|name| (*name).to_owned())),
        );
        self.broken("names_missing", report)
    }

    fn moved(&mut self, rows: &[RateRow]) -> Result<(), FeedError> {
        if self.enough(rows.len()) {
            let middle = median(rows.iter().map(|row| row.rate).collect());
            let limit = i64::from(self.limits.median_rate_max_percent) * PERCENT;
            if middle > limit {
                let report = format!(
                    "half of its {} rates lie above {}; the limit for their middle is {}",
                    rows.len(),
                    eight_decimals(middle),
                    eight_decimals(limit)
                );
                self.broken("median_too_high", report)?;
            }
        }
        let pairs: Vec<(&RateRow, &LastRate)> = rows
            .iter()
            .filter_map(|row| Some((row, self.last.rates.get(&row.ticker)?)))
            .collect();
        if !self.enough(pairs.len()) {
            return Ok(());
        }
        let factor = self.limits.moved_factor;
        let moved: Vec<_> = pairs
            .iter()
            .filter(|(row, last)| beyond(last.rate, row.rate, factor))
            .collect();
        let limit = self.limits.moved_share_max_percent;
        if over(moved.len(), pairs.len(), limit) {
            let report = format!(
                "{} of {} rates ({}) moved by more than {factor} times since the last good batch ({}); the limit is {limit} %",
                moved.len(),
                pairs.len(),
                share(moved.len(), pairs.len()),
                examples(moved.iter().map(|(row, last)| movement(row, last))),
            );
            self.broken("rates_moved", report)?;
        }
        let middle = median(
            pairs
                .iter()
                .map(|(row, last)| {
                    row.rate.max(RATE_FLOOR).saturating_mul(1000) / last.rate.max(RATE_FLOOR)
                })
                .collect(),
        );
        let limit = i64::from(self.limits.median_factor_max.max(1));
        if middle > limit * 1000 || middle * limit < 1000 {
            let report = format!(
                "the middle of {} rates went to {}.{:03} times the last good batch's ({}); the limit is {limit} times either way",
                pairs.len(),
                middle / 1000,
                middle % 1000,
                examples(pairs.iter().map(|(row, last)| movement(row, last))),
            );
            self.broken("median_moved", report)?;
        }
        Ok(())
    }

    /// Sets single rows aside.
    fn rows(&mut self, load: &mut FeedLoad) -> Result<(), FeedError> {
        let benchmarks = self.benchmarks_moved(&load.benchmarks);
        let mut kept = Vec::with_capacity(load.rates.len());
        for row in std::mem::take(&mut load.rates) {
            match self.row_fault(&row, &benchmarks, load) {
                None => kept.push(row),
                // Too high is no question of movement.
                Some(reason) if self.accept.jumps && reason != "rate_too_high" => {
                    if !self.accepted.contains(&reason) {
                        self.accepted.push(reason);
                    }
                    kept.push(row);
                }
                Some(reason) => load.quarantined.push(QuarantinedRow::rate(row, reason)),
            }
        }
        load.rates = kept;
        load.quarantined.sort_by_key(|row| row.line);
        let rows = load.rates.len() + load.quarantined.len();
        let only_held = load.quarantined.iter().all(|row| row.reason == JUMPED);
        if rows <= FEW && only_held {
            return Ok(());
        }
        refuse_mostly_bad(load.rates.len(), &load.quarantined)
    }

    fn row_fault(
        &mut self,
        row: &RateRow,
        benchmarks: &BTreeMap<String, &'static str>,
        load: &FeedLoad,
    ) -> Option<&'static str> {
        if row.rate > i64::from(self.limits.rate_max_percent) * PERCENT {
            return Some("rate_too_high");
        }
        if let Some(reason) = benchmarks.get(&row.currency) {
            return Some(reason);
        }
        let last = self.last.rates.get(&row.ticker)?;
        let factor = self.limits.row_factor_max;
        if !self.is_recent(last.valid_at_micros, load.valid_at_micros)
            || !beyond(last.rate, row.rate, factor)
        {
            return None;
        }
        let confirmed = last.held.as_ref().is_some_and(|held| {
            let near = !beyond(held.value, row.rate, factor);
            held.is_confirmed_by(near, load.valid_at_micros, &load.sha256)
        });
        self.confirmed += usize::from(confirmed);
        (!confirmed).then_some(JUMPED)
    }

    /// Whether a movement since then is held: after a while it is believed.
    fn is_recent(&self, then_micros: i64, now_micros: i64) -> bool {
        let held = i64::from(self.limits.row_hold_seconds) * 1_000_000;
        now_micros.saturating_sub(then_micros) <= held
    }

    /// Currencies whose benchmark is not to be believed.
    fn benchmarks_moved(&self, now: &BTreeMap<String, i64>) -> BTreeMap<String, &'static str> {
        let mut sums: HashMap<&str, Vec<i64>> = HashMap::new();
        for last in self.last.rates.values().filter(|last| last.in_last_batch) {
            if let Some(rebate) = last.rebate {
                sums.entry(&last.currency)
                    .or_default()
                    .push(last.rate + rebate);
            }
        }
        let percent = |percent: u32| i64::from(percent) * PERCENT;
        let verdict = |(currency, benchmark): (&String, &i64)| {
            let before = sums.get(currency.as_str()).cloned().map(median);
            let reason = if benchmark.abs() > percent(self.limits.benchmark_max_percent) {
                "benchmark_too_high"
            } else if before.is_some_and(|before| {
                (benchmark - before).abs() > percent(self.limits.benchmark_move_max_percent)
            }) {
                "benchmark_jumped"
            } else {
                return None;
            };
            Some((currency.clone(), reason))
        };
        now.iter().filter_map(verdict).collect()
    }

    /// Of a file that holds the market's history. The market's index among those of a service is one of many.
    fn index(&mut self, load: &mut FeedLoad) -> Result<(), FeedError> {
        let market = load.volatility.iter().filter(|row| row.subject == "MARKET");
        let Some(newest) = market.max_by_key(|row| row.valid_at) else {
            return Ok(());
        };
        let newest = newest.index;
        let factor = self.limits.index_factor_max.max(1);
        match self.last.index {
            Some(before) if beyond_exactly(before, newest, factor) => {
                let report = format!(
                    "the newest index is {}, the last good one {}; the limit is {factor} times either way",
                    eight_decimals(newest),
                    eight_decimals(before)
                );
                self.broken("index_moved", report)
            }
            _ => Ok(()),
        }
    }

    /// A single index that jumped is set aside, and its subject keeps the last good one; it is believed when another answer says about
    /// the same, or after as long as a rate is held.
    fn indices(&mut self, load: &mut FeedLoad) {
        let factor = self.limits.index_factor_max.max(1);
        let (mut kept, mut away) = (Vec::new(), Vec::new());
        for row in std::mem::take(&mut load.volatility) {
            let valid_at = row.valid_at.as_microsecond();
            let last = self.last.indices.get(&row.subject).filter(|last| {
                self.is_recent(last.valid_at_micros, valid_at)
                    && beyond_exactly(last.value, row.index, factor)
            });
            let Some(last) = last else {
                kept.push(row);
                continue;
            };
            let confirmed = last.held.as_ref().is_some_and(|held| {
                let near = !beyond_exactly(held.value, row.index, factor);
                held.is_confirmed_by(near, valid_at, &load.sha256)
            });
            self.confirmed += usize::from(confirmed);
            if confirmed {
                kept.push(row);
            } else {
                away.push(row);
            }
        }
        load.volatility = kept;
        if away.is_empty() {
            return;
        }
        if self.accept.jumps {
            self.accepted.push("index_jumped");
            return load.volatility.extend(away);
        }
        // They have no lines; each needs a number of its own.
        let first = 1 + load
            .quarantined
            .iter()
            .map(|row| row.line)
            .max()
            .unwrap_or(0);
        let aside = away
            .into_iter()
            .enumerate()
            .map(|(index, row)| QuarantinedRow {
                line: first + index,
                reason: "index_jumped",
                row: format!("{} {}", row.subject, eight_decimals(row.index)),
                held: Some(HeldFigure::Index(row)),
            });
        load.quarantined.extend(aside);
    }

    /// A calendar replaces the one before it: one that lost most of its rows is not a calendar.
    fn calendar(&mut self, events: usize) -> Result<(), FeedError> {
        let before = self.last.events;
        let limit = self.limits.missing_share_max_percent;
        if events == 0
            || !self.enough(before)
            || !over(before.saturating_sub(events), before, limit)
        {
            return Ok(());
        }
        let report = format!(
            "it has {events} events, the calendar before it {before}; the limit is {limit} % fewer"
        );
        self.broken("events_missing", report)
    }

    fn enough(&self, names: usize) -> bool {
        u32::try_from(names).unwrap_or(u32::MAX) >= self.limits.names_min.max(1)
    }
}

fn over(part: usize, whole: usize, percent: u32) -> bool {
    (part as u128) * 100 > (whole as u128) * u128::from(percent)
}

/// Grew or fell by more than `factor`.
fn beyond(before: i64, now: i64, factor: u32) -> bool {
    let (before, now) = (
        i128::from(before.max(RATE_FLOOR)),
        i128::from(now.max(RATE_FLOOR)),
    );
    let factor = i128::from(factor.max(1));
    now > before * factor || now * factor < before
}

/// The same where next to nothing has a meaning.
fn beyond_exactly(before: i64, now: i64, factor: u32) -> bool {
    let (before, now, factor) = (i128::from(before), i128::from(now), i128::from(factor));
    now > before * factor || now * factor < before
}

fn median(mut values: Vec<i64>) -> i64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0;
    }
    *values.select_nth_unstable(middle).1
}

fn share(part: usize, whole: usize) -> String {
    let permille = part * 1000 / whole.max(1);
    format!("{}.{} %", permille / 10, permille % 10)
}

fn movement(row: &RateRow, last: &LastRate) -> String {
    format!(
        "{} {} to {}",
        row.ticker,
        eight_decimals(last.rate),
        eight_decimals(row.rate)
    )
}

fn examples(all: impl Iterator<Item = String>) -> String {
    let mut first: Vec<String> = all.take(EXAMPLES + 1).collect();
    if first.len() > EXAMPLES {
        first.truncate(EXAMPLES);
        first.push("…".to_owned());
    }
    first.join(", ")
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
