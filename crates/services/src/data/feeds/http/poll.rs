//! The loops that ask.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use audit::{Fields, Kind};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::super::intake::{enter, refuse};
use super::super::load::FeedLoad;
use super::super::settings::{FeedSettings, HttpSettings};
use super::super::{FeedError, Quarantined, RateRow, RiskRow, VolatilityRow, known, seclend};
use super::answers;
use super::breaker::Rules;
use super::client::{CallError, FeedClient};
use crate::data::database::DatabaseError;
use crate::data::keeper::Keeper;
use crate::data::market;
use crate::data::record::Record;
use crate::data::writer::{Change, WriteError};

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
    keeper: Arc<Keeper>,
    record: Arc<dyn Record>,
    client: FeedClient,
    settings: HttpSettings,
    /// What was recorded last, and when, of feeds that are not rates.
    sent: HashMap<String, (i64, i64)>,
    /// The answer that was refused last is refused once.
    refused: Option<(&'static str, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Rates,
    Volatility,
    Events,
}

/// New settings are looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks every feed that the settings name, for as long as it is not dropped.
pub(crate) async fn run(keeper: Arc<Keeper>, record: Arc<dyn Record>) {
    loop {
        let feeds = keeper.market.feeds();
        // Dropped together with its loops when the settings have changed.
        let _loops = start(&keeper, &record, &feeds);
        let same = |now: &FeedSettings| {
            now.seclend == feeds.seclend
                && now.volatility == feeds.volatility
                && now.events == feeds.events
        };
        while same(&keeper.market.feeds()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn start(keeper: &Arc<Keeper>, record: &Arc<dyn Record>, feeds: &FeedSettings) -> JoinSet<()> {
    let all = [
        ("seclend", &feeds.seclend, SECLEND, Asked::Rates),
        ("volatility", &feeds.volatility, SMALL, Asked::Volatility),
        ("events", &feeds.events, SMALL, Asked::Events),
    ];
    let mut loops = JoinSet::new();
    for (source, settings, rules, asked) in all {
        let Some(settings) = settings else { continue };
        match FeedClient::new(source, settings, rules) {
            Ok(client) => {
                let poller = Poller {
                    keeper: Arc::clone(keeper),
                    record: Arc::clone(record),
                    client,
                    settings: settings.clone(),
                    sent: HashMap::new(),
                    refused: None,
                };
                loops.spawn(poller.run(asked));
            }
            Err(reason) => {
                tracing::error!(feed = source, %reason, "this feed is not asked");
                keeper.board.failed(source, &reason);
            }
        }
    }
    loops
}

impl Poller {
    async fn run(mut self, asked: Asked) {
        let mut every = tokio::time::interval(self.settings.poll());
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut word = self.client.breaker_word();
        let mut reads = self.keeper.reads();
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
                Asked::Rates => self.rates().await,
                Asked::Volatility => self.volatility().await,
                Asked::Events => self.events().await,
            };
            if let Err(error) = polled {
                self.note(error).await;
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
        let board = self.keeper.board.all();
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

    async fn note(&mut self, error: PollError) {
        match error {
            PollError::Call(CallError::Refused { error, answer }) => {
                self.refuse(&error, answer).await;
            }
            error => tracing::warn!(feed = self.client.source, %error, "a feed was asked in vain"),
        }
    }

    async fn refuse(&mut self, error: &FeedError, answer: Vec<u8>) {
        let source = self.client.source;
        let again = self
            .refused
            .as_ref()
            .is_some_and(|(rule, bytes)| *rule == error.rule() && *bytes == answer);
        if !again {
            let record = &*self.record;
            refuse(&self.keeper, record, source, source, &answer, error, None).await;
            self.refused = Some((error.rule(), answer));
        }
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

    fn path(&self, usual: &str, ticker: &str) -> String {
        let path = self.settings.path.as_deref().unwrap_or(usual);
        let encoded: String = ticker
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() || byte == b'.' {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        path.replace("{ticker}", &encoded)
    }

    async fn rates(&mut self) -> Result<(), PollError> {
        let database = self.keeper.client()?;
        let tickers = self.tickers(&database).await?;
        let batch = !self.settings.batch_path.is_empty();
        let (rows, quarantined, answers) = if batch {
            self.batches(&tickers).await?
        } else {
            self.one_by_one(&tickers).await?
        };
        if answers.is_empty() {
            return Ok(());
        }
        let source = self.client.source;
        let now = Timestamp::now();
        let aliases = market::aliases(&database, None).await?;
        let mut last = known::baseline(&database, source, source).await?;
        // The newest batch holds what had changed; what was asked for is what must come back.
        let asked: HashSet<&str> = tickers.iter().map(String::as_str).collect();
        for (ticker, rate) in &mut last.rates {
            rate.in_last_batch = asked.contains(ticker.as_str());
        }
        let limits = self.keeper.market.feeds().limits(source);
        let mut load = FeedLoad::empty("seclend", source, &answers, now);
        load.whole = batch;
        let checked = load
            .take_rates(rows, quarantined, &aliases)
            .and_then(|()| load.guard(&last, &limits, false));
        if let Err(error) = checked {
            self.refuse(&error, answers).await;
            return Ok(());
        }
        self.refused = None;
        let oldest = now.as_microsecond() - i64::from(self.settings.confirm_seconds) * 1_000_000;
        load.rates.retain(|row| {
            last.rates.get(&row.ticker).is_none_or(|last| {
                last.rate != row.rate
                    || last.status.as_deref() != row.status.map(|status| status.as_str())
                    || last.valid_at_micros <= oldest
            })
        });
        if !load.rates.is_empty() {
            enter(&*self.record, load, None).await?;
        }
        Ok(())
    }

    async fn batches(
        &self,
        tickers: &[String],
    ) -> Result<(Vec<RateRow>, Vec<Quarantined>, Vec<u8>), PollError> {
        let (mut rows, mut quarantined, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in tickers.chunks(self.settings.batch_tickers.max(1)) {
            let body = serde_json::json!({ "tickers": chunk }).to_string();
            let path = &self.settings.batch_path;
            let read = |bytes: &[u8]| seclend::parse(bytes, None);
            let board = &self.keeper.board;
            let (parsed, answer) = self
                .client
                .call(board, path, Some(body.into_bytes()), read)
                .await?;
            let first = rows.len() + quarantined.len();
            for mut row in parsed.rows {
                row.line += first;
                if chunk.contains(&row.symbol) {
                    rows.push(row);
                } else {
                    quarantined.push(Quarantined {
                        line: row.line,
                        reason: "ticker_not_asked_for",
                        row: row.row,
                    });
                }
            }
            quarantined.extend(parsed.quarantined.into_iter().map(|row| Quarantined {
                line: row.line + first,
                ..row
            }));
            answers.extend_from_slice(&answer);
        }
        Ok((rows, quarantined, answers))
    }

    /// A ticker that fails keeps its last good rate; the others are taken.
    async fn one_by_one(
        &mut self,
        tickers: &[String],
    ) -> Result<(Vec<RateRow>, Vec<Quarantined>, Vec<u8>), PollError> {
        let (mut rows, mut answers) = (Vec::new(), Vec::new());
        for ticker in tickers {
            let path = self.path(SECLEND_PATH, ticker);
            let read = |bytes: &[u8]| seclend::parse(bytes, Some(ticker));
            match self
                .client
                .call(&self.keeper.board, &path, None, read)
                .await
            {
                Ok((parsed, answer)) => {
                    let line = rows.len() + 1;
                    rows.extend(parsed.rows.into_iter().map(|row| RateRow { line, ..row }));
                    answers.extend_from_slice(&answer);
                }
                Err(CallError::NotFound) => {}
                Err(CallError::Open) => break,
                Err(error) => self.note(error.into()).await,
            }
        }
        Ok((rows, Vec::new(), answers))
    }

    async fn volatility(&mut self) -> Result<(), PollError> {
        let source = self.client.source;
        let limits = self.keeper.market.feeds().limits(source);
        let path = self.settings.path.as_deref().unwrap_or(VOLATILITY_PATH);
        let mut asked = vec![("MARKET".to_owned(), path.to_owned())];
        for ticker in &self.settings.tickers {
            let path = format!("{path}/{}", self.path("{ticker}", ticker));
            asked.push((ticker.clone(), path));
        }
        let now = Timestamp::now();
        let (mut rows, mut answers) = (Vec::new(), Vec::new());
        for (subject, path) in asked {
            let read = |bytes: &[u8]| answers::index(bytes, &limits);
            match self
                .client
                .call(&self.keeper.board, &path, None, read)
                .await
            {
                Ok((index, answer)) => {
                    answers.extend_from_slice(&answer);
                    let valid_at = now;
                    if self.is_news(&subject, index, now) {
                        rows.push(VolatilityRow {
                            subject,
                            valid_at,
                            index,
                        });
                    }
                }
                Err(CallError::NotFound) => {}
                Err(CallError::Open) => break,
                Err(error) => self.note(error.into()).await,
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let database = self.keeper.client()?;
        let last = known::baseline(&database, source, source).await?;
        let mut load = FeedLoad::empty("volatility", source, &answers, now);
        load.volatility = rows;
        if let Err(error) = load.guard(&last, &limits, false) {
            self.refuse(&error, answers).await;
            return Ok(());
        }
        self.refused = None;
        if load.volatility.is_empty() {
            return Ok(());
        }
        let sent: Vec<(String, i64)> = load
            .volatility
            .iter()
            .map(|row| (row.subject.clone(), row.index))
            .collect();
        enter(&*self.record, load, None).await?;
        self.remember(sent, now);
        Ok(())
    }

    async fn events(&mut self) -> Result<(), PollError> {
        let database = self.keeper.client()?;
        let now = Timestamp::now();
        let (mut risks, mut answers) = (Vec::new(), Vec::new());
        for ticker in self.tickers(&database).await? {
            let path = self.path(EVENTS_PATH, &ticker);
            let read = |bytes: &[u8]| answers::risk(bytes, now);
            let factor = match self
                .client
                .call(&self.keeper.board, &path, None, read)
                .await
            {
                Ok((factor, answer)) => {
                    answers.extend_from_slice(&answer);
                    factor
                }
                // Nothing is coming for what a calendar does not know.
                Err(CallError::NotFound) => 0,
                Err(CallError::Open) => break,
                Err(error) => {
                    self.note(error.into()).await;
                    continue;
                }
            };
            if self.is_news(&ticker, i64::from(factor), now) {
                risks.push(RiskRow { ticker, factor });
            }
        }
        if risks.is_empty() {
            return Ok(());
        }
        let mut load = FeedLoad::empty("events", self.client.source, &answers, now);
        load.kind = "event_risk";
        load.risks = risks;
        self.refused = None;
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

    fn remember(&mut self, sent: Vec<(String, i64)>, now: Timestamp) {
        for (subject, value) in sent {
            self.sent.insert(subject, (value, now.as_microsecond()));
        }
    }
}
