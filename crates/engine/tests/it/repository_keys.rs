//! `bre repository key` and `bre backup expire` on a running engine, and hosts that only write.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

impl Instance {
    fn shows(&self) -> Value {
        self.bre(&["repository", "key", "show"]).json()
    }

    /// What went since it was read last is all on record, and every commit of it in the repository.
    fn goes_on(&self, locates: usize) {
        for _ in 0..locates {
            let answer = self.locate();
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
        self.wait_caught_up();
    }
}

/// Rotated under load of a strict engine, killed with everything but repository and keys deleted, brought back with the new key alone.
#[test]
fn a_key_is_replaced_under_a_running_engine_and_no_wal_is_lost() {
    let mut instance = Instance::with(&["--strict"]);
    instance.goes_on(3);
    let before = instance.shows();
    assert_eq!(
        (&before["private_key_here"], &before["days"]),
        (&true.into(), &0.into())
    );

    let rotated = instance.bre(&["repository", "key", "rotate"]).json();
    assert_eq!(rotated["not_sealed"], 0, "{rotated}");
    assert_eq!(rotated["engine_took_it"], true, "{rotated}");
    assert_eq!(rotated["replaced"][0], before["recipient_id"]);
    let after = instance.shows();
    assert_eq!(after["recipient_id"], rotated["recipient_id"]);
    assert_eq!(after["recipients"].as_array().unwrap().len(), 2, "{after}");
    let attached = within(TIMEOUT, || {
        (instance.stream()["strict"] == true).then_some(())
    });
    assert!(attached.is_some(), "{}", instance.stream());
    instance.goes_on(3);
    let status = instance.bre(&["status"]).json();
    assert_eq!(
        status["repository_key"]["recipient_id"],
        rotated["recipient_id"]
    );
    assert_eq!(status["warnings"], Value::Array(Vec::new()), "{status}");

    instance
        .bre(&["repository", "key", "retire-old"])
        .refused(&["--yes"]);
    let retired = instance
        .bre(&["repository", "key", "retire-old", "--yes"])
        .json();
    assert!(retired["wraps_deleted"].as_u64().unwrap() >= 2, "{retired}");
    let old = format!("recipient-{}.key", before["recipient_id"].as_str().unwrap());
    fs::remove_file(instance.data().join("keys").join(old)).unwrap();
    let entries = instance.audit_is_sound()["entries"].clone();

    instance.kill();
    let postmaster = fs::read_to_string(instance.data().join("postgres/postmaster.pid")).unwrap();
    let pid: i32 = postmaster.lines().next().unwrap().parse().unwrap();
    let _ =
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
    for folder in ["postgres", "redis", "run"] {
        let _ = fs::remove_dir_all(instance.data().join(folder));
    }
    instance.up();
    let report = instance.audit_is_sound();
    assert!(
        report["entries"].as_u64() >= entries.as_u64(),
        "{report} after {entries}"
    );

    expiry_explains_itself(&instance);
    the_plan_replaces_a_key_that_is_due(&instance);
    instance.stop_cleanly();
}

/// By itself only where something else opens what the new key is for.
fn the_plan_replaces_a_key_that_is_due(instance: &Instance) {
    let keys = instance.data().join("keys");
    let id = || {
        instance.shows()["recipient_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let before = id();
    let aged = |days: i64| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
        fs::write(keys.join("recipient.created"), format!("{} {at}\n", id())).unwrap();
    };
    let run = || {
        let output = instance.bre(&["job", "run", "keys.rotate"]);
        (output.code, format!("{output:?}"))
    };
    aged(84);
    let young = run();
    assert!(
        young.0 == Some(0) && young.1.contains("84 days old"),
        "{young:?}"
    );
    aged(91);
    let (code, said) = run();
    assert!(
        said.contains("on this host alone") && said.contains("bre repository key rotate"),
        "{said}"
    );
    assert_ne!(
        code,
        Some(0),
        "past the guide's days it is an alarm: {said}"
    );
    assert_eq!(id(), before);
    let offline = repository::keys::RecipientPrivate::generate().unwrap();
    offline.public().store(&keys.join("offline.pub")).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(id(), before, "{said}");
    assert_eq!(instance.shows()["days"], 0);
    instance.goes_on(2);
}

fn expiry_explains_itself(instance: &Instance) {
    let looked = instance.bre(&["backup", "expire", "--dry-run"]).json();
    assert_eq!(looked["done"], Value::Null);
    assert_eq!(looked["compared_with_postgres"], true, "{looked}");
    let decisions = looked["decisions"].as_array().unwrap();
    let kept = decisions.iter().filter(|d| d["subject"] == "backup");
    assert!(kept.clone().count() > 0, "{looked}");
    for decision in kept {
        assert_eq!(decision["action"], "keep", "{decision}");
        assert!(!decision["reason"].as_str().unwrap().is_empty());
    }
}

/// Its public key and its chunk id key are enough to stream and to back up. Whatever reads names the key that is missing.
#[test]
fn a_host_that_only_writes_streams_and_backs_up_and_says_what_it_cannot() {
    let mut instance = Instance::prepared(&[]);
    let keys = instance.data().join("keys");
    fs::create_dir_all(&keys).unwrap();
    let elsewhere = repository::keys::RecipientPrivate::generate().unwrap();
    elsewhere
        .public()
        .store(&keys.join("recipient.pub"))
        .unwrap();
    instance.up();
    assert!(!keys.join("recipient.key").exists());
    instance.goes_on(2);
    let id = instance.backup();
    let shown = instance.shows();
    assert_eq!(shown["private_key_here"], false, "{shown}");
    assert_eq!(shown["recipients"].as_array().unwrap().len(), 1);
    let to = instance.folder.join("restored");
    for arguments in [
        &["verify", "backup"][..],
        &["restore-test", "run"],
        &["restore", "database", "--to", to.to_str().unwrap()],
        &["repository", "key", "rotate"],
    ] {
        let wanted = elsewhere.public().id();
        instance.bre(arguments).refused(&["recipient.key", &wanted]);
    }
    instance.bre(&["backup", "expire", "--dry-run"]).json();

    // Where the private key is, it reads; a stranger is told which key is wanted, and what stays closed.
    let at_home = instance.folder.join("home");
    fs::create_dir(&at_home).unwrap();
    elsewhere.store(&at_home.join("recipient.key")).unwrap();
    let named = at_home.to_str().unwrap();
    let verified = instance
        .bre(&["verify", "backup", &id, "--keys-dir", named])
        .json();
    assert_eq!(verified[0]["sound"], true, "{verified}");
    let stranger = instance.folder.join("stranger");
    fs::create_dir(&stranger).unwrap();
    let other = repository::keys::RecipientPrivate::generate().unwrap();
    other.store(&stranger.join("recipient.key")).unwrap();
    let output = instance.bre(&[
        "verify",
        "backup",
        &id,
        "--keys-dir",
        stranger.to_str().unwrap(),
    ]);
    output.refused(&[&elsewhere.public().id(), &other.public().id(), &id]);
    instance.stop_cleanly();
}
