//! Nothing is granted beyond what is available: not by hundreds at once, not by two gateways and two data-services over one
//! database, not when any of them, or the database, is killed at whatever moment. SEED and ROUNDS choose and repeat a run
//! (`make torture-locates`).

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::SigningKey;
use jiff::ToSpan;
use postgres_physical::server::StopMode;
use serde_json::{Value, json};
use services::{
    AuditConfig, DatabaseConfig, Elsewhere, Running, ServiceSet, Services, ServicesConfig,
    StreamHealth,
};
use tokio::net::{TcpListener, UnixListener};

use crate::harness::{Instance, Outside, SETTLED, http_client};
use crate::locates::{IMPORT, file, options, wanted};

const SHARES: i64 = 10_000;

/// One of several engines on the same database: all services, with a log of its own.
async fn engine(database: DatabaseConfig, log: u16, control: Option<UnixListener>) -> Running {
    let outside = Arc::new(Outside {
        heads: Mutex::default(),
        durable: u64::MAX.into(),
        attached: true.into(),
        noted: Mutex::default(),
    });
    let signing_key = Arc::new(SigningKey::from_seed(&[log as u8 + 7; 32]).unwrap());
    let config = ServicesConfig {
        services: ServiceSet::all(),
        elsewhere: Elsewhere::default(),
        internal: None,
        database,
        redis: None,
        public: Some(TcpListener::bind(("127.0.0.1", 0)).await.unwrap()),
        control,
        audit: Some(AuditConfig {
            log,
            trusted: vec![signing_key.verifying_key().clone()],
            signing_key,
            publisher: Arc::clone(&outside) as _,
            heads: Vec::new(),
            public: None,
            look_every: Duration::from_secs(15),
            recovery: None,
        }),
        stream: outside as Arc<dyn StreamHealth>,
        strict: false,
        settings: options().settings,
        sample: options().sample,
    };
    Services::start(config).await.unwrap()
}

/// What the tables, the ledger and the log say was granted and given back; all three must say the same.
async fn account(instance: &Instance, keys: &[&SigningKey]) -> i64 {
    // The logs share the tables of terms and feeds: each is verified with the keys of all.
    let trusted: Vec<_> = keys.iter().map(|key| key.verifying_key().clone()).collect();
    for log in 0..keys.len() {
        let report = services::verify(&instance.login("bre_service"), log as u16, &[], &trusted)
            .await
            .unwrap();
        assert_eq!(report.log.reason, None, "log {log}");
    }
    let sums = "SELECT \
        (SELECT coalesce(max(outstanding), 0) FROM availability_ledger), \
        (SELECT coalesce(sum(change), 0) FROM availability_ledger), \
        (SELECT coalesce(sum(granted - returned), 0) FROM locates AS l WHERE status = 'filled' \
            AND NOT EXISTS (SELECT FROM locates AS n WHERE n.locate_id = l.locate_id AND n.sequence > l.sequence))";
    let row = instance.sql(sums).await.remove(0);
    let number = |index: usize| row[index].parse::<i64>().unwrap();
    assert!(
        number(0) <= SHARES,
        "{} were granted of {SHARES}",
        number(0)
    );
    assert_eq!(number(1), number(2), "the ledger and the locates disagree");
    number(1)
}

/// As the entries say, read with nothing but the format.
async fn by_the_log(instance: &Instance, log: u16) -> i64 {
    let mut sum = 0;
    services::export(&instance.login("bre_service"), log, |stored| {
        let entry = audit::Entry::parse(&stored.bytes).unwrap();
        if let Some(locate) = entry.fields.get("locate") {
            let locate: Value = serde_json::from_str(locate).unwrap();
            sum += locate["step"]["change"].as_i64().unwrap_or(0);
        }
    })
    .await
    .unwrap();
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_at_two_gateways_share_ten_thousand_shares() {
    let instance = Instance::with(options()).await;
    let list = file(&[("GME", "10000"), ("AMC", "1000")], 1.minute());
    let (status, body) = instance.control("POST", IMPORT, &list).await;
    assert_eq!(status, 200, "{body}");
    let key = instance.key_for("standard").await;
    let other = engine(instance.database(), 1, None).await;
    other.wait_ready(SETTLED).await.unwrap();
    let gateways = [instance.address(), other.address().unwrap()];
    let client = http_client();
    let tasks: Vec<_> = (0..500_u64)
        .map(|number| {
            let (client, key) = (client.clone(), key.clone());
            let url = format!("http://{}/api/v1/locates", gateways[number as usize % 2]);
            // 100 to 700 shares each: three times what there is.
            let body = wanted("GME", 100 * (1 + number % 7));
            tokio::spawn(async move {
                let ask = async |url: String, body: Value| -> Value {
                    loop {
                        let answer = client
                            .post(&url)
                            .header("X-API-Key", &key)
                            .json(&body)
                            .send()
                            .await
                            .unwrap();
                        let status = answer.status();
                        let text = answer.text().await.unwrap();
                        let answer: Value = serde_json::from_str(&text).unwrap();
                        // The other gateway decided for too long: as the answer says, it is asked again.
                        if answer["details"]["outcome"] != "not_recorded" {
                            assert_eq!(status, 200, "{text}");
                            return answer;
                        }
                    }
                };
                let offered = ask(url.clone(), body).await;
                if offered["locate_status"] == "rejected" {
                    return 0;
                }
                let id = offered["locate_id"].as_str().unwrap();
                let filled = ask(format!("{url}/{id}/accept"), json!({})).await;
                filled["granted"].as_i64().unwrap()
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    let keys = [&*instance.key, &SigningKey::from_seed(&[8; 32]).unwrap()];
    assert_eq!(
        account(&instance, &keys).await,
        SHARES,
        "all of it, and no more"
    );
    assert_eq!(granted, SHARES, "clients were told what is on record");
    let logs = [
        by_the_log(&instance, 0).await,
        by_the_log(&instance, 1).await,
    ];
    assert_eq!(logs.iter().sum::<i64>(), SHARES);
    // Who was first had it all, perhaps; both had their say.
    let deciders = "SELECT count(DISTINCT log) FROM audit_log WHERE kind = 10";
    assert_eq!(instance.value(deciders).await, "2");
    other.shutdown().await;
}

/// Not a test of its own: the process that the next test kills. Runs until then.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_to_be_killed() {
    let Ok(folder) = std::env::var("LOCATES_FOLDER") else {
        return;
    };
    let log: u16 = std::env::var("LOCATES_LOG").unwrap().parse().unwrap();
    let database = DatabaseConfig {
        owner: std::env::var("LOCATES_OWNER").unwrap(),
        service: std::env::var("LOCATES_SERVICE").unwrap(),
    };
    let running = engine(database, log, None).await;
    running.wait_ready(SETTLED).await.unwrap();
    let address = running.address().unwrap().to_string();
    let path = format!("{folder}/address-{log}");
    std::fs::write(format!("{path}.new"), address).unwrap();
    std::fs::rename(format!("{path}.new"), path).unwrap();
    // Ends with its parent.
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1]));
    let _ = end.await;
}

/// An engine in a process of its own.
pub struct Process {
    log: u16,
    folder: String,
    child: Mutex<Child>,
}

impl Process {
    pub fn start(instance: &Instance, folder: &str, log: u16) -> Process {
        let child = Mutex::new(spawn(instance, folder, log));
        Process {
            log,
            folder: folder.to_owned(),
            child,
        }
    }

    pub fn kill(&self, instance: &Instance) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = std::fs::remove_file(self.address_file());
        *child = spawn(instance, &self.folder, self.log);
    }

    fn address_file(&self) -> String {
        format!("{}/address-{}", self.folder, self.log)
    }

    /// While it is up.
    pub fn address(&self) -> Option<String> {
        std::fs::read_to_string(self.address_file()).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(instance: &Instance, folder: &str, log: u16) -> Child {
    let database = instance.database();
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "locates_under_fire::an_engine_to_be_killed",
            "--nocapture",
        ])
        .env("LOCATES_FOLDER", folder)
        .env("LOCATES_LOG", log.to_string())
        .env("LOCATES_OWNER", &database.owner)
        .env("LOCATES_SERVICE", &database.service)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What clients were told: by locate, the shares granted less those given back. An unanswered request may have done either.
#[derive(Default)]
struct ClientView {
    held: Mutex<BTreeMap<String, i64>>,
    doubtful: Mutex<std::collections::BTreeSet<String>>,
    steps: std::sync::atomic::AtomicU64,
}

/// Asks, accepts and gives back, at whichever engine answers, until it is told to stop.
async fn trade(
    engines: Arc<[Process; 2]>,
    key: String,
    told: Arc<ClientView>,
    stop: Arc<AtomicBool>,
    seed: u64,
) {
    let client = reqwest::Client::builder()
        .tls_certs_only([])
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut dice = Dice(seed);
    let ask = async |engine: usize, path: String, body: Value| -> Option<Value> {
        let address = engines[engine].address()?;
        let request = client.post(format!("http://{address}/api/v1/locates{path}"));
        let answer = request
            .header("X-API-Key", &key)
            .json(&body)
            .send()
            .await
            .ok()?;
        let known = answer.status() != 503;
        let body: Value = answer.json().await.ok()?;
        (known || body["details"]["outcome"] == "not_recorded").then_some(body)
    };
    while !stop.load(Ordering::Relaxed) {
        let engine = dice.below(2);
        let offered = ask(
            engine,
            String::new(),
            wanted("GME", 100 * (1 + dice.below(5) as u64)),
        )
        .await;
        let Some(id) = offered
            .as_ref()
            .and_then(|offer| offer["locate_id"].as_str())
        else {
            // Nobody is there: asked again, but the one that starts needs the cores more.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let doubt = || {
            told.doubtful.lock().unwrap().insert(id.to_owned());
        };
        let Some(accepted) = ask(dice.below(2), format!("/{id}/accept"), json!({})).await else {
            doubt();
            continue;
        };
        told.steps.fetch_add(1, Ordering::Relaxed);
        let granted = accepted["granted"].as_i64().unwrap_or(0);
        told.held.lock().unwrap().insert(id.to_owned(), granted);
        // Now and then an older one, so that there is always something to fight for.
        let id = &match told
            .held
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, held)| **held > 0)
            .nth(dice.below(8))
        {
            Some((older, _)) => older.clone(),
            None => continue,
        };
        let doubt = || {
            told.doubtful.lock().unwrap().insert(id.clone());
        };
        match ask(dice.below(2), format!("/{id}/return"), json!({})).await {
            None => doubt(),
            Some(returned) if returned["status"] == "success" => {
                told.held
                    .lock()
                    .unwrap()
                    .insert(id.to_owned(), returned["held"].as_i64().unwrap());
            }
            Some(_) => {}
        }
    }
}

/// xorshift: the same strikes for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_availability_locates_and_log_agree() {
    let seed = setting("SEED", u64::from(std::process::id()) * 7919 + 1);
    let rounds = setting("ROUNDS", 24);
    println!("SEED={seed} ROUNDS={rounds}");
    let mut instance = Instance::with(options()).await;
    let (status, body) = instance
        .control(
            "POST",
            IMPORT,
            &file(&[("GME", "10000"), ("AMC", "1000")], 1.minute()),
        )
        .await;
    assert_eq!(status, 200, "{body}");
    let key = instance.key_for("standard").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    // Log 0 stays with the test's own engine, which only looks on.
    let engines = Arc::new([1, 2].map(|log| Process::start(&instance, &path, log)));
    let (told, stop) = (
        Arc::new(ClientView::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let traders: Vec<_> = (0..8)
        .map(|number| {
            tokio::spawn(trade(
                Arc::clone(&engines),
                key.clone(),
                Arc::clone(&told),
                Arc::clone(&stop),
                seed + number + 1,
            ))
        })
        .collect();
    let mut dice = Dice(seed);
    let keys = [
        &SigningKey::from_seed(&[8; 32]).unwrap(),
        &SigningKey::from_seed(&[9; 32]).unwrap(),
    ];
    let own = Arc::clone(&instance.key);
    let keys = [&*own, keys[0], keys[1]];
    for round in 0..rounds {
        // Some steps more, so that the blow falls amid work; the rest of the moment is the dice's.
        let target = told.steps.load(Ordering::Relaxed) + 1 + dice.below(12) as u64;
        crate::harness::until(
            "work goes on",
            async || {
                tokio::time::sleep(Duration::from_millis(1)).await;
                told.steps.load(Ordering::Relaxed)
            },
            |steps| *steps >= target,
        )
        .await;
        tokio::time::sleep(Duration::from_micros(dice.below(5_000) as u64)).await;
        match dice.below(5) {
            0 | 1 => engines[0].kill(&instance),
            2 => engines[1].kill(&instance),
            3 => {
                let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bre audit writer'";
                instance.sql(kill).await;
            }
            _ => {
                instance.postgres.stop(StopMode::Immediate);
                instance.postgres.start_again();
            }
        }
        let held = account(&instance, &keys).await;
        println!(
            "round {round}: {held} held after {} accepts",
            told.steps.load(Ordering::Relaxed)
        );
    }
    stop.store(true, Ordering::Relaxed);
    for trader in traders {
        trader.await.unwrap();
    }
    agrees_with_what_was_told(&instance, &told, &keys).await;
}

async fn agrees_with_what_was_told(instance: &Instance, told: &ClientView, keys: &[&SigningKey]) {
    let held = account(instance, keys).await;
    let mut logged = 0;
    for log in 0..3 {
        logged += by_the_log(instance, log).await;
    }
    assert_eq!(held, logged);
    let now = "SELECT locate_id, CASE status WHEN 'filled' THEN granted - returned ELSE 0 END FROM locates AS l \
               WHERE NOT EXISTS (SELECT FROM locates AS n WHERE n.locate_id = l.locate_id AND n.sequence > l.sequence)";
    let found: BTreeMap<String, i64> = instance
        .sql(now)
        .await
        .into_iter()
        .map(|row| (row[0].clone(), row[1].parse().unwrap()))
        .collect();
    let doubtful = told.doubtful.lock().unwrap();
    let wrong: Vec<_> = told
        .held
        .lock()
        .unwrap()
        .iter()
        .filter(|(id, _)| !doubtful.contains(*id))
        .filter(|(id, held)| found.get(*id) != Some(held))
        .map(|(id, held)| (id.clone(), *held, found.get(id).copied()))
        .collect();
    assert!(wrong.is_empty(), "told, and found: {wrong:?}");
}

pub fn setting(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(usual)
}
