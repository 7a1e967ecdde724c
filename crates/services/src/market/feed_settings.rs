//! What can be set about feeds: limits, which source wins, and the feeds that are asked over HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::FeedLimits;

/// `[feeds]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedSettings {
    /// Sources of base rates, the one to prefer first. One that is not named comes after those that are.
    pub precedence: Vec<String>,
    /// A source's rate older than this gives way to another's that is not, and is marked stale where there is no other.
    pub rate_age_seconds_max: BTreeMap<String, u32>,
    /// By source; `default` counts for every other.
    pub limits: BTreeMap<String, FeedLimits>,
    pub seclend: Option<HttpSettings>,
    pub volatility: Option<HttpSettings>,
    pub events: Option<HttpSettings>,
}

/// A day: files come daily.
const RATE_AGE_SECONDS: u32 = 24 * 3600;
/// What is asked every minute and has been silent for half an hour is not news.
const POLLED_AGE_SECONDS: u32 = 1800;

impl Default for FeedSettings {
    fn default() -> FeedSettings {
        FeedSettings {
            precedence: ["seclend", "ibkr", "clearstreet"].map(str::to_owned).into(),
            rate_age_seconds_max: BTreeMap::from([("seclend".to_owned(), POLLED_AGE_SECONDS)]),
            limits: BTreeMap::new(),
            seclend: None,
            volatility: None,
            events: None,
        }
    }
}

impl FeedSettings {
    pub(crate) fn limits(&self, source: &str) -> FeedLimits {
        let named = self
            .limits
            .get(source)
            .or_else(|| self.limits.get("default"));
        named.cloned().unwrap_or_default()
    }

    pub(crate) fn rate_age_seconds_max(&self, source: &str) -> i64 {
        let named = self.rate_age_seconds_max.get(source);
        let any = || self.rate_age_seconds_max.get("default");
        i64::from(*named.or_else(any).unwrap_or(&RATE_AGE_SECONDS))
    }

    /// Smaller is preferred.
    pub(crate) fn rank(&self, source: &str) -> usize {
        let place = self.precedence.iter().position(|name| name == source);
        place.unwrap_or(self.precedence.len())
    }
}

/// What all feeds over HTTP have in common. The API key is in a file, never in the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// `https://host:port` or `http://host:port`, without a path, user name or password.
    pub base: String,
    /// Certificates, as PEM, that are believed for `https` instead of the system's own: those of an own authority.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// `{ticker}` is replaced. The feed's usual path when absent.
    #[serde(default)]
    pub path: Option<String>,
    /// Every stock of the `stocks` table when empty.
    #[serde(default)]
    pub tickers: Vec<String>,
    #[serde(default = "poll_seconds")]
    pub poll_seconds: u32,
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u32,
    /// A value that has not changed is recorded again after this, so that it does not look old.
    #[serde(default = "confirm_seconds")]
    pub confirm_seconds: u32,
    #[serde(default = "retry_milliseconds")]
    pub retry_milliseconds: u32,
    /// How long an open circuit breaker keeps a feed from being asked; the feed's usual pause when absent.
    #[serde(default)]
    pub pause_seconds: Option<u32>,
    /// SecLend only. Empty: every ticker is asked for by itself.
    #[serde(default = "batch_path")]
    pub batch_path: String,
    #[serde(default = "batch_tickers")]
    pub batch_tickers: usize,
}

fn poll_seconds() -> u32 {
    60
}
fn timeout_seconds() -> u32 {
    10
}
fn confirm_seconds() -> u32 {
    600
}
fn retry_milliseconds() -> u32 {
    200
}
fn batch_path() -> String {
    "/api/borrows/batch".to_owned()
}
fn batch_tickers() -> usize {
    500
}

impl HttpSettings {
    /// Everything at its default.
    pub fn at(base: impl Into<String>) -> HttpSettings {
        HttpSettings {
            base: base.into(),
            ca_file: None,
            api_key_file: None,
            path: None,
            tickers: Vec::new(),
            poll_seconds: poll_seconds(),
            timeout_seconds: timeout_seconds(),
            confirm_seconds: confirm_seconds(),
            retry_milliseconds: retry_milliseconds(),
            pause_seconds: None,
            batch_path: batch_path(),
            batch_tickers: batch_tickers(),
        }
    }

    pub(crate) fn poll(&self) -> Duration {
        Duration::from_secs(u64::from(self.poll_seconds.max(1)))
    }
}
