use super::*;
use crate::commands::screens::{NOW, backups, micros, readable};

#[test]
fn the_list() {
    insta::assert_snapshot!("backup_list", readable(table(&backups(), micros(NOW))));
}

#[test]
fn one_backup() {
    insta::assert_snapshot!("backup_show", readable(facts(&backups()[1], micros(NOW))));
}

#[test]
fn a_backup_that_was_just_taken() {
    let taken = BackupReport {
        backup: (&backups()[1]).into(),
        changed_pages: "compared",
        why_not_named: Some("the server summarizes no WAL".to_owned()),
        bytes_read: 1_234_567_890,
        why_full: None,
        warnings: vec!["two pages are damaged".to_owned()],
    };
    insta::assert_snapshot!("backup_run", readable(taken.text()));
}

#[test]
fn backups_read_back() {
    let result = |id: &str, damaged: Vec<(String, String, Vec<String>)>| BackupVerification {
        id: id.to_owned(),
        state: BackupState::Complete,
        files: 1_312,
        chunks: 1_400,
        bytes: 1_234_567_890,
        sound: damaged.is_empty(),
        damaged,
    };
    let damaged = vec![(
        "packs/ab/abcd".to_owned(),
        "its tag does not match".to_owned(),
        vec!["base/5/1259".to_owned()],
    )];
    let results = [
        result("20260401T013000Z-0a1b2c3d", Vec::new()),
        result("20260401T090000Z-4e5f6071", damaged),
    ];
    insta::assert_snapshot!("verify_backup", readable(verified_table(&results)));
}
