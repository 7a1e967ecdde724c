//! The shared cache: the newest market data in Redis, each kind with its life. The engine lives on without it; it serves when the
//! database is away at the moment a process starts. What is found there is never priced into a locate: those need the database.

mod boundary;
mod seal;
#[cfg(test)]
mod secured_tests;
mod trouble;

pub(crate) use boundary::CachedMarket;
pub use redis_physical::{RedisSettings, RedisSettingsError};
pub(crate) use seal::Seal;
pub(crate) use trouble::Trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::domain::keys::StoredKey;
use crate::domain::time::now_micros;
use crate::market::MarketData;

/// Part of every key, so that engines of different versions never read each other's.
const PREFIX: &str = "bre:2:";
pub(crate) const RATES_SECONDS: u64 = 300;
pub(crate) const VOLATILITY_SECONDS: u64 = 900;
pub(crate) const EVENTS_SECONDS: u64 = 3600;
pub(crate) const BROKERS_SECONDS: u64 = 1800;
pub(crate) const STOCKS_SECONDS: u64 = 24 * 3600;
const KEYS_SECONDS: u64 = 300;
/// In the order in which [`Cache::get`] takes them.
const KINDS: [&str; 10] = [
    "rates",
    "volatility",
    "events",
    "brokers",
    "stocks",
    "keys",
    "aliases",
    "policies",
    "conventions",
    "announced",
];
/// Says whose the cache is, beside the data.
const OWNER: &str = "owner";
const OWNER_SECONDS: u64 = 300;
/// Written to see whether it may be.
const PROBE: &str = "probe";
const PROBE_SECONDS: u64 = 60;
/// Redis is never worth waiting for.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Nor is connecting to it; tests on a busy machine are about the outcome alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 30 } else { 1 });
/// How long a stranger's object is told of after it was last seen.
const FOREIGN_MICROS: i64 = 120_000_000;

pub(crate) struct Cache {
    settings: Option<RedisSettings>,
    connection: Mutex<Option<ConnectionManager>>,
    /// Until the first answer nothing is known: not up either.
    trouble: ArcSwapOption<Trouble>,
    seal: Arc<Seal>,
    /// Objects under our names that are not ours.
    foreign: AtomicU64,
    foreign_seen_at_micros: AtomicI64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("trouble", &self.trouble)
            .finish_non_exhaustive()
    }
}

/// For health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CacheState {
    Off,
    Up,
    Down,
    /// It answers, and does not do what it is asked; its own word.
    Refused(String),
}

/// Of one that may be read, and not written, reading says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Wrote,
}

/// What became of requests to the cache; a request is for one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CacheReads {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Of another system: not read, and the others of that reading were not looked at.
    pub(crate) foreign: u64,
    pub(crate) unanswered: u64,
}

impl CacheReads {
    /// Every kind was there, and ours.
    pub(crate) fn is_complete(self) -> bool {
        self.hits == KINDS.len() as u64
    }

    fn count(self) {
        for (result, number) in [
            ("hit", self.hits),
            ("miss", self.misses),
            ("foreign", self.foreign),
            ("unanswered", self.unanswered),
        ] {
            metrics::counter!("bre_cache_requests_total", "result" => result).increment(number);
        }
    }
}

/// What is kept of an API key; its hash, never the key.
#[derive(Debug, Serialize, serde::Deserialize)]
struct CachedKey {
    hash: [u8; 32],
    stored: StoredKey,
}

impl Cache {
    pub(crate) fn new(settings: Option<RedisSettings>, seal: Arc<Seal>) -> Cache {
        Cache {
            settings,
            connection: Mutex::new(None),
            trouble: ArcSwapOption::from_pointee(Trouble::Away),
            seal,
            foreign: AtomicU64::new(0),
            foreign_seen_at_micros: AtomicI64::new(0),
        }
    }

    pub(crate) fn state(&self) -> CacheState {
        match (&self.settings, self.trouble.load().as_deref()) {
            (None, _) => CacheState::Off,
            (Some(_), None) => CacheState::Up,
            (Some(_), Some(Trouble::Away)) => CacheState::Down,
            (Some(_), Some(Trouble::Refused(word))) => CacheState::Refused(word.clone()),
        }
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// How many objects of somebody else were found under our names since the start.
    pub(crate) fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Somebody else writes into this cache as well, or did a moment ago.
    pub(crate) fn is_disputed(&self, now_micros: i64) -> bool {
        let seen = self.foreign_seen_at_micros.load(Ordering::Relaxed);
        seen > 0 && now_micros - seen < FOREIGN_MICROS
    }

    /// The text, if this system put it there.
    fn own<'a>(&self, kind: &str, sealed: &'a str) -> Option<&'a str> {
        let own = self.seal.open(kind, sealed);
        if own.is_none() {
            if !self.is_disputed(now_micros()) {
                tracing::warn!(
                    kind,
                    "the cache holds an object of another system; it is not read. Give each system a Redis, or a database number, of its own"
                );
            }
            self.foreign.fetch_add(1, Ordering::Relaxed);
            self.foreign_seen_at_micros
                .store(now_micros(), Ordering::Relaxed);
            metrics::counter!("bre_cache_foreign_objects_total").increment(1);
        }
        own
    }

    pub(crate) async fn put(&self, data: &MarketData, keys: &[StoredKey]) {
        let keys: Vec<CachedKey> = keys
            .iter()
            .map(|key| CachedKey {
                hash: key.hash,
                stored: key.clone(),
            })
            .collect();
        let mut pipe = redis::pipe();
        // Looked at before it is written over: a second system on the same Redis is told of while both run.
        pipe.get(format!("{PREFIX}{OWNER}"));
        for (name, value, seconds) in [
            ("rates", text(&data.rates), RATES_SECONDS),
            ("volatility", text(&data.volatility), VOLATILITY_SECONDS),
            ("events", text(&data.events), EVENTS_SECONDS),
            ("brokers", text(&data.brokers), BROKERS_SECONDS),
            ("stocks", text(&data.stocks), STOCKS_SECONDS),
            ("announced", text(&data.announced), EVENTS_SECONDS),
            ("aliases", text(&data.aliases), STOCKS_SECONDS),
            ("policies", text(&data.policies), BROKERS_SECONDS),
            ("conventions", text(&data.conventions), BROKERS_SECONDS),
            ("keys", text(&keys), KEYS_SECONDS),
            (OWNER, String::new(), OWNER_SECONDS),
        ] {
            let sealed = self.seal.close(name, &value);
            pipe.set_ex(format!("{PREFIX}{name}"), sealed, seconds)
                .ignore();
        }
        let Some(mut connection) = self.connect().await else {
            return;
        };
        let asking = pipe.query_async::<(Option<String>,)>(&mut connection);
        let put = tokio::time::timeout(TIMEOUT, asking).await;
        if let Some((Some(owner),)) = self.heard(put, Operation::Wrote).await {
            self.own(OWNER, &owner);
        }
    }

    /// All kinds, or nothing: half a market is none. Kinds that may be empty may also be missing.
    pub(crate) async fn get(&self) -> Option<(MarketData, Vec<StoredKey>)> {
        let (own, reads) = self.read_kinds().await;
        if reads.foreign > 0 || reads.unanswered > 0 {
            return None;
        }
        market(own)
    }

    /// What reading all of it now finds.
    pub(crate) async fn reads(&self) -> CacheReads {
        self.read_kinds().await.1
    }

    /// The texts that are ours, by kind, and what became of each request.
    async fn read_kinds(&self) -> (Vec<Option<String>>, CacheReads) {
        let mut own = Vec::with_capacity(KINDS.len());
        let mut reads = CacheReads::default();
        match self.texts().await {
            None => reads.unanswered = KINDS.len() as u64,
            Some(texts) => {
                for (kind, sealed) in KINDS.into_iter().zip(texts) {
                    let text = sealed.as_deref().map(|sealed| self.own(kind, sealed));
                    match text {
                        None => reads.misses += 1,
                        Some(Some(_)) => reads.hits += 1,
                        Some(None) => {
                            reads.foreign += 1;
                            // The others are not enough either.
                            break;
                        }
                    }
                    own.push(text.flatten().map(str::to_owned));
                }
            }
        }
        reads.count();
        (own, reads)
    }

    async fn texts(&self) -> Option<Vec<Option<String>>> {
        let mut connection = self.connect().await?;
        let mut pipe = redis::pipe();
        for name in KINDS {
            pipe.get(format!("{PREFIX}{name}"));
        }
        let got = tokio::time::timeout(
            TIMEOUT,
            pipe.query_async::<Vec<Option<String>>>(&mut connection),
        )
        .await;
        self.heard(got, Operation::Read).await
    }

    /// Asks whether it still does what it is for: a full one, or one that may only be read, answers a PING as well.
    pub(crate) async fn probe(&self) {
        let Some(mut connection) = self.connect().await else {
            return;
        };
        let mut probe = redis::cmd("SET");
        probe.arg(format!("{PREFIX}{PROBE}")).arg("");
        probe.arg("EX").arg(PROBE_SECONDS);
        let asking = probe.query_async::<()>(&mut connection);
        let written = tokio::time::timeout(TIMEOUT, asking).await;
        self.heard(written, Operation::Wrote).await;
    }

    async fn connect(&self) -> Option<ConnectionManager> {
        let settings = self.settings.as_ref()?;
        let mut held = self.connection.lock().await;
        if held.is_none() {
            match connect(settings).await {
                Ok(connection) => *held = Some(connection),
                Err(trouble) => self.note(Some(trouble)),
            }
        }
        held.clone()
    }

    /// What it answered, and what that says of its state.
    async fn heard<T>(
        &self,
        answer: Result<redis::RedisResult<T>, tokio::time::error::Elapsed>,
        asked: Operation,
    ) -> Option<T> {
        let trouble = match answer {
            Ok(Ok(answer)) => {
                let away = self.trouble.load().as_deref() == Some(&Trouble::Away);
                if asked == Operation::Wrote || away {
                    self.note(None);
                }
                return Some(answer);
            }
            Ok(Err(error)) => Trouble::of(&error),
            Err(_) => Trouble::Away,
        };
        if trouble == Trouble::Away {
            *self.connection.lock().await = None;
        }
        self.note(Some(trouble));
        None
    }

    fn note(&self, trouble: Option<Trouble>) {
        let before = self.trouble.swap(trouble.clone().map(Arc::new));
        if before.as_deref() == trouble.as_ref() {
            return;
        }
        match trouble {
            None => tracing::info!("the cache is in use"),
            Some(Trouble::Away) => {
                tracing::warn!("the cache is away; the engine goes on without it");
            }
            Some(Trouble::Refused(word)) => {
                tracing::warn!(word, "the cache refuses; the engine goes on without it");
            }
        }
    }
}

/// With what the files and commands of the settings say now.
pub(crate) async fn client(settings: &RedisSettings) -> Result<redis::Client, String> {
    let settings = settings.clone();
    match tokio::task::spawn_blocking(move || settings.client()).await {
        Ok(client) => client.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A login that is refused, a certificate that is not good, a file that cannot be read: each in its own words.
async fn connect(settings: &RedisSettings) -> Result<ConnectionManager, Trouble> {
    let client = client(settings).await.map_err(Trouble::Refused)?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(CONNECT_TIMEOUT));
    let connecting = ConnectionManager::new_with_config(client, config);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| Trouble::of_login(&error)),
        Err(_) => Err(Trouble::Away),
    }
}

fn market(own: Vec<Option<String>>) -> Option<(MarketData, Vec<StoredKey>)> {
    let [
        rates,
        volatility,
        events,
        brokers,
        stocks,
        keys,
        aliases,
        policies,
        conventions,
        announced,
    ] = <[Option<String>; KINDS.len()]>::try_from(own).ok()?;
    let keys: Vec<CachedKey> = read(keys)?;
    let data = MarketData {
        rates: read(rates)?,
        brokers: read(brokers)?,
        volatility: read(volatility).unwrap_or_default(),
        events: read(events).unwrap_or_default(),
        stocks: read(stocks).unwrap_or_default(),
        announced: read(announced).unwrap_or_default(),
        // Only the database tells how feeds are doing.
        loads: Vec::new(),
        refusals: Vec::new(),
        aliases: read(aliases).unwrap_or_default(),
        read_at_micros: 0,
        policies: read(policies)?,
        conventions: read(conventions)?,
    };
    Some((
        data,
        keys.into_iter()
            .map(|key| StoredKey {
                hash: key.hash,
                ..key.stored
            })
            .collect(),
    ))
}

fn text<T: Serialize>(value: &T) -> String {
    // Plain structures with text keys: nothing serde_json could fail on.
    serde_json::to_string(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(text: Option<String>) -> Option<T> {
    serde_json::from_str(&text?).ok()
}
