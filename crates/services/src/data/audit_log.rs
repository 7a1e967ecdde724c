//! The boundary in front of the record: whoever has something to record calls [`AuditLog`], whether the writer of the log runs in
//! this process or in a data-service elsewhere.

use std::collections::BTreeMap;

use audit::{Chain, Fields, Hash, Kind};
use futures_util::future::BoxFuture;
use pricing::Quote;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::feeds::FeedState;
use super::locates::{LocateOutcome, LocateRequest};
use super::quotes::{QuoteEntry, QuoteRow};
use super::writer::{Change, LogPosition, WriteError, Writer, WriterState};

/// Where an entry is in the published tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Inclusion {
    /// No published head covers it yet; the newest covers so many entries.
    Pending { covered_to: u64 },
    /// From the leaf's sibling up; and the signed head, as JSON.
    Path { path: Vec<Hash>, head: String },
}

/// Takes what is to be recorded.
pub(crate) trait AuditLog: Send + Sync + std::fmt::Debug {
    /// Returns when the quote is durable, or says within a deadline what is known.
    fn quote(&self, quote: QuoteRow) -> BoxFuture<'_, Result<LogPosition, WriteError>>;

    /// The same for one that was just priced; its record is made here.
    fn priced<'a>(
        &'a self,
        quote: &QuoteEntry,
        priced: &Quote,
    ) -> BoxFuture<'a, Result<LogPosition, WriteError>> {
        match quote.record(priced) {
            Ok(record) => self.quote(record),
            Err(error) => {
                let refused = WriteError::refused("audit_log", error.to_string());
                Box::pin(std::future::ready(Err(refused)))
            }
        }
    }

    /// Records anything but a quote, with its change.
    fn entry(
        &self,
        kind: Kind,
        fields: Fields,
        change: Change,
    ) -> BoxFuture<'_, Result<LogPosition, WriteError>>;

    /// Takes a locate one step further, and returns when the step is durable.
    fn locate(&self, request: LocateRequest) -> BoxFuture<'_, Result<LocateOutcome, WriteError>>;

    /// Why a locate would be refused, as far as is known here.
    fn refusal(&self) -> Option<WriteError>;

    /// Whether [`AuditLog::refusal`] is the truth of this moment rather than of the last look.
    fn knows_at_once(&self) -> bool;

    fn state(&self) -> WriterState;

    fn watch_state(&self) -> watch::Receiver<WriterState>;

    /// The log's end, where its writer runs.
    fn tip(&self) -> Option<Chain>;

    /// Why locates of a trade date are rejected until an operator has looked at what a recovery lost.
    fn closed(&self) -> Option<String>;

    /// Where an entry is in the published tree, for a gateway beside which it is not published.
    fn inclusion(&self, epoch: u32, position: u64) -> BoxFuture<'_, Result<Inclusion, String>> {
        let _ = (epoch, position);
        let why = "this log is not published: no repository keeps its signed heads";
        Box::pin(std::future::ready(Err(why.to_owned())))
    }

    /// Lets writing go on after damage; where the log is written only.
    fn reopen(&self, _why: String, _actor: String) -> BoxFuture<'_, Result<LogPosition, String>> {
        let elsewhere = "the log is written in another process: ask there".to_owned();
        Box::pin(std::future::ready(Err(elsewhere)))
    }

    /// How the feeds do where they are asked, if that is elsewhere.
    fn feeds(&self) -> BTreeMap<String, FeedState> {
        BTreeMap::new()
    }
}

impl AuditLog for Writer {
    fn quote(&self, quote: QuoteRow) -> BoxFuture<'_, Result<LogPosition, WriteError>> {
        Box::pin(Writer::quote(self, quote))
    }

    fn entry(
        &self,
        kind: Kind,
        fields: Fields,
        change: Change,
    ) -> BoxFuture<'_, Result<LogPosition, WriteError>> {
        Box::pin(Writer::entry(self, kind, fields, change))
    }

    fn locate(&self, request: LocateRequest) -> BoxFuture<'_, Result<LocateOutcome, WriteError>> {
        Box::pin(Writer::locate(self, request))
    }

    fn refusal(&self) -> Option<WriteError> {
        Writer::refusal(self)
    }

    fn knows_at_once(&self) -> bool {
        true
    }

    fn state(&self) -> WriterState {
        Writer::state(self)
    }

    fn watch_state(&self) -> watch::Receiver<WriterState> {
        Writer::watch_state(self)
    }

    fn tip(&self) -> Option<Chain> {
        Writer::tip(self)
    }

    fn closed(&self) -> Option<String> {
        Writer::closed(self)
    }

    fn reopen(&self, why: String, actor: String) -> BoxFuture<'_, Result<LogPosition, String>> {
        Box::pin(Writer::reopen(self, why, actor))
    }
}
