//! Durable quotes with the database behind TCP: with TLS against the same without. Printed, not judged.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use testkit::{Authority, KeyKind, TestPostgres};

use crate::{
    load::{wrk, wrk_cost, wrk_script},
    system::{Result, run as run_program},
    table::Row,
};

const CLIENTS: u32 = 64;
const SECONDS: u32 = 5;
const SETTLED: Duration = Duration::from_secs(60);
const BOOK: &str = include_str!("../../crates/services/sample/book.txt");

pub(crate) fn run(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let postgres = TestPostgres::builder()
        .tcp()
        .set("fsync", "on")
        .hba("local all all trust\nhost all all 127.0.0.1/32 trust\n")
        .start();
    let authority = Authority::new("bench", KeyKind::EcdsaSha256);
    postgres.show(&authority.server(&["127.0.0.1"]), None);
    postgres.sql("CREATE ROLE bre_owner LOGIN");
    postgres.sql("CREATE ROLE bre_service LOGIN");
    let folder = tempfile::tempdir()?;
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.certificate())?;
    let verified = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    let secured = Serving::start(bre, &postgres, "bre_secured", &verified)?;
    let plain = Serving::start(bre, &postgres, "bre_plain", "sslmode=disable")?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (ours, our_cost) = secured.quotes()?;
        let (theirs, their_cost) = plain.quotes()?;
        rates.push((ours, theirs));
        costs.push((our_cost, their_cost));
    }
    let case = "durable quotes, database over TCP with TLS, 64 clients";
    let of = |metric, unit, rounds| Row::new(case, metric, unit, "the same without TLS", rounds);
    Ok(vec![
        of("quotes", "1/s", rates),
        of("processor time of the server", "µs each", costs),
    ])
}

/// All services in one process, on a database of its own; ended when dropped.
struct Serving {
    child: Child,
    url: String,
    script: PathBuf,
    _folder: tempfile::TempDir,
}

impl Serving {
    fn start(bre: &Path, postgres: &TestPostgres, database: &str, demands: &str) -> Result<Self> {
        postgres.sql(&format!("CREATE DATABASE {database} OWNER bre_owner"));
        let folder = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()?;
        let (data, config) = (folder.path().join("data"), folder.path().join("bre.toml"));
        let login = |role: &str| {
            let port = postgres.port();
            format!("postgresql://{role}@127.0.0.1:{port}/{database}?{demands}")
        };
        std::fs::write(
            &config,
            format!(
                "[database]\nurl = {:?}\nowner_url = {:?}\n[limits]\nstandard_per_minute = 1000000000\n",
                login("bre_service"),
                login("bre_owner")
            ),
        )?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut child = Command::new(bre)
            .args([
                "serve",
                "--json",
                "--services",
                "all",
                "--port",
                "0",
                "--config",
            ])
            .arg(&config)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line)
            .map_err(|error| format!("it did not start: {line:?} ({error})"))?;
        let url = ready["url"].as_str().ok_or("no address")?.to_owned();
        let book = folder.path().join("book.txt");
        std::fs::write(&book, BOOK)?;
        let ask = |words: &[&str]| {
            let began = Instant::now();
            loop {
                match run_program(Command::new(bre).args(words).arg("--data").arg(&data)) {
                    Err(_) if began.elapsed() < SETTLED => {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    printed => return printed,
                }
            }
        };
        let created = ask(&["api-key", "create", "--client", "standard", "--json"])?;
        let created: serde_json::Value = serde_json::from_str(&created)?;
        let key = created["api_key"].as_str().ok_or("no key")?;
        ask(&["import", "ibkr", &book.to_string_lossy()])?;
        let body = r#"{"ticker":"GME","position_value":"100000.00","loan_days":30,"client_id":"standard"}"#;
        let script = wrk_script(folder.path(), "quote.lua", key, body)?;
        let serving = Self {
            child,
            url,
            script,
            _folder: folder,
        };
        let began = Instant::now();
        // The gateway hears of the key and of the book a moment later.
        while let Err(error) = serving.wrk(1) {
            if began.elapsed() > SETTLED {
                return Err(error);
            }
        }
        Ok(serving)
    }

    fn target(&self) -> String {
        format!("{}/api/v1/calculate-locate", self.url)
    }

    fn wrk(&self, seconds: u32) -> Result<f64> {
        let script = self.script.to_string_lossy();
        wrk(&self.target(), CLIENTS, seconds, &["-s", &script])
    }

    fn quotes(&self) -> Result<(f64, f64)> {
        let script = self.script.to_string_lossy();
        let arguments = ["-s", script.as_ref()];
        wrk_cost(
            self.child.id(),
            &self.target(),
            CLIENTS,
            SECONDS,
            &arguments,
        )
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}
