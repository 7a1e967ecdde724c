//! A life with keys in a KMS: made at the first start, restored from, rotated into a file and back; an audit archive that the key of the
//! backups does not open; and what is said when the KMS is away.

use std::fs;

use serde_json::Value;
use testkit::{TestS3, moto_kms_key};

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
    restore::QUOTES,
};

struct Kms {
    moto: TestS3,
    credentials: tempfile::NamedTempFile,
}

impl Kms {
    /// The plan's own pass would make the archive's key before this test does.
    fn settings(&self, arn: &str) -> String {
        format!(
            "[backup]\naudit_archive = \"off\"\n[repository_key]\nprovider = \"kms\"\nkms_key = \"{arn}\"\nendpoint = \"{}\"\ncredentials_file = \"{}\"\n",
            self.moto.endpoint(),
            self.credentials.path().display()
        )
    }
}

#[test]
fn a_life_with_the_key_in_a_kms() {
    let Some(moto) = TestS3::start() else { return };
    let credentials = tempfile::NamedTempFile::new().unwrap();
    let text = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n";
    fs::write(credentials.path(), text).unwrap();
    let mut kms = Kms { moto, credentials };
    let arn = moto_kms_key(kms.moto.port());
    let mut instance = Instance::prepared(&[]);
    let settings = instance.data().join("bre.toml");
    fs::create_dir_all(instance.data()).unwrap();
    fs::write(&settings, kms.settings(&arn)).unwrap();
    instance.up();
    assert_eq!(instance.locate().status, 200);
    instance.wait_caught_up();

    let key_file = instance.data().join("keys/recipient.key");
    assert!(fs::read_to_string(&key_file).unwrap().contains(&arn));
    let shown = instance.bre(&["repository", "key", "show"]).json();
    let key = &shown["keys"][0];
    assert_eq!(
        (key["provider"].as_str(), key["state"].as_str()),
        (Some("kms"), Some("opens")),
        "{shown}"
    );
    assert_eq!(key["name"], arn.as_str());
    assert!(
        !shown["left"]["backups"].as_array().unwrap().is_empty(),
        "{shown}"
    );
    instance.restores("from_kms", &["--latest"], &instance.sql(QUOTES));

    the_archive_has_readers_of_its_own(&instance);

    // Into a file, and back to another key of the KMS, while it runs.
    fs::write(&settings, "").unwrap();
    let rotated = instance.bre(&["repository", "key", "rotate"]).json();
    assert_eq!(rotated["engine_took_it"], true, "{rotated}");
    assert!(!fs::read_to_string(&key_file).unwrap().contains("arn:"));
    let other = moto_kms_key(kms.moto.port());
    fs::write(&settings, kms.settings(&other)).unwrap();
    let rotated = instance.bre(&["repository", "key", "rotate"]).json();
    assert_eq!(
        (&rotated["not_sealed"], &rotated["engine_took_it"]),
        (&Value::from(0), &Value::Bool(true)),
        "{rotated}"
    );
    instance
        .bre(&["repository", "key", "rotate"])
        .refused(&[&other, "in use"]);
    instance
        .bre(&["repository", "key", "retire-old", "--yes"])
        .exits(0);
    assert_eq!(instance.locate().status, 200);
    instance.wait_caught_up();
    let verified = instance.bre(&["verify", "backup"]).json();
    assert_eq!(verified[0]["sound"], true, "{verified}");

    // Away: the span that is open goes on; what needs a new data key says whose fault it is.
    kms.moto.kill();
    assert_eq!(instance.locate().status, 200);
    instance.wait_caught_up();
    instance
        .bre(&["backup", "run"])
        .refused(&["key provider", &other]);
    instance.sql("SELECT pg_terminate_backend(pid)::text FROM pg_stat_replication WHERE application_name = 'bre'");
    let said = within(TIMEOUT, || {
        let health = instance.get("/api/v1/health").text;
        health.contains("key provider").then_some(())
    });
    assert!(said.is_some(), "{}", instance.get("/api/v1/health").text);
    assert_eq!(instance.locate().status, 200);
}

fn the_archive_has_readers_of_its_own(instance: &Instance) {
    let archived = instance.bre(&["audit", "archive"]).json();
    let entries = archived["entries"].as_u64().unwrap();
    assert!(
        entries > 0 && archived["archived_to"] == entries,
        "{archived}"
    );
    let keys = instance.data().join("keys");
    assert_eq!(
        archived["key_made"],
        keys.join("audit_recipient.key").to_str().unwrap()
    );
    let officer = instance.folder.join("officer");
    fs::create_dir(&officer).unwrap();
    fs::rename(
        keys.join("audit_recipient.key"),
        officer.join("audit_recipient.key"),
    )
    .unwrap();
    fs::copy(
        keys.join("audit_signing.pub"),
        officer.join("audit_signing.pub"),
    )
    .unwrap();

    // A host without the public key makes none of its own.
    let public = keys.join("audit_recipient.pub");
    fs::rename(&public, officer.join("audit_recipient.pub")).unwrap();
    instance
        .bre(&["audit", "archive"])
        .refused(&["audit_recipient.pub", "another key"]);
    assert!(!public.exists() && !keys.join("audit_recipient.key").exists());
    fs::copy(officer.join("audit_recipient.pub"), &public).unwrap();

    // More of it, written without the key that reads.
    assert_eq!(instance.locate().status, 200);
    let more = within(TIMEOUT, || {
        let more = instance.bre(&["audit", "archive"]).json();
        (more["entries"].as_u64() > Some(0)).then_some(more)
    });
    let more = more.expect("a head, and with it more of the log");
    assert_eq!(more["entries_before"], entries, "{more}");

    instance
        .bre(&["verify", "audit", "--archive"])
        .refused(&["audit_recipient.key"]);
    let named = officer.to_str().unwrap();
    let report = instance
        .bre(&["verify", "audit", "--archive", "--keys-dir", named])
        .json();
    let all = &more["archived_to"];
    assert_eq!(
        (
            &report["entries"],
            &report["verified"],
            &report["covered_to"]
        ),
        (all, all, all),
        "{report}"
    );
    instance
        .bre(&["verify", "backup", "--keys-dir", named])
        .refused(&["recipient.key"]);
    // The key of the backups in the place of the archive's opens nothing of it.
    let dba = instance.folder.join("dba");
    fs::create_dir(&dba).unwrap();
    fs::copy(keys.join("recipient.key"), dba.join("audit_recipient.key")).unwrap();
    fs::copy(
        keys.join("audit_signing.pub"),
        dba.join("audit_signing.pub"),
    )
    .unwrap();
    let refused = instance.bre(&[
        "verify",
        "audit",
        "--archive",
        "--keys-dir",
        dba.to_str().unwrap(),
    ]);
    refused.refused(&["audit archive"]);
}
