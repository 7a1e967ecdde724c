//! Settings: what `bre serve` refuses to start with, and what SIGHUP changes.

use std::os::unix::fs::PermissionsExt;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::fleet::{CALCULATION, DATA, Fleet, GATEWAY};
use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

#[test]
fn what_is_missing_is_said_and_what_it_is_for() {
    let fleet = Fleet::prepared();
    let config = fleet.folder.join("other.toml");
    let serve = |services: &str, text: &str| {
        std::fs::write(&config, text).unwrap();
        let config = config.to_str().unwrap();
        fleet.bre(&[
            "serve",
            "--services",
            services,
            "--config",
            config,
            "--port",
            "0",
        ])
    };
    let database = "[database]\nurl = 'postgresql://bre_service@/bre?host=/nowhere'\n";
    serve(GATEWAY, database).refused(&["secret_file", "openssl"]);
    let secret = fleet.folder.join("secret");
    let named = format!(
        "{database}[internal]\nsecret_file = {:?}\nport = 0\n",
        secret.to_str().unwrap()
    );
    serve(GATEWAY, &named).refused(&[CALCULATION, "[services]"]);
    serve(CALCULATION, &named).refused(&[DATA, "[services]"]);
    serve("gateway", &named).exits(2);
    serve(GATEWAY, &named.replace(database, "")).refused(&["[database] url"]);
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).unwrap();
    serve(GATEWAY, &named).refused(&["0644", "chmod 600"]);
}

#[test]
fn a_log_without_a_repository_is_kept_and_said_to_be_unprotected() {
    let mut fleet = Fleet::prepared();
    let path = fleet.folder.join("bre.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let named = text.lines().filter(|line| !line.starts_with("path = "));
    std::fs::write(&path, named.collect::<Vec<_>>().join("\n")).unwrap();
    for start in 1..=2 {
        fleet.up_as(GATEWAY, "all", fleet.port_of(GATEWAY));
        if start == 1 {
            fleet.make_key();
            fleet.import(include_str!("../../../../services/sample/book.txt"));
        }
        // The second start takes up the log that the first one left, without a head that anybody kept.
        let answered = within(TIMEOUT, || (fleet.locate()?.status == 200).then_some(()));
        assert!(answered.is_some(), "{:?}", fleet.locate());
        let health = fleet.health();
        let alarm = health["components"]["wal_stream"]["alarm"]
            .as_str()
            .unwrap();
        assert!(alarm.contains("no repository protects this log"), "{alarm}");
        assert_eq!(health["status"], json!("degraded"), "{health:#}");
        fleet.stop_cleanly();
    }
}

#[test]
fn an_instance_reads_its_settings_again_too() {
    let mut instance = Instance::start();
    let limit = |instance: &Instance| {
        instance.get("/api/v1/config").body["requests_per_minute"]["standard"].clone()
    };
    assert_eq!(limit(&instance), json!(60));
    let settings = instance.data().join("bre.toml");
    std::fs::write(settings, "[limits]\nstandard_per_minute = 7\n").unwrap();
    let pid = Pid::from_raw(instance.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    let changed = within(TIMEOUT, || (limit(&instance) == json!(7)).then_some(()));
    assert!(changed.is_some(), "{}", instance.log());
    let entries = "SELECT count(*) FROM audit_log WHERE kind = 6";
    let recorded = within(TIMEOUT, || (instance.value(entries) == "1").then_some(()));
    assert!(recorded.is_some(), "{}", instance.log());
    instance.stop_cleanly();
}

#[test]
fn settings_change_without_a_restart_and_go_on_record() {
    let mut fleet = Fleet::start();
    let limit = |fleet: &Fleet| {
        let answer = fleet.get(GATEWAY, "/api/v1/rates/GME").unwrap();
        answer.headers["x-ratelimit-limit"].clone()
    };
    assert_eq!(limit(&fleet), "1000000");
    // A file that is no settings changes nothing.
    fleet.settings("[limit]\n");
    fleet.signal(GATEWAY, Signal::HUP);
    let said = within(TIMEOUT, || {
        fleet
            .log(GATEWAY)
            .contains("stay as they are")
            .then_some(())
    });
    assert!(said.is_some(), "{}", fleet.log(GATEWAY));
    assert_eq!(limit(&fleet), "1000000");

    fleet.settings("standard_per_minute = 61\n[log]\nlevel = \"debug\"\n[server]\nport = 9\n[feeds]\nprecedence = [\"ibkr\"]\n");
    let text = std::fs::read_to_string(fleet.folder.join("bre.toml")).unwrap();
    let text = text.replace("internal_per_minute = 1000000", "internal_per_minute = 77");
    std::fs::write(fleet.folder.join("bre.toml"), text).unwrap();
    fleet.signal(GATEWAY, Signal::HUP);
    let changed = within(TIMEOUT, || (limit(&fleet) == "77").then_some(()));
    assert!(changed.is_some(), "{}", limit(&fleet));
    // The limit changes first; what waits for a start is said, and shown, a moment later.
    let said = within(TIMEOUT, || {
        fleet.log(GATEWAY).contains("server.port").then_some(())
    });
    assert!(said.is_some(), "{}", fleet.log(GATEWAY));
    let config = || fleet.get(GATEWAY, "/api/v1/config").unwrap().body;
    let shown = within(TIMEOUT, || {
        (config()["reload"]["needs_restart"] == json!(["server.port"])).then_some(())
    });
    assert!(shown.is_some(), "{}", config());
    let config = config();
    assert_eq!(config["requests_per_minute"]["standard"], json!(61));
    let recorded = within(TIMEOUT, || {
        let named = |name: &str| format!("position(convert_to('{name}', 'UTF8') IN canonical) > 0");
        let entries = format!(
            "SELECT count(*) FROM audit_log WHERE kind = 6 AND {} AND {}",
            named("limits.internal_per_minute"),
            named("feeds.precedence")
        );
        (fleet.value(&entries) == "1").then_some(())
    });
    assert!(recorded.is_some(), "{}", fleet.log(GATEWAY));
    // The others were not told, and go on as they are.
    fleet.stop_cleanly();
}
