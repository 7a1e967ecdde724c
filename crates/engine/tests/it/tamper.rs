//! Tampering seen through the commands: with the server that was tampered with, and without any. The table of what a superuser can do stands
//! in `services/tests/it/tamper`.

use serde_json::{Value, json};

use crate::{instance::Instance, process::Output};

impl Instance {
    fn schema_says(&self, words: &str) {
        let report = self.bre(&["audit", "verify"]).exits(1).parsed();
        let findings = report["schema"]["findings"].to_string();
        assert!(findings.contains(words), "{findings}");
        assert_eq!(report["verdict"], "not_sound", "{report}");
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

fn road(output: Output, code: i32) -> Value {
    output.exits(code).parsed()
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
    let newest = road(instance.bre(&["audit", "verify", "--from-wal"]), 1);
    assert_eq!(newest["road"], "wal", "{newest}");
    assert!(
        newest["reason"]
            .as_str()
            .unwrap()
            .contains("quotes.total_fee is \"0.0000\""),
        "{newest}"
    );
    let before = road(instance.bre(&["audit", "verify", "--from-backup", &id]), 0);
    assert_eq!(
        (&before["road"], &before["backup_id"], &before["first_bad"]),
        (&json!("backup"), &json!(id), &Value::Null),
        "{before}"
    );
    assert_eq!(before["schema"]["findings"], json!([]), "{before}");

    // A file of entries against the heads of the repository; it ends before the newest of them.
    std::fs::write(&file, &exported).unwrap();
    let path = file.to_str().unwrap();
    let report = road(instance.bre(&["audit", "verify", "--archive", path]), 1);
    assert_eq!(report["road"], "export", "{report}");
    assert!(
        report["reason"].as_str().unwrap().contains("cut"),
        "{report}"
    );
    let one = exported.replacen("\"canonical\":\"42524541", "\"canonical\":\"42524542", 1);
    std::fs::write(&file, one).unwrap();
    let report = road(instance.bre(&["audit", "verify", "--archive", path]), 1);
    assert_eq!(report["first_bad"]["position"], 1, "{report}");
    std::fs::write(&file, "no entry\n").unwrap();
    let refused = instance.bre(&["audit", "verify", "--archive", path]);
    assert!(refused.err.contains("line 1"), "{}", refused.err);
}
