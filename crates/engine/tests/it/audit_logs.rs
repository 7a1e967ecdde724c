//! Logs for auditors by the command line, with a repository in a folder and no engine: real files, a real journal.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, sync::Arc};

use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::PosixStore,
};

use crate::{instance::Folder, process::Output};

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
