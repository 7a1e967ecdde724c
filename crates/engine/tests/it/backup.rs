//! `bre backup`: what it says, what a kill leaves, and what damage is called.

use std::path::{Path, PathBuf};

use repository::keys::RecipientPrivate;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    instance::Instance,
    process::{Output, Running, TIMEOUT, within},
};

/// The fields that scripts rely on.
const LISTED: [&str; 10] = [
    "id",
    "kind",
    "state",
    "started_at",
    "finished_at",
    "start_lsn",
    "stop_lsn",
    "bytes_source",
    "bytes_stored",
    "restored_and_proved_at",
];

impl Instance {
    pub(crate) fn backup(&self) -> String {
        let taken = self.bre(&["backup", "run"]).json();
        assert_eq!(taken["state"], "complete", "{taken}");
        taken["id"].as_str().unwrap().to_owned()
    }

    fn backups(&self) -> Vec<String> {
        let listed = self.bre(&["backup", "list"]).json();
        let id = |backup: &Value| {
            assert_eq!(backup["state"], "complete", "{listed}");
            backup["id"].as_str().unwrap().to_owned()
        };
        listed.as_array().unwrap().iter().map(id).collect()
    }

    /// Every backup reads back whole.
    fn all_are_sound(&self, count: usize) {
        let verified = self.bre(&["verify", "backup"]).json();
        let verified = verified.as_array().unwrap();
        assert_eq!(verified.len(), count, "{verified:?}");
        assert!(
            verified.iter().all(|one| one["sound"] == true),
            "{verified:?}"
        );
    }

    fn packs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.repository().join("packs")).unwrap();
        let mut packs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    }

    /// Enough bytes that do not compress for a backup to be more than one pack.
    fn grow(&self, table: &str) {
        self.sql(&format!(
            "CREATE TABLE {table} AS SELECT n, (SELECT string_agg(sha512(('{table}' || n * 1000 + part)::bytea), '') \
             FROM generate_series(1, 100) AS part) AS bytes FROM generate_series(1, 8000) AS n",
        ));
        assert!(
            self.value(&format!("SELECT pg_table_size('{table}')"))
                .parse::<u64>()
                .unwrap()
                > 48 << 20
        );
    }

    /// A backup in the middle: a first pack is stored, and most of the data is not.
    fn start_backup(&self) -> Running {
        let packs = self.packs().len();
        let mut backup = self.start_command(&["backup", "run", "--throttle", "10"]);
        let halfway = within(TIMEOUT, || {
            assert!(backup.ended().is_none(), "it is over: {}", backup.err());
            (self.packs().len() > packs).then_some(())
        });
        assert!(halfway.is_some(), "{}", backup.err());
        backup
    }
}

fn flip_a_byte_in_the_middle(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Verification failed and named this object.
fn names(output: &Output, object: &str) {
    output.exits(1);
    let said = format!("{}{}", output.out, output.err);
    assert!(said.contains(object), "{object} is not named: {output:?}");
}

#[test]
fn a_backup_is_taken_listed_shown_and_verified_and_damage_is_named() {
    let mut instance = Instance::start();
    let first = instance.backups();
    assert_eq!(first.len(), 1, "the first start takes one");
    let second = instance.backup();
    let listed = instance.bre(&["backup", "list"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    for field in LISTED {
        assert!(listed[1].get(field).is_some(), "{field}: {listed}");
    }
    assert_eq!(listed[1]["id"], json!(second));
    assert_eq!(listed[1]["kind"], "full");
    assert_eq!(listed[1]["restored_and_proved_at"], Value::Null);
    assert!(listed[1]["bytes_source"].as_u64() > listed[1]["bytes_stored"].as_u64());
    let shown = instance.bre(&["backup", "show", &second]).json();
    assert_eq!(shown["id"], listed[1]["id"]);
    assert_eq!(shown["stop_lsn"], listed[1]["stop_lsn"]);
    instance
        .bre(&["backup", "show", "20200101T000000Z-00000000"])
        .refused(&["20200101T000000Z-00000000", "bre backup list"]);
    instance.all_are_sound(2);
    let verified = instance.bre(&["verify", "backup", &second]).json();
    assert_eq!(verified[0]["id"], json!(second), "{verified}");
    let recorded = "SELECT count(*) FROM audit_log WHERE kind = 7 AND position = (SELECT max(position) FROM audit_log)";
    assert_eq!(instance.value(recorded), "1", "the backup is on record");

    let pack = instance.packs().pop().unwrap();
    let object = format!("packs/{}", pack.file_name().unwrap().to_str().unwrap());
    let whole = std::fs::read(&pack).unwrap();
    flip_a_byte_in_the_middle(&pack);
    names(&instance.bre(&["verify", "backup"]), &object);
    std::fs::rename(&pack, instance.folder.join("pack")).unwrap();
    names(&instance.bre(&["verify", "backup"]), &object);
    std::fs::write(&pack, whole).unwrap();

    let keys = instance.folder.join("other-keys");
    std::fs::create_dir(&keys).unwrap();
    for entry in std::fs::read_dir(instance.data().join("keys")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, keys.join(path.file_name().unwrap())).unwrap();
    }
    let recipient = keys.join("recipient.key");
    std::fs::remove_file(&recipient).unwrap();
    let other = [
        "verify",
        "backup",
        &second,
        "--keys-dir",
        keys.to_str().unwrap(),
    ];
    instance.bre(&other).refused(&["recipient.key"]);
    RecipientPrivate::generate()
        .unwrap()
        .store(&recipient)
        .unwrap();
    instance.bre(&other).refused(&[&second, "private key"]);

    // The WAL that makes it consistent is part of it. None of this needs a running engine.
    instance.stop_cleanly();
    let (wal, hidden) = (
        instance.repository().join("wal"),
        instance.folder.join("wal"),
    );
    std::fs::rename(&wal, &hidden).unwrap();
    let verified = instance
        .bre(&["verify", "backup", &second])
        .exits(1)
        .parsed();
    assert_eq!(verified[0]["sound"], false, "{verified}");
    assert!(
        verified[0]["damaged"].to_string().contains("WAL"),
        "{verified}"
    );
    std::fs::rename(&hidden, &wal).unwrap();
    instance.all_are_sound(2);
}

#[test]
fn a_backup_that_is_killed_leaves_the_earlier_ones_whole_and_the_next_one_clean() {
    let mut instance = Instance::start();
    instance.quote("GME");
    // Several threads fill a pack each: the first one is stored when little more than half of this is read.
    instance.grow("ballast");
    instance.grow("more_ballast");
    let before = instance.backups();

    // The run is the engine's. A command that is told to end tells it so, and says what became of it.
    let told = instance.start_backup();
    told.signal(Signal::INT);
    let told = told.wait();
    assert_ne!(told.code, Some(0), "{told:?}");
    assert_eq!(instance.backups(), before);
    instance.all_are_sound(1);
    let next = instance.backup();
    assert_eq!(instance.backups(), [&before[..], &[next]].concat());
    instance.all_are_sound(2);

    // New bytes again: what an earlier backup stored makes no pack, and the first one would be seen when all is over.
    instance.grow("new_ballast");
    instance.grow("newer_ballast");
    // The engine itself this time: the stream goes with it, and the server under the backup is stopped by the next
    // start. The command, which waits for the engine, fails.
    let abandoned = instance.start_backup();
    instance.kill();
    let abandoned = abandoned.wait();
    assert_ne!(abandoned.code, Some(0), "{abandoned:?}");
    instance.up();
    assert_eq!(instance.backups().len(), 2);
    let last = instance.backup();
    assert_eq!(instance.backups().last(), Some(&last));
    instance.all_are_sound(3);
    instance.audit_is_sound();
}

#[test]
fn an_engine_that_is_killed_during_its_first_backup_takes_it_at_the_next_start() {
    let mut instance = Instance::prepared(&[]);
    instance.spawn();
    instance.wait_log("\"copying\"");
    instance.kill();
    assert!(
        !instance.repository().join("backups").exists(),
        "it was over already"
    );
    instance.up();
    instance.quote("GME");
    assert_eq!(instance.backups().len(), 1);
    instance.all_are_sound(1);
    instance.audit_is_sound();
}
