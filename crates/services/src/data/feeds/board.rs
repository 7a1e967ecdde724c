//! How each feed is doing, for health and metrics: kept in memory by whoever loads feeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::FeedError;
use crate::domain::time::{now_micros, rfc3339};

/// By source.
#[derive(Debug, Default)]
pub(crate) struct FeedBoard(Mutex<BTreeMap<String, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    state: FeedState,
    /// What it was asked for last without an answer that can be used.
    failing: BTreeSet<String>,
}

/// So many names are enough to look for the others.
const NAMES_MAX: usize = 10;

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
    /// The first of what gets no usable answer: tickers, or parts of a batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failing: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) failing_count: usize,
    /// What the last round did not come to, its breaker being open.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) unasked_count: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl FeedState {
    /// Why what is priced from it is not what it would be; `None`: all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(word) = self.breaker.as_deref().filter(|word| *word != "closed") {
            let why = self
                .last_failure
                .as_deref()
                .unwrap_or("its answers are not believed");
            parts.push(format!(
                "its circuit breaker is {} ({why})",
                word.replace('_', " ")
            ));
        }
        if self.failing_count > 0 {
            let more = if self.failing_count > self.failing.len() {
                ", …"
            } else {
                ""
            };
            parts.push(format!(
                "no usable answer for {} of what it is asked for: {}{more}",
                self.failing_count,
                self.failing.join(", ")
            ));
        }
        if self.unasked_count > 0 {
            parts.push(format!("{} not asked for", self.unasked_count));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl FeedBoard {
    pub(crate) fn all(&self) -> BTreeMap<String, FeedState> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |entry: &Entry| FeedState {
            failing: entry.failing.iter().take(NAMES_MAX).cloned().collect(),
            failing_count: entry.failing.len(),
            ..entry.state.clone()
        };
        all.iter()
            .map(|(source, entry)| (source.clone(), state(entry)))
            .collect()
    }

    fn change(&self, source: &str, change: impl FnOnce(&mut Entry)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(source.to_owned()).or_default();
        change(entry);
        metrics::gauge!("bre_feed_failing_subjects", "source" => source.to_owned())
            .set(u32::try_from(entry.failing.len()).unwrap_or(u32::MAX));
    }

    /// What was said of asking it before counts no more: it is asked anew, or no more.
    pub(super) fn begin(&self, source: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.remove(source).is_some() {
            for name in [
                "bre_feed_breaker_open",
                "bre_feed_failing_subjects",
                "bre_feed_unasked_subjects",
            ] {
                metrics::gauge!(name, "source" => source.to_owned()).set(0);
            }
        }
    }

    pub(super) fn refused(&self, source: &str, error: &FeedError) {
        self.change(source, |entry| {
            entry.state.last_refusal_at = Some(rfc3339(now_micros()));
            entry.state.last_refusal = Some(error.rule().to_owned());
        });
    }

    pub(super) fn answered(&self, source: &str, subject: &str) {
        self.change(source, |entry| {
            entry.state.last_answer_at = Some(rfc3339(now_micros()));
            entry.failing.remove(subject);
        });
    }

    pub(super) fn is_failing(&self, source: &str, subject: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(source)
            .is_some_and(|entry| entry.failing.contains(subject))
    }

    /// It answered, and nothing that can be used.
    pub(super) fn not_believed(&self, source: &str, subject: &str) {
        self.change(source, |entry| {
            entry.failing.insert(subject.to_owned());
        });
    }

    pub(super) fn failed(&self, source: &str, subject: &str, failure: &str) {
        self.change(source, |entry| {
            entry.state.last_failure_at = Some(rfc3339(now_micros()));
            entry.state.last_failure = Some(failure.to_owned());
            entry.failing.insert(subject.to_owned());
        });
    }

    /// At the end of a round: what is asked for, and how much of it was not.
    pub(super) fn round(&self, source: &str, asked_for: &BTreeSet<String>, unasked_count: usize) {
        self.change(source, |entry| {
            entry.failing.retain(|subject| asked_for.contains(subject));
            entry.state.unasked_count = unasked_count;
        });
        metrics::gauge!("bre_feed_unasked_subjects", "source" => source.to_owned())
            .set(u32::try_from(unasked_count).unwrap_or(u32::MAX));
    }

    pub(super) fn breaker(&self, source: &str, word: &'static str) {
        metrics::gauge!("bre_feed_breaker_open", "source" => source.to_owned())
            .set(u32::from(word != "closed"));
        self.change(source, |entry| entry.state.breaker = Some(word.to_owned()));
    }
}
