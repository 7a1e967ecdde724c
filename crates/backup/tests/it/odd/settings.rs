//! Settings that are links, or lie elsewhere.

use backup::database::{BackupOutcome, SourceChoice};
use repository::backup::BackupReader;
use testkit::{TestPostgres, odd};

use crate::Vault;
use crate::full::take_from;

fn facts(vault: &Vault, outcome: &BackupOutcome) -> std::collections::BTreeMap<String, String> {
    let reader = BackupReader::open(&vault.repository, &vault.private, &outcome.id).unwrap();
    reader.facts().clone()
}

#[test]
fn settings_that_a_source_cannot_bring_are_named_when_the_backup_is_taken() {
    let postgres = TestPostgres::start();
    let etc = odd::linked_settings(&postgres);
    let vault = Vault::new();
    let take = |source| take_from(source, &vault, &postgres, &(), false).unwrap();

    let outcome = take(SourceChoice::Protocol);
    let told = facts(&vault, &outcome);
    let data = postgres.data_dir();
    assert_eq!(
        told["configuration.missing"],
        format!("{0}/pg_hba.conf, {0}/postgresql.conf", data.display())
    );
    assert_eq!(told["skipped"], "pg_hba.conf, postgresql.conf");
    let [missing, skipped] = &outcome.warnings[..] else {
        panic!("{:?}", outcome.warnings);
    };
    assert!(missing.contains("postgresql.conf") && missing.contains("source local"));
    assert!(skipped.contains("pg_hba.conf"), "{skipped}");

    // On the server itself what they lead to is read.
    let outcome = take(SourceChoice::Local);
    assert_eq!(outcome.warnings, [""; 0]);
    let told = facts(&vault, &outcome);
    assert!(!told.contains_key("skipped") && !told.contains_key("configuration.missing"));
    assert_eq!(
        told["configuration.config_file"],
        data.join("postgresql.conf").display().to_string()
    );
    // What leads nowhere is missing there, too.
    std::fs::remove_file(etc.join("pg_hba.conf")).unwrap();
    let outcome = take(SourceChoice::Local);
    assert!(
        outcome.warnings[0].contains("pg_hba.conf"),
        "{:?}",
        outcome.warnings
    );
}
