//! One instance: a cluster with the engine's roles, the services on it, and stand-ins for the stream and the repository.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{SignedHead, SigningKey};
use services::{
    AuditConfig, DatabaseConfig, Elsewhere, HeadPublisher, KnownLog, RecoveryFact, RedisSettings,
    Running, SampleRates, ServiceSet, Services, ServicesConfig, Settings, StreamHealth,
    StreamReport, Tier,
};
use testkit::TestPostgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// A repository that holds everything at once, unless told otherwise.
#[derive(Debug)]
pub struct Outside {
    pub heads: Mutex<Vec<SignedHead>>,
    pub durable: AtomicU64,
    pub attached: AtomicBool,
    /// Where notes of damage outlive a process: the reason, and where the log ended.
    pub noted: Mutex<Option<NotedLines>>,
}

pub type NotedLines = (Option<String>, Option<SignedHead>);

impl HeadPublisher for Outside {
    fn durable_lsn(&self) -> Option<u64> {
        Some(self.durable.load(Ordering::Relaxed))
    }
    fn publish(&self, head: &SignedHead) -> Result<(), String> {
        self.heads.lock().unwrap().push(head.clone());
        Ok(())
    }
    fn known(&self) -> KnownLog {
        let (damage, left_at) = self.noted.lock().unwrap().clone().unwrap_or_default();
        KnownLog {
            damage,
            left_at,
            ..KnownLog::default()
        }
    }
    fn note_damage(&self, reason: Option<&str>) -> Result<(), String> {
        if let Some(noted) = &mut *self.noted.lock().unwrap() {
            *noted = (reason.map(str::to_owned), None);
        }
        Ok(())
    }
    fn note_end(&self, head: &SignedHead) -> Result<(), String> {
        if let Some(noted) = &mut *self.noted.lock().unwrap() {
            noted.1 = Some(head.clone());
        }
        Ok(())
    }
}

impl StreamHealth for Outside {
    fn report(&self) -> StreamReport {
        let attached = self.attached.load(Ordering::Relaxed);
        StreamReport {
            attached,
            strict: attached,
            durable_lsn: Some(7),
            ..StreamReport::default()
        }
    }
}

pub struct Instance {
    pub services: Option<Running>,
    pub outside: Arc<Outside>,
    pub key: Arc<SigningKey>,
    pub options: Options,
    folder: tempfile::TempDir,
    /// Last, so that what uses it goes first.
    pub postgres: TestPostgres,
}

#[derive(Clone)]
pub struct Options {
    pub strict: bool,
    pub redis: Option<RedisSettings>,
    pub sample: Option<SampleRates>,
    pub settings: Settings,
    pub recovery: Option<RecoveryFact>,
    pub public: Option<crate::public_log::Public>,
    pub look_every: Duration,
}

impl Default for Options {
    fn default() -> Options {
        let sample = Some(SampleRates::shipped());
        // Limits are tested where they are the subject.
        let mut settings = Settings::default();
        settings.requests_per_minute.standard = 1_000_000;
        // So are deadlines: a machine that is busy with other tests is slow.
        settings.quote_deadline = SETTLED;
        settings.request_deadline = SETTLED;
        Options {
            strict: false,
            redis: None,
            sample,
            settings,
            recovery: None,
            public: None,
            look_every: Duration::from_secs(15),
        }
    }
}

pub const SETTLED: Duration = Duration::from_secs(60);

impl Instance {
    pub async fn start() -> Instance {
        Instance::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Instance {
        let mut instance = Instance::prepared(options);
        instance.launch().await;
        instance.services().wait_ready(SETTLED).await.unwrap();
        instance
    }

    /// Cluster, roles and database; nothing of ours runs yet.
    pub fn prepared(options: Options) -> Instance {
        let postgres = TestPostgres::start();
        for sql in [
            "CREATE ROLE bre_owner LOGIN",
            "CREATE ROLE bre_service LOGIN",
            "CREATE DATABASE bre OWNER bre_owner",
        ] {
            postgres.sql(sql);
        }
        let outside = Outside {
            heads: Mutex::default(),
            durable: AtomicU64::new(u64::MAX),
            attached: AtomicBool::new(true),
            noted: Mutex::default(),
        };
        Instance {
            services: None,
            outside: Arc::new(outside),
            key: Arc::new(SigningKey::generate().unwrap()),
            options,
            folder: tempfile::tempdir().unwrap(),
            postgres,
        }
    }

    pub fn database(&self) -> DatabaseConfig {
        DatabaseConfig {
            owner: self.login("bre_owner"),
            service: self.login("bre_service"),
        }
    }

    pub fn login(&self, role: &str) -> String {
        format!(
            "host={} port={} user={role} dbname=bre",
            self.postgres.socket_dir().display(),
            self.postgres.port()
        )
    }

    pub async fn launch(&mut self) {
        let config = self.config().await;
        self.services = Some(Services::start(config).await.unwrap());
    }

    /// Why it does not start.
    pub async fn refused(&self) -> String {
        match Services::start(self.config().await).await {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.services().address().unwrap()
    }

    pub async fn config(&self) -> ServicesConfig {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        ServicesConfig {
            services: ServiceSet::all(),
            elsewhere: Elsewhere::default(),
            internal: None,
            database: self.database(),
            redis: self.options.redis.clone(),
            public: Some(TcpListener::bind(("127.0.0.1", 0)).await.unwrap()),
            control: Some(UnixListener::bind(&socket).unwrap()),
            audit: Some(AuditConfig {
                log: 0,
                signing_key: Arc::clone(&self.key),
                publisher: Arc::clone(&self.outside) as Arc<dyn HeadPublisher>,
                heads: self.outside.heads.lock().unwrap().clone(),
                trusted: vec![self.key.verifying_key().clone()],
                public: self
                    .options
                    .public
                    .as_ref()
                    .map(|public| public.config(&self.outside)),
                look_every: self.options.look_every,
                recovery: self.options.recovery.clone(),
            }),
            stream: Arc::clone(&self.outside) as Arc<dyn StreamHealth>,
            strict: self.options.strict,
            settings: self.options.settings.clone(),
            sample: self.options.sample,
        }
    }

    pub async fn stop(&mut self) {
        self.services.take().unwrap().shutdown().await;
    }

    pub fn services(&self) -> &Running {
        self.services.as_ref().unwrap()
    }

    pub async fn key_for(&self, client: &str) -> String {
        self.services()
            .create_key(client, Tier::Standard, "test")
            .await
            .unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// As superuser, in the engine's database.
    pub async fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        let (client, connection) =
            tokio_postgres::connect(&self.login("postgres"), tokio_postgres::NoTls)
                .await
                .unwrap();
        let driver = tokio::spawn(connection);
        let messages = client
            .simple_query(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        drop(client);
        driver.await.unwrap().unwrap();
        let row = |message: tokio_postgres::SimpleQueryMessage| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|index| row.get(index).unwrap_or_default().to_owned())
                    .collect(),
            ),
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    pub async fn value(&self, sql: &str) -> String {
        self.sql(sql)
            .await
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_default()
    }

    /// The entry of that id: log-epoch-position.
    pub async fn entry(&self, id: &str) -> audit::Entry {
        let place = id.replace('-', ", ");
        let sql = format!(
            "SELECT encode(canonical, 'hex') FROM audit_log WHERE (log, epoch, position) = ({place})"
        );
        let hex = self.value(&sql).await;
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        audit::Entry::parse(&audit::expand(&bytes)).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.services().address().unwrap())
    }

    pub async fn get(&self, key: &str, path: &str) -> Answer {
        Answer::of(
            http_client()
                .get(self.url(path))
                .header("X-API-Key", key)
                .header("X-Request-ID", "test-1"),
        )
        .await
    }

    pub async fn locate(&self, key: &str, body: &str) -> Answer {
        let request = http_client()
            .post(self.url("/api/v1/calculate-locate"))
            .header("X-API-Key", key);
        Answer::of(
            request
                .header("X-Request-ID", "test-1")
                .header("Content-Type", "application/json")
                .body(body.to_owned()),
        )
        .await
    }

    /// Over the control socket: status and body.
    pub async fn control(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bre\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    /// Verifies against the heads that were published, and the live one.
    pub async fn verify(&self) -> services::AuditReport {
        let keys = [self.key.verifying_key().clone()];
        let mut heads = self.outside.heads.lock().unwrap().clone();
        heads.extend(self.services.as_ref().and_then(Running::signed_head));
        let heads: Vec<_> = heads
            .iter()
            .map(|head| head.verify(&keys).unwrap())
            .collect();
        services::verify(&self.login("bre_service"), 0, &heads, &keys)
            .await
            .unwrap()
    }
}

/// With a connection of its own. Without the system's certificates: reading them takes longer than a request.
pub fn http_client() -> reqwest::Client {
    let builder = reqwest::Client::builder().tls_certs_only([]);
    builder.build().unwrap()
}

/// Asks again until the answer is the one waited for.
pub async fn until<T: std::fmt::Debug>(
    what: &str,
    ask: impl AsyncFnMut() -> T,
    reached: impl Fn(&T) -> bool,
) -> T {
    testkit::answered_async(what, ask, reached).await
}

pub const GME: &str =
    r#"{"ticker":"GME","position_value":100000,"loan_days":30,"client_id":"standard"}"#;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let mut headers: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        Answer {
            status,
            headers,
            body: response.text().await.unwrap(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The whole answer, one member a line, with what differs from run to run taken out.
    pub fn show(&self) -> String {
        let mut text = format!("{}\n", self.status);
        for (name, value) in &self.headers {
            let value = match name.as_str() {
                "date" | "content-length" => continue,
                "x-ratelimit-reset" | "retry-after" => "[seconds]",
                "etag" | "last-modified" => "[validator]",
                // A new minute may begin between two requests of a test.
                "x-ratelimit-remaining" if value != "0" => "[number]",
                _ => value,
            };
            text.push_str(&format!("{name}: {value}\n"));
        }
        format!("{text}\n{}", redact(&pretty(&self.body)))
    }
}

const REDACTED: &[&str] = &[
    "quote_id",
    "expires_at",
    "recorded_at",
    "known_at",
    "time",
    "timestamp",
    "last_updated",
    "retry_after_seconds",
    "position",
    "key_id",
    "locate_id",
    "offer_expires_at",
    "trade_date",
    "settlement_date",
    "actor",
    "created_at",
    "detail",
];

fn redact(json: &str) -> String {
    let line = |line: &str| {
        let trimmed = line.trim_start();
        let name = trimmed
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\": "));
        match name {
            Some((name, value)) if REDACTED.contains(&name) && !value.starts_with(['{', '[']) => {
                let indent = &line[..line.len() - trimmed.len()];
                let comma = if value.ends_with(',') { "," } else { "" };
                format!("{indent}\"{name}\": [{name}]{comma}")
            }
            _ => line.to_owned(),
        }
    };
    json.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Indents JSON without reading its numbers, so that every digit is seen.
fn pretty(json: &str) -> String {
    let (mut text, mut depth, mut quoted, mut escaped) = (String::new(), 0usize, false, false);
    for char in json.chars() {
        let line =
            |text: &mut String, depth: usize| text.push_str(&format!("\n{}", "  ".repeat(depth)));
        match char {
            _ if quoted => {
                text.push(char);
                quoted = escaped || char != '"';
                escaped = char == '\\' && !escaped;
                continue;
            }
            '"' => {
                quoted = true;
                text.push(char);
            }
            '{' | '[' => {
                depth += 1;
                text.push(char);
                line(&mut text, depth);
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut text, depth);
                text.push(char);
            }
            ',' => {
                text.push(char);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            char => text.push(char),
        }
    }
    text
}
