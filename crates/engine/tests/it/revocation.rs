//! A signing key that is ended at a place before heads that are there, and what its thief can still do with it.

use std::path::{Path, PathBuf};

use audit::{Head, LostHead, SignedHead, SigningKey, Thinning};
use serde_json::Value;

use crate::{anchors::position, instance::Instance};

impl Instance {
    fn head_files(&self) -> Vec<PathBuf> {
        let folder = self.repository().join("heads/1");
        let entries = std::fs::read_dir(folder).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn signed(&self, ticker: &str) -> u64 {
        let last = position(&self.quote(ticker));
        self.wait_signed(last);
        last
    }
}

fn read(file: &Path) -> SignedHead {
    SignedHead::from_json(&std::fs::read(file).unwrap()).unwrap()
}

fn says(value: &Value, words: &str) {
    assert!(value.to_string().contains(words), "{words}: {value:#}");
}

#[test]
fn a_key_that_is_revoked_from_before_its_heads_leaves_a_clean_log() {
    let mut instance = Instance::watchful("");
    let early = instance.signed("GME");
    instance.signed("AAPL");
    let late = instance.signed("GME");
    let keys = instance.data().join("keys");
    let stolen = SigningKey::load(keys.join("audit_signing.key")).unwrap();
    let id = stolen.key_id().to_string();
    instance.bre(&["audit", "signing-key", "rotate"]).exits(0);
    let from = early + 1;
    let revoke =
        |from: &str| instance.bre(&["audit", "signing-key", "revoke", &id, "--from", from]);
    // From before its own opening no key would vouch for the log any more.
    revoke("1").refused(&["opened epoch 1 at position 1", "--from 2"]);
    revoke(&from.to_string()).exits(0);

    // Its heads from there on are named, and count neither for the log nor against it: with the engine, without it,
    // and on the other roads.
    let report = instance.is_judged("sound", 0);
    says(
        &report["not_counted"],
        "signed by a revoked key, not counted",
    );
    says(&report["not_counted"], &id);
    assert!(report["covered_to"].as_u64() > Some(late), "{report:#}");
    instance.bre(&["audit", "head", "list"]).exits(0);
    instance.bre(&["verify", "repository"]).exits(0);
    instance.bre(&["audit", "archive"]).exits(0);
    instance.stop_cleanly();
    let roads: [&[&str]; 2] = [&["--from-wal"], &["--archive"]];
    for road in roads {
        let output = instance.bre(&[&["verify", "audit"], road].concat());
        says(&output.json()["not_counted"], &id);
    }
    instance.up();
    let newest = instance.signed("GME");
    instance.is_judged("sound", 0);
    instance.stop_cleanly();

    // The thief of the old key, with the repository: a record that excuses what he takes away, and a head of his in
    // the place of one by the new key.
    let all = instance.head_files();
    let by_new: Vec<&PathBuf> = all
        .iter()
        .filter(|file| read(file).key_id() != stolen.key_id())
        .collect();
    let taken = by_new[0];
    let kept = read(taken);
    let thinning = Thinning {
        log: 1,
        epoch: 1,
        from: early + 1,
        to: newest + 100,
        at_micros: i64::MAX / 2,
        kept: vec![newest],
    };
    let folder = instance.repository().join("thinned/1");
    std::fs::create_dir_all(&folder).unwrap();
    let name = format!(
        "00000001-{:016x}-{:016x}.{:016x}",
        thinning.from, thinning.to, thinning.at_micros
    );
    std::fs::write(folder.join(name), thinning.sign(&stolen)).unwrap();
    // Of another content his does not stand for the one that the next head names, and his record excuses nothing.
    let claimed = kept.claimed().clone();
    let forged = stolen.sign(&Head {
        last_hash: audit::Hash::ZERO,
        ..claimed.clone()
    });
    std::fs::write(taken, forged.to_json()).unwrap();
    let report = instance.offline("cut", 8);
    says(&report["reason"], "a head was taken away");
    // What his links to is not missed.
    let before = LostHead {
        epoch: 1,
        size: early,
        hash: audit::Hash::ZERO,
    };
    let forged = stolen.sign(&claimed).after(before, &stolen);
    std::fs::write(taken, forged.to_json()).unwrap();
    let report = instance.offline("sound", 0);
    says(&report["not_counted"], "records of thinned heads");
    std::fs::write(taken, kept.to_json()).unwrap();
    instance.up();
    instance.signed("GME");
    instance.is_judged("sound", 0);
}

impl Instance {
    fn offline(&self, verdict: &str, code: i32) -> Value {
        let output = self.bre(&["verify", "audit", "--from-wal"]);
        let report = output.parsed();
        let found = (report["verdict"].as_str(), output.code);
        assert_eq!(found, (Some(verdict), Some(code)), "{report:#}");
        report
    }
}
