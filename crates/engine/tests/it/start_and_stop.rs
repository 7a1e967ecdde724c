//! `bre up`: what it says, what it refuses, and how it comes back.

use std::{net::TcpListener, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::{
    instance::{Folder, Instance},
    process::processes_on,
};

/// The fields that scripts rely on.
const READY: [&str; 8] = [
    "url",
    "api_key",
    "api_key_file",
    "client_id",
    "database_url",
    "cache_url",
    "data_dir",
    "repository",
];

#[test]
fn up_serves_quotes_and_comes_back_with_the_same_data_after_a_clean_stop() {
    let mut instance = Instance::start();
    for field in READY {
        assert!(!instance.ready(field).is_empty(), "{field}");
    }
    assert_eq!(
        instance.ready("data_dir"),
        instance.data().to_str().unwrap()
    );

    let quoted = instance.quote("GME");
    let located = instance.locate();
    assert_eq!(located.status, 200, "{}", located.text);
    for field in [
        "total_fee",
        "breakdown",
        "borrow_rate_used",
        "position_value",
    ] {
        assert_eq!(quoted[field], located.body[field], "{field}");
        assert_ne!(quoted[field], Value::Null, "{field}");
    }
    let key_file = instance.data().join("keys/first_api_key");
    let key = std::fs::read_to_string(&key_file).unwrap();
    assert_eq!(key.trim(), instance.ready("api_key"));
    assert_eq!(instance.ready("api_key_file"), key_file.to_str().unwrap());
    let mode = std::fs::metadata(&key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let data = instance.data();
    let again = ["up", "--port", "0", "--data", data.to_str().unwrap()];
    let pid = instance.pid().to_string();
    instance
        .folder
        .run(&again)
        .refused(&["another running instance", &pid]);
    assert_eq!(
        instance.locate().status,
        200,
        "the first one was not disturbed"
    );

    let record = "SELECT quote_id, position, total_fee FROM quotes ORDER BY position";
    let before = instance.sql(record);
    assert_eq!(before.len(), 3);
    instance.stop_cleanly();
    let absent = instance.bre(&["api-key", "list"]);
    absent.refused(&["no engine runs"]).exits(4);

    instance.up();
    assert_eq!(instance.sql(record), before);
    // What a service manager keeps of a start is no place for a live key.
    assert!(instance.is_null("api_key"), "shown at a later start");
    assert_eq!(instance.ready("api_key_file"), key_file.to_str().unwrap());
    assert!(!instance.log().contains(key.trim()));
    assert_eq!(instance.locate().status, 200, "the first key is still good");
    let report = instance.audit_is_sound();
    assert_eq!(report["quotes"], 4, "{report}");
    assert_eq!(
        report["epochs"].as_array().map(Vec::len),
        Some(1),
        "a clean stop is no recovery: {report}"
    );
}

#[test]
fn an_engine_that_was_killed_is_started_again_and_what_it_left_is_dealt_with() {
    let mut instance = Instance::start();
    let quoted = instance.quote("GME");
    instance.kill();
    let left = processes_on(&instance.data());
    let left_names = format!("{left:?}");
    assert!(
        left_names.contains("postgres") && left_names.contains("redis-server"),
        "nothing was left, so nothing is proved: {left_names}"
    );

    instance.up();
    let now = processes_on(&instance.data());
    for (pid, name) in &left {
        assert!(
            !now.iter().any(|(other, _)| other == pid),
            "{pid} {name} still runs"
        );
    }
    let recorded = instance.value("SELECT quote_id FROM quotes ORDER BY position DESC LIMIT 1");
    assert_eq!(quoted["quote_id"].as_str(), Some(recorded.as_str()));
    assert_eq!(instance.locate().status, 200);
    assert_eq!(
        instance.get("/api/v1/health").body["components"]["cache"]["status"],
        "up"
    );
    instance.audit_is_sound();
    instance.stop_cleanly();
}

#[test]
fn what_up_cannot_work_with_is_named_before_anything_runs() {
    let folder = Folder::new();
    let data = folder.join("data");
    let up = |more: &[&str]| {
        let all = [&["up", "--data", data.to_str().unwrap()], more].concat();
        let output = folder.run(&all);
        assert_eq!(processes_on(folder.path()), Vec::new(), "{output:?}");
        output
    };

    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    up(&["--port", &port]).refused(&[&port, "in use", "--port"]);

    std::fs::write(data.join("bre.toml"), "[database]\nstrickt = true\n").unwrap();
    up(&["--port", "0"]).refused(&["strickt", "bre.toml", "settings.md"]);
    std::fs::remove_file(data.join("bre.toml")).unwrap();
    up(&["--config", "/nowhere/bre.toml"]).refused(&["/nowhere/bre.toml"]);

    let closed = folder.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let inside = closed.join("data");
    if rustix::process::geteuid().is_root() {
        folder
            .run(&["up", "--port", "0", "--data", inside.to_str().unwrap()])
            .refused(&["postgres", closed.to_str().unwrap(), "chmod o+x"]);
        assert_eq!(processes_on(folder.path()), Vec::new());
    }
    assert!(
        !data.join("postgres").exists(),
        "a cluster was made although nothing could start"
    );
}
