//! One process after the other is killed and comes back, under load: what is answered meanwhile, and what the record holds.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::fleet::{
    ALL, Answer, CACHE, CALCULATION, Caller, DATA, Fleet, GATEWAY, LOCATE, request_id,
};
use crate::process::{TIMEOUT, processes_on, within};

const CLIENTS: usize = 6;

/// What clients were told.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeSet<String>>,
    fees: Mutex<BTreeSet<String>>,
    /// Parts that were named in a 503.
    parts: Mutex<BTreeSet<String>>,
    answers: AtomicUsize,
    unanswered: AtomicUsize,
    wrong: Mutex<Vec<Answer>>,
}

impl Ledger {
    fn note(&self, answer: Option<Answer>) {
        let Some(answer) = answer else {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.answers.fetch_add(1, Ordering::Relaxed);
        let details = &answer.body["details"];
        match (answer.status, details["part"].as_str()) {
            (200, _) => {
                let id = answer.body["quote_id"].as_str().unwrap().to_owned();
                assert!(self.acknowledged.lock().unwrap().insert(id), "an id twice");
                let fee = answer.body["total_fee"].to_string();
                self.fees.lock().unwrap().insert(fee);
            }
            (503, Some(part)) if is_clear(&answer.body) => {
                self.parts.lock().unwrap().insert(part.to_owned());
            }
            _ => self.wrong.lock().unwrap().push(answer),
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    fn wait_for_more(&self) {
        let before = self.acknowledged();
        let more = within(TIMEOUT, || {
            (self.acknowledged() > before + CLIENTS).then_some(())
        });
        assert!(more.is_some(), "no locate is answered any more");
    }
}

/// The code, and either "nothing was recorded" or "outcome unknown" with the id to ask with.
fn is_clear(body: &Value) -> bool {
    let details = &body["details"];
    body["error_code"] == "EXTERNAL_API_UNAVAILABLE"
        && (details["outcome"] == "not_recorded"
            || (details["outcome"] == "unknown"
                && details["request_id"]
                    .as_str()
                    .is_some_and(|id| id.starts_with("it-"))))
}

#[test]
fn any_process_may_die_under_load_and_no_acknowledged_quote_is_lost() {
    let mut fleet = Fleet::start();
    let (ledger, stop) = (Ledger::default(), AtomicBool::new(false));
    let (url, key) = (fleet.url(GATEWAY, LOCATE), fleet.key.clone());
    std::thread::scope(|scope| {
        let guard = StopOnDrop(&stop);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let caller = Caller::new();
                while !stop.load(Ordering::Relaxed) {
                    ledger.note(caller.locate(&url, &key, &request_id()));
                }
            });
        }
        ledger.wait_for_more();
        for name in [CALCULATION, DATA, CACHE, GATEWAY] {
            fleet.kill(name);
            if name != GATEWAY {
                fleet.wait_ill(name);
            }
            if [CALCULATION, DATA].contains(&name) {
                refuses(&fleet, name);
            }
            // Rates need none of the others.
            if name != GATEWAY {
                let rate = fleet.get(GATEWAY, "/api/v1/rates/GME").unwrap();
                assert_eq!(rate.status, 200, "{name}: {rate:?}");
            }
            fleet.up(name);
            fleet.wait_healthy();
            ledger.wait_for_more();
        }
        drop(guard);
    });
    let wrong = ledger.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(3)]);
    let fees = ledger.fees.lock().unwrap();
    assert_eq!(fees.len(), 1, "one question, several answers: {fees:?}");
    let parts = ledger.parts.lock().unwrap();
    for part in [CALCULATION, DATA] {
        assert!(parts.contains(part), "{part} was never named: {parts:?}");
    }
    let recorded = fleet.exported_quotes();
    let acknowledged = ledger.acknowledged.lock().unwrap();
    let lost: Vec<&String> = acknowledged.difference(&recorded).collect();
    println!(
        "{} acknowledged of {} answers, {} unanswered, {} recorded, parts named: {parts:?}",
        acknowledged.len(),
        ledger.answers.load(Ordering::Relaxed),
        ledger.unanswered.load(Ordering::Relaxed),
        recorded.len(),
    );
    assert_eq!(lost, Vec::<&String>::new());
    let report = fleet.bre(&["verify", "audit"]).json();
    assert_eq!(report["first_bad"], Value::Null, "{report}");
    assert_eq!(processes_on(fleet.folder.path()).len(), ALL.len());
    fleet.stop_cleanly();
}

/// Ends the load also when the test panics, or the scope would wait for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// With the service known to be away: nothing was recorded, and its name.
fn refuses(fleet: &Fleet, name: &str) {
    let answer = fleet.locate().unwrap();
    let details = &answer.body["details"];
    assert_eq!(
        (answer.status, &details["part"], &details["outcome"]),
        (503, &json!(name), &json!("not_recorded")),
        "{answer:?}"
    );
}

#[test]
fn the_database_and_the_cache_may_go_and_come_back_too() {
    let mut fleet = Fleet::start();
    fleet
        .postgres
        .stop(postgres_physical::server::StopMode::Immediate);
    let refused = within(TIMEOUT, || {
        let answer = fleet.locate()?;
        let details = &answer.body["details"];
        assert!(answer.status == 200 || is_clear(&answer.body), "{answer:?}");
        (details["part"] == "database" && details["outcome"] == "not_recorded").then_some(())
    });
    assert!(refused.is_some(), "{:?}", fleet.locate());
    assert_eq!(fleet.get(GATEWAY, "/api/v1/rates/GME").unwrap().status, 200);
    // A gateway that starts now gets keys and rates from the cache-service, and says that they are not fresh.
    fleet.kill(GATEWAY);
    fleet.up(GATEWAY);
    let cached = within(TIMEOUT, || {
        let rate = fleet.get(GATEWAY, "/api/v1/rates/GME")?;
        (rate.status == 200).then_some(rate)
    });
    let cached = cached.expect("no rates out of the cache");
    assert_eq!(cached.body["stale"], json!(true), "{cached:?}");
    fleet.postgres.start_again();
    fleet.wait_healthy();
    assert_eq!(fleet.locate().unwrap().status, 200);
    fleet.redis.kill();
    let seen = within(TIMEOUT, || {
        (fleet.health()["components"]["cache"]["status"] == "down").then_some(())
    });
    assert!(seen.is_some(), "{:#}", fleet.health());
    assert_eq!(fleet.locate().unwrap().status, 200);
    fleet.stop_cleanly();
}

#[test]
fn a_process_that_hangs_leaves_an_unknown_outcome_and_the_id_to_ask_with() {
    let mut fleet = Fleet::start();
    for name in [CALCULATION, DATA] {
        fleet.signal(name, Signal::STOP);
        let id = request_id();
        let url = fleet.url(GATEWAY, LOCATE);
        let answer = Caller::new().locate(&url, &fleet.key, &id).unwrap();
        fleet.signal(name, Signal::CONT);
        let details = &answer.body["details"];
        assert_eq!(
            (answer.status, &details["part"], &details["outcome"]),
            (503, &json!(name), &json!("unknown")),
            "{answer:?}"
        );
        assert_eq!(details["request_id"], json!(id));
        fleet.wait_healthy();
        let ask = details["ask"].as_str().unwrap();
        let asked = fleet.get(GATEWAY, ask).unwrap();
        assert_eq!(asked.status, 200, "{asked:?}");
        assert!(asked.body["pagination"]["total"].as_u64() <= Some(1));
        assert_eq!(fleet.locate().unwrap().status, 200);
    }
    fleet.stop_cleanly();
}

#[test]
fn what_is_in_flight_when_it_is_told_to_stop_is_answered() {
    let mut fleet = Fleet::start();
    let options = fleet.postgres.connect_options().with_database("bre");
    let mut gate = postgres_physical::server::sql::Client::connect(&options).unwrap();
    gate.query("BEGIN").unwrap();
    gate.query("LOCK TABLE audit_log IN SHARE MODE").unwrap();
    let (url, key) = (fleet.url(GATEWAY, LOCATE), fleet.key.clone());
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| Caller::new().locate(&url, &key, "it-in-flight"));
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'bre audit writer'";
        let in_flight = within(TIMEOUT, || (fleet.value(waiting) == "1").then_some(()));
        for name in ALL {
            fleet.signal(name, Signal::TERM);
        }
        gate.query("COMMIT").unwrap();
        assert!(in_flight.is_some(), "the locate never reached the database");
        asking.join().unwrap()
    });
    let answer = answer.expect("the gateway hung up on a request that it had taken");
    assert!(answer.status == 200 || is_clear(&answer.body), "{answer:?}");
    println!("answered {} while stopping", answer.status);
    for name in ALL {
        fleet.ended(name).exits(0);
    }
    assert_eq!(processes_on(fleet.folder.path()), Vec::new());
    if let Some(id) = answer.body["quote_id"].as_str() {
        let found = fleet.value(&format!(
            "SELECT count(*) FROM audit_log WHERE quote_id = '{id}'"
        ));
        assert_eq!(found, "1");
    }
}
