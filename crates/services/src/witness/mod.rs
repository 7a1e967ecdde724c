//! A witness of logs, ours or others' (C2SP tlog-witness; docs/formats/audit_transparency.md §5): signs that a log only grew, and remembers
//! what it signed before it says so.
//!
//! Entry points: [`Witness::open`], [`Witness::serve`].

mod folder;
mod known_keys;
mod memory;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use audit::{AddCheckpoint, Judgement, NoteKey, SignatureKind, SigningKey, judge};
use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;

use crate::domain::time::now_micros;
use known_keys::{KeysAnswer, KnownKeys};
use memory::Memory;

/// Of the statements about a log's keys, which are some hundred bytes each.
const STATEMENTS_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error("the witness's folder {path}: {source}")]
    Folder {
        path: String,
        source: std::io::Error,
    },
    #[error("{0} is used by another witness: two that share a key would sign two histories")]
    Taken(String),
    #[error(
        "{path} is not what this witness wrote: {why}. It signs nothing until the file is back as it was"
    )]
    Damaged { path: String, why: String },
    #[error(transparent)]
    Key(#[from] audit::KeyError),
    #[error(transparent)]
    Note(#[from] audit::NoteError),
    #[error("the keys of {log}: {source}")]
    Statements {
        log: String,
        source: audit::StatementError,
    },
    #[error("it cannot listen: {0}")]
    Listen(std::io::Error),
}

/// One witness: its key, the logs it was told of, what it signed.
#[derive(Debug)]
pub struct Witness {
    name: String,
    key: SigningKey,
    public: NoteKey,
    state: Mutex<State>,
}

/// What it signed, and whose signatures count.
#[derive(Debug)]
struct State {
    memory: Memory,
    keys: KnownKeys,
}

impl Witness {
    /// In a folder of its own; its key is made there at the first start. `logs`: the verifier keys of logs, several of one name for one log.
    pub fn open(folder: &Path, name: &str, logs: &[NoteKey]) -> Result<Witness, WitnessError> {
        let memory = Memory::open(folder)?;
        let (key, public) = key_in(folder, name)?;
        let keys = KnownKeys::open(folder, logs)?;
        Ok(Witness {
            name: name.to_owned(),
            key,
            public,
            state: Mutex::new(State { memory, keys }),
        })
    }

    /// As `[audit] witnesses` names it.
    pub fn key(&self) -> &NoteKey {
        &self.public
    }

    /// The same of a witness that need not run; its key is made when there is none.
    pub fn key_in(folder: &Path, name: &str) -> Result<NoteKey, WitnessError> {
        let failed = |source| WitnessError::Folder {
            path: folder.display().to_string(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        key_in(folder, name).map(|(_, public)| public)
    }

    /// Until `stop` is done.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), WitnessError> {
        let routes = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/add-key-statements", post(add_key_statements))
            .with_state(Arc::new(self));
        axum::serve(
            listener,
            routes.into_make_service_with_connect_info::<SocketAddr>(),
        )
        .with_graceful_shutdown(stop)
        .await
        .map_err(WitnessError::Listen)
    }

    /// One at a time: what was seen is compared, kept and signed as one step.
    fn answer(&self, request: &AddCheckpoint) -> Response {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { memory, keys } = &mut *state;
        let judged = judge(request, keys.logs(), |origin| memory.seen(origin));
        let status =
            StatusCode::from_u16(judged.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let checkpoint = match judged {
            Judgement::Sign(checkpoint) => checkpoint,
            Judgement::Malformed(why) => return said(status, &why),
            Judgement::Untrusted => return said(status, "no key of this log signed it"),
            Judgement::UnknownOrigin => return said(status, "this witness knows no such log"),
            Judgement::Conflict(size) => {
                let kind = [(header::CONTENT_TYPE, "text/x.tlog.size")];
                return (status, kind, format!("{size}\n")).into_response();
            }
            Judgement::Inconsistent(why) => {
                tracing::warn!(why, checkpoint = %request.checkpoint.text(), "a log signed what does not fit");
                return said(status, &why);
            }
        };
        let at = u64::try_from(now_micros() / 1_000_000).unwrap_or(0);
        let kept = self
            .key
            .cosign(&self.name, &request.checkpoint, at)
            .map_err(|error| error.to_string())
            .and_then(|line| {
                let mut note = request.checkpoint.clone();
                note.add(line.clone());
                memory.keep(&checkpoint, &note)?;
                Ok(line)
            });
        match kept {
            Ok(line) => line.to_string().into_response(),
            Err(why) => {
                tracing::error!(why, "nothing was signed: it could not be kept");
                said(StatusCode::INTERNAL_SERVER_ERROR, "it could not be kept")
            }
        }
    }
}

impl Witness {
    /// The keys that those it was given vouch for count from here on, and from the next start on.
    fn follow(&self, published: &[u8]) -> Response {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.keys.follow(published) {
            KeysAnswer::Kept(counted) => said(StatusCode::OK, &counted),
            KeysAnswer::Malformed(why) => said(StatusCode::BAD_REQUEST, &why),
            KeysAnswer::UnknownLog => said(StatusCode::NOT_FOUND, "this witness knows no such log"),
            KeysAnswer::Fork(why) => {
                tracing::error!(why, "two keys are vouched for: neither is followed");
                said(StatusCode::CONFLICT, &why)
            }
            KeysAnswer::NotKept(why) => {
                tracing::error!(why, "no new key is followed: it could not be kept");
                said(StatusCode::INTERNAL_SERVER_ERROR, "it could not be kept")
            }
        }
    }
}

fn key_in(folder: &Path, name: &str) -> Result<(SigningKey, NoteKey), WitnessError> {
    let file = folder.join("witness.key");
    let key = match file.exists() {
        true => SigningKey::load(&file)?,
        false => SigningKey::create(&file)?,
    };
    let public = key.verifying_key().clone();
    let public = NoteKey::new(name, SignatureKind::Cosignature, public)?;
    Ok((key, public))
}

fn said(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

async fn add_checkpoint(
    extract::State(witness): extract::State<Arc<Witness>>,
    body: Body,
) -> Response {
    let Ok(bytes) = axum::body::to_bytes(body, audit::REQUEST_BYTES_MAX).await else {
        return said(StatusCode::PAYLOAD_TOO_LARGE, "it is longer than a request");
    };
    let request = match AddCheckpoint::parse(&bytes) {
        Ok(request) => request,
        Err(error) => return said(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    // Keeping it waits for the disk.
    let answered = tokio::task::spawn_blocking(move || witness.answer(&request)).await;
    answered.unwrap_or_else(|error| failed(&error))
}

async fn add_key_statements(
    extract::State(witness): extract::State<Arc<Witness>>,
    body: Body,
) -> Response {
    let Ok(bytes) = axum::body::to_bytes(body, STATEMENTS_BYTES_MAX).await else {
        return said(
            StatusCode::PAYLOAD_TOO_LARGE,
            "it is longer than statements can be",
        );
    };
    let answered = tokio::task::spawn_blocking(move || witness.follow(&bytes)).await;
    answered.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &tokio::task::JoinError) -> Response {
    tracing::error!(%error, "answering failed");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
