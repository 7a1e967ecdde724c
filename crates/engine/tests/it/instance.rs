//! One `bre up` on a folder of its own, with everything a test does to it from outside.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use postgres_physical::{
    server::sql::{Client, Rows},
    wire::{ConnectOptions, WireError},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Output, Running, TIMEOUT, kill_all_on, processes_on, within};

pub(crate) const BRE: &str = env!("CARGO_BIN_EXE_bre");

/// For plain HTTP: without the system's certificates, which take longer to read than a request.
pub(crate) fn plain_http() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    builder.tls_certs_only([]).build().unwrap()
}

/// A folder that PostgreSQL's account may pass through. Whatever still runs on it ends with it.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    serial: AtomicU32,
    /// Variables that `bre` is started with.
    pub(crate) environment: Vec<(String, String)>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("bre-it-")
            .tempdir()
            .unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self {
            folder,
            serial: AtomicU32::new(0),
            environment: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Starts `bre`; its output goes to files in the folder.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(BRE);
        command.args(arguments).current_dir(self.path());
        command.env("TMPDIR", self.path()).env_remove("RUST_LOG");
        command.envs(self.environment.iter().cloned());
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        Running::start(command, self.path(), &format!("command-{serial}"))
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).wait()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        kill_all_on(self.path());
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// The instance; running unless a test stopped it.
pub(crate) struct Instance {
    engine: Option<Running>,
    arguments: Vec<String>,
    ready: Value,
    pub(crate) folder: Folder,
}

impl Instance {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Started with these arguments, now and whenever it is started again.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut instance = Self::prepared(arguments);
        instance.up();
        instance
    }

    /// One that looks every second whether its log is still there.
    pub(crate) fn watchful(settings: &str) -> Self {
        let mut instance = Self::prepared(&[]);
        instance.settings(&format!("[audit]\nlook_seconds = 1\n{settings}"));
        instance.up();
        instance
    }

    /// What its `bre.toml` says.
    pub(crate) fn settings(&self, text: &str) {
        std::fs::create_dir_all(self.data()).unwrap();
        let path = self.data().join("bre.toml");
        std::fs::write(&path, text).unwrap();
        // Some hold passwords.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Only the folder; nothing runs yet.
    pub(crate) fn prepared(arguments: &[&str]) -> Self {
        Self {
            engine: None,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ready: Value::Null,
            folder: Folder::new(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.data().join("repository")
    }

    pub(crate) fn up(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) -> &mut Running {
        self.spawn_with(&[])
    }

    /// The same, this once with more arguments.
    pub(crate) fn spawn_with(&mut self, more: &[&str]) -> &mut Running {
        assert!(self.engine.is_none(), "it runs already");
        let data = self.data();
        let mut arguments = vec!["up", "--json", "--port", "0", "--data"];
        arguments.push(data.to_str().unwrap());
        arguments.extend(self.arguments.iter().map(String::as_str));
        arguments.extend(more);
        let running = self.folder.start(&arguments);
        self.engine.insert(running)
    }

    pub(crate) fn wait_ready(&mut self) {
        let engine = self.engine.as_mut().unwrap();
        let line = within(TIMEOUT, || {
            let out = engine.out();
            if let Some((line, _)) = out.split_once('\n') {
                return Some(line.to_owned());
            }
            let ended = engine.ended();
            assert!(
                ended.is_none(),
                "it ended ({ended:?}) before it was ready:\n{}",
                engine.err()
            );
            None
        });
        let line = line.unwrap_or_else(|| panic!("it was never ready:\n{}", engine.err()));
        self.ready = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the ready line is no JSON ({error}): {line}"));
    }

    /// One field of the line that it printed when it was ready.
    pub(crate) fn ready(&self, field: &str) -> &str {
        self.ready[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.ready))
    }

    pub(crate) fn is_null(&self, field: &str) -> bool {
        self.ready.get(field).is_some_and(Value::is_null)
    }

    /// The first API key, from its file: only the start that makes it prints it.
    pub(crate) fn api_key(&self) -> String {
        let key = std::fs::read_to_string(self.ready("api_key_file")).unwrap();
        key.trim().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.engine.as_ref().unwrap().child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.engine.as_ref().map_or_else(String::new, Running::err)
    }

    pub(crate) fn wait_log(&self, words: &str) {
        let said = within(TIMEOUT, || self.log().contains(words).then_some(()));
        assert!(said.is_some(), "{words:?} is not in the log");
    }

    /// SIGTERM; how it ended.
    pub(crate) fn stop(&mut self) -> Output {
        let engine = self.engine.take().unwrap();
        engine.signal(Signal::TERM);
        engine.wait()
    }

    /// Stopped cleanly, and nothing of it is left.
    pub(crate) fn stop_cleanly(&mut self) {
        self.stop().exits(0);
        assert_eq!(processes_on(self.folder.path()), Vec::new());
    }

    /// SIGKILL to the engine alone: what it started stays.
    pub(crate) fn kill(&mut self) {
        self.engine.take().unwrap().kill();
    }

    /// A command on this instance.
    pub(crate) fn bre(&self, arguments: &[&str]) -> Output {
        self.start_command(arguments).wait()
    }

    pub(crate) fn start_command(&self, arguments: &[&str]) -> Running {
        let data = self.data();
        let mut all = vec!["--json", "--data", data.to_str().unwrap()];
        all.extend(arguments);
        self.folder.start(&all)
    }

    /// A locate over the command line: its answer.
    pub(crate) fn quote(&self, ticker: &str) -> Value {
        let client = self.ready("client_id");
        let arguments = [
            "quote", "--ticker", ticker, "--value", "100000", "--days", "30",
        ];
        self.bre(&[&arguments[..], &["--client", client]].concat())
            .json()
    }

    /// A locate of GME over HTTP.
    pub(crate) fn locate(&self) -> Answer {
        let body = json!({
            "ticker": "GME", "position_value": "100000", "loan_days": 30, "client_id": self.ready("client_id"),
        });
        self.http("POST", "/api/v1/calculate-locate", Some(&body))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.http("GET", path, None)
    }

    fn http(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = format!("{}{path}", self.ready("url"));
        let http = plain_http();
        let mut request = http
            .request(method.parse().unwrap(), &url)
            .header("X-API-Key", self.api_key())
            .timeout(TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let response = request
                .send()
                .await
                .unwrap_or_else(|error| panic!("{method} {url}: {error}"));
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            let body = serde_json::from_str(&text).unwrap_or_default();
            Answer { status, body, text }
        })
    }

    /// Health's words about the stream of WAL.
    pub(crate) fn stream(&self) -> Value {
        self.get("/api/v1/health").body["components"]["wal_stream"].clone()
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::from_url(self.ready("database_url")).unwrap()
    }

    /// As superuser, in the engine's database.
    pub(crate) fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        let rows = Client::connect(&self.options())
            .and_then(|mut client| client.query(sql))
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        texts(rows)
    }

    pub(crate) fn value(&self, sql: &str) -> String {
        self.sql(sql)
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_default()
    }

    /// As another role.
    pub(crate) fn sql_as(&self, role: &str, sql: &str) -> Result<Rows, WireError> {
        Client::connect(&self.options().with_user(role))?.query(sql)
    }

    /// `bre verify audit` finds nothing wrong; its report.
    pub(crate) fn audit_is_sound(&self) -> Value {
        let output = self.bre(&["verify", "audit"]);
        // What a recovery lost is told with a number of its own.
        let words = [(Some(0), "sound"), (Some(10), "known_loss")];
        let report = output.parsed();
        let told = (output.code, report["verdict"].as_str().unwrap_or_default());
        assert!(words.contains(&told), "{output:?}");
        assert_eq!(report["first_bad"], Value::Null, "{report}");
        assert_eq!(report["verified"], report["entries"], "{report}");
        report
    }

    /// The repository holds all WAL that the server has written by now.
    pub(crate) fn wait_caught_up(&self) {
        let written = self.value("SELECT pg_current_wal_flush_lsn() - '0/0'");
        let written: u64 = written.parse().unwrap();
        let held = within(TIMEOUT, || {
            (self.stream()["durable_lsn"].as_u64()? >= written).then_some(())
        });
        assert!(held.is_some(), "the stream is behind: {}", self.stream());
    }
}

pub(crate) fn texts(rows: Rows) -> Vec<Vec<String>> {
    let row = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect();
    rows.rows.into_iter().map(row).collect()
}

/// A failing test shows what the engine and PostgreSQL said last.
impl Drop for Instance {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let postgres = std::fs::read_to_string(self.data().join("logs/postgres.log"));
        for (name, text) in [
            ("bre up", self.log()),
            ("PostgreSQL", postgres.unwrap_or_default()),
        ] {
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(30)..].join("\n");
            println!("--- the end of what {name} said:\n{tail}");
        }
    }
}
