//! Fetches from a feed over HTTP: three tries, bounded time and size, no redirects to other hosts.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, StatusCode, Url};

use super::super::{FeedBoard, FeedError};
use super::breaker::{Breaker, Rules};
use crate::market::HttpSettings;

const TRIES: u32 = 3;
/// A book of 20,000 names has 1.5 MB.
const BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct FeedClient {
    pub(super) source: &'static str,
    settings: HttpSettings,
    base: Url,
    http: Client,
    breaker: Mutex<Breaker>,
    /// What was answered last.
    good: Mutex<Option<Ask>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("its circuit breaker is open")]
    Open,
    #[error("it does not know what it was asked for")]
    NotFound,
    #[error("{0}")]
    Failed(String),
    /// It is there, and takes no request of this form.
    #[error("it answered {0}")]
    Rejected(StatusCode),
    /// It answered, and the answer is not believed.
    #[error("{error}")]
    Refused { error: FeedError, answer: Vec<u8> },
}

impl CallError {
    /// The feed is there, and does not take what it was sent.
    pub(super) fn is_of_form(&self) -> bool {
        matches!(self, CallError::Rejected(_) | CallError::NotFound)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// What it is about: a ticker, `MARKET`, or a part of a batch.
    pub(super) subject: String,
    pub(super) path: String,
    /// JSON that is POSTed; without it, a GET.
    pub(super) body: Option<Vec<u8>>,
    /// How many different subjects this feed is asked about.
    pub(super) subjects: usize,
}

enum Try {
    Done(Vec<u8>),
    NotFound,
    /// Another try may help.
    Again(String),
    Never(String),
    Rejected(StatusCode),
}

impl FeedClient {
    pub(super) fn new(
        source: &'static str,
        settings: &HttpSettings,
        rules: Rules,
    ) -> Result<FeedClient, String> {
        let base = base(source, &settings.base)?;
        let timeout = Duration::from_secs(u64::from(settings.timeout_seconds.max(1)));
        let mut http = Client::builder()
            // Whoever redirects us would also get the key.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .https_only(base.scheme() == "https")
            .timeout(timeout)
            .connect_timeout(timeout);
        if let Some(file) = &settings.ca_file {
            http = http.tls_certs_only(authorities(source, file)?);
        } else if base.scheme() == "http" {
            // Redirects are not followed, so no certificate is ever looked at.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| explain(&error))?;
        let rules = match settings.pause_seconds {
            Some(seconds) => Rules {
                pause: Duration::from_secs(u64::from(seconds)),
                ..rules
            },
            None => rules,
        };
        Ok(FeedClient {
            source,
            settings: settings.clone(),
            base,
            http,
            breaker: Mutex::new(Breaker::new(rules)),
            good: Mutex::default(),
        })
    }

    /// One answer, read by `read`, which is told the subject. What cannot be read is a failure like any other.
    pub(super) async fn call<T>(
        &self,
        board: &FeedBoard,
        ask: &Ask,
        read: impl Fn(&str, &[u8]) -> Result<T, FeedError>,
    ) -> Result<(T, Vec<u8>), CallError> {
        let mut failure = String::new();
        // Patience for what failed in the round before would be taken from all the others.
        let known_to_fail = ask.subjects > 1 && board.is_failing(self.source, &ask.subject);
        let tries = if known_to_fail { 1 } else { TRIES };
        for number in 0..tries {
            if !self.with(board, |breaker| breaker.allows(Instant::now())) {
                return Err(if failure.is_empty() {
                    CallError::Open
                } else {
                    CallError::Failed(failure)
                });
            }
            let again = match self.attempt(ask).await {
                Try::Done(answer) => {
                    return match read(&ask.subject, &answer) {
                        Ok(value) => {
                            self.answered(board, ask);
                            Ok((value, answer))
                        }
                        Err(error) => {
                            board.not_believed(self.source, &ask.subject);
                            self.failed(board, ask, &read).await;
                            Err(CallError::Refused { error, answer })
                        }
                    };
                }
                Try::NotFound => {
                    self.answered(board, ask);
                    return Err(CallError::NotFound);
                }
                Try::Again(why) => {
                    failure = why;
                    true
                }
                Try::Never(why) => {
                    failure = why;
                    false
                }
                Try::Rejected(status) => {
                    // A batch may be taken in another form: that is no failure yet.
                    if ask.body.is_none() {
                        self.note(board, ask, &format!("it answered {status}"));
                        self.failed(board, ask, &read).await;
                    }
                    return Err(CallError::Rejected(status));
                }
            };
            self.note(board, ask, &failure);
            self.failed(board, ask, &read).await;
            if !again {
                break;
            }
            if number + 1 < tries {
                tokio::time::sleep(self.pause(number)).await;
            }
        }
        Err(CallError::Failed(failure))
    }

    pub(super) fn breaker_word(&self) -> &'static str {
        lock(&self.breaker).word()
    }

    fn with<T>(&self, board: &FeedBoard, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = lock(&self.breaker);
        let result = act(&mut breaker);
        board.breaker(self.source, breaker.word());
        result
    }

    fn note(&self, board: &FeedBoard, ask: &Ask, why: &str) {
        board.failed(self.source, &ask.subject, why);
        metrics::counter!("bre_feed_failures_total", "source" => self.source).increment(1);
    }

    fn answered(&self, board: &FeedBoard, ask: &Ask) {
        self.with(board, Breaker::answered);
        board.answered(self.source, &ask.subject);
        let mut good = lock(&self.good);
        if good.as_ref().is_none_or(|good| good.subject != ask.subject) {
            *good = Some(ask.clone());
        }
    }

    /// Counts a failed try. Where that opens the breaker, what was answered last is asked once more: as long as it is answered, the feed
    /// is well and the failures are those of what it was asked for.
    async fn failed<T>(
        &self,
        board: &FeedBoard,
        ask: &Ask,
        read: &impl Fn(&str, &[u8]) -> Result<T, FeedError>,
    ) {
        let opened = lock(&self.breaker).failed(Instant::now(), &ask.subject, ask.subjects);
        let good = lock(&self.good).clone();
        let good = good.filter(|good| opened && good.subject != ask.subject);
        let well = match &good {
            Some(good) => match self.attempt(good).await {
                Try::Done(answer) => read(&good.subject, &answer).is_ok(),
                Try::NotFound => true,
                _ => false,
            },
            None => false,
        };
        self.with(board, |breaker| {
            if well {
                breaker.answered();
            }
        });
    }

    /// Twice as long each time, and up to as much again, so that many of us do not come back at once.
    fn pause(&self, number: u32) -> Duration {
        let step = u64::from(self.settings.retry_milliseconds) << number;
        let mut random = [0u8; 4];
        // Without randomness it is still a pause.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let jitter = u64::from(u32::from_be_bytes(random)) % (step + 1);
        Duration::from_millis(step + jitter)
    }

    async fn attempt(&self, ask: &Ask) -> Try {
        let Ask { path, body, .. } = ask;
        let Ok(url) = self.base.join(path) else {
            return Try::Never(format!("{path:?} is no path"));
        };
        // A path that names another host would take the key there.
        if url.origin() != self.base.origin() {
            return Try::Never(format!("{path:?} leads away from its base"));
        }
        let mut request = match body {
            Some(body) => self
                .http
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone()),
            None => self.http.get(url),
        };
        if let Some(file) = &self.settings.api_key_file {
            // Read every time: a key that is replaced is used at once.
            let mut key = match key_in(file.clone()).await {
                Ok(key) => key,
                Err(why) => return Try::Never(format!("its key cannot be used: {why}")),
            };
            key.set_sensitive(true);
            request = request.header("X-API-Key", key);
        }
        match request.send().await {
            Err(error) => Try::Again(explain(&error)),
            Ok(response) => take(response).await,
        }
    }
}

async fn key_in(file: PathBuf) -> Result<HeaderValue, String> {
    let shown = file.display().to_string();
    let read = tokio::task::spawn_blocking(move || secrets::read_text(&file)).await;
    let text = read
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    HeaderValue::from_str(text.trim())
        .map_err(|_| format!("{shown}: it cannot be sent as a header"))
}

/// Said at the start, rather than at every request. What the address holds beside a host may be a secret, and is not repeated.
fn base(source: &str, text: &str) -> Result<Url, String> {
    let malformed =
        |why: &str| format!("[feeds.{source}] base {why}; it must be such as https://lender:9443");
    let url = Url::parse(text).map_err(|error| malformed(&format!("is no address ({error})")))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(malformed("is no HTTP address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let why =
            "holds a user name or password: put the key into a file and name it in api_key_file";
        return Err(malformed(why));
    }
    Ok(url)
}

fn authorities(source: &str, file: &Path) -> Result<Vec<Certificate>, String> {
    let wrong = |why: String| format!("[feeds.{source}] ca_file {}: {why}", file.display());
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| wrong(explain(&error)))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

async fn take(mut response: reqwest::Response) -> Try {
    let status = response.status();
    if status == StatusCode::NOT_FOUND {
        return Try::NotFound;
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Try::Again(format!("it answered {status}"));
    }
    // A key that is not believed, and a request that came too late, say nothing of its form.
    let elsewhere = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
    ];
    if status.is_client_error() && !elsewhere.contains(&status) {
        return Try::Rejected(status);
    }
    if status != StatusCode::OK {
        return Try::Never(format!("it answered {status}"));
    }
    let mut answer = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if answer.len() + chunk.len() > BYTES_MAX => {
                return Try::Never(format!("its answer is longer than {BYTES_MAX} bytes"));
            }
            Ok(Some(chunk)) => answer.extend_from_slice(&chunk),
            Ok(None) => return Try::Done(answer),
            Err(error) => return Try::Again(explain(&error)),
        }
    }
}

/// With its causes, without the address: that is in the settings, and may hold what is nobody's business.
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    if text.is_empty() {
        "the request failed".to_owned()
    } else {
        text
    }
}
