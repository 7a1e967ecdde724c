//! The loops that ask.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use audit::{Fields, Kind};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::super::guard::Accept;
use super::super::intake::{RefusedBytes, enter, refuse};
use super::super::load::{Alias, FeedLoad};
use super::super::{FeedError, QuarantinedRow, RateRow, RiskRow, VolatilityRow, known, seclend};
use super::answers;
use super::breaker::Rules;
use super::client::{Ask, CallError, FeedClient};
use super::name::{Name, encoded, name_of, tickers_of};
use crate::data::audit_log::AuditLog;
use crate::data::database::DatabaseError;
use crate::data::reading;
use crate::data::refresher::MarketRefresher;
use crate::data::writer::{Change, WriteError};
use crate::market::{FeedSettings, HttpSettings};

const SECLEND: Rules = Rules {
    failures: 5,
    window: Duration::from_secs(30),
    pause: Duration::from_secs(60),
    successes: 3,
};
/// Volatility and events.
const SMALL: Rules = Rules {
    failures: 3,
    window: Duration::from_secs(30),
    pause: Duration::from_secs(30),
    successes: 2,
};
const SECLEND_PATH: &str = "/api/borrows/{ticker}";
const VOLATILITY_PATH: &str = "/api/market/volatility";
const EVENTS_PATH: &str = "/api/calendar/risk-factor/{ticker}";

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

struct Poller {
    refresher: Arc<MarketRefresher>,
    record: Arc<dyn AuditLog>,
    client: FeedClient,
    settings: HttpSettings,
    /// What was recorded last, and when, of feeds that are not rates.
    sent: HashMap<String, (i64, i64)>,
    /// By subject, the answer that was refused last: it is refused once.
    refused: HashMap<String, (&'static str, Vec<u8>)>,
    /// Where in its list the next round begins, so that what is at the end of it is not always asked last, or never.
    start: usize,
    /// How many tickers this feed has no symbol for.
    unnamed: usize,
    form: BatchForm,
}

/// How many tickers are asked for at once. A server that does not take one form is asked in the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchForm {
    /// `{"tickers":["GME"]}`
    Object,
    /// `["GME"]`
    Array,
    /// One ticker a request, until this moment (in microseconds since 1970); then the others are tried again.
    Single { until: i64 },
}

impl BatchForm {
    fn next(self, now: Timestamp) -> BatchForm {
        match self {
            BatchForm::Object => BatchForm::Array,
            BatchForm::Array | BatchForm::Single { .. } => BatchForm::Single {
                until: now.as_microsecond() + SINGLE_MICROS,
            },
        }
    }
}

/// A server that takes no batch may have been in the middle of something.
const SINGLE_MICROS: i64 = 3600 * 1_000_000;
/// The index that counts for every ticker without its own.
const MARKET: &str = "MARKET";
/// What a refusal of a whole round is kept under.
const ROUND: &str = "";

#[derive(Debug, Clone, Copy)]
enum PolledKind {
    Rates,
    Volatility,
    Events,
}

/// New settings are looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks every feed that the settings name, for as long as it is not dropped.
pub(crate) async fn run(refresher: Arc<MarketRefresher>, record: Arc<dyn AuditLog>) {
    loop {
        let feeds = refresher.market.feeds();
        // Dropped together with its loops when the settings have changed.
        let _loops = start(&refresher, &record, &feeds);
        let same = |now: &FeedSettings| {
            now.seclend == feeds.seclend
                && now.volatility == feeds.volatility
                && now.events == feeds.events
        };
        while same(&refresher.market.feeds()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn start(
    refresher: &Arc<MarketRefresher>,
    record: &Arc<dyn AuditLog>,
    feeds: &FeedSettings,
) -> JoinSet<()> {
    let all = [
        ("seclend", &feeds.seclend, SECLEND, PolledKind::Rates),
        (
            "volatility",
            &feeds.volatility,
            SMALL,
            PolledKind::Volatility,
        ),
        ("events", &feeds.events, SMALL, PolledKind::Events),
    ];
    let mut loops = JoinSet::new();
    for (source, settings, rules, asked) in all {
        refresher.board.begin(source);
        let Some(settings) = settings else { continue };
        match FeedClient::new(source, settings, rules) {
            Ok(client) => {
                let poller = Poller {
                    refresher: Arc::clone(refresher),
                    record: Arc::clone(record),
                    client,
                    settings: settings.clone(),
                    sent: HashMap::new(),
                    refused: HashMap::new(),
                    start: 0,
                    unnamed: 0,
                    form: BatchForm::Object,
                };
                loops.spawn(poller.run(asked));
            }
            Err(reason) => {
                tracing::error!(feed = source, %reason, "this feed is not asked");
                refresher.board.failed(source, "all", &reason);
            }
        }
    }
    loops
}

impl Poller {
    async fn run(mut self, asked: PolledKind) {
        let mut every = tokio::time::interval(self.settings.poll());
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut word = self.client.breaker_word();
        let mut reads = self.refresher.reads();
        if reads.wait_for(|reads| *reads > 0).await.is_err() {
            return;
        }
        loop {
            every.tick().await;
            let mut state = self.record.watch_state();
            if state.wait_for(|state| state.is_serving()).await.is_err() {
                return;
            }
            let polled = match asked {
                PolledKind::Rates => self.rates().await,
                PolledKind::Volatility => self.volatility().await,
                PolledKind::Events => self.events().await,
            };
            if let Err(error) = polled {
                self.note(ROUND, error).await;
            }
            let now = self.client.breaker_word();
            let (was_closed, is_closed) = (word == "closed", now == "closed");
            word = now;
            if was_closed != is_closed {
                self.switched(is_closed).await;
            }
        }
    }

    /// A breaker that opened or closed is on the record: from here to there prices rest on what was good last.
    async fn switched(&self, closed: bool) {
        let outcome = if closed {
            "breaker_closed"
        } else {
            "breaker_opened"
        };
        tracing::warn!(
            feed = self.client.source,
            outcome,
            "a circuit breaker switched"
        );
        let mut fields = Fields::new()
            .with("outcome", outcome)
            .with("feed", self.client.source)
            .with("source", self.client.source);
        let board = self.refresher.board.all();
        if let Some(failure) = board
            .get(self.client.source)
            .and_then(|state| state.last_failure.as_ref())
            && !closed
        {
            fields.set("reason", failure);
        }
        let recorded = self
            .record
            .entry(Kind::FeedLoaded, fields, Change::None)
            .await;
        if let Err(error) = recorded {
            tracing::error!(%error, "a circuit breaker's switch is not on the record");
        }
    }

    async fn note(&mut self, subject: &str, error: PollError) {
        match error {
            PollError::Call(CallError::Refused { error, answer }) => {
                self.refuse(subject, &error, answer).await;
            }
            error => {
                tracing::warn!(feed = self.client.source, subject, %error, "a feed was asked in vain");
            }
        }
    }

    async fn refuse(&mut self, subject: &str, error: &FeedError, answer: Vec<u8>) {
        let source = self.client.source;
        let again = self
            .refused
            .get(subject)
            .is_some_and(|(rule, bytes)| *rule == error.rule() && *bytes == answer);
        if !again {
            let delivery = RefusedBytes {
                kind: source,
                source,
                bytes: &answer,
                valid_at: None,
                whole: subject == ROUND,
                by: None,
            };
            refuse(&self.refresher, &*self.record, &delivery, error).await;
            self.refused
                .insert(subject.to_owned(), (error.rule(), answer));
        }
    }

    /// Everything in `list`, beginning where the round before stopped.
    fn round<T: Clone>(&self, list: &[T]) -> Vec<T> {
        let start = self.start.checked_rem(list.len()).unwrap_or(0);
        [&list[start..], &list[..start]].concat()
    }

    /// `asked` of them were asked, in this order.
    fn end_round(&mut self, subjects: &[String], asked: usize) {
        self.start = next_start(self.start, subjects.len(), asked);
        let names: BTreeSet<String> = subjects.iter().cloned().collect();
        self.refused
            .retain(|subject, _| subject == ROUND || names.contains(subject));
        let unasked = subjects.len() - asked.min(subjects.len()) + self.unnamed;
        self.refresher
            .board
            .round(self.client.source, &names, unasked);
    }

    async fn tickers(&self, client: &Client) -> Result<Vec<String>, DatabaseError> {
        if !self.settings.tickers.is_empty() {
            return Ok(self.settings.tickers.clone());
        }
        let rows = client
            .query("SELECT ticker FROM stocks ORDER BY ticker", &[])
            .await
            .map_err(DatabaseError::query("reading the stocks"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn path(&self, usual: &str, symbol: &str) -> String {
        let path = self.settings.path.as_deref().unwrap_or(usual);
        path.replace("{ticker}", &encoded(symbol))
    }

    /// What this feed is asked for when these are meant.
    fn names(&mut self, tickers: &[String], aliases: &[Alias], now: Timestamp) -> Vec<Name> {
        let source = self.client.source;
        let of = |ticker: &String| Name::of(ticker, source, aliases, now);
        let names: Vec<Name> = tickers.iter().filter_map(of).collect();
        let unnamed = tickers.len() - names.len();
        if unnamed != self.unnamed && unnamed > 0 {
            tracing::warn!(
                feed = source,
                count = unnamed,
                "tickers are not asked for: by the aliases their names are this feed's symbols of other stocks"
            );
        }
        self.unnamed = unnamed;
        names
    }

    async fn rates(&mut self) -> Result<(), PollError> {
        let database = self.refresher.client()?;
        let tickers = self.tickers(&database).await?;
        let now = Timestamp::now();
        let aliases = reading::aliases(&database, None).await?;
        let names = self.names(&tickers, &aliases, now);
        let PollReport {
            rows,
            quarantined,
            answers,
            asked,
        } = if self.asks_in_batches(now) {
            self.batches(&names, now).await
        } else {
            self.one_by_one(&names).await
        };
        if answers.is_empty() {
            return Ok(());
        }
        let source = self.client.source;
        let mut last = known::baseline(&database, source, source, now.as_microsecond()).await?;
        // The newest batch holds what had changed; what was asked for, and answered, is what must come back.
        for (ticker, rate) in &mut last.rates {
            rate.in_last_batch = asked.contains(ticker.as_str());
        }
        let limits = self.refresher.market.feeds().limits(source);
        let mut load = FeedLoad::empty("seclend", source, &answers, now);
        load.whole = self.asks_in_batches(now);
        let checked = load
            .take_rates(rows, quarantined, &aliases)
            .and_then(|()| load.guard(&last, &limits, Accept::default()));
        if let Err(error) = checked {
            self.refuse(ROUND, &error, answers).await;
            return Ok(());
        }
        // After a refusal all is news: it shows that the feed is believed again.
        let recovered = self.refused.remove(ROUND).is_some();
        let oldest = now.as_microsecond() - i64::from(self.settings.confirm_seconds) * 1_000_000;
        load.rates.retain(|row| {
            last.rates.get(&row.ticker).is_none_or(|last| {
                recovered
                    || last.held.is_some()
                    || last.rate != row.rate
                    || last.status.as_deref() != row.status.map(|status| status.as_str())
                    || last.valid_at_micros <= oldest
            })
        });
        let held_anew = load.held_rates().any(|row| {
            let before = last.rates.get(&row.ticker);
            let held = before.and_then(|last| last.held.as_ref());
            held.is_none_or(|held| held.value != row.rate)
        });
        if !load.rates.is_empty() || held_anew {
            enter(&*self.record, load, None).await?;
        }
        Ok(())
    }

    fn asks_in_batches(&mut self, now: Timestamp) -> bool {
        if let BatchForm::Single { until } = self.form
            && until <= now.as_microsecond()
        {
            self.form = BatchForm::Object;
        }
        !self.settings.batch_path.is_empty() && !matches!(self.form, BatchForm::Single { .. })
    }

    /// In parts. One that fails keeps its last good rates; the others are taken.
    async fn batches(&mut self, all: &[Name], now: Timestamp) -> PollReport {
        let parts: Vec<Vec<Name>> = all
            .chunks(self.settings.batch_tickers.max(1))
            .map(<[Name]>::to_vec)
            .collect();
        let names: Vec<String> = parts.iter().map(|part| name_of(part)).collect();
        let (mut taken, mut asked) = (PollReport::default(), 0);
        for part in self.round(&parts) {
            let name = name_of(&part);
            let parsed = match self.batch(&part, &name, parts.len(), now).await {
                Ok(parsed) => parsed,
                Err(CallError::Open) => break,
                Err(error) if error.is_of_form() => {
                    tracing::warn!(
                        feed = self.client.source,
                        %error,
                        "it takes no batch in any form; every ticker is asked for by itself"
                    );
                    return self.one_by_one(all).await;
                }
                Err(error) => {
                    asked += 1;
                    self.note(&name, error.into()).await;
                    continue;
                }
            };
            asked += 1;
            self.refused.remove(&name);
            taken.add(parsed, &part);
        }
        self.end_round(&names, asked);
        taken
    }

    /// One part, in the form that the server takes.
    async fn batch(
        &mut self,
        part: &[Name],
        name: &str,
        subjects: usize,
        now: Timestamp,
    ) -> Result<(seclend::ParsedFile, Vec<u8>), CallError> {
        let symbols: Vec<&str> = part.iter().map(|name| name.symbol.as_str()).collect();
        loop {
            let body = match self.form {
                BatchForm::Object => serde_json::json!({ "tickers": symbols }),
                BatchForm::Array | BatchForm::Single { .. } => serde_json::json!(symbols),
            };
            let ask = Ask {
                subject: name.to_owned(),
                path: self.settings.batch_path.clone(),
                body: Some(body.to_string().into_bytes()),
                subjects,
            };
            let read = |_: &str, bytes: &[u8]| seclend::parse(bytes, None);
            let called = self.client.call(&self.refresher.board, &ask, read).await;
            match called {
                Err(error) if error.is_of_form() => {
                    self.form = self.form.next(now);
                    if matches!(self.form, BatchForm::Single { .. }) {
                        return Err(error);
                    }
                }
                called => return called,
            }
        }
    }

    /// A ticker that fails keeps its last good rate; the others are taken.
    async fn one_by_one(&mut self, all: &[Name]) -> PollReport {
        let (mut taken, mut asked) = (PollReport::default(), 0);
        for name in self.round(all) {
            let ask = Ask {
                path: self.path(SECLEND_PATH, &name.symbol),
                subject: name.ticker.clone(),
                body: None,
                subjects: all.len(),
            };
            let read = |_: &str, bytes: &[u8]| seclend::parse(bytes, Some(&name.symbol));
            match self.client.call(&self.refresher.board, &ask, read).await {
                Ok(parsed) => {
                    self.refused.remove(&name.ticker);
                    taken.add(parsed, std::slice::from_ref(&name));
                }
                Err(CallError::NotFound) => {}
                Err(CallError::Open) => break,
                Err(error) => self.note(&name.ticker, error.into()).await,
            }
            asked += 1;
        }
        self.end_round(&tickers_of(all), asked);
        taken
    }

    async fn volatility(&mut self) -> Result<(), PollError> {
        let source = self.client.source;
        let limits = self.refresher.market.feeds().limits(source);
        let database = self.refresher.client()?;
        let now = Timestamp::now();
        let aliases = reading::aliases(&database, None).await?;
        let names = self.names(&self.settings.tickers.clone(), &aliases, now);
        let usual = self.settings.path.as_deref().unwrap_or(VOLATILITY_PATH);
        let mut subjects = vec![MARKET.to_owned()];
        subjects.extend(tickers_of(&names));
        let mut paths = vec![usual.to_owned()];
        let own = |name: &Name| format!("{usual}/{}", encoded(&name.symbol));
        paths.extend(names.iter().map(own));
        let asks: Vec<Ask> = std::iter::zip(&subjects, paths)
            .map(|(subject, path)| Ask {
                path,
                subject: subject.clone(),
                body: None,
                subjects: subjects.len(),
            })
            .collect();
        let (mut rows, mut answers, mut asked) = (Vec::new(), Vec::new(), 0);
        for ask in self.round(&asks) {
            let read = |_: &str, bytes: &[u8]| answers::index(bytes, &limits);
            match self.client.call(&self.refresher.board, &ask, read).await {
                Ok((index, answer)) => {
                    self.refused.remove(&ask.subject);
                    answers.extend_from_slice(&answer);
                    if self.is_news(&ask.subject, index, now) {
                        rows.push(VolatilityRow {
                            subject: ask.subject,
                            valid_at: now,
                            index,
                        });
                    }
                }
                Err(CallError::NotFound) => {}
                Err(CallError::Open) => break,
                Err(error) => self.note(&ask.subject, error.into()).await,
            }
            asked += 1;
        }
        self.end_round(&subjects, asked);
        if rows.is_empty() {
            return Ok(());
        }
        let last = known::baseline(&database, "volatility", source, now.as_microsecond()).await?;
        let mut load = FeedLoad::empty("volatility", source, &answers, now);
        load.volatility = rows;
        if let Err(error) = load.guard(&last, &limits, Accept::default()) {
            self.refuse(ROUND, &error, answers).await;
            return Ok(());
        }
        self.refused.remove(ROUND);
        // What is held is looked at again in the next round: something else may confirm it.
        let sent: Vec<(String, i64)> = load
            .volatility
            .iter()
            .map(|row| (row.subject.clone(), row.index))
            .collect();
        let held_anew = load.held_indices().any(|row| {
            let last = last.indices.get(&row.subject);
            let held = last.and_then(|last| last.held.as_ref());
            held.is_none_or(|held| held.value != row.index)
        });
        if load.volatility.is_empty() && !held_anew {
            return Ok(());
        }
        enter(&*self.record, load, None).await?;
        self.remember(sent, now);
        Ok(())
    }

    async fn events(&mut self) -> Result<(), PollError> {
        let database = self.refresher.client()?;
        let now = Timestamp::now();
        let (mut risks, mut answers, mut asked) = (Vec::new(), Vec::new(), 0);
        let tickers = self.tickers(&database).await?;
        let aliases = reading::aliases(&database, None).await?;
        let names = self.names(&tickers, &aliases, now);
        for Name { ticker, symbol } in self.round(&names) {
            let ask = Ask {
                path: self.path(EVENTS_PATH, &symbol),
                subject: ticker.clone(),
                body: None,
                subjects: names.len(),
            };
            let read = |_: &str, bytes: &[u8]| answers::risk(bytes, now);
            let factor = match self.client.call(&self.refresher.board, &ask, read).await {
                Ok((factor, answer)) => {
                    self.refused.remove(&ticker);
                    answers.extend_from_slice(&answer);
                    Some(factor)
                }
                // Nothing is coming for what a calendar does not know.
                Err(CallError::NotFound) => Some(0),
                Err(CallError::Open) => break,
                Err(error) => {
                    self.note(&ticker, error.into()).await;
                    None
                }
            };
            asked += 1;
            if let Some(factor) = factor
                && self.is_news(&ticker, i64::from(factor), now)
            {
                risks.push(RiskRow { ticker, factor });
            }
        }
        self.end_round(&tickers_of(&names), asked);
        if risks.is_empty() {
            return Ok(());
        }
        let mut load = FeedLoad::empty("events", self.client.source, &answers, now);
        load.kind = "event_risk";
        load.risks = risks;
        let sent: Vec<(String, i64)> = load
            .risks
            .iter()
            .map(|row| (row.ticker.clone(), i64::from(row.factor)))
            .collect();
        enter(&*self.record, load, None).await?;
        self.remember(sent, now);
        Ok(())
    }

    /// It changed, or was recorded so long ago that it would soon look old.
    fn is_news(&self, subject: &str, value: i64, now: Timestamp) -> bool {
        let oldest = now.as_microsecond() - i64::from(self.settings.confirm_seconds) * 1_000_000;
        self.sent
            .get(subject)
            .is_none_or(|(sent, at)| *sent != value || *at <= oldest)
    }

    fn remember(&mut self, sent: impl IntoIterator<Item = (String, i64)>, now: Timestamp) {
        for (subject, value) in sent {
            self.sent.insert(subject, (value, now.as_microsecond()));
        }
    }
}

/// What one round of rates brought.
#[derive(Debug, Default)]
struct PollReport {
    rows: Vec<RateRow>,
    quarantined: Vec<QuarantinedRow>,
    answers: Vec<u8>,
    /// Tickers of the requests that were answered.
    asked: HashSet<String>,
}

impl PollReport {
    fn add(&mut self, (parsed, answer): (seclend::ParsedFile, Vec<u8>), part: &[Name]) {
        let first = self.rows.len() + self.quarantined.len();
        for mut row in parsed.rows {
            row.line += first;
            let asked = part
                .iter()
                .find(|asked| seclend::is_same(&row.symbol, &asked.symbol));
            if let Some(asked) = asked {
                // By the name that it was asked for: a class may be spelled in another way.
                row.symbol.clone_from(&asked.symbol);
                self.rows.push(row);
            } else {
                let (line, reason) = (row.line, "ticker_not_asked_for");
                self.quarantined
                    .push(QuarantinedRow::unread(line, reason, row.row));
            }
        }
        let moved = parsed.quarantined.into_iter().map(|row| QuarantinedRow {
            line: row.line + first,
            ..row
        });
        self.quarantined.extend(moved);
        self.answers.extend_from_slice(&answer);
        self.asked.extend(tickers_of(part));
    }
}

/// After a round that asked `asked` of `count`: behind the last one, and one further where all were asked.
fn next_start(start: usize, count: usize, asked: usize) -> usize {
    let step = if asked >= count { 1 } else { asked };
    (start + step).checked_rem(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_elsewhere_and_comes_to_everything() {
        // All asked: one further each time.
        assert_eq!([0, 1, 2].map(|start| next_start(start, 3, 3)), [1, 2, 0]);
        // Stopped by its breaker: what was not asked is next.
        assert_eq!(next_start(1, 5, 2), 3);
        assert_eq!(next_start(4, 5, 2), 1);
        assert_eq!(next_start(4, 5, 0), 4);
        assert_eq!(next_start(7, 0, 0), 0);
        assert_eq!(next_start(7, 1, 1), 0);
    }

    #[test]
    fn a_server_that_takes_no_form_of_a_batch_is_asked_by_ticker_for_an_hour() {
        let now: Timestamp = Timestamp::from_second(1_000_000).unwrap();
        let until = now.as_microsecond() + 3_600_000_000;
        let array = BatchForm::Object.next(now);
        assert_eq!(array, BatchForm::Array);
        assert_eq!(array.next(now), BatchForm::Single { until });
    }
}
