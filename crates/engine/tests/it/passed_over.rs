//! A recovery that fails in one backup continues with an older one by itself, and says which it passed over.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

impl Instance {
    fn packs_here(&self) -> BTreeSet<PathBuf> {
        let mut folders = vec![self.repository().join("packs")];
        let mut packs = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => drop(packs.insert(entry.path())),
                }
            }
        }
        packs
    }

    /// A full backup and the packs that it alone needs.
    fn full_backup(&self) -> (String, Vec<PathBuf>) {
        let before = self.packs_here();
        let backup = self.bre(&["backup", "run"]).json();
        let packs = self.packs_here().difference(&before).cloned().collect();
        (backup["id"].as_str().unwrap().to_owned(), packs)
    }

    fn located(&self) -> String {
        let served = within(TIMEOUT, || {
            let answer = self.locate();
            (answer.status == 200).then(|| answer.body["quote_id"].as_str().unwrap().to_owned())
        });
        served.unwrap_or_else(|| panic!("no locate is served: {}", self.log()))
    }

    fn lose_the_folder(&self) {
        std::fs::remove_dir_all(self.data().join("postgres")).unwrap();
        // Until the writer is back no locate is answered, and what was answered before is on disk.
        self.wait_log("the database is restored");
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_recovery_passes_over_backups_that_are_not_whole_and_loses_nothing() {
    let mut instance = Instance::with(&["--strict"]);
    let mut acknowledged = vec![instance.located()];
    let first = instance.bre(&["backup", "list"]).json()[0]["id"].clone();
    let (second, packs) = instance.full_backup();
    acknowledged.push(instance.located());
    // Its files end in the middle of the restore.
    assert!(!packs.is_empty());
    packs.iter().for_each(|pack| flip(pack));
    let (third, packs) = instance.full_backup();
    acknowledged.push(instance.located());
    // Known before the first byte.
    assert!(!packs.is_empty());
    for pack in &packs {
        std::fs::remove_file(pack).unwrap();
    }
    instance.lose_the_folder();
    acknowledged.push(instance.located());
    let recorded = instance.sql("SELECT quote_id FROM quotes").concat();
    for quote in &acknowledged {
        assert!(recorded.contains(quote), "{quote} is lost");
    }

    // Each is named with its reason, in the log, among the alarms, and on record.
    let log = instance.log();
    let status = instance.bre(&["status"]).exits(1).parsed();
    let passed_over: Vec<&str> = status["passed_over"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["backup_id"].as_str().unwrap())
        .collect();
    assert_eq!(passed_over, [third.as_str(), second.as_str()], "{status}");
    let alarms = status["alarms"].to_string();
    for id in passed_over {
        assert!(log.contains(id), "{log}");
        assert!(
            alarms.contains(&format!("bre verify backup {id}")),
            "{alarms}"
        );
    }
    assert!(alarms.contains("packs/"), "the reason: {alarms}");
    assert!(!alarms.contains(first.as_str().unwrap()), "{alarms}");
    let on_record = within(TIMEOUT, || {
        let told = format!(
            "SELECT position('{second}'::bytea in canonical) > 0 AND position('{third}'::bytea in canonical) > 0 \
             FROM audit_log WHERE kind = 8"
        );
        (instance.sql(&told) == [["t"]]).then_some(())
    });
    assert!(on_record.is_some(), "the recovery is on record");

    // A restore by hand names the next one.
    let to = instance.folder.join("by-hand");
    let to = to.to_str().unwrap();
    let place = instance.bre(&["backup", "show", &third]).json()["stop_lsn"].clone();
    let by_hand = [
        "restore",
        "database",
        "--to",
        to,
        "--lsn",
        place.as_str().unwrap(),
    ];
    let failed = instance.bre(&by_hand);
    failed.exits(1);
    assert!(
        failed.err.contains(&format!("--backup {second}")),
        "{failed:?}"
    );
    let named = [&by_hand[..], &["--backup", first.as_str().unwrap()]].concat();
    let restored = instance.bre(&named).json();
    assert_eq!(restored["backup_id"], first, "{restored}");

    // The alarm outlives the engine, and ends when the backup is gone.
    instance.stop_cleanly();
    for (id, left) in [(&second, 1), (&third, 0)] {
        std::fs::remove_file(
            instance
                .repository()
                .join("backups")
                .join(id)
                .join("manifest"),
        )
        .unwrap();
        let status = instance.bre(&["status"]).parsed();
        let passed_over = status["passed_over"].as_array().map(Vec::len);
        assert_eq!(passed_over, Some(left), "{status}");
        assert_eq!(
            status["alarms"].to_string().contains("passed over"),
            left > 0,
            "{status}"
        );
    }
    instance.up();
    let calm = within(TIMEOUT, || {
        let status = instance.bre(&["status"]).parsed();
        (status["alarms"] == Value::Array(Vec::new())).then_some(())
    });
    assert!(calm.is_some(), "{}", instance.bre(&["status"]).out);
    instance.audit_is_sound();
    instance.stop_cleanly();
}
