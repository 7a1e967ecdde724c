//! How each feed is doing, for health and metrics: kept in memory by whoever loads feeds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::FeedError;
use crate::time::{now_micros, rfc3339};

/// By source.
#[derive(Debug, Default)]
pub(crate) struct FeedBoard(Mutex<BTreeMap<String, FeedState>>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedState {
    /// `closed`, `open` or `half_open`, of a feed that is asked over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) breaker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_answer_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_refusal_at: Option<String>,
    /// The rule's name: health tells no secrets, and a report quotes what the feed sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_refusal: Option<String>,
}

impl FeedBoard {
    pub(crate) fn all(&self) -> BTreeMap<String, FeedState> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, source: &str, change: impl FnOnce(&mut FeedState)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(source.to_owned()).or_default());
    }

    pub(super) fn refused(&self, source: &str, error: &FeedError) {
        self.change(source, |state| {
            state.last_refusal_at = Some(rfc3339(now_micros()));
            state.last_refusal = Some(error.rule().to_owned());
        });
    }

    pub(super) fn answered(&self, source: &str) {
        self.change(source, |state| {
            state.last_answer_at = Some(rfc3339(now_micros()));
        });
    }

    pub(super) fn failed(&self, source: &str, failure: &str) {
        self.change(source, |state| {
            state.last_failure_at = Some(rfc3339(now_micros()));
            state.last_failure = Some(failure.to_owned());
        });
    }

    pub(super) fn breaker(&self, source: &str, word: &'static str) {
        metrics::gauge!("bre_feed_breaker_open", "source" => source.to_owned())
            .set(u32::from(word != "closed"));
        self.change(source, |state| state.breaker = Some(word.to_owned()));
    }
}
