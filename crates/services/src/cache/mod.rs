//! The shared cache: the newest market data in Redis, each kind with its life. The engine lives on without it; it serves when the
//! database is away at the moment a process starts. What is found there is never priced into a locate: those need the database.

mod boundary;
#[cfg(test)]
mod secured_tests;
mod settings;

pub(crate) use boundary::{CachedMarket, MarketCache};
pub use settings::{RedisSettings, RedisSettingsError};

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::api_gateway::StoredKey;
use crate::data::MarketData;

/// Part of every key, so that engines of different versions never read each other's.
const PREFIX: &str = "bre:1:";
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
/// Redis is never worth waiting for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Nor is connecting to it; tests on a busy machine are about the outcome alone.
const CONNECT_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 30 } else { 1 });

pub(crate) struct Cache {
    settings: Option<RedisSettings>,
    connection: Mutex<Option<ConnectionManager>>,
    up: AtomicBool,
    /// Why there was no connection at the last try; empty: there was.
    trouble: std::sync::Mutex<String>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("up", &self.up)
            .finish_non_exhaustive()
    }
}

/// For health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheState {
    Off,
    Up,
    Down,
}

/// What is kept of an API key; its hash, never the key.
#[derive(Debug, Serialize, serde::Deserialize)]
struct CachedKey {
    hash: [u8; 32],
    stored: StoredKey,
}

impl Cache {
    pub(crate) fn new(settings: Option<RedisSettings>) -> Cache {
        Cache {
            settings,
            connection: Mutex::new(None),
            up: AtomicBool::new(false),
            trouble: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> CacheState {
        match (&self.settings, self.up.load(Ordering::Relaxed)) {
            (None, _) => CacheState::Off,
            (Some(_), true) => CacheState::Up,
            (Some(_), false) => CacheState::Down,
        }
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
        ] {
            pipe.set_ex(format!("{PREFIX}{name}"), value, seconds)
                .ignore();
        }
        let Some(mut connection) = self.connect().await else {
            return;
        };
        let put = tokio::time::timeout(PATIENCE, pipe.query_async::<()>(&mut connection)).await;
        self.note(matches!(put, Ok(Ok(())))).await;
    }

    /// All kinds, or nothing: half a market is none. Kinds that may be empty may also be missing.
    pub(crate) async fn get(&self) -> Option<(MarketData, Vec<StoredKey>)> {
        let mut connection = self.connect().await?;
        let mut pipe = redis::pipe();
        for name in KINDS {
            pipe.get(format!("{PREFIX}{name}"));
        }
        let got = tokio::time::timeout(
            PATIENCE,
            pipe.query_async::<Vec<Option<String>>>(&mut connection),
        )
        .await;
        self.note(matches!(got, Ok(Ok(_)))).await;
        let texts = got.ok()?.ok()?;
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
        ] = <[Option<String>; KINDS.len()]>::try_from(texts).ok()?;
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

    /// Asks whether it still answers.
    pub(crate) async fn ping(&self) {
        let Some(mut connection) = self.connect().await else {
            return;
        };
        let pong = tokio::time::timeout(
            PATIENCE,
            redis::cmd("PING").query_async::<String>(&mut connection),
        )
        .await;
        self.note(matches!(pong, Ok(Ok(_)))).await;
    }

    async fn connect(&self) -> Option<ConnectionManager> {
        let settings = self.settings.as_ref()?;
        let mut held = self.connection.lock().await;
        if held.is_none() {
            let tried = connect(settings).await;
            self.up.store(tried.is_ok(), Ordering::Relaxed);
            let trouble = tried.as_ref().err().cloned().unwrap_or_default();
            let mut last = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            if !trouble.is_empty() && *last != trouble {
                tracing::warn!(reason = %trouble, "no connection to the cache; the engine goes on without it");
            }
            *last = trouble;
            drop(last);
            *held = tried.ok();
        }
        held.clone()
    }

    async fn note(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) && !up {
            tracing::warn!("the cache is away; the engine goes on without it");
        }
        if !up {
            *self.connection.lock().await = None;
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

async fn connect(settings: &RedisSettings) -> Result<ConnectionManager, String> {
    let client = client(settings).await?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(CONNECT_PATIENCE));
    let connecting = ConnectionManager::new_with_config(client, config);
    match tokio::time::timeout(CONNECT_PATIENCE, connecting).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn text<T: Serialize>(value: &T) -> String {
    // Plain structures with text keys: nothing serde_json could fail on.
    serde_json::to_string(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(text: Option<String>) -> Option<T> {
    serde_json::from_str(&text?).ok()
}
