//! From a file or an answer to rows: checks, aliases, one batch, and what the audit entry says of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use audit::{Fields, Kind};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use uuid::Uuid;

use super::names::our_name;
use super::{
    EventRow, FeedError, HeldFigure, QuarantinedRow, RateRow, RiskRow, VolatilityRow, clearstreet,
    count_reasons, earnings, eight_decimals, ibkr, operator, refuse_mostly_bad, seclend, vix,
};
use crate::data::stocks::StockTerms;
use crate::domain::identifiers::is_ticker;
use crate::domain::time::rfc3339;
use crate::market::{BrokerTerms, FeedLimits};

/// Of a list that is written out in the entry.
const RECORDED_BYTES_MAX: usize = 256 << 10;

/// What can be imported.
pub(crate) const KINDS: [&str; 9] = [
    "ibkr",
    "seclend",
    "clearstreet",
    "vix",
    "events",
    "brokers",
    "aliases",
    "calendar",
    "stocks",
];

/// It can be no ticker of ours, and no alias says which one it is.
const UNMAPPED: &str = "symbol_unmapped";

/// A feed's symbol, and ours, for files of certain dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) source: String,
    pub(crate) symbol: String,
    pub(crate) ticker: String,
    pub(crate) valid_from_micros: i64,
    pub(crate) valid_to_micros: i64,
}

/// What arrived, and what has to be known to read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) kind: &'a str,
    /// The kind's own name when absent.
    pub(crate) source: Option<&'a str>,
    pub(crate) bytes: &'a [u8],
    pub(crate) now: Timestamp,
    /// When a file without a time of its own was true.
    pub(crate) valid_at: Option<Timestamp>,
    pub(crate) aliases: &'a [Alias],
    pub(crate) limits: &'a FeedLimits,
    /// Terms in force.
    pub(crate) brokers: &'a [BrokerTerms],
}

/// A delivery that passed, ready to be inserted.
#[derive(Debug)]
pub(crate) struct FeedLoad {
    pub(super) batch_id: Uuid,
    pub(super) kind: &'static str,
    pub(super) source: String,
    pub(super) sha256: Vec<u8>,
    pub(super) valid_at_micros: i64,
    pub(super) known_at_micros: i64,
    /// Its time is what it says itself, not what somebody said of it.
    pub(super) own_time: bool,
    /// It names all that its feed has: what is not in it is gone.
    pub(super) whole: bool,
    pub(super) rates: Vec<RateRow>,
    pub(super) volatility: Vec<VolatilityRow>,
    pub(super) events: Vec<EventRow>,
    pub(super) risks: Vec<RiskRow>,
    pub(super) brokers: Vec<BrokerTerms>,
    /// The terms that `brokers` replace.
    pub(super) replaced: Vec<BrokerTerms>,
    pub(super) aliases: Vec<operator::AliasRow>,
    pub(super) stocks: Vec<StockTerms>,
    /// A calendar as it came, and the number of its days.
    pub(super) calendar: Option<(String, usize)>,
    pub(super) quarantined: Vec<QuarantinedRow>,
    pub(super) benchmarks: BTreeMap<String, i64>,
    /// Rules that it broke and that an operator accepted.
    pub(super) accepted: Vec<&'static str>,
    /// Figures that jumped, and that a held one had announced.
    pub(super) confirmed: usize,
}

/// What an import answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImportReport {
    pub kind: String,
    pub source: String,
    pub batch_id: String,
    pub sha256: String,
    pub valid_at: String,
    pub rows: usize,
    pub loaded: usize,
    pub quarantined: usize,
    pub reasons: BTreeMap<String, usize>,
    /// Fractions a year, by currency.
    pub benchmarks: BTreeMap<String, String>,
    /// Limits that it broke and that whoever imported it accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Figures that jumped in the delivery before, were held, and are believed now that this one says the same.
    #[serde(skip_serializing_if = "is_none")]
    pub confirmed: usize,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

/// Reads a whole delivery. What it says is not yet held against what was said before: see [`FeedLoad::guard`].
pub(crate) fn prepare(delivery: &Delivery<'_>) -> Result<FeedLoad, FeedError> {
    let kind = KINDS
        .into_iter()
        .find(|kind| *kind == delivery.kind)
        .ok_or_else(|| FeedError::Kind(delivery.kind.to_owned()))?;
    let mut load = FeedLoad::empty(
        kind,
        delivery.source.unwrap_or(kind),
        delivery.bytes,
        delivery.now,
    );
    let (bytes, now, limits) = (delivery.bytes, delivery.now, delivery.limits);
    load.valid_at_micros = delivery.valid_at.unwrap_or(now).as_microsecond();
    super::not_ahead(delivery.valid_at.unwrap_or(now), now, limits)?;
    match kind {
        "ibkr" => {
            let parsed = ibkr::parse(bytes, now, limits)?;
            if let Some(at) = parsed.valid_at {
                load.valid_at_micros = at.as_microsecond();
                load.own_time = true;
            }
            load.whole = true;
            load.benchmarks = parsed.benchmarks;
            load.take_rates(parsed.rows, parsed.quarantined, delivery.aliases)?;
        }
        "seclend" => {
            let parsed = seclend::parse(bytes, None)?;
            load.whole = true;
            load.take_rates(parsed.rows, parsed.quarantined, delivery.aliases)?;
        }
        "clearstreet" => {
            let parsed = clearstreet::parse(bytes, now, limits)?;
            load.whole = true;
            load.own_time = true;
            load.valid_at_micros = parsed.valid_at.as_microsecond();
            load.take_rates(parsed.rows, parsed.quarantined, delivery.aliases)?;
        }
        "vix" => {
            let parsed = vix::parse(bytes, now, limits)?;
            let newest = parsed.rows.iter().map(|row| row.valid_at).max();
            load.own_time = newest.is_some();
            load.valid_at_micros = newest.unwrap_or(now).as_microsecond();
            load.volatility = parsed.rows;
            load.quarantined = parsed.quarantined;
        }
        "events" => {
            let parsed = earnings::parse(bytes, now)?;
            load.quarantined = parsed.quarantined;
            for (line, mut event, row) in parsed.rows {
                let at = load.valid_at_micros;
                event.ticker = our_name(kind, at, &event.ticker, delivery.aliases).into_owned();
                match is_ticker(&event.ticker) {
                    true => load.events.push(event),
                    false => load
                        .quarantined
                        .push(QuarantinedRow::unread(line, UNMAPPED, row)),
                }
            }
            refuse_mostly_bad(load.events.len(), &load.quarantined)?;
        }
        "brokers" => {
            load.brokers = operator::brokers(bytes)?;
            let named = |terms: &&BrokerTerms| {
                load.brokers
                    .iter()
                    .any(|new| new.client_id == terms.client_id)
            };
            load.replaced = delivery.brokers.iter().filter(named).cloned().collect();
        }
        "stocks" => {
            let (valid_at, known_at) = (load.valid_at_micros, load.known_at_micros);
            load.stocks = super::stocks::stocks(bytes, valid_at, known_at)?;
        }
        "calendar" => {
            let days = super::calendar::importable(bytes, now)?.days.len();
            let text = String::from_utf8_lossy(bytes).into_owned();
            load.calendar = Some((text, days));
        }
        _ => load.aliases = operator::aliases(bytes)?,
    }
    load.quarantined.sort_by_key(|row| row.line);
    Ok(load)
}

impl FeedLoad {
    pub(super) fn empty(
        kind: &'static str,
        source: &str,
        bytes: &[u8],
        now: Timestamp,
    ) -> FeedLoad {
        FeedLoad {
            batch_id: Uuid::now_v7(),
            kind,
            source: source.to_owned(),
            sha256: digest(&SHA256, bytes).as_ref().to_vec(),
            valid_at_micros: now.as_microsecond(),
            known_at_micros: now.as_microsecond(),
            own_time: false,
            whole: false,
            rates: Vec::new(),
            volatility: Vec::new(),
            events: Vec::new(),
            risks: Vec::new(),
            brokers: Vec::new(),
            replaced: Vec::new(),
            aliases: Vec::new(),
            stocks: Vec::new(),
            calendar: None,
            quarantined: Vec::new(),
            benchmarks: BTreeMap::new(),
            accepted: Vec::new(),
            confirmed: 0,
        }
    }

    /// Rates that could be read and are not believed.
    pub(super) fn held_rates(&self) -> impl Iterator<Item = &RateRow> {
        let rows = self.quarantined.iter();
        rows.filter_map(|row| row.held.as_ref()?.rate())
    }

    /// The same for indices of volatility.
    pub(super) fn held_indices(&self) -> impl Iterator<Item = &VolatilityRow> {
        let rows = self.quarantined.iter();
        rows.filter_map(|row| row.held.as_ref()?.index())
    }

    pub(crate) fn valid_at_micros(&self) -> i64 {
        self.valid_at_micros
    }

    /// One rate a ticker. Rows that say the same are one; of rows that contradict each other none is believed.
    pub(super) fn take_rates(
        &mut self,
        rows: Vec<RateRow>,
        quarantined: Vec<QuarantinedRow>,
        aliases: &[Alias],
    ) -> Result<(), FeedError> {
        self.quarantined = quarantined;
        for row in &mut self.quarantined {
            let Some(HeldFigure::Silent(symbol)) = &mut row.held else {
                continue;
            };
            let ours = our_name(self.kind, self.valid_at_micros, symbol, aliases).into_owned();
            row.held = is_ticker(&ours).then_some(HeldFigure::Silent(ours));
        }
        let mut places: HashMap<String, usize> = HashMap::with_capacity(rows.len());
        let mut contradicted: BTreeSet<String> = BTreeSet::new();
        for mut row in rows {
            let ours = our_name(self.kind, self.valid_at_micros, &row.symbol, aliases);
            if !is_ticker(&ours) {
                self.quarantined
                    .push(QuarantinedRow::unread(row.line, UNMAPPED, row.row));
                continue;
            }
            row.ticker = ours.into_owned();
            let Some(first) = places.get(&row.ticker).and_then(|at| self.rates.get(*at)) else {
                places.insert(row.ticker.clone(), self.rates.len());
                self.rates.push(row);
                continue;
            };
            let same = first.rate == row.rate
                && first.currency == row.currency
                && first.status == row.status;
            if !same {
                contradicted.insert(row.ticker.clone());
            }
            self.quarantined.push(match same {
                true => QuarantinedRow::unread(row.line, "ticker_repeated", row.row),
                false => QuarantinedRow::rate(row, "ticker_contradicted"),
            });
        }
        let (out, kept) = std::mem::take(&mut self.rates)
            .into_iter()
            .partition(|row| contradicted.contains(&row.ticker));
        self.rates = kept;
        let aside = |row: RateRow| QuarantinedRow::rate(row, "ticker_contradicted");
        let out: Vec<RateRow> = out;
        self.quarantined.extend(out.into_iter().map(aside));
        refuse_mostly_bad(self.rates.len(), &self.quarantined)
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn batch_id(&self) -> Uuid {
        self.batch_id
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn brokers(&self) -> &[BrokerTerms] {
        &self.brokers
    }

    pub(super) fn loaded(&self) -> usize {
        self.rates.len()
            + self.volatility.len()
            + self.events.len()
            + self.risks.len()
            + self.brokers.len()
            + self.aliases.len()
            + self.stocks.len()
            + self.calendar.as_ref().map_or(0, |(_, days)| *days)
    }

    pub(super) fn rows(&self) -> usize {
        self.loaded() + self.quarantined.len()
    }

    pub(crate) fn report(&self) -> ImportReport {
        ImportReport {
            kind: self.kind.to_owned(),
            source: self.source.clone(),
            batch_id: self.batch_id.to_string(),
            sha256: hex(&self.sha256),
            valid_at: rfc3339(self.valid_at_micros),
            rows: self.rows(),
            loaded: self.loaded(),
            quarantined: self.quarantined.len(),
            reasons: count_reasons(&self.quarantined)
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            benchmarks: self
                .benchmarks
                .iter()
                .map(|(currency, value)| (currency.clone(), eight_decimals(*value)))
                .collect(),
            accepted: self
                .accepted
                .iter()
                .map(|rule| (*rule).to_owned())
                .collect(),
            confirmed: self.confirmed,
        }
    }

    /// Terms of clients have an entry kind of their own.
    pub(crate) fn audit_kind(&self) -> Kind {
        if self.brokers.is_empty() {
            Kind::FeedLoaded
        } else {
            Kind::BrokerChanged
        }
    }

    pub(crate) fn fields(&self) -> Fields {
        let report = self.report();
        let mut fields = Fields::new()
            .with("outcome", "loaded")
            .with("feed", report.kind)
            .with("source", report.source)
            .with("batch_id", report.batch_id)
            .with("sha256", report.sha256)
            .with("valid_at", report.valid_at)
            .with("rows", report.rows.to_string())
            .with("loaded", report.loaded.to_string())
            .with("quarantined", report.quarantined.to_string());
        for (reason, count) in report.reasons {
            fields.set(format!("quarantined.{reason}"), count.to_string());
        }
        for (currency, value) in report.benchmarks {
            fields.set(format!("benchmark.{}", currency.to_lowercase()), value);
        }
        if !self.accepted.is_empty() {
            fields.set("accepted", self.accepted.join(","));
        }
        if self.kind == "accepted" {
            for row in &self.rates {
                fields.set("ticker", &row.ticker);
                fields.set("rate", eight_decimals(row.rate));
            }
            for row in &self.volatility {
                fields.set("ticker", &row.subject);
                fields.set("volatility_index", eight_decimals(row.index));
            }
        }
        if self.confirmed > 0 {
            fields.set("confirmed", self.confirmed.to_string());
        }
        if !self.stocks.is_empty() {
            let words: Vec<_> = self.stocks.iter().map(StockTerms::words).collect();
            let after = serde_json::Value::Array(words).to_string();
            // A longer list is in the table, and its bytes are known by their hash.
            if after.len() <= RECORDED_BYTES_MAX {
                fields.set("after", after);
            }
        }
        if !self.brokers.is_empty() {
            let json = |terms: &[BrokerTerms]| serde_json::to_string(terms).unwrap_or_default();
            let names: Vec<&str> = self
                .brokers
                .iter()
                .map(|terms| terms.client_id.as_str())
                .collect();
            fields.set("name", names.join(","));
            fields.set("before", json(&self.replaced));
            fields.set("after", json(&self.brokers));
        }
        fields
    }
}

/// What the record says of a delivery that was refused.
pub(crate) fn refusal_fields(kind: &str, source: &str, bytes: &[u8], error: &FeedError) -> Fields {
    Fields::new()
        .with("outcome", "refused")
        .with("feed", kind)
        .with("source", source)
        .with("sha256", hex(digest(&SHA256, bytes).as_ref()))
        .with("bytes", bytes.len().to_string())
        .with("rule", error.rule())
        .with("reason", error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
