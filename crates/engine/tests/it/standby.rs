//! `bre standby` by hand: kept beside a running engine, refused while that lives, promoted when it does not, and
//! taken by the next `bre up`.

use std::path::PathBuf;

use postgres_physical::{
    server::{Leftover, sql::Client},
    wire::ConnectOptions,
};
use serde_json::Value;

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

const QUOTES: &str = "SELECT count(*) FROM quotes";

fn follows(instance: &Instance) -> Value {
    let healthy = || {
        let output = instance.bre(&["standby", "status"]);
        (output.code == Some(0)).then(|| output.parsed())
    };
    within(TIMEOUT, healthy).expect("the spare follows")
}

fn aside(instance: &Instance) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(instance.data()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let broken = |path: &PathBuf| path.display().to_string().contains("postgres.broken-");
    paths.filter(broken).collect()
}

#[test]
fn a_spare_is_promoted_by_hand_and_taken_by_the_next_start() {
    let mut instance = Instance::with(&["--strict"]);
    let promote = |instance: &Instance, more: &[&str]| {
        instance.bre(&[&["standby", "promote"][..], more].concat())
    };
    instance
        .bre(&["standby", "status"])
        .refused(&["standby run"]);
    let mut standby = instance.start_command(&["standby", "run"]);
    follows(&instance);
    for _ in 0..5 {
        assert_eq!(instance.locate().status, 200);
    }
    let quotes = instance.value(QUOTES);
    promote(&instance, &["--yes"]).refused(&["the old primary runs on", "--even-if-alive"]);
    let status = instance.bre(&["status"]).parsed();
    assert_eq!(status["spare"]["phase"], "following", "{status}");
    instance
        .start_command(&["standby", "run"])
        .wait()
        .refused(&["another process keeps the standby"]);

    instance.kill();
    let postgres = instance.data().join("postgres");
    Leftover::detect(&postgres).unwrap().kill().unwrap();
    promote(&instance, &[]).refused(&["give --yes"]);
    let promoted = promote(&instance, &["--yes"]).json();
    assert_eq!(
        (&promoted["timeline"], &promoted["parent_timeline"]),
        (&2.into(), &1.into())
    );
    let url = promoted["database_url"].as_str().unwrap();
    let mut client = Client::connect(&ConnectOptions::from_url(url).unwrap()).unwrap();
    assert_eq!(client.value(QUOTES).unwrap(), Some(quotes.clone()));
    drop(client);
    // Asked again, it tells the same.
    assert_eq!(
        promote(&instance, &["--yes"]).json()["switch_lsn"],
        promoted["switch_lsn"]
    );

    // The old folder is whole and is not what is wanted.
    assert!(postgres.join("global/pg_control").exists() && aside(&instance).is_empty());
    instance.up();
    assert_eq!(aside(&instance).len(), 1);
    assert_eq!(instance.value(QUOTES), quotes);
    let answer = instance.locate();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(instance.value("SELECT max(epoch) FROM audit_log"), "2");
    instance.audit_is_sound();

    instance.bre(&["standby", "stop"]).exits(0);
    let ended = within(TIMEOUT, || standby.ended());
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    instance.stop_cleanly();
}
