//! `POST /api/v1/book`: a whole book of positions, CSV or Parquet, answered line by line.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use audit::{Fields, Kind};
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, mpsc};

use super::Gateway;
use super::errors::ApiError;
use super::middleware::{Caller, RequestId};
use super::moment::AsOf;
use super::parameters::Parameters;
use super::turns::{ClientSlot, Turns};
use super::upload::{self, Content, PACE, Room};
use crate::book::{
    Book, BookError, FILE_BYTES_MAX, Halt, HaltOnDrop, Lines, Summary, decode, decode_csv,
    is_parquet, price as price_book,
};
use crate::data::{Change, LogPosition};
use crate::domain::keys::Role;
use crate::domain::time::rfc3339;
use crate::peer::Connection;

pub(super) const ROUTE: &str = "/api/v1/book";
/// Millions of lines take their time; nothing is answered before all are priced once.
pub(super) const DEADLINE: Duration = Duration::from_secs(600);
pub(super) const PARAMETERS: &[&str] = &["as_of", "known_at"];
const ENTRY: HeaderName = HeaderName::from_static("x-audit-entry");
const LINES: HeaderName = HeaderName::from_static("x-book-lines");
/// Of the answer on its way to the client.
const PIECE_BYTES: usize = 64 << 10;
/// A client that does not take a piece in this time is given up.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// Books that are decoded and priced at once.
const TURNS: usize = 2;
/// Books of one client that are on their way at once: received, waiting, priced or sent.
const BOOKS_OF_A_CLIENT_MAX: usize = 4;

/// What the books of all clients share.
#[derive(Debug)]
pub(crate) struct BookCapacity {
    turns: Arc<Turns>,
    room: Arc<Room>,
    /// Pieces of answers that are being made; a client that reads slowly holds none of it.
    pieces: Arc<Semaphore>,
    /// Set when the process ends: work on books ends then.
    halt_all: Arc<AtomicBool>,
}

impl Default for BookCapacity {
    fn default() -> BookCapacity {
        BookCapacity {
            turns: Turns::new(TURNS),
            room: Arc::default(),
            pieces: Arc::new(Semaphore::new(TURNS)),
            halt_all: Arc::default(),
        }
    }
}

impl BookCapacity {
    /// Turns that are taken right now.
    pub(super) fn turns_in_use(&self) -> usize {
        self.turns.in_use()
    }

    pub(crate) fn halt(&self) {
        self.halt_all
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

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
    let peer = request.extensions().get::<Connection>().cloned();
    let asker = Asker {
        by: format!("{} {}", key.role.name(), key.client_id),
        client_id: (key.role == Role::Client).then(|| key.client_id.clone()),
        key_id: Some(key.key_id.clone()),
        request_id: id.0,
    };
    let answering = answer(&gateway, asker, query.as_deref(), request);
    let Some(peer) = peer else {
        return answering.await;
    };
    // Dropping the answer ends all work on it.
    tokio::select! {
        answer = answering => answer,
        () = peer.gone() => Err(ApiError::unreadable_body("the client is gone")),
    }
}

pub(super) async fn answer(
    gateway: &Gateway,
    asker: Asker,
    query: Option<&str>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::from_query(query, PARAMETERS);
    let asked = AsOf::read(&mut parameters);
    parameters.finish()?;
    if let Some(coding) = super::coding(request.headers()) {
        return Err(ApiError::Encoded(coding));
    }
    let capacity = &gateway.books;
    let client: Arc<str> = asker.by.as_str().into();
    let place = capacity.turns.place(&client, BOOKS_OF_A_CLIENT_MAX);
    let place = place.ok_or(ApiError::BooksUnderWay {
        max: BOOKS_OF_A_CLIENT_MAX,
    })?;
    let settings = &gateway.book_settings;
    let body = request.into_body();
    let upload =
        upload::receive(body, FILE_BYTES_MAX, PACE, &settings.spool, &capacity.room).await?;
    let halt = Halt::of(&capacity.halt_all);
    let guard = HaltOnDrop(halt.clone());
    // Nobody waits for somebody else's line: a turn begins when the whole file is here.
    let turn = capacity.turns.take(&client).await;
    let moment = asked.settle(gateway).await?;
    let at = match moment {
        Some(_) => gateway.calculator.market_at(moment).await,
        None => gateway.calculator.settled().await,
    };
    let at = at.map_err(|error| ApiError::from_quote_error(error, ""))?;
    let unreadable = |error: BookError| match error {
        BookError::Halted => ApiError::Unavailable {
            part: "api-gateway",
            detail: "the service is stopping".to_owned(),
        },
        error => ApiError::unreadable_body(error.to_string()),
    };
    let input_sha256 = upload.sha256.clone();
    let (lines, spent) = lines(gateway, upload.content, &halt)
        .await
        .map_err(unreadable)?;
    let book = Book {
        lines,
        input_sha256,
        halt,
        spent,
        known_at_micros: moment.map_or(at.micros, |moment| moment.known_at_micros),
        at,
        client_id: asker.client_id.clone(),
    };
    let first = book.clone();
    // Whatever a file does to its reader stays there: a panic is a file that cannot be read.
    let summary = tokio::task::spawn_blocking(move || price_book(&first, &mut |_| true))
        .await
        .unwrap_or_else(|_| Err(BookError::unreadable()))
        .map_err(unreadable)?;
    drop(turn);
    let audit = record(gateway, &asker, &book, &summary).await?;
    metrics::counter!("bre_book_lines_total").increment(summary.lines);
    let (pieces, sent) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let sending = Sending {
        pieces,
        making: Arc::clone(&capacity.pieces),
        runtime: tokio::runtime::Handle::current(),
        _place: place,
    };
    tokio::task::spawn_blocking(move || sending.run(&book));
    Ok(respond(&summary, &audit, Answer { sent, guard }))
}

/// The lines of a file, and the processor time that decoding it took.
async fn lines(
    gateway: &Gateway,
    content: Content,
    halt: &Halt,
) -> Result<(Lines, Duration), BookError> {
    let failed = |error: std::io::Error| BookError::Broken(error.to_string());
    let settings = &gateway.book_settings;
    let parquet = match content {
        Content::Memory(bytes) if !is_parquet(&bytes) => {
            return Ok((Lines::Csv(bytes), Duration::ZERO));
        }
        Content::Memory(bytes) => {
            let file = tempfile::tempfile_in(&settings.spool).map_err(failed)?;
            file.write_all_at(&bytes, 0).map_err(failed)?;
            file
        }
        Content::Disk(file) => {
            let mut begin = [0; 4];
            file.read_exact_at(&mut begin, 0).map_err(failed)?;
            if !is_parquet(&begin) {
                let (file, spent) = decode_csv(file, &settings.spool, halt).await?;
                return Ok((Lines::Decoded(Arc::new(file)), spent));
            }
            file
        }
    };
    let reader = settings.reader.as_ref();
    let (file, spent) = decode(parquet, reader, &settings.spool, halt).await?;
    Ok((Lines::Decoded(Arc::new(file)), spent))
}

/// The same again, on its way. A client that went away, or does not read, ends it.
struct Sending {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    making: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
    _place: ClientSlot,
}

impl Sending {
    fn run(self, book: &Book) {
        let mut piece = Vec::with_capacity(PIECE_BYTES + 4096);
        let mut making = self.make();
        let sent = price_book(book, &mut |line| {
            piece.extend_from_slice(line);
            if piece.len() < PIECE_BYTES {
                return true;
            }
            let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES + 4096));
            making = None;
            let goes_on = self.send(Ok(full.into()));
            making = self.make();
            goes_on && making.is_some()
        });
        let last = match sent {
            Ok(_) => Ok(piece.into()),
            Err(error) => Err(std::io::Error::other(error)),
        };
        drop(making);
        self.send(last);
    }

    fn make(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let making = Arc::clone(&self.making);
        self.runtime.block_on(making.acquire_owned()).ok()
    }

    fn send(&self, piece: Result<Bytes, std::io::Error>) -> bool {
        let sending = tokio::time::timeout(PIECE_TIMEOUT, self.pieces.send(piece));
        matches!(self.runtime.block_on(sending), Ok(Ok(())))
    }
}

/// The answer's body; the work ends with it.
struct Answer {
    sent: mpsc::Receiver<Result<Bytes, std::io::Error>>,
    guard: HaltOnDrop,
}

async fn record(
    gateway: &Gateway,
    asker: &Asker,
    book: &Book,
    summary: &Summary,
) -> Result<LogPosition, ApiError> {
    let totals: Vec<String> = summary
        .totals
        .iter()
        .map(|(currency, total)| format!("{currency} {total}"))
        .collect();
    let mut fields = Fields::new()
        .with("by", &asker.by)
        .with("request_id", &asker.request_id)
        .with("as_of", rfc3339(book.at.micros))
        .with("known_at", rfc3339(book.known_at_micros))
        .with("lines", summary.lines.to_string())
        .with("priced", summary.priced.to_string())
        .with("refused", summary.refused.to_string())
        .with("totals", totals.join(", "))
        .with("policies", summary.policies.join(", "))
        .with("input_sha256", &summary.input_sha256)
        .with("results_sha256", &summary.results_sha256)
        .with("engine_version", crate::domain::VERSION);
    if let Some(key_id) = &asker.key_id {
        fields.set("key_id", key_id);
    }
    if let Some(client_id) = &asker.client_id {
        fields.set("client_id", client_id);
    }
    let writer = &gateway.calculator.writer;
    Ok(writer.entry(Kind::BookPriced, fields, Change::None).await?)
}

fn respond(summary: &Summary, audit: &LogPosition, answer: Answer) -> Response {
    let stream = futures_util::stream::unfold(answer, |mut answer| async move {
        let Some(piece) = answer.sent.recv().await else {
            drop(answer.guard);
            return None;
        };
        Some((piece, answer))
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
