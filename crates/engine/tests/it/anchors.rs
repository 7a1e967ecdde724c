//! What stands around the log: heads that are taken away, a repository that is rolled back, tables that are emptied while the engine runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

/// What D, R and both do to the log and what vouches for it: cases of the tamper suite that need a whole system, so
/// each is a test. Every run does the first and two others, by a seed that it prints; `make slow-tamper` does all
/// (CASES=all).
const CASES_OF_SYSTEMS: [&str; 7] = [
    "what_disappears_while_the_engine_runs_is_told_and_stops_the_writer_until_a_person_has_looked",
    "a_log_that_was_cut_with_all_its_heads_is_not_continued_below_the_anchor",
    "a_repository_that_was_rolled_back_or_emptied_never_makes_a_place_twice",
    "entries_that_a_person_has_let_go_of_are_a_known_loss_and_no_others_are",
    "a_restore_to_before_the_damage_lets_the_log_go_on",
    "anchors_in_a_further_repository_outlive_host_and_first_repository",
    "an_archive_and_a_restore_test_say_how_long_the_log_was",
];

/// Whether this run does it. All tests of a run have one parent, and so one seed.
fn is_chosen(name: &str) -> bool {
    let (always, others) = CASES_OF_SYSTEMS.split_first().unwrap();
    let all = std::env::var("CASES").is_ok_and(|cases| cases == "all");
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: usize = seed.unwrap_or_else(|| std::os::unix::process::parent_id() as usize);
    let at = others.iter().position(|case| *case == name);
    let count = others.len();
    let turn = |at: usize| (at + count - seed % count) % count;
    let chosen = all || *always == name || at.is_some_and(|at| turn(at) < 2);
    println!(
        "SEED={seed}: {name}: {}",
        match chosen {
            true => "done",
            false => "not in this run, make slow-tamper does all",
        }
    );
    chosen
}

const TABLES: [&str; 4] = ["audit_log", "quotes", "locates", "availability_ledger"];

impl Instance {
    /// As a superuser can, past the triggers, which are then as they were.
    pub(crate) fn past_triggers(&self, sql: &str) {
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

    /// What `bre verify audit` says, in a word, a number and whole.
    pub(crate) fn judged(&self) -> (String, i32, Value) {
        let output = self.bre(&["verify", "audit"]);
        let report = output.parsed();
        let word = report["verdict"].as_str().unwrap_or_default().to_owned();
        (word, output.code.unwrap_or(-1), report)
    }

    pub(crate) fn is_judged(&self, word: &str, code: i32) -> Value {
        let (found, ended, report) = self.judged();
        assert_eq!((found.as_str(), ended), (word, code), "{report}");
        report
    }

    /// The repository holds a head of this position or a later one, and so does the anchor.
    pub(crate) fn wait_signed(&self, position: u64) {
        let file = self.data().join("keys/audit_anchor-1.json");
        let signed = within(TIMEOUT, || {
            let anchor: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            (anchor["head"]["size"].as_u64()? >= position).then_some(())
        });
        assert!(signed.is_some(), "no anchor at {position}");
    }

    pub(crate) fn wait_damaged(&self, words: &str) {
        let told = within(TIMEOUT, || {
            let health = self.get("/api/v1/health").body;
            let degraded = health["degraded"].as_array()?.clone();
            let of_log = degraded.into_iter().find(|it| it["part"] == "audit_log")?;
            (health["status"] == "degraded").then_some(of_log["reason"].as_str()?.to_owned())
        });
        let told = told.unwrap_or_else(|| panic!("not told: {}", self.get("/api/v1/health").text));
        assert!(told.contains(words), "{told}");
        assert!(told.contains("bre audit reopen"), "{told}");
        // A start reads its keys and rates first.
        let refused = within(TIMEOUT, || {
            let refused = self.locate();
            let rates = self.get("/api/v1/rates/GME").status;
            (refused.status == 503 && refused.text.contains("log_damaged") && rates == 200)
                .then_some(())
        });
        assert!(refused.is_some(), "{}", self.locate().text);
    }

    pub(crate) fn wait_epoch(&self) -> u64 {
        let epoch = within(TIMEOUT, || {
            let located = self.locate();
            (located.status == 200).then(|| located.body["audit"]["epoch"].as_u64().unwrap())
        });
        epoch.unwrap_or_else(|| panic!("no locate is served: {}", self.locate().text))
    }
}

pub(crate) fn position(quote: &Value) -> u64 {
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
    assert!(is_chosen(CASES_OF_SYSTEMS[0]));
    let mut instance = Instance::watchful("");
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
    instance.wait_damaged("run `bre verify audit`");
    instance.kill();
    instance.up();
    instance.wait_damaged("run `bre verify audit`");
    instance.is_judged("cut", 8);
    // Nothing is left to continue from. Another log takes its place when somebody asks for it, in the same database:
    // its tables are stated again.
    instance
        .bre(&["audit", "reopen", "--reason", "emptied by hand"])
        .refused(&["--continue-log"]);
    instance.stop();
    let before = instance.api_key();
    instance.continue_log();
    let continued = instance.wait_epoch();
    assert!(continued >= 3, "{continued}");
    let report = instance.is_judged("known_loss", 10);
    assert_eq!(report["tables"]["verdict"], "as_recorded", "{report}");
    let made = instance.api_key();
    assert_ne!(before, made, "the log knows no key of before");
    // The words stay in a unit's file: nothing is made again by them, and the engine says that they have to go.
    instance.stop_cleanly();
    instance.continue_log();
    assert_eq!(
        (instance.wait_epoch(), instance.api_key()),
        (continued, made)
    );
    instance.wait_log("--continue-log was given, and the audit log is there");
    instance.is_judged("known_loss", 10);
}

impl Instance {
    /// The checkpoint of that origin, once it has so many entries, with its tiles as an outsider reads them.
    fn follow_log(&self, origin: u32, size: u64) -> Value {
        let at = format!("{}/log/log-1/{origin}", self.ready("url"));
        let key = self.data().join("keys/audit_signing.pub");
        let key = key.to_str().unwrap();
        let followed = within(TIMEOUT, || {
            let output = self.bre(&["audit", "follow", &at, "--key", key]);
            (output.code == Some(0))
                .then(|| output.parsed())
                .filter(|followed| followed["size"].as_u64() >= Some(size))
        });
        followed.unwrap_or_else(|| panic!("origin {origin} has no {size} entries: {}", self.log()))
    }

    fn continue_log(&mut self) {
        self.spawn_with(&["--continue-log", "--yes-all-is-lost"]);
        self.wait_ready();
    }
}

/// Somebody takes entries from the middle, and a person lets writing continue without them: exactly these are a known
/// loss from then on.
#[test]
fn entries_that_a_person_has_let_go_of_are_a_known_loss_and_no_others_are() {
    if !is_chosen("entries_that_a_person_has_let_go_of_are_a_known_loss_and_no_others_are") {
        return;
    }
    let mut instance = Instance::watchful("");
    let mut last = 0;
    for _ in 0..4 {
        last = position(&instance.quote("GME"));
    }
    instance.wait_signed(last);
    let gone = |from: u64, to: u64| {
        TABLES[..2]
            .iter()
            .map(|table| format!("DELETE FROM {table} WHERE position BETWEEN {from} AND {to}; "))
            .collect::<String>()
    };
    instance.past_triggers(&gone(1, last - 1));
    instance.wait_damaged("the log's beginning was taken away");
    let report = instance.is_judged("cut", 8);
    assert_eq!(report["first_bad"]["position"], 1, "{report}");
    let reason = "a script emptied the table";
    let reopened = instance
        .bre(&["audit", "reopen", "--reason", reason])
        .json();
    assert_eq!(reopened["audit"]["epoch"], 2, "{reopened}");
    assert_eq!(instance.wait_epoch(), 2);
    let report = instance.is_judged("known_loss", 10);
    let opening = report["epochs"].as_array().unwrap().last().unwrap();
    let stretch = json!([{ "from": 1, "to": last - 1 }]);
    assert_eq!(
        (&opening["why"], &opening["missing_entries"]),
        (&json!(reason), &stretch),
        "{report}"
    );
    assert_eq!(report["lost_entries"], last - 1, "{report}");
    // What the lost entries said of keys and rates was said once more.
    assert_eq!(report["tables"]["verdict"], "as_recorded", "{report}");
    assert_eq!(
        report["tables"]["not_covered_before"]["position"].as_u64(),
        opening["position"].as_u64().map(|position| position + 1),
        "{report}"
    );
    assert_eq!(report["entries"], report["verified"], "{report}");
    let after = position(&instance.quote("AAPL"));
    instance.wait_signed(after);
    // Outsiders continue with the tree of what is left, which says what it follows and where it begins.
    let shown = instance.follow_log(2, after - last + 1);
    assert_eq!(shown["begins_behind"].as_u64(), Some(last - 1), "{shown}");
    let left = shown["left_behind"].as_str().unwrap();
    assert!(left.contains("/log-1/1 "), "{shown}");
    instance.stop_cleanly();
    instance.up();
    instance.wait_epoch();
    instance.is_judged("known_loss", 10);
    let after = position(&instance.quote("GME"));
    instance.follow_log(2, after - last + 1);
    instance.past_triggers(&gone(last, last));
    instance.is_judged("cut", 8);
}

/// The way back that needs no person's word: the database as it was before.
#[test]
fn a_restore_to_before_the_damage_lets_the_log_go_on() {
    if !is_chosen("a_restore_to_before_the_damage_lets_the_log_go_on") {
        return;
    }
    let mut instance = Instance::watchful("");
    instance.bre(&["backup", "run"]).exits(0);
    let last = position(&instance.quote("GME"));
    instance.wait_signed(last);
    let lsn = instance.value("SELECT pg_current_wal_flush_lsn()");
    instance.past_triggers(&format!("TRUNCATE {} CASCADE", TABLES.join(", ")));
    instance.wait_damaged("run `bre verify audit`");
    instance.wait_caught_up();
    let note = instance.data().join("keys/audit_damage-1.json");
    assert!(note.exists());
    instance.stop();
    let to = instance.data().join("postgres");
    let restore = |target: &[&str]| {
        let over = [
            "restore",
            "database",
            "--delta",
            "--yes",
            "--to",
            to.to_str().unwrap(),
        ];
        instance.bre(&[&over[..], target].concat()).json()
    };
    // To the end, the damage comes back with it.
    restore(&["--latest"]);
    instance.up();
    instance.wait_damaged("run `bre verify audit`");
    assert!(note.exists());
    instance.stop();
    let over = [
        "restore", "database", "--delta", "--yes", "--lsn", &lsn, "--to",
    ];
    let restored = [&over[..], &[to.to_str().unwrap()]].concat();
    instance.bre(&restored).json();
    instance.up();
    assert!(instance.wait_epoch() >= 2);
    assert!(!note.exists(), "a restore that verifies lifts it");
    let report = instance.audit_is_sound();
    assert!(report["entries"].as_u64().unwrap() > last, "{report}");
    assert_eq!(report["lost_entries"], 0, "{report}");
}

/// Machine and first repository are of an earlier day, keys and all. What a further repository got knows better.
#[test]
fn anchors_in_a_further_repository_outlive_host_and_first_repository() {
    if !is_chosen("anchors_in_a_further_repository_outlive_host_and_first_repository") {
        return;
    }
    let mut instance = Instance::prepared(&[]);
    let far = instance.folder.join("far");
    instance.settings(&format!(
        "[audit]\nlook_seconds = 1\n[repositories.far]\npath = {:?}\n",
        far.to_str().unwrap()
    ));
    instance.up();
    let early = position(&instance.quote("GME"));
    instance.wait_signed(early);
    // The copier makes the repository there.
    let made = within(TIMEOUT, || far.join("format").exists().then_some(()));
    assert!(made.is_some(), "{}", instance.log());
    instance.stop_cleanly();
    let (keys, kept) = (
        instance.folder.join("earlier-keys"),
        instance.folder.join("earlier"),
    );
    copy(&instance.data().join("keys"), &keys);
    copy(&instance.repository(), &kept);
    instance.up();
    let mut last = early;
    for _ in 0..3 {
        last = position(&instance.quote("GME"));
    }
    instance.wait_signed(last);
    instance.stop_cleanly();
    let anchors = || -> Vec<String> {
        let names = std::fs::read_dir(far.join("anchors/1")).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        names.map(|it| name(it).into_string().unwrap()).collect()
    };
    assert_eq!(anchors(), [format!("00000001-{last:016x}")]);

    for lost in ["keys", "repository", "postgres"] {
        instance.remove(lost);
    }
    copy(&keys, &instance.data().join("keys"));
    copy(&kept, &instance.repository());
    instance.up();
    assert_eq!(instance.wait_epoch(), 2);
    let report = instance.is_judged("known_loss", 10);
    let known = report["known_losses"].to_string();
    assert!(known.contains(&format!("\"size\":{last}")), "{report}");
    assert!(report["lost_entries"].as_u64() >= Some(1), "{report}");
}

/// Heads and anchor are gone, and the log was cut: what the audit archive and a restore test once counted still says
/// so.
#[test]
fn an_archive_and_a_restore_test_say_how_long_the_log_was() {
    if !is_chosen("an_archive_and_a_restore_test_say_how_long_the_log_was") {
        return;
    }
    let mut instance = Instance::start();
    let first = position(&instance.quote("GME"));
    let id = instance.bre(&["backup", "run"]).json()["id"].clone();
    let id = id.as_str().unwrap().to_owned();
    let proved = instance.bre(&["restore-test", "run", &id]).json();
    assert_eq!(proved["passed"], true, "{proved}");
    let last = position(&instance.quote("GME"));
    instance.wait_signed(last);
    instance.bre(&["audit", "archive"]).json();
    for table in &TABLES[..2] {
        instance.past_triggers(&format!(
            "DELETE FROM {table} WHERE position > {}",
            first - 1
        ));
    }
    instance.kill();
    instance.remove("repository/heads");
    let keys = instance.data().join("keys");
    for file in ["audit_anchor-1.json", "audit_damage-1.json"] {
        drop(std::fs::remove_file(keys.join(file)));
    }
    instance.up();
    instance.wait_damaged("the audit archive (");
    instance.stop();
    instance.remove("repository/audit");
    instance.up();
    instance.wait_damaged("the restore test `backups/");
    let reason = ["audit", "reopen", "--reason", "an exercise"];
    assert_eq!(instance.bre(&reason).json()["audit"]["epoch"], 2);
    instance.wait_epoch();
}

/// Whoever deletes entries, kills the engine and deletes all heads is convicted by the anchor beside the keys; and by nothing, if that is
/// taken away too.
#[test]
fn a_log_that_was_cut_with_all_its_heads_is_not_continued_below_the_anchor() {
    if !is_chosen("a_log_that_was_cut_with_all_its_heads_is_not_continued_below_the_anchor") {
        return;
    }
    let mut instance = Instance::watchful("");
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
    if !is_chosen("a_repository_that_was_rolled_back_or_emptied_never_makes_a_place_twice") {
        return;
    }
    let mut instance = Instance::watchful("");
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
    instance.continue_log();
    let located = within(TIMEOUT, || {
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

    // Outsiders are told as well: the new log has an origin of its own, and says which one it leaves behind.
    let began = report["epochs"][0]["epoch"].as_u64().unwrap();
    let path = format!("/log/log-1/{began}/checkpoint");
    let shown = within(TIMEOUT, || {
        let shown = instance.get(&path);
        (shown.status == 200).then_some(shown.text)
    });
    let shown = shown.unwrap_or_else(|| panic!("{}", instance.log()));
    let line = shown.lines().find(|line| line.starts_with("left-behind "));
    let words: Vec<&str> = line
        .unwrap_or_else(|| panic!("{shown}"))
        .split(' ')
        .collect();
    assert!(words[1].ends_with("/log-1/1"), "{shown}");
    assert!(words[2].parse::<u64>().unwrap() >= early, "{shown}");
    let origins = instance.get("/log/log-1/origins").text;
    let last = origins.lines().last().unwrap();
    assert!(last.ends_with(&format!("/log-1/{began}")), "{origins}");
}

impl Instance {
    /// What it says that does not go on, whether it ends with it or stays up with it; it is ended either way.
    fn refused_or_up(&mut self) -> String {
        let said = within(TIMEOUT, || {
            let log = self.log();
            log.contains("--continue-log").then_some(log)
        });
        let ended = self.stop();
        said.unwrap_or(ended.err)
    }
}
