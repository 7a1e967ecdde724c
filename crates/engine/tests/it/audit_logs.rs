//! Logs for auditors by the command line, with a repository in a folder and no engine: real files, a real journal.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, sync::Arc};

use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::PosixStore,
};

use crate::{
    instance::{Folder, Instance},
    process::Output,
};

struct Fixture {
    folder: Folder,
}

impl Fixture {
    fn new() -> Self {
        let desk = Self {
            folder: Folder::new(),
        };
        for name in ["repository", "keys", "logs", "outside/journal"] {
            fs::create_dir_all(desk.data(name)).unwrap();
        }
        let store = PosixStore::new(desk.data("repository"));
        Repository::init(Arc::new(store)).unwrap();
        let key = RecipientPrivate::generate().unwrap();
        key.store(&desk.data("keys/recipient.key")).unwrap();
        key.public()
            .store(&desk.data("keys/recipient.pub"))
            .unwrap();
        let chunk_id = ChunkIdKey::generate().unwrap();
        chunk_id.store(&desk.data("keys/chunk_id.key")).unwrap();
        let outside = desk.data("outside");
        let settings = format!(
            "[audit_logs]\napplication = [\"{0}/app.log\"]\njournal = \"{0}/journal\"\n",
            outside.display()
        );
        fs::write(desk.data("bre.toml"), settings).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(desk.data("bre.toml"), mode).unwrap();
        desk
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    fn bre(&self, arguments: &[&str]) -> Output {
        let data = self.folder.join("data");
        let first = ["--data", data.to_str().unwrap()];
        self.folder.run(&[&first[..], arguments].concat())
    }

    fn append(&self, file: &str, lines: &[&str]) {
        let mut options = fs::File::options();
        let path = self.data(file);
        let mut file = options.append(true).create(true).open(path).unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
    }

    fn stretches(&self, kind: &str) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let Ok(sources) = fs::read_dir(self.data("repository/logs").join(kind)) else {
            return all;
        };
        for source in sources {
            let objects = fs::read_dir(source.unwrap().path()).unwrap();
            all.extend(objects.map(|object| object.unwrap().path()));
        }
        all.sort();
        all
    }
}

/// What the engine wrote, and what another service did.
#[test]
fn logs_of_services_are_shipped_once_and_sealed() {
    let desk = Fixture::new();
    desk.append(
        "logs/engine.log",
        &[r#"{"timestamp":"x","message":"quoted GME to desk-7"}"#],
    );
    desk.append("outside/app.log", &["one", "two"]);
    let shipped = desk
        .bre(&["job", "run", "audit_log.application", "--json"])
        .json();
    let lines = |shipped: &serde_json::Value| -> Vec<u64> {
        let logs = shipped["logs"].as_array().unwrap();
        logs.iter()
            .map(|log| log["lines"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(lines(&shipped), [1, 2], "{shipped}");
    assert_eq!(desk.stretches("application").len(), 2);
    for object in desk.stretches("application") {
        let bytes = fs::read(&object).unwrap();
        assert!(
            !bytes.windows(6).any(|six| six == b"desk-7"),
            "{object:?} is not sealed"
        );
    }
    let again = desk
        .bre(&["job", "run", "audit_log.application", "--json"])
        .json();
    assert_eq!(lines(&again), [0, 0], "{again}");
    // A file that is gone is a gap with a name, and the run an alarm.
    fs::remove_file(desk.data("outside/app.log")).unwrap();
    let lost = desk.bre(&["job", "run", "audit_log.application"]);
    let text = format!("{}{}", lost.out, lost.err);
    assert!(
        text.contains("app.log") && text.contains("lines are missing"),
        "{text}"
    );
    let record = desk
        .bre(&["job", "history", "audit_log.application", "--json"])
        .json();
    assert_eq!(record["runs"][0]["outcome"], "unsound", "{record}");
}

#[test]
fn the_journal_is_shipped_or_the_job_says_what_it_lacks() {
    let desk = Fixture::new();
    if !PathBuf::from("/lib/systemd/systemd-journal-remote").exists() {
        testkit::skip!("journal", "systemd-journal-remote is not installed");
        return;
    }
    let file = desk.data("outside/journal/a.journal");
    let mut child = std::process::Command::new("/lib/systemd/systemd-journal-remote")
        .args(["--split-mode=none", "-o"])
        .args([file.as_os_str(), "-".as_ref()])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let now = jiff::Timestamp::now().as_microsecond();
    let entry = format!(
        "__REALTIME_TIMESTAMP={now}\n__MONOTONIC_TIMESTAMP=1000000\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
         SYSLOG_IDENTIFIER=sudo\nMESSAGE=ada : COMMAND=/usr/bin/psql\n\n"
    );
    child
        .stdin
        .take()
        .unwrap()
        .write_all(entry.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    let shipped = desk
        .bre(&["job", "run", "audit_log.system", "--json"])
        .json();
    assert_eq!(shipped["logs"][0]["lines"], 1, "{shipped}");
    assert_eq!(desk.stretches("system").len(), 1);
    fs::remove_dir_all(desk.data("outside/journal")).unwrap();
    let again = desk.bre(&["job", "run", "audit_log.system"]);
    again.refused(&["[audit_logs] journal", "is not there"]);
}

/// What was shipped comes back beside the live logs; a stretch that is gone is named, and so is what compliance lacks.
#[test]
fn logs_come_back_with_a_report_of_what_is_missing() {
    let desk = Fixture::new();
    let now = jiff::Timestamp::now();
    let line = |hours: i64, words: &str| {
        let at = now - jiff::SignedDuration::from_hours(hours);
        format!("{at:.0} {words} line of a service that is long enough")
    };
    let (first, second) = (line(48, "the first"), line(24, "the second"));
    desk.append("outside/app.log", &[&first]);
    desk.bre(&["job", "run", "audit_log.application"]).exits(0);
    desk.append("outside/app.log", &[&second]);
    desk.bre(&["job", "run", "audit_log.application"]).exits(0);
    let restore = |to: &str, more: &[&str]| {
        let to = desk.folder.join(to);
        let first = [
            "restore",
            "audit-log",
            "--json",
            "--to",
            to.to_str().unwrap(),
        ];
        desk.bre(&[&first[..], more].concat())
    };
    let report = restore("back", &["--kind", "application"]).json();
    let restored = &report["logs_restored"][0];
    assert_eq!(
        (&restored["stretches"], &restored["lines"]),
        (&2.into(), &2.into())
    );
    let text = |report: &serde_json::Value, at: usize| {
        let file = report["logs_restored"][0]["files"][at].as_str().unwrap();
        fs::read_to_string(file).unwrap()
    };
    assert_eq!(text(&report, 0), format!("{first}\n"));
    restore("back", &[]).refused(&["back"]);
    // A period has what has a line in it.
    let one = restore("one", &["--kind", "application", "--from", &second[..20]]);
    let one = one.json();
    assert_eq!(one["logs_restored"][0]["stretches"], 1, "{one}");
    assert_eq!(text(&one, 0), format!("{second}\n"));

    fs::remove_file(&desk.stretches("application")[0]).unwrap();
    let report = restore("gap", &["--kind", "application"]);
    let report = report.exits(5).parsed();
    let gap = &report["logs"][0]["gaps"][0];
    assert_eq!(
        (
            &gap["kind"],
            &gap["from_number"],
            &gap["to_number"],
            &gap["cause"]
        ),
        (
            &"application".into(),
            &1.into(),
            &1.into(),
            &"missing".into()
        ),
        "{gap}"
    );
    let markdown = fs::read_to_string(desk.folder.join("gap/gap_report.md")).unwrap();
    assert!(markdown.contains("stretches 1 to 1"), "{markdown}");

    desk.bre(&["job", "run", "audit_log.compliance"])
        .refused(&["[audit_archive] readers"]);
    let settings = fs::read_to_string(desk.data("bre.toml")).unwrap();
    let readers = "[audit_archive]\nreaders = [\"00\"]\nchrony = \"/nowhere/chronyd.sock\"\n";
    fs::write(desk.data("bre.toml"), format!("{readers}{settings}")).unwrap();
    let report = desk
        .bre(&["job", "run", "audit_log.compliance", "--json"])
        .parsed();
    let failed: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["passed"] == false)
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    // A folder locks nothing; the key was made here; 00 is no recipient; a stretch is gone; no chrony answers.
    assert_eq!(
        failed,
        ["locks", "keys", "readers", "chains", "clock"],
        "{report}"
    );
    let file = report["file"].as_str().unwrap();
    let markdown = fs::read_to_string(format!("{file}.md")).unwrap();
    assert!(markdown.contains("audit_recipient.key"), "{markdown}");
}

/// The archive against the running database: what was deleted there is named by position and time, and comes back.
#[test]
fn entries_that_the_database_lost_are_named_and_brought_back() {
    let instance = Instance::start();
    for _ in 0..3 {
        instance.quote("GME");
    }
    let archived = || {
        let archive = instance.bre(&["audit", "archive"]);
        (archive.code == Some(0)).then(|| archive.json()["archived_to"].as_u64().unwrap())
    };
    let newest: u64 = instance
        .value("SELECT max(position) FROM audit_log")
        .parse()
        .unwrap();
    testkit::eventually("a signed head covers the quotes", || {
        archived().filter(|to| *to >= newest)
    });
    let whole = instance.bre(&["verify", "audit", "--archive"]).json();
    assert_eq!(whole["compared"]["gaps"], serde_json::json!([]), "{whole}");
    // What the archive itself has is a number, as it always was.
    assert_eq!(
        whole["entries"], whole["compared"]["archived_to"],
        "{whole}"
    );
    assert_eq!(whole["logs_verdict"], "sound");
    assert!(
        whole["compared"]["entries_compared"].as_u64() >= Some(newest),
        "{whole}"
    );
    instance.sql_past_triggers(&format!(
        "DELETE FROM audit_log WHERE position = {newest}; DELETE FROM \
            quotes WHERE position = {newest}"
    ));
    let found = instance.bre(&["verify", "audit", "--archive"]);
    let found = found.exits(8).parsed();
    let gap = &found["compared"]["gaps"][0];
    assert_eq!(
        (&gap["kind"], &gap["from_position"], &gap["lacks"]),
        (&"database".into(), &newest.into(), &"database".into()),
        "{found}"
    );
    assert!(gap["from_micros"].as_i64() > Some(0), "{gap}");
    let to = instance.data().join("back");
    let back = [
        "restore",
        "audit-log",
        "--kind",
        "database",
        "--to",
        to.to_str().unwrap(),
    ];
    let report = instance.bre(&back).exits(5).parsed();
    assert_eq!(report["entries_restored"], 1, "{report}");
    let lines = fs::read_to_string(to.join("database/log-1.jsonl")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(entry["position"], newest);
}

/// Who connected, and each definition, as the instance's own PostgreSQL logged it.
#[test]
fn the_log_of_postgres_says_who_came_and_what_was_defined() {
    let instance = Instance::start();
    instance.sql("CREATE TABLE desk_7 (id integer)");
    let shipped = instance.bre(&["job", "run", "audit_log.postgres"]).json();
    assert!(shipped["logs"][0]["lines"].as_u64() > Some(0), "{shipped}");
    let to = instance.data().join("back");
    let to = to.to_str().unwrap();
    let restored = instance.bre(&["restore", "audit-log", "--kind", "postgres", "--to", to]);
    let restored = restored.json();
    let file = restored["logs_restored"][0]["files"][0].as_str().unwrap();
    let log = fs::read_to_string(file).unwrap();
    for words in [
        "statement: CREATE TABLE desk_7",
        "connection authorized: user=postgres",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}
