//! Four processes of `bre serve` on one PostgreSQL, one Redis and one repository.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicU16, AtomicU64, Ordering},
};

use postgres_physical::wire::ConnectOptions;
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{TestPostgres, TestRedis};

use crate::{
    instance::{Folder, plain_http},
    process::{Output, Running, TIMEOUT, processes_on, within},
};

pub(super) const GATEWAY: &str = "api-gateway";
pub(super) const CALCULATION: &str = "calculation-service";
pub(super) const DATA: &str = "data-service";
pub(super) const CACHE: &str = "cache-service";
/// In the one order of starts.
pub(super) const ALL: [&str; 4] = [DATA, CACHE, CALCULATION, GATEWAY];
pub(super) const SECRET: &str = "4b1d6a0c5e9f48d2a7b3c6e1f0d9a8b7";

pub(super) struct Fleet {
    running: BTreeMap<String, Running>,
    ports: BTreeMap<String, u16>,
    pub(super) key: String,
    pub(super) folder: Folder,
    pub(super) redis: TestRedis,
    pub(super) postgres: TestPostgres,
}

/// An answer over HTTP, or why there was none.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

impl Fleet {
    /// Settings and servers; no service runs yet.
    pub(super) fn prepared() -> Self {
        let postgres = TestPostgres::start();
        for sql in [
            "CREATE ROLE bre_owner LOGIN",
            "CREATE ROLE bre_service LOGIN",
            "CREATE ROLE bre_backup LOGIN REPLICATION",
            "GRANT pg_monitor TO bre_backup",
            "CREATE DATABASE bre OWNER bre_owner",
        ] {
            postgres.sql(sql);
        }
        let fleet = Self {
            running: BTreeMap::new(),
            ports: ALL
                .iter()
                .map(|name| ((*name).to_owned(), port()))
                .collect(),
            key: String::new(),
            folder: Folder::new(),
            redis: TestRedis::start(),
            postgres,
        };
        let secret = fleet.folder.join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::create_dir(fleet.folder.join("repository")).unwrap();
        fleet.settings("");
        fleet
    }

    /// All four, well, with a key for the client `standard`.
    pub(super) fn start() -> Self {
        let mut fleet = Self::prepared();
        for name in ALL {
            fleet.up(name);
        }
        fleet.make_key();
        fleet.import(include_str!("../../../../services/sample/book.txt"));
        fleet.wait_healthy();
        // The gateway hears of the key when it is committed.
        let known = within(TIMEOUT, || {
            (fleet.get(GATEWAY, "/api/v1/rates/GME")?.status == 200).then_some(())
        });
        assert!(known.is_some(), "the gateway does not know the key");
        fleet
    }

    pub(super) fn make_key(&mut self) {
        let created = within(TIMEOUT, || {
            let output = self.bre(&[
                "api-key", "create", "--client", "standard", "--tier", "internal",
            ]);
            (output.code == Some(0)).then(|| output.json())
        });
        let created = created.unwrap_or_else(|| panic!("no key:\n{}", self.log(DATA)));
        self.key = created["api_key"].as_str().unwrap().to_owned();
    }

    /// Loads a short-stock file, as soon as the data-service takes it.
    pub(super) fn import(&self, text: &str) {
        let book = self.folder.join("book.txt");
        std::fs::write(&book, text).unwrap();
        let import = || self.bre(&["import", "ibkr", book.to_str().unwrap()]);
        let imported = within(TIMEOUT, || (import().code == Some(0)).then_some(()));
        assert!(imported.is_some(), "{:?}", import());
    }

    /// Writes the settings that all processes share.
    pub(super) fn settings(&self, more: &str) {
        let database = |role: &str| {
            format!(
                "postgresql://{role}@/bre?host={}&port={}",
                self.postgres.socket_dir().display(),
                self.postgres.port()
            )
        };
        let text = format!(
            "[database]\nurl = {:?}\nowner_url = {:?}\nbackup_url = {:?}\n\
             [cache]\nurl = {:?}\n[repository]\npath = {:?}\n\
             [internal]\nsecret_file = {:?}\n\
             [services]\ndata-service = {:?}\ncalculation-service = {:?}\ncache-service = {:?}\n\
             [limits]\ninternal_per_minute = 1000000\n{more}",
            database("bre_service"),
            database("bre_owner"),
            database("bre_backup"),
            self.redis.url(),
            self.folder.join("repository").to_str().unwrap(),
            self.folder.join("secret").to_str().unwrap(),
            self.internal(DATA),
            self.internal(CALCULATION),
            self.internal(CACHE),
        );
        std::fs::write(self.folder.join("bre.toml"), text).unwrap();
    }

    pub(super) fn port_of(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// Tells the others that this service is found where that one is.
    pub(super) fn point(&self, service: &str, at: &str) {
        self.settings("");
        let path = self.folder.join("bre.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let line = |at: &str| format!("{service} = {:?}", self.internal(at));
        std::fs::write(path, text.replace(&line(service), &line(at))).unwrap();
    }

    fn internal(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[name])
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts a service and waits until it listens.
    pub(super) fn up(&mut self, name: &str) {
        let port = self.ports[name];
        self.up_as(name, name, port);
    }

    /// Starts a process of some services under a name of its own.
    pub(super) fn up_as(&mut self, name: &str, services: &str, port: u16) {
        let (data, config) = (self.data(), self.folder.join("bre.toml"));
        let port = port.to_string();
        let mut arguments = vec![
            "serve",
            "--json",
            "--services",
            services,
            "--port",
            &port,
            "--internal-port",
            "0",
            "--config",
            config.to_str().unwrap(),
            "--data",
        ];
        if !services.contains(GATEWAY) {
            arguments.retain(|argument| !["--internal-port", "0"].contains(argument));
        }
        arguments.push(data.to_str().unwrap());
        let mut running = self.folder.start(&arguments);
        let listening = within(TIMEOUT, || {
            assert!(running.ended().is_none(), "{name}:\n{}", running.err());
            running.out().contains('\n').then_some(())
        });
        assert!(
            listening.is_some(),
            "{name} never listens:\n{}",
            running.err()
        );
        let (port, _) = (
            port.parse().unwrap(),
            self.running.insert(name.to_owned(), running),
        );
        self.ports.insert(name.to_owned(), port);
    }

    /// What a process said when it listened.
    pub(super) fn listening(&self, name: &str) -> Value {
        let out = self.running[name].out();
        serde_json::from_str(out.lines().next().unwrap()).unwrap()
    }

    pub(super) fn log(&self, name: &str) -> String {
        self.running
            .get(name)
            .map_or_else(String::new, Running::err)
    }

    pub(super) fn signal(&self, name: &str, signal: Signal) {
        self.running[name].signal(signal);
    }

    pub(super) fn kill(&mut self, name: &str) {
        self.running.remove(name).unwrap().kill();
    }

    /// On a service's internal port, with the secret and a body.
    pub(super) fn order(&self, name: &str, path: &str, body: &Value) -> Answer {
        let secret = format!("Bearer {SECRET}");
        let headers = [("Authorization", secret.as_str())];
        let answer = Caller::new().send("POST", &self.url(name, path), &headers, Some(body));
        answer.unwrap()
    }

    /// Waits for the end of one that was told to stop.
    pub(super) fn ended(&mut self, name: &str) -> Output {
        self.running.remove(name).unwrap().wait()
    }

    /// SIGTERM to all, gateway first; each ends well and leaves nothing behind.
    pub(super) fn stop_cleanly(&mut self) {
        let names: Vec<String> = self.running.keys().cloned().collect();
        for name in &names {
            self.signal(name, Signal::TERM);
        }
        for name in &names {
            self.ended(name).exits(0);
        }
        assert_eq!(processes_on(self.folder.path()), Vec::new());
    }

    /// A command on the data-service.
    pub(super) fn bre(&self, arguments: &[&str]) -> Output {
        let data = self.data();
        let mut all = vec!["--json", "--data", data.to_str().unwrap()];
        all.extend(arguments);
        self.folder.run(&all)
    }

    pub(super) fn url(&self, name: &str, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[name])
    }

    /// On the public API of a gateway, with the key.
    pub(super) fn get(&self, name: &str, path: &str) -> Option<Answer> {
        Caller::new().send(
            "GET",
            &self.url(name, path),
            &[("X-API-Key", &self.key)],
            None,
        )
    }

    /// On a service's internal port, with the secret.
    pub(super) fn ask(&self, method: &str, name: &str, path: &str) -> Answer {
        let secret = format!("Bearer {SECRET}");
        let url = match name {
            GATEWAY => {
                let base = self.listening(GATEWAY)["internal_url"].clone();
                format!("{}{path}", base.as_str().unwrap())
            }
            name => self.url(name, path),
        };
        Caller::new()
            .send(method, &url, &[("Authorization", &secret)], None)
            .unwrap()
    }

    /// A locate of GME.
    pub(super) fn locate(&self) -> Option<Answer> {
        Caller::new().locate(&self.url(GATEWAY, LOCATE), &self.key, &request_id())
    }

    pub(super) fn health(&self) -> Value {
        self.get(GATEWAY, "/api/v1/health")
            .map_or(Value::Null, |answer| answer.body)
    }

    pub(super) fn wait_healthy(&self) {
        let healthy = within(TIMEOUT, || {
            (self.health()["status"] == "healthy").then_some(())
        });
        assert!(healthy.is_some(), "never healthy: {:#}", self.health());
    }

    /// Health names the part and nothing else is down.
    pub(super) fn wait_ill(&self, name: &str) {
        let seen = within(TIMEOUT, || {
            let health = self.health();
            let services = health["components"]["services"].as_object()?;
            let down = services
                .iter()
                .filter(|(_, state)| state["status"] == "down");
            let down: Vec<&str> = down.map(|(name, _)| name.as_str()).collect();
            (down == [name] && health["status"] == "degraded").then_some(())
        });
        assert!(seen.is_some(), "{name} is not named: {:#}", self.health());
    }

    pub(super) fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        let options: ConnectOptions = self.postgres.connect_options().with_database("bre");
        let rows = postgres_physical::server::sql::Client::connect(&options)
            .and_then(|mut client| client.query(sql))
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        crate::instance::texts(rows)
    }

    pub(super) fn value(&self, sql: &str) -> String {
        let rows = self.sql(sql);
        rows.into_iter().flatten().next().unwrap_or_default()
    }

    /// Ids of all quotes in the record, out of the export of its canonical bytes.
    pub(super) fn exported_quotes(&self) -> std::collections::BTreeSet<String> {
        let export = self.bre(&["audit", "export"]);
        export.exits(0);
        let entry = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let bytes = audit::hex::decode(line["canonical"].as_str().unwrap()).unwrap();
            audit::Entry::parse(&bytes).unwrap()
        };
        let entries = export.out.lines().map(entry);
        entries
            .filter_map(|entry| entry.fields.get("quote_id").map(ToOwned::to_owned))
            .collect()
    }
}

/// A failing test shows what each process said last.
impl Drop for Fleet {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (name, running) in &self.running {
            let text = running.err();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(25)..].join("\n");
            println!("--- the end of what {name} said:\n{tail}");
        }
    }
}

pub(super) const LOCATE: &str = "/api/v1/calculate-locate";

pub(super) fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("it-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A port that is free, and stays so while the service that has it is away: below those that connections are given.
pub(super) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests may run in processes of their own, side by side.
    let lane = u16::try_from(std::process::id() % 500).unwrap() * 20;
    loop {
        let port = 20_000 + (lane + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One client with connections of its own.
pub(super) struct Caller {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Caller {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            http: plain_http(),
            runtime,
        }
    }

    /// `None`: nobody answered.
    pub(super) fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Answer> {
        let mut request = self
            .http
            .request(method.parse().unwrap(), url)
            .timeout(TIMEOUT);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let header =
                |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
                    Some((name.to_string(), value.to_str().ok()?.to_owned()))
                };
            let headers = response.headers().iter().filter_map(header).collect();
            let text = response.text().await.ok()?;
            Some(Answer {
                status,
                headers,
                body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            })
        })
    }

    pub(super) fn locate(&self, url: &str, key: &str, id: &str) -> Option<Answer> {
        let body = json!({ "ticker": "GME", "position_value": "100000", "loan_days": 30, "client_id": "standard" });
        let headers = [("X-API-Key", key), ("X-Request-ID", id)];
        self.send("POST", url, &headers, Some(&body))
    }
}
