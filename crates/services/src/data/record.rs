//! The boundary in front of the record: whoever has something to record calls [`Record`], whether the writer of the log runs in
//! this process or in a data-service elsewhere.

use audit::{Chain, Fields, Kind};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::quotes::QuoteRecord;
use super::writer::{Change, Recorded, WriteError, Writer, WriterState};

pub(crate) trait Record: Send + Sync + std::fmt::Debug {
    /// Returns when the quote is durable, or says within a deadline what is known.
    fn quote(&self, quote: QuoteRecord) -> BoxFuture<'_, Result<Recorded, WriteError>>;

    /// Records anything but a quote, with its change.
    fn entry(
        &self,
        kind: Kind,
        fields: Fields,
        change: Change,
    ) -> BoxFuture<'_, Result<Recorded, WriteError>>;

    /// Why a locate would be refused, as far as is known here.
    fn refusal(&self) -> Option<WriteError>;

    /// Whether [`Record::refusal`] is the truth of this moment rather than of the last look.
    fn knows_at_once(&self) -> bool;

    fn state(&self) -> WriterState;

    fn watch_state(&self) -> watch::Receiver<WriterState>;

    /// The log's end, where its writer runs.
    fn tip(&self) -> Option<Chain>;
}

impl Record for Writer {
    fn quote(&self, quote: QuoteRecord) -> BoxFuture<'_, Result<Recorded, WriteError>> {
        Box::pin(Writer::quote(self, quote))
    }

    fn entry(
        &self,
        kind: Kind,
        fields: Fields,
        change: Change,
    ) -> BoxFuture<'_, Result<Recorded, WriteError>> {
        Box::pin(Writer::entry(self, kind, fields, change))
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
}
