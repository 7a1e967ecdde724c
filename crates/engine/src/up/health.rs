//! What the services, `bre status` and the metrics are told about the WAL stream.

use std::sync::{Arc, Mutex, PoisonError};

use backup::stream::StreamWatch;
use services::{StreamHealth, StreamReport};

/// Alarm when PostgreSQL keeps this share of what it may keep for us.
const ALARM_PERMILLE: u32 = 800;
const FULL_PERMILLE: u32 = 1000;

/// Shared between the supervisor, which knows, and the services, which ask at every locate.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamMonitor {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    stream: Option<StreamWatch>,
    strict_wanted: bool,
    strict_on: bool,
    slot_fill_permille: Option<u32>,
    problem: Option<String>,
}

impl StreamMonitor {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new stream is attached, or none.
    pub(crate) fn follow(&self, stream: Option<StreamWatch>) {
        self.with(|inner| {
            inner.strict_on = inner.strict_on && stream.is_some();
            inner.stream = stream;
        });
    }

    pub(crate) fn want_strict(&self, wanted: bool) {
        self.with(|inner| inner.strict_wanted = wanted);
    }

    pub(crate) fn set_strict(&self, on: bool) {
        self.with(|inner| inner.strict_on = on);
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.with(|inner| inner.strict_on)
    }

    pub(crate) fn set_slot_fill(&self, permille: Option<u32>) {
        self.with(|inner| inner.slot_fill_permille = permille);
    }

    /// Something else that an operator should look at; `None` when it is over.
    pub(crate) fn set_problem(&self, problem: Option<String>) {
        self.with(|inner| inner.problem = problem);
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.with(|inner| {
            inner
                .stream
                .as_ref()
                .is_some_and(|stream| stream.state().attached)
        })
    }

    pub(crate) fn durable_lsn(&self) -> Option<u64> {
        self.with(|inner| inner.stream.as_ref().and_then(durable))
    }
}

/// Nothing is known to be durable before the first stream was attached.
fn durable(stream: &StreamWatch) -> Option<u64> {
    Some(stream.state().durable_lsn).filter(|lsn| *lsn > 0)
}

impl Inner {
    fn alarm(&self, error: Option<&str>) -> Option<String> {
        let fill = self
            .slot_fill_permille
            .filter(|permille| *permille >= ALARM_PERMILLE)
            .map(|permille| {
                format!(
                    "WAL that waits for the repository fills {}.{} % of max_slot_wal_keep_size",
                    permille / 10,
                    permille % 10
                )
            });
        let parts: Vec<&str> = [self.problem.as_deref(), error, fill.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl StreamHealth for StreamMonitor {
    fn report(&self) -> StreamReport {
        self.with(|inner| {
            let state = inner.stream.as_ref().map(StreamWatch::state);
            let full = inner.slot_fill_permille.is_some_and(|permille| permille >= FULL_PERMILLE);
            StreamReport {
                attached: state.as_ref().is_some_and(|state| state.attached),
                strict: inner.strict_on,
                durable_lsn: inner.stream.as_ref().and_then(durable),
                slot_fill_permille: inner.slot_fill_permille,
                alarm: inner.alarm(state.as_ref().and_then(|state| state.error.as_deref())),
                refuse_locates: (inner.strict_wanted && full).then(|| {
                    "strict mode: the repository is away and PostgreSQL can keep no more WAL for it".to_owned()
                }),
            }
        })
    }
}
