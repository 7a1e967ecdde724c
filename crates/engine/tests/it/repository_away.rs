//! The repository's folder vanishes while the engine runs, and comes back.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

impl Instance {
    fn take_the_repository_away(&self) -> PathBuf {
        let elsewhere = self.folder.join("unmounted");
        std::fs::rename(self.repository(), &elsewhere).unwrap();
        elsewhere
    }

    fn bring_the_repository_back(&self) {
        std::fs::rename(self.folder.join("unmounted"), self.repository()).unwrap();
    }

    fn wait_alarm(&self) {
        let alarm = within(TIMEOUT, || {
            let stream = self.stream();
            let away = stream["alarm"].as_str()?.contains("away");
            (away && stream["attached"] == false).then_some(())
        });
        assert!(alarm.is_some(), "no alarm: {}", self.stream());
    }

    fn wait_calm(&self) {
        let calm = within(TIMEOUT, || {
            let health = self.get("/api/v1/health").body;
            (health["status"] == "healthy").then_some(())
        });
        assert!(calm.is_some(), "{}", self.get("/api/v1/health").text);
        self.wait_caught_up();
        let status = self.bre(&["status"]).json();
        assert_eq!(status["alarms"], Value::Array(Vec::new()), "{status}");
    }
}

#[test]
fn normal_mode_goes_on_without_the_repository_with_an_alarm_and_catches_up() {
    let instance = Instance::start();
    assert_eq!(instance.locate().status, 200);
    instance.wait_calm();
    instance.take_the_repository_away();
    // Nothing but the stream's own heartbeat tells: the server is idle.
    instance.wait_alarm();
    for _ in 0..3 {
        let located = instance.locate();
        assert_eq!(located.status, 200, "{}", located.text);
    }
    let status = instance.bre(&["status"]).exits(1).parsed();
    let alarms = status["alarms"].to_string();
    assert!(alarms.contains("away"), "{status}");
    let metrics = instance.get("/metrics").text;
    for line in ["bre_wal_stream_attached 0", "bre_alarm 1"] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }

    instance.bring_the_repository_back();
    instance.wait_calm();
    assert_eq!(instance.value("SELECT count(*) FROM quotes"), "4");
    instance.audit_is_sound();
    // All of it, bytes that were written meanwhile too, can be read back.
    let verified = instance.bre(&["verify", "backup"]).json();
    assert_eq!(verified[0]["sound"], true, "{verified}");
}

#[test]
fn strict_mode_acknowledges_nothing_without_the_repository() {
    let instance = Instance::with(&["--strict"]);
    assert_eq!(instance.locate().status, 200);
    instance.wait_calm();
    let elsewhere = instance.take_the_repository_away();
    // At once, before any alarm: the answer itself must not be given.
    let unknown = instance.locate();
    assert_eq!(unknown.status, 503, "{}", unknown.text);
    instance.wait_alarm();
    assert_eq!(instance.locate().status, 503);
    assert!(elsewhere.join("format").exists());

    instance.bring_the_repository_back();
    instance.wait_calm();
    let served = within(TIMEOUT, || (instance.locate().status == 200).then_some(()));
    assert!(served.is_some(), "{}", instance.locate().text);
    instance.audit_is_sound();
}

#[test]
fn a_stop_without_the_repository_is_clean_and_loses_nothing() {
    for arguments in [&[][..], &["--strict"]] {
        let mut instance = Instance::with(arguments);
        let before = instance.locate();
        assert_eq!(before.status, 200, "{}", before.text);
        instance.take_the_repository_away();
        instance.wait_alarm();
        let during = instance.locate();
        assert_eq!(
            during.status == 200,
            arguments.is_empty(),
            "{}",
            during.text
        );
        instance.stop_cleanly();
        instance.bring_the_repository_back();
        instance.up();
        instance.wait_calm();
        for answer in [before, during]
            .iter()
            .filter(|answer| answer.status == 200)
        {
            let id = answer.body["quote_id"].as_str().unwrap();
            let found = instance.value(&format!(
                "SELECT count(*) FROM quotes WHERE quote_id = '{id}'"
            ));
            assert_eq!(found, "1", "{}", answer.text);
        }
        instance.audit_is_sound();
    }
}
