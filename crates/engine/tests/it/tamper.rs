//! Tampering seen through the commands: with the server that was tampered with, and without any. The table of what a superuser can do stands
//! in `services/tests/it/tamper`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{instance::Instance, process::Output};

impl Instance {
    fn schema_says(&self, words: &str) {
        let report = unsound(&self.bre(&["verify", "audit"]));
        let findings = report["schema"]["findings"].to_string();
        assert!(findings.contains(words), "{findings}");
        assert_eq!(report["verdict"], "rewritten", "{report}");
        let checks = self.bre(&["verify", "database"]).exits(1).parsed();
        let check = checks["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == "schema")
            .unwrap()
            .clone();
        assert_eq!(check["verdict"], "failed", "{check}");
        assert!(check["why"].as_str().unwrap().contains(words), "{check}");
    }
}

/// Whatever the exit code says of what is wrong: it says that something is.
fn unsound(output: &Output) -> Value {
    assert_ne!(output.code, Some(0), "{output:?}");
    output.parsed()
}

#[test]
fn a_deceiving_server_is_found_out_and_other_roads_do_not_ask_it() {
    let mut instance = Instance::start();
    instance.quote("GME");
    // What is not the engine's affair, and used to be called tampering.
    instance.sql("ALTER DATABASE bre SET datestyle = 'German'; CREATE TABLE notes (id integer); CREATE INDEX dba ON quotes (total_fee)");
    let report = instance.audit_is_sound();
    assert_eq!(
        (&report["road"], &report["schema"]["findings"]),
        (&json!("server"), &json!([]))
    );

    // Running: words of the verifier and of `verify database` agree.
    instance.sql(
        "ALTER TABLE quotes RENAME TO quotes_real; CREATE VIEW quotes AS SELECT * FROM quotes_real WHERE current_setting('application_name') = 'bre audit verify'",
    );
    instance.schema_says("a view");
    instance.sql("DROP VIEW quotes; ALTER TABLE quotes_real RENAME TO quotes");
    instance.sql("GRANT UPDATE ON locates TO bre_service");
    instance.schema_says("it has the right UPDATE on locates, which only grows");
    instance.sql("REVOKE UPDATE ON locates FROM bre_service");
    instance.audit_is_sound();

    let exported = instance.bre(&["audit", "export"]).exits(0).out.clone();
    let file = instance.folder.join("exported.jsonl");
    let id = instance.bre(&["backup", "run"]).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    instance.quote("AAPL");
    instance.sql("ALTER TABLE quotes DISABLE TRIGGER append_only; UPDATE quotes SET total_fee = 0; ALTER TABLE quotes ENABLE ALWAYS TRIGGER append_only");
    instance.wait_caught_up();
    instance.stop_cleanly();

    // Stopped, and the server's files gone: the repository alone tells.
    std::fs::rename(
        instance.data().join("postgres"),
        instance.folder.join("gone"),
    )
    .unwrap();
    let newest = unsound(&instance.bre(&["verify", "audit", "--from-wal"]));
    assert_eq!(newest["road"], "wal", "{newest}");
    assert!(
        newest["reason"]
            .as_str()
            .unwrap()
            .contains("quotes.total_fee is \"0.0000\""),
        "{newest}"
    );
    let before = instance
        .bre(&["verify", "audit", "--from-backup", &id])
        .json();
    assert_eq!(
        (&before["road"], &before["backup_id"], &before["first_bad"]),
        (&json!("backup"), &json!(id), &Value::Null),
        "{before}"
    );
    assert_eq!(before["schema"]["findings"], json!([]), "{before}");

    // A file of entries against the heads of the repository; it ends before the newest of them.
    std::fs::write(&file, &exported).unwrap();
    let path = file.to_str().unwrap();
    let report = unsound(&instance.bre(&["verify", "audit", "--archive", path]));
    assert_eq!(report["road"], "export", "{report}");
    assert!(
        report["reason"].as_str().unwrap().contains("cut"),
        "{report}"
    );
    let one = exported.replacen("\"canonical\":\"42524541", "\"canonical\":\"42524542", 1);
    std::fs::write(&file, one).unwrap();
    let report = unsound(&instance.bre(&["verify", "audit", "--archive", path]));
    assert_eq!(report["first_bad"]["position"], 1, "{report}");
    std::fs::write(&file, "no entry\n").unwrap();
    let refused = instance.bre(&["verify", "audit", "--archive", path]);
    assert!(refused.err.contains("line 1"), "{}", refused.err);
}

/// What root can do to a folder of a repository, and a part of what is said of it.
struct RepositoryCase {
    name: &'static str,
    how: fn(&Path),
    road: &'static [&'static str],
    finds: &'static str,
}

/// Heads, which every road reads: quick to try.
const HEADS: &[RepositoryCase] = &[
    RepositoryCase {
        name: "a head's signature",
        how: |root| edit_last(root, "heads", "\"signature\": \"", flip_digit),
        road: &[],
        finds: "signature",
    },
    RepositoryCase {
        name: "what a head says for people",
        how: |root| edit_last(root, "heads", "\"size\": ", flip_digit),
        road: &[],
        finds: "size",
    },
    RepositoryCase {
        name: "what a head says",
        how: |root| {
            edit_last(
                root,
                "heads",
                "\"payload\": \"42524548000100010000000",
                flip_digit,
            )
        },
        road: &[],
        finds: "payload",
    },
    RepositoryCase {
        name: "one head gone",
        how: |root| std::fs::remove_file(&files(&root.join("heads"))[0]).unwrap(),
        road: &[],
        finds: "a head was taken away",
    },
    RepositoryCase {
        name: "the newest head gone",
        how: |root| std::fs::remove_file(last(root, "heads")).unwrap(),
        road: &[],
        finds: "a head was taken away",
    },
    RepositoryCase {
        name: "all heads gone",
        how: |root| std::fs::remove_dir_all(root.join("heads")).unwrap(),
        road: &[],
        finds: "a head was taken away",
    },
    RepositoryCase {
        name: "heads rolled back to the first",
        how: |root| {
            for head in &files(&root.join("heads"))[1..] {
                std::fs::remove_file(head).unwrap();
            }
        },
        road: &[],
        finds: "a head was taken away",
    },
    RepositoryCase {
        name: "a head in another's place",
        how: |root| {
            std::fs::copy(&files(&root.join("heads"))[0], last(root, "heads")).unwrap();
        },
        road: &[],
        finds: "it holds the head of log 1, epoch 1 at size",
    },
    RepositoryCase {
        name: "a head that another key signed",
        how: |root| {
            let path = last(root, "heads");
            let head = audit::SignedHead::from_json(&std::fs::read(&path).unwrap()).unwrap();
            let stranger = audit::SigningKey::generate().unwrap();
            std::fs::write(path, stranger.sign(head.claimed()).to_json()).unwrap();
        },
        road: &[],
        finds: "is not among the trusted keys",
    },
    RepositoryCase {
        name: "a record of thinning without a signature",
        how: |root| {
            let folder = root.join("thinned/1");
            std::fs::create_dir_all(&folder).unwrap();
            let name = format!("00000001-{:016x}-{:016x}.{:016x}", 1, 9, 1);
            std::fs::write(folder.join(name), "{}").unwrap();
        },
        road: &[],
        finds: "thinned/",
    },
    RepositoryCase {
        name: "a head that is none",
        how: |root| std::fs::write(last(root, "heads"), "{}").unwrap(),
        road: &[],
        finds: "format",
    },
];

/// What a copy is brought back from: each takes a restore.
const COPIES: &[RepositoryCase] = &[
    RepositoryCase {
        name: "packs gone",
        how: |root| std::fs::remove_dir_all(root.join("packs")).unwrap(),
        road: &["--from-backup"],
        finds: "packs/",
    },
    RepositoryCase {
        name: "bytes of packs",
        how: |root| {
            files(&root.join("packs"))
                .iter()
                .for_each(|pack| flip_middle(pack))
        },
        road: &["--from-wal"],
        finds: "packs/",
    },
    RepositoryCase {
        name: "all WAL gone",
        how: |root| std::fs::remove_dir_all(root.join("wal")).unwrap(),
        road: &["--from-wal"],
        finds: "no complete backup",
    },
    RepositoryCase {
        name: "the newest WAL gone",
        how: |root| std::fs::remove_file(last(root, "wal")).unwrap(),
        road: &["--from-wal"],
        finds: "WAL",
    },
    RepositoryCase {
        name: "the keys to the data gone",
        how: |root| std::fs::remove_dir_all(root.join("wraps")).unwrap(),
        road: &["--from-wal"],
        finds: "wraps/",
    },
];

/// Below a folder of the repository, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn last(root: &Path, part: &str) -> PathBuf {
    files(&root.join(part)).pop().unwrap()
}

/// Changes the character after these words in the last file.
fn edit_last(root: &Path, part: &str, words: &str, change: fn(u8) -> u8) {
    let path = last(root, part);
    let mut text = std::fs::read(&path).unwrap();
    let at = String::from_utf8_lossy(&text).find(words).unwrap() + words.len();
    text[at] = change(text[at]);
    std::fs::write(path, text).unwrap();
}

fn flip_digit(digit: u8) -> u8 {
    if digit == b'1' { b'2' } else { b'1' }
}

fn flip_middle(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_folder(&path, &target),
            // The stream takes its tails away while it is copied.
            false => match std::fs::copy(&path, &target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
        }
    }
}

/// Every case on a copy of the repository, while the engine runs. The quick ones and one that restores; all with CASES=all.
#[test]
fn whoever_rules_the_repository_is_found_out() {
    let instance = Instance::start();
    instance.bre(&["backup", "run"]).exits(0);
    instance.quote("GME");
    instance.wait_caught_up();
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: usize = seed.unwrap_or_else(|| std::process::id() as usize);
    println!("SEED={seed}");
    let copies = match std::env::var("CASES").as_deref() {
        Ok("all") => COPIES.iter().collect(),
        _ => vec![&COPIES[seed % COPIES.len()]],
    };
    let mut unseen = Vec::new();
    for (number, case) in HEADS.iter().chain(copies).enumerate() {
        let copy = instance.folder.join(&format!("copy-{number}"));
        copy_folder(&instance.repository(), &copy);
        (case.how)(&copy);
        let arguments = ["verify", "audit", "--repository", copy.to_str().unwrap()];
        let output = instance.bre(&[&arguments[..], case.road].concat());
        let said = format!("{}{}", output.out, output.err);
        if output.code == Some(0) || !said.contains(case.finds) {
            unseen.push(format!("{}: {:?} is not in {said}", case.name, case.finds));
        }
    }
    assert!(unseen.is_empty(), "not found:\n{}", unseen.join("\n"));

    // What R alone takes away unseen (audit_log.md §8): every head but the newest, where he also cuts the link off that
    // one, and nothing runs that remembers. The newest vouches for the same entries.
    let copy = instance.folder.join("copy-newest");
    copy_folder(&instance.repository(), &copy);
    let heads = files(&copy.join("heads"));
    let (newest, older) = heads.split_last().unwrap();
    older
        .iter()
        .for_each(|head| std::fs::remove_file(head).unwrap());
    let head = audit::SignedHead::from_json(&std::fs::read(newest).unwrap()).unwrap();
    std::fs::write(newest, head.without_link().to_json()).unwrap();
    let arguments = ["verify", "audit", "--repository", copy.to_str().unwrap()];
    assert_eq!(instance.bre(&arguments).json()["verdict"], "sound");
}
