//! The roads to the audit log beside the running server's: each uses what is known outside of it, as the first one
//! does, and says what it does not ask or reach.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

fn copy(from: &Path, to: &Path) -> String {
    let done = std::process::Command::new("cp")
        .args([Path::new("-a"), from, to])
        .status();
    assert!(done.unwrap().success());
    to.to_str().unwrap().to_owned()
}

/// Below a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

impl Instance {
    /// Verified by a road: the report of an end with that number and word.
    fn road(&self, arguments: &[&str], verdict: &str, code: i32) -> Value {
        let output = self.bre(&[&["verify", "audit"], arguments].concat());
        let report = output.parsed();
        let found = (report["verdict"].as_str(), output.code);
        assert_eq!(
            found,
            (Some(verdict), Some(code)),
            "{arguments:?}: {output:?}"
        );
        report
    }
}

fn says(report: &Value, field: &str, words: &str) {
    assert!(
        report[field].to_string().contains(words),
        "{field}: {report:#}"
    );
}

#[test]
fn every_road_uses_what_is_known_outside_and_says_what_it_does_not_reach() {
    let mut instance = Instance::prepared(&[]);
    let far = instance.folder.join("far");
    std::fs::create_dir_all(instance.data()).unwrap();
    let settings = format!("[repositories.far]\npath = \"{}\"\n", far.display());
    std::fs::write(instance.data().join("bre.toml"), settings).unwrap();
    instance.up();
    instance.quote("GME");
    let backup = instance.bre(&["backup", "run"]).json();
    let backup = backup["id"].as_str().unwrap();
    instance.quote("AAPL");
    // An anchor is brought to a further repository once it is there.
    let made = within(TIMEOUT, || far.join("format").exists().then_some(()));
    assert!(made.is_some(), "{}", instance.log());
    instance.stop_cleanly();
    let earlier = copy(&instance.repository(), &instance.folder.join("earlier"));
    instance.up();
    instance.bre(&["audit", "archive"]).exits(0);
    instance.quote("GME");
    let last = instance.quote("GME")["audit"]["position"].as_u64().unwrap();
    instance.stop_cleanly();

    // Sound, each as far as it goes; no server runs.
    let wal = instance.road(&["--from-wal"], "sound", 0);
    assert_eq!(
        (&wal["road"], &wal["not_compared"]),
        (&json!("wal"), &json!([])),
        "{wal:#}"
    );
    let anchors = wal["anchors"].as_array().unwrap();
    for place in ["keys", "far"] {
        let of = |anchor: &&Value| anchor["place"] == place;
        let anchor = anchors.iter().find(of).unwrap_or_else(|| panic!("{wal:#}"));
        assert!(anchor["size"].as_u64() >= Some(last), "{wal:#}");
    }
    says(&wal, "evidence", "the audit archive (audit/entries/1/");
    let part = instance.road(&["--from-backup", backup], "sound", 0);
    says(&part, "not_compared", "signed heads and anchors of later");
    let archive = instance.road(&["--archive"], "sound", 0);
    assert!(archive["entries"].as_u64() < Some(last), "{archive:#}");
    says(
        &archive,
        "not_compared",
        "signed heads and anchors of later",
    );

    // The repository was rolled back: any one of those who remember convicts.
    let keys = instance.folder.join("keys");
    copy(&instance.data().join("keys"), &keys);
    std::fs::remove_file(keys.join("audit_anchor-1.json")).unwrap();
    let elsewhere = [
        "--repository",
        &earlier,
        "--keys-dir",
        keys.to_str().unwrap(),
    ];
    let rolled = instance.road(&[&["--from-wal"][..], &elsewhere].concat(), "cut", 8);
    says(&rolled, "reason", "the tail was cut");
    says(&rolled, "not_compared", "the anchor of the engine's host");
    // A restore test is held against the same.
    let test = [&["restore-test", "run"][..], &elsewhere].concat();
    let test = instance.bre(&test).exits(1).parsed();
    let checks = test["checks"].as_array().unwrap();
    let of_log = checks.iter().find(|check| check["name"] == "audit_log");
    let of_log = of_log.unwrap_or_else(|| panic!("{test:#}"));
    assert_eq!(of_log["detail"]["verdict"], "cut", "{test:#}");
    says(of_log, "why", "the tail was cut");
    says(&of_log["detail"]["beside"], "anchors", "\"far\"");
    let gone = instance.folder.join("gone");
    std::fs::rename(&far, &gone).unwrap();
    // No one of them remembers: what could not be asked is told.
    let rolled = instance.road(&[&["--from-wal"][..], &elsewhere].concat(), "sound", 0);
    says(&rolled, "not_compared", "the anchor of the engine's host");
    says(&rolled, "anchors", "trouble");
    std::fs::rename(&gone, &far).unwrap();

    // Heads that were taken away or changed, seen by what is left.
    let heads = copy(&instance.repository(), &instance.folder.join("heads"));
    let below = |name: &str| Path::new(&heads).join(name);
    let taken = files(&below("heads/1"));
    std::fs::remove_file(&taken[0]).unwrap();
    let report = instance.road(&["--from-wal", "--repository", &heads], "cut", 8);
    says(&report, "reason", "a head was taken away");
    let report = instance.road(&["--archive", &heads], "sound", 0);
    says(&report, "not_compared", "missing from the repository");
    let whole = std::fs::read_to_string(&taken[1]).unwrap();
    std::fs::write(
        &taken[1],
        whole.replacen("\"signature\": \"", "\"signature\": \"0", 1),
    )
    .unwrap();
    let report = instance.road(&["--archive", &heads], "rewritten", 9);
    says(&report, "beside_findings", "is none");
    let listed = instance
        .bre(&["audit", "head", "list", "--repository", &heads])
        .exits(1)
        .parsed();
    let bad = |head: &&Value| head["signature_verified"] == false;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.iter().filter(bad).count(), 1, "{listed:#?}");
    assert_eq!(listed.len(), taken.len() - 1);
    // Without any head nothing vouches for what a backup holds.
    std::fs::remove_dir_all(below("heads")).unwrap();
    let arguments = ["--from-backup", backup, "--repository", &heads];
    instance.road(&arguments, "unanchored", 7);

    // A part of the archive that is damaged is named, and one that is missing leaves nothing.
    let parts = files(&below("audit/entries/1"));
    let mut bytes = std::fs::read(&parts[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&parts[0], bytes).unwrap();
    let report = instance.road(&["--archive", &heads], "rewritten", 9);
    let name = parts[0].file_name().unwrap().to_str().unwrap();
    says(&report, "parts_damaged", name);
    parts
        .iter()
        .for_each(|part| std::fs::remove_file(part).unwrap());
    let report = instance.road(&["--archive", &heads], "cut", 8);
    says(&report, "reason", "the log is empty");
}
