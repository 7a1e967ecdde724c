//! `POST /api/v1/book`: a whole book of positions, CSV or Parquet, answered line by line.

use std::time::Duration;

use audit::{Fields, Kind};
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, mpsc};

use super::Gateway;
use super::errors::ApiError;
use super::keys::Role;
use super::middleware::{Caller, RequestId};
use super::moment::Asked;
use super::parameters::Parameters;
use crate::book::{Book, BookError, Summary, price as price_book};
use crate::data::{Change, Recorded};
use crate::time::rfc3339;

pub(super) const ROUTE: &str = "/api/v1/book";
/// Millions of lines take their time; nothing is answered before all are priced once.
pub(super) const DEADLINE: Duration = Duration::from_secs(600);
const UPLOAD_PATIENCE: Duration = Duration::from_secs(120);
const FILE_BYTES_MAX: usize = 256 << 20;
pub(super) const PARAMETERS: &[&str] = &["as_of", "known_at"];
const ENTRY: HeaderName = HeaderName::from_static("x-audit-entry");
const LINES: HeaderName = HeaderName::from_static("x-book-lines");
/// Of the answer on its way to the client.
const PIECE_BYTES: usize = 64 << 10;
/// Books keep a core busy and their file in memory: few at once, the others wait.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Who asks, as the entry tells it.
pub(super) struct Asker {
    pub(super) by: String,
    /// The only client whose lines it may have priced.
    pub(super) client_id: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) request_id: String,
}

pub(super) async fn price(
    State(gateway): State<Gateway>,
    Extension(id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let key = &caller.0.stored;
    let asker = Asker {
        by: format!("{} {}", key.role.name(), key.client_id),
        client_id: (key.role == Role::Client).then(|| key.client_id.clone()),
        key_id: Some(key.key_id.clone()),
        request_id: id.0,
    };
    answer(&gateway, asker, query.as_deref(), request).await
}

pub(super) async fn answer(
    gateway: &Gateway,
    asker: Asker,
    query: Option<&str>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::from_query(query, PARAMETERS);
    let asked = Asked::read(&mut parameters);
    parameters.finish()?;
    let closed = || ApiError::Calculation("the service is stopping".to_owned());
    let turn = TURNS.acquire().await.map_err(|_| closed())?;
    let bytes = gateway
        .body_within(request, FILE_BYTES_MAX, UPLOAD_PATIENCE)
        .await?;
    let moment = asked.settle(gateway).await?;
    let then = match moment {
        Some(_) => gateway.calculator.then(moment).await,
        None => gateway.calculator.settled().await,
    };
    let then = then.map_err(|error| ApiError::from_locate(error, ""))?;
    let book = Book {
        bytes,
        known_at_micros: moment.map_or(then.micros, |moment| moment.known_at_micros),
        then,
        client_id: asker.client_id.clone(),
    };
    let first = book.clone();
    // Whatever a file does to its reader stays there: a panic is a file that cannot be read.
    let summary = tokio::task::spawn_blocking(move || price_book(&first, &mut |_| true))
        .await
        .unwrap_or_else(|_| Err(BookError::unreadable()))
        .map_err(|error| ApiError::unreadable_body(error.to_string()))?;
    let audit = record(gateway, &asker, &book, &summary).await?;
    metrics::counter!("bre_book_lines_total").increment(summary.lines);
    let (pieces, sent) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    tokio::task::spawn_blocking(move || {
        send(&book, &pieces);
        drop(turn);
    });
    Ok(respond(&summary, &audit, sent))
}

/// The same again, on its way. A client that went away ends it.
fn send(book: &Book, pieces: &mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let mut piece = Vec::with_capacity(PIECE_BYTES + 4096);
    let sent = price_book(book, &mut |line| {
        piece.extend_from_slice(line);
        if piece.len() < PIECE_BYTES {
            return true;
        }
        let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES + 4096));
        pieces.blocking_send(Ok(full.into())).is_ok()
    });
    let last = match sent {
        Ok(_) => Ok(piece.into()),
        Err(error) => Err(std::io::Error::other(error)),
    };
    let _ = pieces.blocking_send(last);
}

async fn record(
    gateway: &Gateway,
    asker: &Asker,
    book: &Book,
    summary: &Summary,
) -> Result<Recorded, ApiError> {
    let totals: Vec<String> = summary
        .totals
        .iter()
        .map(|(currency, total)| format!("{currency} {total}"))
        .collect();
    let mut fields = Fields::new()
        .with("by", &asker.by)
        .with("request_id", &asker.request_id)
        .with("as_of", rfc3339(book.then.micros))
        .with("known_at", rfc3339(book.known_at_micros))
        .with("lines", summary.lines.to_string())
        .with("priced", summary.priced.to_string())
        .with("refused", summary.refused.to_string())
        .with("totals", totals.join(", "))
        .with("policies", summary.policies.join(", "))
        .with("input_sha256", &summary.input_sha256)
        .with("results_sha256", &summary.results_sha256)
        .with("engine_version", crate::VERSION);
    if let Some(key_id) = &asker.key_id {
        fields.set("key_id", key_id);
    }
    if let Some(client_id) = &asker.client_id {
        fields.set("client_id", client_id);
    }
    let writer = &gateway.calculator.writer;
    Ok(writer.entry(Kind::BookPriced, fields, Change::None).await?)
}

fn respond(
    summary: &Summary,
    audit: &Recorded,
    sent: mpsc::Receiver<Result<Bytes, std::io::Error>>,
) -> Response {
    let stream = futures_util::stream::unfold(sent, |mut sent| async move {
        sent.recv().await.map(|piece| (piece, sent))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    let mut response = ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response();
    let headers = response.headers_mut();
    let entry = format!("{}-{}-{}", audit.log, audit.epoch, audit.position);
    for (name, text) in [
        (ENTRY, entry),
        (LINES, summary.lines.to_string()),
        (header::CONTENT_LENGTH, summary.result_bytes.to_string()),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    response
}
