//! The same server without its record, so that `make bench` can measure what the record costs. Everything before and after is the
//! product's own: HTTP, key, limit, validation, market view, price, answer. Left out is what begins with [`AuditLog::priced`]: the
//! entry's bytes, the row, the writer, the commit. It records nothing, so nothing but the benchmark may start it: no setting and no
//! command of the engine leads here, and the tidy test holds the engine to that.

use std::sync::atomic::{AtomicU64, Ordering};

use audit::{Chain, Fields, Kind};
use futures_util::future::{BoxFuture, ready};
use pricing::Quote;
use tokio::sync::watch;

use crate::data::{
    AuditLog, Change, LocateOutcome, LocateRequest, LogPosition, QuoteEntry, QuoteRow, WriteError,
    WriterState,
};

#[derive(Debug)]
pub(crate) struct UnrecordedAnswers {
    answered: AtomicU64,
    state: watch::Sender<WriterState>,
}

impl UnrecordedAnswers {
    pub(crate) fn new() -> UnrecordedAnswers {
        UnrecordedAnswers {
            answered: AtomicU64::new(0),
            state: watch::channel(WriterState::Serving { epoch: 1 }).0,
        }
    }

    fn next(&self) -> LogPosition {
        LogPosition {
            log: 1,
            epoch: 1,
            // As many digits as a real one.
            position: 1_000_000 + self.answered.fetch_add(1, Ordering::Relaxed),
        }
    }
}

fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T, WriteError>> {
    let why = "this server was started without a record";
    Box::pin(ready(Err(WriteError::refused("audit_log", why))))
}

impl AuditLog for UnrecordedAnswers {
    fn quote(&self, _: QuoteRow) -> BoxFuture<'_, Result<LogPosition, WriteError>> {
        refused()
    }

    fn priced<'a>(
        &'a self,
        _: &QuoteEntry,
        _: &Quote,
    ) -> BoxFuture<'a, Result<LogPosition, WriteError>> {
        Box::pin(ready(Ok(self.next())))
    }

    fn entry(
        &self,
        _: Kind,
        _: Fields,
        _: Change,
    ) -> BoxFuture<'_, Result<LogPosition, WriteError>> {
        refused()
    }

    fn locate(&self, _: LocateRequest) -> BoxFuture<'_, Result<LocateOutcome, WriteError>> {
        refused()
    }

    fn refusal(&self) -> Option<WriteError> {
        None
    }

    fn knows_at_once(&self) -> bool {
        true
    }

    fn state(&self) -> WriterState {
        self.state.borrow().clone()
    }

    fn watch_state(&self) -> watch::Receiver<WriterState> {
        self.state.subscribe()
    }

    fn tip(&self) -> Option<Chain> {
        None
    }

    fn closed(&self) -> Option<String> {
        None
    }
}
