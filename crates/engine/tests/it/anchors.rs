//! What stands around the log: heads that are taken away, a repository that is rolled back, tables that are emptied while the engine runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    instance::Instance,
    process::{PATIENCE, within},
};

const TABLES: [&str; 4] = ["audit_log", "quotes", "locates", "availability_ledger"];

impl Instance {
    /// As a superuser can, past the triggers, which are then as they were.
    fn past_triggers(&self, sql: &str) {
        let all = |what: &str| {
            TABLES
                .map(|table| format!("ALTER TABLE {table} {what} TRIGGER append_only; "))
                .concat()
        };
        self.sql(&format!(
            "{}{sql}; {}",
            all("DISABLE"),
            all("ENABLE ALWAYS")
        ));
    }

    /// As root: what lies there is gone.
    fn remove(&self, below: &str) {
        std::fs::remove_dir_all(self.data().join(below)).unwrap();
    }

    /// What `bre audit verify` says, in a word, a number and whole.
    fn judged(&self) -> (String, i32, Value) {
        let output = self.bre(&["audit", "verify"]);
        let report = output.parsed();
        let word = report["verdict"].as_str().unwrap_or_default().to_owned();
        (word, output.code.unwrap_or(-1), report)
    }

    fn is_judged(&self, word: &str, code: i32) -> Value {
        let (found, ended, report) = self.judged();
        assert_eq!((found.as_str(), ended), (word, code), "{report}");
        report
    }

    /// The repository holds a head of this position or a later one, and so does the anchor.
    fn wait_signed(&self, position: u64) {
        let file = self.data().join("keys/audit_anchor-1.json");
        let signed = within(PATIENCE, || {
            let anchor: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            (anchor["head"]["size"].as_u64()? >= position).then_some(())
        });
        assert!(signed.is_some(), "no anchor at {position}");
    }

    fn wait_damaged(&self, words: &str) {
        let told = within(PATIENCE, || {
            let health = self.get("/api/v1/health").body;
            let degraded = health["degraded"].as_array()?.clone();
            let of_log = degraded.into_iter().find(|it| it["part"] == "audit_log")?;
            (health["status"] == "degraded").then_some(of_log["reason"].as_str()?.to_owned())
        });
        let told = told.unwrap_or_else(|| panic!("not told: {}", self.get("/api/v1/health").text));
        assert!(told.contains(words), "{told}");
        assert!(told.contains("bre audit reopen"), "{told}");
        // A start reads its keys and rates first.
        let refused = within(PATIENCE, || {
            let refused = self.locate();
            let rates = self.get("/api/v1/rates/GME").status;
            (refused.status == 503 && refused.text.contains("log_damaged") && rates == 200)
                .then_some(())
        });
        assert!(refused.is_some(), "{}", self.locate().text);
    }

    fn wait_epoch(&self) -> u64 {
        let epoch = within(PATIENCE, || {
            let located = self.locate();
            (located.status == 200).then(|| located.body["audit"]["epoch"].as_u64().unwrap())
        });
        epoch.unwrap_or_else(|| panic!("no locate is served: {}", self.locate().text))
    }
}

fn position(quote: &Value) -> u64 {
    quote["audit"]["position"].as_u64().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp")
        .args([Path::new("-a"), from, to])
        .status();
    assert!(done.unwrap().success());
}

/// The superuser empties tables while the engine runs; root deletes heads. Both are told within a minute and stay told, until a
/// person has said on record that it is known.
#[test]
fn what_disappears_while_the_engine_runs_is_told_and_stops_the_writer_until_a_person_has_looked() {
    let mut instance = Instance::start();
    instance.quote("GME");
    let last = position(&instance.quote("AAPL"));
    instance.wait_signed(last);
    instance.is_judged("sound", 0);
    // One head of several is taken away.
    let heads = instance.repository().join("heads/1");
    let mut names: Vec<_> = std::fs::read_dir(&heads)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    std::fs::remove_file(&names[0]).unwrap();
    let report = instance.is_judged("cut", 8);
    assert!(
        report["reason"]
            .to_string()
            .contains("a head was taken away"),
        "{report}"
    );
    instance.wait_damaged("a signed head has disappeared");
    let held = instance.value("SELECT max(position) FROM audit_log");
    // Neither a restart nor the supervisor makes it well again.
    instance.stop();
    instance.up();
    instance.wait_damaged("a signed head has disappeared");
    assert_eq!(instance.value("SELECT max(position) FROM audit_log"), held);
    let reason = "a head was deleted by hand";
    let reopened = instance
        .bre(&["audit", "reopen", "--reason", reason])
        .json();
    assert_eq!(reopened["audit"]["epoch"], 2, "{reopened}");
    assert_eq!(instance.wait_epoch(), 2);
    let report = instance.is_judged("known_loss", 10);
    let opening = report["epochs"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&opening["reason"], &opening["why"]),
        (&json!("reopened"), &json!(reason)),
        "{report}"
    );
    instance
        .bre(&["audit", "reopen", "--reason", "again"])
        .refused(&["nothing stands against"]);

    instance.past_triggers(&format!("TRUNCATE {} CASCADE", TABLES.join(", ")));
    instance.wait_damaged("run `bre audit verify`");
    instance.kill();
    instance.up();
    instance.wait_damaged("run `bre audit verify`");
    instance.is_judged("cut", 8);
}

/// Whoever deletes entries, kills the engine and deletes all heads is convicted by the anchor beside the keys; and by nothing, if that is
/// taken away too.
#[test]
fn a_log_that_was_cut_with_all_its_heads_is_not_continued_below_the_anchor() {
    let mut instance = Instance::start();
    let first = position(&instance.quote("GME"));
    let mut last = first;
    for _ in 0..4 {
        last = position(&instance.quote("GME"));
    }
    instance.wait_signed(last);
    for table in &TABLES[..2] {
        instance.past_triggers(&format!("DELETE FROM {table} WHERE position > {first}"));
    }
    instance.kill();
    instance.remove("repository/heads");
    let report = instance.up_and_judge();
    assert_eq!(report["first_bad"]["position"], first + 1, "{report}");
    let located = instance.locate();
    assert!(
        located.status == 503 && located.text.contains("log_damaged"),
        "{}",
        located.text
    );
    assert_eq!(
        instance.value("SELECT max(position) FROM audit_log"),
        first.to_string()
    );
    // A person accepts it: the next place is above the anchor, and what is lost is signed for.
    let accepted = instance
        .bre(&["audit", "reopen", "--reason", "an exercise"])
        .json();
    assert_eq!(
        (&accepted["audit"]["epoch"], &accepted["audit"]["position"]),
        (&json!(2), &json!(first + 1))
    );
    let report = instance.is_judged("known_loss", 10);
    let lost = report["lost_entries"].as_u64().unwrap();
    assert!(lost >= last - first, "{report}");

    // Machine and repository both: without heads and anchor nothing inside tells. (A witness or a client's checkpoint does.)
    instance.stop();
    instance.remove("repository/heads");
    std::fs::remove_file(instance.data().join("keys/audit_anchor-1.json")).unwrap();
    instance.up();
    instance.wait_epoch();
}

impl Instance {
    fn up_and_judge(&mut self) -> Value {
        self.up();
        self.is_judged("cut", 8)
    }
}

/// The database is lost, and the repository is one of an earlier day: what comes back is a recovery with a known loss, in an epoch above
/// the anchor's. Where nothing comes back, a person has to ask for another log, twice.
#[test]
fn a_repository_that_was_rolled_back_or_emptied_never_makes_a_place_twice() {
    let mut instance = Instance::start();
    let early = position(&instance.quote("GME"));
    instance.wait_signed(early);
    instance.stop_cleanly();
    let kept = instance.folder.join("earlier");
    copy(&instance.repository(), &kept);
    instance.up();
    let mut last = early;
    for _ in 0..5 {
        last = position(&instance.quote("GME"));
    }
    instance.wait_signed(last);
    instance.stop_cleanly();
    instance.remove("repository");
    copy(&kept, &instance.repository());
    instance.remove("postgres");
    instance.up();
    assert_eq!(instance.wait_epoch(), 2);
    let report = instance.is_judged("known_loss", 10);
    let known = report["known_losses"].to_string();
    assert!(known.contains(&format!("\"size\":{last}")), "{report}");

    // Now the heads and the newest WAL are gone too, and with them every entry.
    instance.stop_cleanly();
    instance.remove("repository");
    copy(&kept, &instance.repository());
    instance.remove("repository/heads");
    instance.remove("repository/tail");
    instance.remove("postgres");
    instance.spawn();
    let refused = instance.refused_or_up();
    assert!(refused.contains("--continue-log"), "{refused}");
    let again = ["--continue-log", "--yes-all-is-lost"];
    instance.spawn_with(&again);
    instance.wait_ready();
    let located = within(PATIENCE, || {
        let located = instance.locate();
        (located.status == 200).then_some(located)
    });
    let located = located.unwrap_or_else(|| panic!("{}", instance.log()));
    assert!(
        located.body["audit"]["epoch"].as_u64() >= Some(3),
        "{}",
        located.text
    );
    let report = instance.is_judged("known_loss", 10);
    assert_eq!(report["epochs"][0]["reason"], "continued", "{report}");
}

impl Instance {
    /// What it says that does not go on, whether it ends with it or stays up with it; it is ended either way.
    fn refused_or_up(&mut self) -> String {
        let said = within(PATIENCE, || {
            let log = self.log();
            log.contains("--continue-log").then_some(log)
        });
        let ended = self.stop();
        said.unwrap_or(ended.err)
    }
}
