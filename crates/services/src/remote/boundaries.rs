//! The boundaries, over HTTP: the same traits as a local call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit::{Chain, Fields, Kind};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::client::CallError;
use super::paths;
use super::peers::{PeerReport, WatchedPeer};
use super::wire::{QuoteFailure, RecordEntry, RecordQuote, WriteFailure};
use crate::cache::{CachedMarket, Seal};
use crate::calculation::{Calculation, PricedQuote, QuoteError, QuoteRequest};
use crate::data::{
    AuditLog, Change, FeedState, Inclusion, LocateOutcome, LocateRequest, LogPosition, QuoteRow,
    WriteError, WriterState,
};
use crate::domain::keys::StoredKey;
use crate::domain::protection::{JobReport, StreamHealth, StreamReport};
use crate::market::{MarketCache, MarketData};

/// What a data-service says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DataState {
    pub(crate) status: String,
    pub(crate) writer: WriterState,
    pub(crate) refusal: Option<WriteFailure>,
    pub(crate) stream: StreamReport,
    #[serde(default)]
    pub(crate) jobs: Vec<JobReport>,
    /// Why locates of a trade date are rejected; absent in what an older service says.
    #[serde(default)]
    pub(crate) closed: Option<String>,
    /// Breakers and last answers of the feeds, which are asked there; absent in what an older service says.
    #[serde(default)]
    pub(crate) feeds: BTreeMap<String, FeedState>,
    /// Of log and repository: whose the objects of the shared cache are.
    #[serde(default)]
    pub(crate) identity: Option<String>,
}

/// Changes wait for their turn; nobody waits for them under a deadline of a quote.
const ENTRY_TIMEOUT: Duration = Duration::from_secs(10);
const CACHE_TIMEOUT: Duration = Duration::from_secs(2);

/// A calculation-service elsewhere.
#[derive(Debug)]
pub(crate) struct RemoteCalculation {
    pub(crate) service: Arc<WatchedPeer>,
    pub(crate) timeout: Duration,
}

impl Calculation for RemoteCalculation {
    fn price_quote(&self, request: QuoteRequest) -> BoxFuture<'_, Result<PricedQuote, QuoteError>> {
        Box::pin(async move {
            let peer = &self.service.peer;
            let id = request.request_id.as_str();
            let answer = peer
                .post::<PricedQuote, QuoteFailure>(
                    paths::CALCULATE,
                    &request,
                    Some(id),
                    self.timeout,
                )
                .await;
            match answer {
                Ok(answer) => answer.map_err(QuoteError::from),
                Err(error) => Err(QuoteError::Record(verdict(peer.name(), &error))),
            }
        })
    }
}

/// A data-service elsewhere.
#[derive(Debug)]
pub(crate) struct RemoteAuditLog {
    service: Arc<WatchedPeer>,
    seen: watch::Receiver<PeerReport>,
    state: watch::Receiver<WriterState>,
    timeout: Duration,
}

impl RemoteAuditLog {
    /// With the task that follows what is seen of the service.
    pub(crate) fn new(
        service: Arc<WatchedPeer>,
        timeout: Duration,
        seal: Arc<Seal>,
    ) -> (RemoteAuditLog, tokio::task::JoinHandle<()>) {
        let (told, state) = watch::channel(WriterState::Starting);
        let mut looks = service.seen();
        let follow = tokio::spawn(async move {
            while looks.changed().await.is_ok() {
                let now = match data_state(&looks.borrow_and_update()) {
                    Ok(state) => {
                        if let Some(identity) = &state.identity {
                            seal.learn(identity);
                        }
                        state.writer
                    }
                    Err(reason) => WriterState::Away { reason },
                };
                told.send_replace(now);
            }
        });
        let seen = service.seen();
        let record = RemoteAuditLog {
            service,
            seen,
            state,
            timeout,
        };
        (record, follow)
    }

    async fn request<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        request_id: Option<&str>,
        timeout: Duration,
    ) -> Result<T, WriteError> {
        let peer = &self.service.peer;
        let answer = peer
            .post::<T, WriteFailure>(path, request, request_id, timeout)
            .await;
        match answer {
            Ok(answer) => answer.map_err(WriteError::from),
            Err(error) => Err(verdict(peer.name(), &error)),
        }
    }
}

impl AuditLog for RemoteAuditLog {
    fn quote(&self, quote: QuoteRow) -> BoxFuture<'_, Result<LogPosition, WriteError>> {
        Box::pin(async move {
            let id = quote.fields.get("request_id").map(ToOwned::to_owned);
            let request = RecordQuote {
                fields: owned(quote.fields.iter()),
            };
            self.request(paths::RECORD_QUOTE, &request, id.as_deref(), self.timeout)
                .await
        })
    }

    fn entry(
        &self,
        kind: Kind,
        fields: Fields,
        change: Change,
    ) -> BoxFuture<'_, Result<LogPosition, WriteError>> {
        Box::pin(async move {
            if matches!(change, Change::Feed(_)) {
                let why = "feeds are loaded where the data-service runs";
                return Err(WriteError::refused("data-service", why));
            }
            let request = RecordEntry {
                kind: kind.number(),
                fields: owned(fields.iter()),
                change,
            };
            self.request(paths::RECORD_ENTRY, &request, None, ENTRY_TIMEOUT)
                .await
        })
    }

    fn locate(&self, request: LocateRequest) -> BoxFuture<'_, Result<LocateOutcome, WriteError>> {
        Box::pin(async move {
            let id = Some(request.request_id.as_str()).filter(|id| !id.is_empty());
            self.request(paths::RECORD_LOCATE, &request, id, self.timeout)
                .await
        })
    }

    fn refusal(&self) -> Option<WriteError> {
        match data_state(&self.seen.borrow()) {
            Ok(state) => state.refusal.map(WriteError::from),
            Err(reason) => Some(WriteError::refused(self.service.peer.name(), reason)),
        }
    }

    fn knows_at_once(&self) -> bool {
        false
    }

    fn state(&self) -> WriterState {
        self.state.borrow().clone()
    }

    fn watch_state(&self) -> watch::Receiver<WriterState> {
        self.state.clone()
    }

    fn tip(&self) -> Option<Chain> {
        None
    }

    fn closed(&self) -> Option<String> {
        data_state(&self.seen.borrow()).ok()?.closed
    }

    fn inclusion(&self, epoch: u32, position: u64) -> BoxFuture<'_, Result<Inclusion, String>> {
        Box::pin(async move {
            let path = format!("/internal/audit/inclusion/{epoch}/{position}");
            let answer: Result<Result<Inclusion, String>, CallError> =
                self.service.peer.get(&path, self.timeout).await;
            answer.unwrap_or_else(|error| Err(error.to_string()))
        })
    }

    fn feeds(&self) -> BTreeMap<String, FeedState> {
        data_state(&self.seen.borrow())
            .map(|state| state.feeds)
            .unwrap_or_default()
    }
}

impl StreamHealth for RemoteAuditLog {
    fn jobs(&self) -> Vec<JobReport> {
        data_state(&self.seen.borrow())
            .map(|state| state.jobs)
            .unwrap_or_default()
    }

    fn report(&self) -> StreamReport {
        match data_state(&self.seen.borrow()) {
            Ok(state) => state.stream,
            Err(reason) => StreamReport {
                alarm: Some(reason),
                ..StreamReport::default()
            },
        }
    }
}

/// A cache-service elsewhere. It keeps itself warm, so nothing is put there.
#[derive(Debug)]
pub(crate) struct RemoteCache {
    pub(crate) service: Arc<WatchedPeer>,
}

impl MarketCache for RemoteCache {
    fn put<'a>(&'a self, _: &'a MarketData, _: &'a [StoredKey]) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn get(&self) -> BoxFuture<'_, Option<(MarketData, Vec<StoredKey>)>> {
        Box::pin(async {
            let peer = &self.service.peer;
            match peer
                .get::<Option<CachedMarket>>(paths::CACHE_MARKET, CACHE_TIMEOUT)
                .await
            {
                Ok(market) => market.map(Into::into),
                Err(error) => {
                    tracing::debug!(%error, "the cache-service does not answer");
                    None
                }
            }
        })
    }
}

fn data_state(seen: &PeerReport) -> Result<DataState, String> {
    match &seen.error {
        Some(error) => Err(error.clone()),
        None => DataState::deserialize(&seen.answer)
            .map_err(|error| format!("its state is not understood: {error}")),
    }
}

fn owned<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A request that never left, or was turned away at the door, recorded nothing. Any other silence may hide a commit.
fn verdict(part: &'static str, error: &CallError) -> WriteError {
    tracing::warn!(service = part, %error, "a service gave no answer");
    match error {
        CallError::Unreached { .. } => WriteError::refused(part, error.to_string()),
        CallError::Strange { status, .. } if (400..500).contains(status) => {
            WriteError::refused(part, error.to_string())
        }
        CallError::Unanswered { .. } | CallError::Strange { .. } => WriteError::unknown(part),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::remote::Peer;
    use crate::secret::InternalSecret;
    use crate::service::Service;

    /// What a record becomes when the service at the other end answers with these bytes and hangs up; `None`: it stays silent.
    async fn outcome(answer: Option<&'static str>) -> Result<LogPosition, WriteError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        let recorded = ask(&url).await;
        server.abort();
        recorded
    }

    async fn ask(url: &str) -> Result<LogPosition, WriteError> {
        let secret = InternalSecret::new("0123456789abcdef0123456789abcdef").unwrap();
        let peer = Peer::new(Service::DataService, url, &secret).unwrap();
        let watched = Arc::new(WatchedPeer::new(peer));
        let seal = Arc::new(Seal::new(b"a secret", None));
        let (record, follow) = RemoteAuditLog::new(watched, Duration::from_millis(200), seal);
        let request = RecordQuote {
            fields: Default::default(),
        };
        let recorded = record
            .request(paths::RECORD_QUOTE, &request, None, record.timeout)
            .await;
        follow.abort();
        recorded
    }

    fn part_of(outcome: &Result<LogPosition, WriteError>) -> (&'static str, &'static str) {
        match outcome {
            Ok(_) => ("recorded", ""),
            Err(WriteError::Refused { part, .. }) => ("refused", part),
            Err(WriteError::Unknown { part }) => ("unknown", part),
        }
    }

    #[tokio::test]
    async fn silence_after_the_request_left_is_an_unknown_outcome() {
        let check = async |answer: Option<&'static str>, expected| {
            assert_eq!(part_of(&outcome(answer).await), expected, "{answer:?}");
        };
        let ours = ("unknown", "data-service");
        check(None, ours).await;
        check(Some(""), ours).await;
        check(Some("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), ours).await;
        check(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), ours).await;
        check(
            Some("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad"),
            ours,
        )
        .await;
        check(
            Some("HTTP/1.1 503 Unavailable\r\ncontent-length: 33\r\n\r\n{\"unknown\":{\"part\":\"database\"}}  "),
            ("unknown", "database"),
        )
        .await;
    }

    #[tokio::test]
    async fn what_never_arrived_or_was_turned_away_is_refused() {
        let turned_away = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}";
        let ours = ("refused", "data-service");
        assert_eq!(part_of(&outcome(Some(turned_away)).await), ours);
        // A port that was free a moment ago, and nobody listens on.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(part_of(&ask(&url).await), ours);
    }

    #[test]
    fn an_address_is_read_strictly() {
        let secret = InternalSecret::new("0123456789abcdef0123456789abcdef").unwrap();
        let check = |url: &str, expected: bool| {
            let peer = Peer::new(Service::CacheService, url, &secret);
            assert_eq!(peer.is_ok(), expected, "{url}");
        };
        check("http://10.0.0.7:8000", true);
        check("http://data-service:8000/", true);
        check("https://10.0.0.7:8000", false);
        check("10.0.0.7:8000", false);
        check("http://10.0.0.7:8000/internal", false);
    }
}
