//! Restore proofs, `bre verify database` and `bre plan`: what is sound passes, what is not is found and named, nothing is skipped in silence.

use postgres_physical::page::PAGE_BYTES;
use serde_json::Value;

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {report}"))
}

impl Instance {
    fn listed(&self, id: &str) -> Value {
        let listed = self.bre(&["backup", "list"]).json();
        let of_it = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|backup| backup["id"] == id);
        of_it.unwrap_or_else(|| panic!("{id}: {listed}")).clone()
    }
}

#[test]
fn a_sound_backup_is_proved_and_on_record_and_the_plan_shows_it() {
    let mut instance = Instance::start();
    instance.quote("GME");
    // Databases that nobody can enter: the one is opened in the copy, the other is named.
    for sql in [
        "CREATE DATABASE \"closed=1\"",
        "ALTER DATABASE \"closed=1\" ALLOW_CONNECTIONS false",
        "CREATE DATABASE half_dropped",
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'",
    ] {
        instance.sql(sql);
    }
    let id = instance.backup();
    let verified = instance.bre(&["verify", "database"]).exits(1).parsed();
    let failed: Vec<&Value> = verified["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] != "passed")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        failed[0]["name"] == "proof_age"
            && failed[0]["why"]
                .as_str()
                .unwrap()
                .contains("no passed restore proof"),
        "{failed:?}"
    );

    let timelines =
        std::fs::read_dir(instance.repository().join("timelines")).map_or(0, Iterator::count);
    let proof = instance.bre(&["restore-test", "run", &id]).json();
    assert!(
        proof["passed"] == true && proof["backup_id"] == id.as_str(),
        "{proof}"
    );
    for name in [
        "restore",
        "replay",
        "page_checksums",
        "amcheck_indexes",
        "amcheck_tables",
        "row_counts",
        "schema",
        "audit_log",
        "replayed_quotes",
    ] {
        assert_eq!(check(&proof, name)["verdict"], "passed", "{proof}");
    }
    assert_eq!(
        check(&proof, "replayed_quotes")["detail"]["replayed"],
        1,
        "{proof}"
    );
    assert!(
        check(&proof, "audit_log")["detail"]["heads_agreed"].as_u64() > Some(0),
        "{proof}"
    );
    let databases = check(&proof, "databases");
    let looked_at = databases["detail"]["looked_at"].as_array().unwrap();
    assert!(looked_at.contains(&Value::from("closed=1")), "{databases}");
    let warnings = databases["warnings"].as_array().unwrap();
    assert!(
        warnings.len() == 1
            && warnings[0]
                .as_str()
                .unwrap()
                .ends_with("DROP DATABASE \"half_dropped\""),
        "{databases}"
    );
    assert_ne!(instance.listed(&id)["restored_and_proved_at"], Value::Null);
    // Nothing stays behind: no server, no folder, no timeline.
    assert!(!instance.data().join("proof/scratch").exists());
    let after =
        std::fs::read_dir(instance.repository().join("timelines")).map_or(0, Iterator::count);
    assert_eq!(after, timelines);
    // The audit log repeats the record, byte for byte.
    let object = std::fs::read_dir(instance.repository().join("backups").join(&id)).unwrap();
    let object = object
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains("proof-"))
        .unwrap();
    let canonical = instance.value("SELECT encode(canonical, 'escape') FROM audit_log WHERE kind = 7 ORDER BY position DESC LIMIT 1");
    // `escape` doubles what JSON escapes by.
    let kept = std::fs::read_to_string(object)
        .unwrap()
        .replace('\\', r"\\");
    assert!(canonical.contains(&kept), "{kept}\n{canonical}");

    let verified = instance.bre(&["verify", "database"]).json();
    assert_eq!(verified["passed"], true, "{verified}");
    let url = instance.ready("database_url").to_owned();
    let elsewhere = instance
        .bre(&["verify", "database", "--database", &url])
        .json();
    assert_eq!(elsewhere["passed"], true, "{elsewhere}");
    let strict = ["verify", "database", "--strict", "--database", &url];
    let strict = instance.bre(&strict).exits(1).parsed();
    assert_eq!(
        check(&strict, "databases")["warnings"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let plan = instance.bre(&["plan", "show"]).json();
    let jobs: Vec<&str> = plan
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["job"].as_str().unwrap())
        .collect();
    assert_eq!(
        jobs,
        [
            "full",
            "incremental",
            "wal",
            "proof",
            "expire",
            "schema",
            "audit_archive",
            "audit_log.postgres",
            "audit_log.application",
            "audit_log.system",
            "audit_log.compliance",
            "configuration.snapshot",
            "cache.rdb",
            "cache.aof",
            "kubernetes.config",
            "kubernetes.secrets",
            "kubernetes.configmaps",
            "kubernetes.helm",
            "terraform.state",
            "cloudformation.stacks",
            "iam.policies",
            "network.configuration",
            "rds.snapshots",
            "elasticache.snapshots",
            "keys.rotate",
            "repository.copy"
        ]
    );
    let planned = &plan[6];
    assert_eq!(
        (&planned["component"], &planned["schedule"]),
        (&"audit_log".into(), &"daily 02:30 UTC".into()),
        "{planned}"
    );
    let incremental = instance.bre(&["job", "run", "incremental"]).json();
    assert_eq!(incremental["kind"], "incremental", "{incremental}");
    assert_eq!(incremental["changed_pages"], "compared", "{incremental}");
    assert!(incremental["why_not_named"].is_string(), "{incremental}");
    assert!(
        incremental["bytes_read"].as_u64() > Some(0),
        "{incremental}"
    );
    let proof = instance.bre(&["job", "run", "proof"]).json();
    assert_eq!(proof["backup_id"], incremental["id"], "the newest");
    let plan = instance.bre(&["plan", "show"]).json();
    assert_eq!(
        (&plan[3]["last_succeeded"], &plan[3]["said"]),
        (&true.into(), &proof["backup_id"]),
        "{plan}"
    );
    let stream = &plan[2];
    assert_eq!(
        (&stream["name"], &stream["state"], &stream["schedule"]),
        (
            &"wal.stream".into(),
            &"running".into(),
            &"continuous".into()
        ),
        "{plan}"
    );
    instance.bre(&["job", "run", "expire"]).json();
    jobs_are_recorded_paused_and_claimed(&instance);
    a_quote_is_proved_to_somebody_who_has_nothing(&instance);
    the_archives_key_is_replaced(&instance);
    instance.audit_is_sound();

    // A host that only writes cannot read: it says so.
    let key = instance.data().join("keys/recipient.key");
    std::fs::rename(&key, instance.folder.join("recipient.key")).unwrap();
    instance
        .bre(&["restore-test", "run", &id])
        .refused(&["private key", "recipient.key"]);
    instance.stop_cleanly();
    instance.up();
    let plan = within(std::time::Duration::from_secs(30), || {
        let plan = instance.bre(&["plan", "show"]).json();
        (plan[3]["state"] == "cannot").then_some(plan)
    });
    assert!(
        plan.unwrap()[3]["said"]
            .as_str()
            .unwrap()
            .contains("bre restore-test run")
    );
}

fn jobs_are_recorded_paused_and_claimed(instance: &Instance) {
    let history = instance.bre(&["job", "history", "expire"]).json();
    let run = &history["runs"][0];
    assert_eq!(
        (&run["job"], &run["outcome"], &run["cause"]),
        (
            &"database.expire".into(),
            &"succeeded".into(),
            &"request".into()
        ),
        "{history}"
    );
    // In the repository as well, for the day on which this host is lost.
    let id = run["run_id"].as_str().unwrap();
    let is_in_repository = || {
        let months = std::fs::read_dir(instance.repository().join("runs")).ok()?;
        let mut records = months.map(|month| month.unwrap().path().join(id));
        records.any(|record| record.is_file()).then_some(())
    };
    assert_eq!(within(TIMEOUT, is_in_repository), Some(()), "{id}");
    let of_full = || {
        let list = instance.bre(&["job", "list"]).json();
        (list[0]["state"].clone(), list[0]["said"].clone())
    };
    instance
        .bre(&["job", "pause", "full", "--reason", "a test"])
        .json();
    let (state, said) = of_full();
    assert_eq!(state, "paused");
    assert!(said.as_str().unwrap().contains("a test"), "{said}");
    instance.bre(&["job", "resume", "database.full"]).json();
    assert_eq!(of_full().0, "waiting");
    let stream = the_stream_is_paused_and_resumed(instance);
    assert_eq!(run["driver"], stream["driver"], "the engine ran it: {run}");
    let checked = instance.bre(&["plan", "check"]).parsed();
    assert_eq!(checked["jobs"][0], "database.full", "{checked}");
    let unknown = instance.bre(&["job", "run", "fool"]);
    assert!(
        unknown.exits(2).err.contains("database.full"),
        "{unknown:?}"
    );
    // One engine runs the plan, and says so where another one would ask.
    let claims = || {
        instance.value(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1651664202",
        )
    };
    assert_eq!(
        within(TIMEOUT, || (claims() == "1").then_some(())),
        Some(())
    );
}

fn the_stream_is_paused_and_resumed(instance: &Instance) -> Value {
    instance.bre(&["job", "pause", "wal"]).json();
    let until = |attached: bool, alarm: bool| {
        let seen = within(TIMEOUT, || {
            let status = instance.bre(&["status"]).parsed();
            let is_told = status["alarms"]
                .to_string()
                .contains("the job wal is paused");
            (status["stream"]["attached"] == attached && is_told == alarm).then_some(())
        });
        assert!(seen.is_some(), "{}", instance.bre(&["status"]).parsed());
    };
    until(false, true);
    instance.bre(&["job", "resume", "wal.stream"]).json();
    until(true, false);
    let runs = instance.bre(&["job", "history", "wal"]).json();
    assert_eq!(runs["runs"][0]["outcome"], "succeeded", "{runs}");
    runs["runs"][0].clone()
}

fn a_quote_is_proved_to_somebody_who_has_nothing(instance: &Instance) {
    let quote = instance.quote("GME");
    let id = quote["quote_id"].as_str().unwrap();
    let file = instance.folder.join("proof.json");
    let name = file.to_str().unwrap();
    // A signed head of it follows.
    let written = within(TIMEOUT, || {
        let output = instance.bre(&["audit", "prove", id, "--out", name]);
        (output.code == Some(0)).then(|| output.parsed())
    });
    let written = written.expect("a proof");
    assert_eq!(written["position"], quote["audit"]["position"], "{written}");
    instance
        .bre(&["audit", "prove", id, "--out", name])
        .refused(&["proof.json"]);
    let key = instance.data().join("keys/audit_signing.pub");
    let theirs = instance.folder.join("auditor.pub");
    std::fs::copy(key, &theirs).unwrap();
    let check = |file: &str| {
        let words = ["audit", "check-proof", file, "--key"];
        instance.bre(&[&words[..], &[theirs.to_str().unwrap()]].concat())
    };
    let checked = check(name).json();
    assert_eq!(
        (
            &checked["verified"],
            &checked["kind"],
            &checked["fields"]["quote_id"]
        ),
        (&true.into(), &"Quote".into(), &id.into()),
        "{checked}"
    );
    let mut text = std::fs::read_to_string(&file).unwrap();
    let printed = instance.bre(&["audit", "prove", "--position", "1"]);
    assert!(
        printed.exits(0).out.contains("\"position\": 1"),
        "{printed:?}"
    );
    let at = text.find("\"entry\": \"").unwrap() + 100;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    text.replace_range(at..=at, digit);
    std::fs::write(&file, text).unwrap();
    let forged = check(name).exits(1).parsed();
    assert_eq!(forged["verified"], false, "{forged}");
    let nobody = "00000000-0000-4000-8000-000000000000";
    instance
        .bre(&["audit", "prove", nobody])
        .refused(&["nothing is recorded", nobody]);
}

fn the_archives_key_is_replaced(instance: &Instance) {
    let first = instance.bre(&["job", "run", "audit_archive"]).json();
    let rotated = instance.bre(&["audit", "key", "rotate"]).json();
    assert_eq!(
        (&rotated["replaced"][0], &rotated["not_sealed"]),
        (&first["recipient_id"], &0.into()),
        "{rotated}"
    );
    instance
        .bre(&["audit", "key", "retire-old", "--yes"])
        .json();
    let shown = instance.bre(&["audit", "key", "show"]).json();
    assert_eq!(
        shown["recipients"],
        serde_json::json!([rotated["recipient_id"]]),
        "{shown}"
    );
    let status = instance.bre(&["status"]).parsed();
    assert_eq!(
        status["audit_archive"]["archived_to"], first["archived_to"],
        "{status}"
    );
    // Without the old one, as for whoever has only the new one.
    let old = first["recipient_id"].as_str().unwrap();
    let keys = instance.data().join("keys");
    std::fs::remove_file(keys.join(format!("audit_recipient-{old}.key"))).unwrap();
    let report = instance.bre(&["verify", "audit", "--archive"]).json();
    assert!(report["entries"].as_u64() > Some(0), "{report}");
}

#[test]
fn damage_fails_the_proof_by_name_and_is_an_alarm() {
    let mut instance = Instance::start();
    instance.quote("GME");
    instance.sql("CREATE TABLE torn AS SELECT n, repeat('x', 100) AS text FROM generate_series(1, 1000) AS n; CHECKPOINT");
    // An index whose order is no longer what its operators say.
    instance.sql(
        "CREATE FUNCTION key(n integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT n'; \
         CREATE TABLE bent (n integer); INSERT INTO bent SELECT generate_series(1, 1000); CREATE INDEX bent_key ON bent (key(n)); \
         CREATE OR REPLACE FUNCTION key(n integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT -n'",
    );
    let id = instance.backup();
    let proof = instance
        .bre(&["restore-test", "run", &id])
        .exits(1)
        .parsed();
    assert_eq!(proof["passed"], false);
    let found = check(&proof, "amcheck_indexes");
    assert!(
        found["verdict"] == "failed"
            && found["why"]
                .as_str()
                .unwrap()
                .contains("bre.public.bent_key"),
        "{found}"
    );
    let listed = instance.listed(&id);
    assert!(
        listed["restored_and_proved_at"].is_null() && listed["proof_failed_at"].is_string(),
        "{listed}"
    );
    let status = instance.bre(&["status"]).exits(1).parsed();
    assert!(status["alarms"].to_string().contains(&id), "{status}");
    let verified = instance.bre(&["verify", "database"]).exits(1).parsed();
    assert_eq!(
        check(&verified, "amcheck_indexes")["verdict"],
        "failed",
        "{verified}"
    );
    assert_eq!(
        check(&verified, "proof_age")["verdict"],
        "failed",
        "{verified}"
    );
    instance.sql("DROP TABLE bent");

    // A page that rots on the disk: kept, marked, and named by the proof.
    let path = instance.value("SELECT pg_relation_filepath('torn')");
    instance.stop_cleanly();
    let file = instance.data().join("postgres").join(&path);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3 * PAGE_BYTES + 5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    instance.up();
    // The alarm outlives the engine that raised it.
    let alarm = within(std::time::Duration::from_secs(30), || {
        let status = instance.bre(&["status"]).parsed();
        let stream = &status["engine"]["components"]["wal_stream"];
        let alarm = stream["alarm"].as_str().unwrap_or_default().to_owned();
        (stream["proof_failed"] == true).then_some(alarm)
    });
    assert!(alarm.unwrap().contains(&id));
    let id = instance.backup();
    assert_eq!(instance.listed(&id)["damaged_pages"], 1);
    let proof = instance.bre(&["restore-test", "run"]).exits(1).parsed();
    assert_eq!(proof["backup_id"], id.as_str());
    let why = check(&proof, "page_checksums")["why"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.contains(&path) && why.contains("block 3"), "{why}");
    assert!(
        check(&proof, "amcheck_tables")["why"]
            .as_str()
            .unwrap()
            .contains("bre.public.torn"),
        "{proof}"
    );
}

/// All of a cluster may be in a locale that is not here, the databases that every program enters first, too.
#[test]
fn what_this_machine_lacks_is_no_verdict() {
    let mut instance = Instance::prepared(&[]);
    // The plan makes none beside ours.
    instance.settings("[backup]\nproof = \"off\"\n");
    instance.up();
    instance.sql(
        "UPDATE pg_database SET datcollate = 'xx_XX.utf8', datctype = 'xx_XX.utf8' \
         WHERE datname IN ('postgres', 'template1')",
    );
    instance.wait_caught_up();
    instance
        .bre(&["restore-test", "run"])
        .exits(3)
        .refused(&["there is no verdict", "localedef -i xx_XX -f UTF-8"]);
}
