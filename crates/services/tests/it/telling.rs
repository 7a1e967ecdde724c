//! What is said to others when something hangs, and what is said in the logs: ids to ask with, and no secrets.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use services::HttpSettings;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::harness::{GME, Instance, Options, until};

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Heard {
    type Writer = Heard;

    fn make_writer(&'a self) -> Heard {
        self.clone()
    }
}

/// Everything that anybody logs at the most talkative level but one, of libraries too.
fn listen() -> Heard {
    let heard = Heard::default();
    // Each test has a process of its own; where it has not, somebody listens already and this test hears nothing.
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(heard.clone())
        .with_ansi(false)
        .finish()
        .try_init();
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_name_requests_and_tell_no_secrets() {
    let heard = listen();
    let mut options = Options::default();
    let secret = "hunter2-of-the-lender";
    let mut lender = HttpSettings::at(format!("https://desk:{secret}@127.0.0.1:9"));
    lender.poll_seconds = 1;
    options.settings.feeds.seclend = Some(lender);
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    let in_url = format!("/api/v1/rates/GME?api_key={key}");
    assert_eq!(instance.get(&key, &in_url).await.status, 400);
    assert_eq!(
        instance
            .get(&key, &format!("/api/v1/rates/{key}"))
            .await
            .status,
        400
    );
    assert_eq!(
        instance
            .get(&format!("{key}0"), "/api/v1/rates/GME")
            .await
            .status,
        401
    );
    // With a fault of ours, which is told at the ordinary level.
    instance
        .sql("ALTER TABLE audit_log RENAME TO audit_log_away")
        .await;
    assert_eq!(instance.get(&key, "/api/v1/audit").await.status, 503);
    instance
        .sql("ALTER TABLE audit_log_away RENAME TO audit_log")
        .await;
    let heard = async || heard.text();
    let told = |log: &String| log.contains("this feed is not asked");
    let log = until("the refused feed in the log", heard, told).await;
    let answered = |status: &str| {
        log.lines().any(|line| {
            line.contains("request_id=\"test-1\"") && line.contains(&format!("status={status} "))
        })
    };
    for status in ["200", "400", "401", "503"] {
        assert!(answered(status), "{status}: {log}");
    }
    for secret in [key.as_str(), key.trim_start_matches("bre_"), secret] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

/// A table that somebody has locked hangs whoever reads it; the client is answered all the same, and told what is certain.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_deadline_whatever_hangs() {
    let mut options = Options::default();
    options.settings.request_deadline = Duration::from_millis(400);
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let (locker, connection) =
        tokio_postgres::connect(&instance.login("postgres"), tokio_postgres::NoTls)
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    locker
        .batch_execute("BEGIN; LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let hung = instance.get(&key, "/api/v1/audit").await;
    assert_eq!(hung.status, 503, "{}", hung.body);
    assert!(hung.body.contains("did not answer in time") && hung.body.contains("not_recorded"));
    let unknown = instance.locate(&key, GME).await;
    assert_eq!(unknown.status, 503, "{}", unknown.body);
    assert!(
        unknown.body.contains("/api/v1/quotes?request_id=test-1"),
        "{}",
        unknown.body
    );
    // What needs no table goes on.
    assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.status, 200);
    locker.batch_execute("ROLLBACK").await.unwrap();
    drop(locker);
    driver.await.unwrap().unwrap();
    let locate = async || instance.locate(&key, GME).await.status;
    until("a locate that is answered", locate, |status| *status == 200).await;
}
