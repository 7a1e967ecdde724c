//! The market in memory: what every price is made from, swapped whole when it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use pricing::{
    Convention, DEFAULT_INDEX, Fee, Index, Percent, Policy, Rate, SourcedValue, UnconfirmedValue,
};
use serde::de::DeserializeOwned;

use super::event_risk::riskiest;
use super::offers::{Dispersion, Offers, unconfirmed};
use super::{
    AnnouncedEvent, BaseRate, BrokerTerms, Calendar, CalendarInForce, Definition, EventRisk,
    FeedSettings, HttpSettings, LastLoad, MarketData, RefusedDelivery, Stock, TickerAlias,
    Volatility,
};
use crate::domain::digits::decimal;
use crate::domain::identifiers::{by_class, class_key};

/// Why the market has no inputs for a price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MarketError {
    #[error("no rate is known for {0}")]
    Ticker(String),
    #[error("no market data has been loaded yet")]
    NoView,
}

/// Subject of the volatility index that counts for every ticker without its own.
const MARKET: &str = "MARKET";

/// A client's terms, ready to price with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) markup_percent: Percent,
    pub(crate) fee: Fee,
    pub(crate) policy: Arc<Policy>,
    pub(crate) convention: Arc<Convention>,
}

#[derive(Debug)]
pub(crate) struct MarketView {
    rates: HashMap<Arc<str>, Offers>,
    stocks: HashMap<Arc<str>, Stock>,
    volatility: HashMap<Arc<str>, Volatility>,
    events: HashMap<Arc<str>, EventRisk>,
    announced: HashMap<Arc<str>, Vec<AnnouncedEvent>>,
    loads: Vec<LastLoad>,
    refusals: Vec<RefusedDelivery>,
    expected: ExpectedTickers,
    terms: HashMap<String, Terms>,
    default_policy: Arc<Policy>,
    policies: BTreeMap<String, Arc<Policy>>,
    conventions: BTreeMap<String, Arc<Convention>>,
    aliases: HashMap<String, Vec<TickerAlias>>,
    names: Vec<Arc<str>>,
    /// Shares with a class, by the spelling with a dot.
    classes: HashMap<String, Arc<str>>,
    read_at_micros: i64,
}

/// What the market says of one ticker, each part with its origin.
#[derive(Debug, Clone)]
pub(crate) struct TickerInputs {
    pub(crate) ticker: Arc<str>,
    pub(crate) currency: Arc<str>,
    pub(crate) base_rate: SourcedValue<Rate>,
    pub(crate) dispersion: Option<Dispersion>,
    pub(crate) minimum_rate: SourcedValue<Rate>,
    pub(crate) volatility_index: SourcedValue<Index>,
    pub(crate) event_risk_factor: SourcedValue<u8>,
    pub(crate) feed_status: Option<SourcedValue<pricing::BorrowStatus>>,
    pub(crate) available: Option<i64>,
    pub(crate) available_or_more: bool,
    pub(crate) known_at_micros: Option<i64>,
}

impl MarketView {
    pub(crate) fn new(data: &MarketData, feeds: &FeedSettings) -> MarketView {
        let own = readable(&data.policies, Policy::id);
        let policies: BTreeMap<String, Arc<Policy>> = own
            .into_iter()
            // Last, so that nobody's own takes the place of a shipped one.
            .chain(Policy::shipped())
            .map(|policy| (policy.id(), Arc::new(policy)))
            .collect();
        let own = readable(&data.conventions, Convention::id);
        let conventions: BTreeMap<String, Arc<Convention>> = own
            .into_iter()
            .chain(Convention::shipped())
            .map(|convention| (convention.id(), Arc::new(convention)))
            .collect();
        let mut aliases: HashMap<String, Vec<TickerAlias>> = HashMap::new();
        for alias in &data.aliases {
            aliases
                .entry(alias.symbol.clone())
                .or_default()
                .push(alias.clone());
        }
        let mut terms = HashMap::new();
        for broker in data.brokers.iter().filter(|broker| broker.active) {
            match ready(broker, &policies, &conventions) {
                Some(ready) => drop(terms.insert(broker.client_id.clone(), ready)),
                None => tracing::error!(
                    client_id = broker.client_id,
                    "this client's terms cannot be read: no locates for it"
                ),
            }
        }
        let mut names: Vec<Arc<str>> = data
            .rates
            .iter()
            .map(|row| Arc::clone(&row.ticker))
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut announced: HashMap<Arc<str>, Vec<AnnouncedEvent>> = HashMap::new();
        for event in &data.announced {
            let events = announced.entry(key_of(&event.ticker)).or_default();
            events.push(event.clone());
        }
        let stocks = data.stocks.iter().map(|stock| &stock.ticker);
        // The last one stays: a ticker with a rate, and of those the one that is spelled with a dot.
        let classes = stocks
            .chain(&names)
            .filter_map(|name| Some((by_class(name)?, name)))
            .chain(
                names
                    .iter()
                    .filter(|name| name.contains('.'))
                    .map(|name| (name.to_string(), name)),
            )
            .map(|(class, name)| (class, Arc::clone(name)))
            .collect();
        MarketView {
            rates: Offers::by_ticker(&data.rates, feeds),
            stocks: data
                .stocks
                .iter()
                .map(|row| (Arc::clone(&row.ticker), row.clone()))
                .collect(),
            volatility: data
                .volatility
                .iter()
                .map(|row| (key_of(&row.subject), row.clone()))
                .collect(),
            events: data
                .events
                .iter()
                .map(|row| (key_of(&row.subject), row.clone()))
                .collect(),
            announced,
            loads: data.loads.clone(),
            refusals: data.refusals.clone(),
            expected: ExpectedTickers::of(data, feeds),
            terms,
            default_policy: Arc::new(Policy::standard_1()),
            policies,
            conventions,
            aliases,
            names,
            classes,
            read_at_micros: data.read_at_micros,
        }
    }

    pub(crate) fn terms(&self, client_id: &str) -> Option<&Terms> {
        self.terms.get(client_id)
    }

    pub(crate) fn policy_of(&self, client_id: &str) -> &Arc<Policy> {
        self.terms
            .get(client_id)
            .map_or(&self.default_policy, |terms| &terms.policy)
    }

    pub(crate) fn tickers(&self) -> usize {
        self.rates.len()
    }

    /// Every ticker that has a rate of its own, in alphabetical order.
    pub(crate) fn ticker_names(&self) -> &[Arc<str>] {
        &self.names
    }

    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    pub(crate) fn conventions(&self) -> impl Iterator<Item = &Arc<Convention>> {
        self.conventions.values()
    }

    pub(crate) fn has_policy(&self, id: &str) -> bool {
        self.policies.contains_key(id)
    }

    pub(crate) fn has_convention(&self, id: &str) -> bool {
        self.conventions.contains_key(id)
    }

    /// Our name for what a client calls a stock. What is in the book is itself, whatever it was called before; then the alias of
    /// today counts, then the one that ended last.
    fn resolve<'a>(&'a self, ticker: &'a str, now: i64) -> &'a str {
        if self.knows(ticker) {
            return ticker;
        }
        let Some(aliases) = self.aliases.get(ticker) else {
            let other = by_class(ticker).and_then(|class| self.classes.get(&class));
            return other.map_or(ticker, |ticker| &**ticker);
        };
        let begun = aliases
            .iter()
            .filter(|alias| alias.valid_from_micros <= now);
        begun
            .max_by_key(|alias| alias.valid_to_micros)
            .map_or(ticker, |alias| &alias.ticker)
    }

    /// Our name for what a client calls a stock.
    pub(crate) fn own_name(&self, asked: &str, now: i64) -> String {
        self.resolve(asked, now).to_owned()
    }

    /// Whether it is in the book or on the list of stocks.
    pub(crate) fn knows(&self, ticker: &str) -> bool {
        self.rates.contains_key(ticker) || self.stocks.contains_key(ticker)
    }

    pub(crate) fn minimum_rate(&self, ticker: &str, now: i64) -> SourcedValue<Rate> {
        match self.stocks.get(ticker) {
            Some(stock) => stock.minimum_at(now),
            None => SourcedValue::new(Rate::ZERO, "none", None),
        }
    }

    /// When it was read from the database; 0 where that is not known.
    pub(crate) fn read_at_micros(&self) -> i64 {
        self.read_at_micros
    }

    /// Deliveries that were not believed, and that no later one has followed.
    pub(crate) fn refusals(&self) -> &[RefusedDelivery] {
        &self.refusals
    }

    /// The subjects of each source for which it says something newer than what is believed.
    pub(crate) fn held(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut held: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let rates = self.rates.values().flat_map(Offers::held);
        let indices = self.volatility.values().filter(|row| {
            let held = row.held.as_ref();
            held.is_some_and(|held| held.value.is_some())
        });
        let indices = indices.map(|row| (&*row.source, &*row.subject));
        for (source, subject) in rates.chain(indices) {
            held.entry(source).or_default().insert(subject);
        }
        held
    }

    /// The index that counts for every ticker without its own: its source and its time.
    pub(crate) fn market_index(&self) -> Option<(&str, i64)> {
        let row = self.volatility.get(MARKET)?;
        Some((&row.source, row.valid_at_micros))
    }

    fn refusal<T>(&self, kinds: &[&str], source: &str) -> Option<Box<UnconfirmedValue<T>>> {
        let refusal = self
            .refusals
            .iter()
            .find(|refusal| refusal.source == source && kinds.contains(&refusal.kind.as_str()))?;
        Some(Box::new(UnconfirmedValue {
            value: None,
            at_micros: refusal.valid_at_micros,
            reason: Arc::clone(&refusal.rule),
        }))
    }

    /// The newest batch of every source.
    pub(crate) fn loads(&self) -> &[LastLoad] {
        &self.loads
    }

    pub(crate) fn inputs(&self, asked: &str, now: i64) -> Result<TickerInputs, MarketError> {
        let ticker = self.resolve(asked, now);
        let offers = self.rates.get(ticker);
        let chosen = offers.and_then(|offers| offers.choose(now));
        let rate = chosen.as_ref().map(|chosen| chosen.rate);
        let stock = self.stocks.get(ticker);
        let minimum_rate = self.minimum_rate(ticker, now);
        let minimum = minimum_rate.value;
        let mut base_rate = match &chosen {
            Some(chosen) => chosen.sourced(),
            None if minimum > Rate::ZERO => SourcedValue::fallback(minimum, "minimum_rate"),
            None => return Err(MarketError::Ticker(asked.to_owned())),
        };
        if base_rate.unconfirmed.is_none() {
            base_rate.unconfirmed = self.refusal(RATES, &base_rate.source);
        }
        base_rate.fallback |= *base_rate.source != *SECLEND && self.expected.rates.contains(ticker);
        Ok(TickerInputs {
            ticker: rate.map_or_else(|| ticker.into(), |rate| Arc::clone(&rate.ticker)),
            currency: rate.map_or_else(|| "USD".into(), |rate| Arc::clone(&rate.currency)),
            base_rate,
            dispersion: chosen.map(|chosen| chosen.dispersion),
            minimum_rate,
            volatility_index: self.index(ticker),
            event_risk_factor: self.event_risk(ticker, now),
            feed_status: match (rate, stock) {
                (
                    Some(BaseRate {
                        status: Some(status),
                        source,
                        valid_at_micros,
                        ..
                    }),
                    _,
                ) => Some(SourcedValue::new(
                    *status,
                    Arc::clone(source),
                    Some(*valid_at_micros),
                )),
                (
                    _,
                    Some(Stock {
                        status: Some(status),
                        ..
                    }),
                ) => Some(SourcedValue::new(*status, "stocks", None)),
                _ => None,
            },
            available: rate.and_then(|rate| rate.available),
            available_or_more: rate.is_some_and(|rate| rate.available_or_more),
            known_at_micros: rate.map(|rate| rate.known_at_micros),
        })
    }

    /// A ticker's own, or the market's.
    fn index(&self, ticker: &str) -> SourcedValue<Index> {
        let own = self.volatility.get(&*class_key(ticker));
        let Some(row) = own.or_else(|| self.volatility.get(MARKET)) else {
            return SourcedValue::fallback(DEFAULT_INDEX, "default");
        };
        let source = Arc::clone(&row.source);
        let held = row.held.as_ref().map(unconfirmed);
        SourcedValue {
            fallback: own.is_none() && self.expected.indices.contains(ticker),
            unconfirmed: held.or_else(|| self.refusal(INDICES, &source)),
            ..SourcedValue::new(row.index, source, Some(row.valid_at_micros))
        }
    }

    /// The higher of what a feed says and what the calendar's coming days are worth.
    fn event_risk(&self, ticker: &str, now: i64) -> SourcedValue<u8> {
        let told = self.events.get(&*class_key(ticker));
        let coming = self
            .announced
            .get(&*class_key(ticker))
            .and_then(|events| riskiest(events, now));
        let mut risk = match (told, coming) {
            (Some(told), Some((factor, _))) if told.factor >= factor => told.sourced(),
            (_, Some((factor, event))) => SourcedValue::new(
                factor,
                Arc::clone(&event.source),
                Some(event.valid_at_micros),
            ),
            (Some(told), None) => told.sourced(),
            (None, None) => SourcedValue::new(0, "none", None),
        };
        risk.fallback = told.is_none() && self.expected.risks.contains(ticker);
        // What a refused calendar would have said of a ticker without events nobody knows.
        risk.unconfirmed = match &*risk.source {
            "none" => self
                .refusals
                .iter()
                .find_map(|refusal| self.refusal(EVENTS, &refusal.source)),
            source => self.refusal(EVENTS, source),
        };
        risk
    }
}

/// Feeds spell the class of a share in their own ways; what is said of one of them is said of the share.
fn key_of(name: &str) -> Arc<str> {
    class_key(name).into()
}

/// Tickers for which the settings name a feed that has a figure of their own.
#[derive(Debug, Default)]
struct ExpectedTickers {
    rates: HashSet<String>,
    indices: HashSet<String>,
    risks: HashSet<String>,
}

impl ExpectedTickers {
    fn of(data: &MarketData, feeds: &FeedSettings) -> ExpectedTickers {
        let named = |feed: &Option<HttpSettings>| -> HashSet<String> {
            let tickers = feed.iter().flat_map(|feed| &feed.tickers);
            tickers.cloned().collect()
        };
        let mut risks = named(&feeds.events);
        // All stocks are asked for; one that the service does not know is told by it to have no event.
        if feeds.events.is_some() && risks.is_empty() {
            risks.extend(data.stocks.iter().map(|stock| stock.ticker.to_string()));
        }
        ExpectedTickers {
            rates: named(&feeds.seclend),
            indices: named(&feeds.volatility),
            risks,
        }
    }
}

/// The source of what is asked of a lender over HTTP.
const SECLEND: &str = "seclend";
/// Kinds of deliveries, by what is priced from them.
const RATES: &[&str] = &["ibkr", "seclend", "clearstreet"];
const INDICES: &[&str] = &["vix", "volatility"];
const EVENTS: &[&str] = &["events"];

impl EventRisk {
    fn sourced(&self) -> SourcedValue<u8> {
        SourcedValue::new(
            self.factor,
            Arc::clone(&self.source),
            Some(self.valid_at_micros),
        )
    }
}

/// One that cannot be read, or is not what its id says, is left out: whoever is priced by it is refused, not priced by another.
fn readable<T: DeserializeOwned>(definitions: &[Definition], id: impl Fn(&T) -> String) -> Vec<T> {
    let read = |definition: &Definition| match serde_json::from_str::<T>(&definition.json) {
        Ok(value) if id(&value) == definition.id => Some(value),
        _ => {
            tracing::error!(id = definition.id, "this definition cannot be read");
            None
        }
    };
    definitions.iter().filter_map(read).collect()
}

fn ready(
    broker: &BrokerTerms,
    policies: &BTreeMap<String, Arc<Policy>>,
    conventions: &BTreeMap<String, Arc<Convention>>,
) -> Option<Terms> {
    Some(Terms {
        markup_percent: decimal(&broker.markup_percent)?,
        fee: match broker.fee_type.as_str() {
            "FLAT" => Fee::Flat(decimal(&broker.fee_amount)?),
            "PERCENTAGE" => Fee::Percentage(decimal(&broker.fee_amount)?),
            _ => return None,
        },
        policy: Arc::clone(policies.get(&broker.policy)?),
        convention: Arc::clone(conventions.get(&broker.convention)?),
    })
}

/// The current view, and how far it can be trusted.
#[derive(Debug)]
pub(crate) struct Market {
    view: ArcSwapOption<MarketView>,
    /// When the database last confirmed it.
    confirmed_at_micros: AtomicI64,
    database_up: AtomicBool,
    age_max: Duration,
    feeds: ArcSwap<FeedSettings>,
    calendar: ArcSwapOption<CalendarInForce>,
}

impl Market {
    pub(crate) fn new(age_max: Duration, feeds: FeedSettings) -> Market {
        Market {
            view: ArcSwapOption::empty(),
            confirmed_at_micros: AtomicI64::new(0),
            database_up: AtomicBool::new(false),
            age_max,
            feeds: ArcSwap::from_pointee(feeds),
            calendar: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn feeds(&self) -> Arc<FeedSettings> {
        self.feeds.load_full()
    }

    /// For the next reading of the database.
    pub(crate) fn set_feeds(&self, feeds: FeedSettings) {
        self.feeds.store(Arc::new(feeds));
    }

    pub(crate) fn view(&self) -> Result<Arc<MarketView>, MarketError> {
        self.view.load_full().ok_or(MarketError::NoView)
    }

    /// `None` until the database has said which one is in force.
    pub(crate) fn calendar(&self) -> Option<Arc<Calendar>> {
        let in_force = self.calendar.load();
        Some(Arc::clone(&in_force.as_ref()?.calendar))
    }

    pub(crate) fn calendar_in_force(&self) -> Option<Arc<CalendarInForce>> {
        self.calendar.load_full()
    }

    pub(crate) fn set_calendar(&self, calendar: CalendarInForce) {
        self.calendar.store(Some(Arc::new(calendar)));
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.view.load().is_some()
    }

    pub(crate) fn set(&self, view: MarketView) {
        self.view.store(Some(Arc::new(view)));
    }

    /// Called with `true` whenever the database has just answered.
    pub(crate) fn set_database_up(&self, up: bool, now_micros: i64) {
        if up {
            self.confirmed_at_micros
                .store(now_micros, Ordering::Relaxed);
        }
        self.database_up.store(up, Ordering::Relaxed);
    }

    pub(crate) fn database_up(&self) -> bool {
        self.database_up.load(Ordering::Relaxed)
    }

    /// How long the database has not confirmed the view; `None`: it never has.
    pub(crate) fn unconfirmed_seconds(&self, now_micros: i64) -> Option<i64> {
        if self.database_up() {
            return Some(0);
        }
        let confirmed = self.confirmed_at_micros.load(Ordering::Relaxed);
        (confirmed > 0).then(|| (now_micros - confirmed).max(0) / 1_000_000)
    }

    /// The database has been away for so long that something may have changed unseen.
    pub(crate) fn is_stale(&self, now_micros: i64) -> bool {
        let age_max = i64::try_from(self.age_max.as_secs()).unwrap_or(i64::MAX);
        self.unconfirmed_seconds(now_micros)
            .is_none_or(|seconds| seconds > age_max)
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
