//! The log for outsiders, from the binary: what the gateway shows, a proof that a client gets, a witness at another site, and a signing
//! key that is replaced and ended.

use std::path::Path;

use audit::{Checkpoint, InclusionProof, Note, NoteKey, SignedPlace, VerifyingKey};
use rustix::process::Signal;
use serde_json::Value;

use crate::instance::{Answer, Instance, plain_http};
use crate::process::{TIMEOUT, within};

impl Instance {
    /// A file below `/log/`, as anybody gets it.
    fn log_file(&self, path: &str) -> Option<String> {
        let url = format!("{}/log/log-1/{path}", self.ready("url"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let response = plain_http().get(url).send().await.unwrap();
            let found = response.status().is_success();
            let text = response.text().await.unwrap();
            found.then_some(text)
        })
    }

    fn checkpoint(&self, path: &str, keys: &[VerifyingKey]) -> Option<(Checkpoint, Note)> {
        let note = Note::parse(self.log_file(path)?.as_bytes()).unwrap();
        Some((Checkpoint::verify(&note, keys).ok()?, note))
    }

    /// Of the entry of a quote, once a published head covers it.
    fn proof(&self, quote: &Value) -> String {
        let path = format!(
            "/api/v1/audit/{}/proof",
            quote["quote_id"].as_str().unwrap()
        );
        let ready = |answer: Answer| match answer.status {
            200 => Some(answer.text),
            202 => None,
            other => panic!("{other}: {}", answer.text),
        };
        within(TIMEOUT, || ready(self.get(&path))).expect("a proof")
    }

    fn signing_keys(&self) -> Value {
        self.bre(&["audit", "signing-key", "show"])
            .exits(0)
            .parsed()
    }
}

fn public_key(instance: &Instance) -> VerifyingKey {
    VerifyingKey::load(instance.data().join("keys/audit_signing.pub")).unwrap()
}

/// Exit code 0 only when it holds under that key, with or without what was published of the keys.
fn check(instance: &Instance, proof: &Path, key: &Path, statements: Option<&Path>) -> bool {
    let mut arguments = vec![
        "audit",
        "check-proof",
        proof.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    if let Some(statements) = statements {
        arguments.extend(["--statements", statements.to_str().unwrap()]);
    }
    let output = instance.bre(&arguments);
    let verified = output.parsed()["verified"] == true;
    output.exits(i32::from(!verified));
    verified
}

#[test]
fn outsiders_watch_and_a_signing_key_is_replaced_and_ended() {
    let mut instance = Instance::prepared(&[]);
    let folder = instance.folder.join("witness");
    let site = [
        "witness",
        "key",
        "--json",
        "--folder",
        folder.to_str().unwrap(),
        "--name",
        "witness.example/w",
    ];
    let witness: NoteKey = instance.folder.run(&site).exits(0).parsed()["key"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    // The log's key is made by the first start; a witness needs it, and the engine the witness's address.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    std::fs::create_dir_all(instance.data()).unwrap();
    std::fs::write(
        instance.data().join("bre.toml"),
        format!("[audit]\nname = \"log.example\"\nwitness_seconds = 1\n[[audit.witnesses]]\nurl = \"http://{port}\"\nkey = \"{witness}\"\n"),
    )
    .unwrap();
    instance.up();
    let first = [public_key(&instance)];
    let quote = instance.quote("GME");
    let proof = instance.proof(&quote);
    let proved = InclusionProof::from_json(proof.as_bytes())
        .unwrap()
        .verify(&first)
        .unwrap();
    assert_eq!(
        proved.entry.fields.get("quote_id"),
        quote["quote_id"].as_str()
    );
    let covered = proved.head.size;
    let shown = within(TIMEOUT, || {
        instance
            .checkpoint("1/checkpoint", &first)
            .filter(|(shown, _)| shown.size >= covered)
    });
    assert_eq!(shown.unwrap().0.origin, "log.example/log-1/1");

    // Somebody with the key and the address follows it, and a checkpoint of another log convicts it.
    let (kept, key) = (
        instance.folder.join("kept"),
        instance.data().join("keys/audit_signing.pub"),
    );
    let follow = |kept: &Path| {
        let at = format!("{}/log/log-1/1", instance.ready("url"));
        let (kept, key) = (kept.to_str().unwrap(), key.to_str().unwrap());
        instance.bre(&["audit", "follow", &at, "--key", key, "--checkpoint", kept])
    };
    assert_eq!(follow(&kept).exits(0).parsed()["before"], Value::Null);
    let seen = follow(&kept).exits(0).parsed();
    assert!(seen["before"].as_u64().unwrap() >= covered, "{seen}");
    let other = audit::SigningKey::load(instance.data().join("keys/audit_signing.key")).unwrap();
    let claim = |size: u64| Checkpoint {
        origin: "log.example/log-1/1".to_owned(),
        size,
        root: proved.hash,
        extensions: Vec::new(),
    };
    for (size, why) in [(covered, "rewritten"), (1 << 40, "cut")] {
        let forged = instance.folder.join("forged");
        std::fs::write(&forged, claim(size).sign(&other).unwrap().to_bytes()).unwrap();
        let told = follow(&forged).exits(1).parsed();
        assert!(told["reason"].as_str().unwrap().contains(why), "{told}");
    }

    // Until it is there the witness is told in health; then it signs.
    let silent = within(TIMEOUT, || {
        let health = instance.get("/health").body;
        health["degraded"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["part"] == "witness.witness.example/w")
            .then_some(())
    });
    assert!(silent.is_some(), "a silent witness is told");
    let status = instance.bre(&["status"]).parsed();
    let silent = "the witness witness.example/w signs nothing: ";
    assert!(status["warnings"].to_string().contains(silent), "{status}");
    let key_of_log = instance
        .log_file("keys")
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let run = [
        "witness",
        "run",
        "--folder",
        folder.to_str().unwrap(),
        "--name",
        "witness.example/w",
        "--listen",
        &port.to_string(),
        "--log",
        &key_of_log,
    ];
    let watching = instance.folder.start(&run);
    let cosigned =
        within(TIMEOUT, || instance.checkpoint("1/cosigned", &first)).expect("a cosignature");
    assert!(
        witness
            .signed(&cosigned.1, SignedPlace::Nowhere)
            .unwrap()
            .is_some()
    );
    let kept = instance.repository().join("cosigned/1");
    assert!(std::fs::read_dir(kept).unwrap().next().is_some());

    // A new key: the old one vouches for it, everything stays sound, and both are published.
    let old = instance
        .data()
        .join(format!("keys/audit_signing-{}.pub", first[0].key_id()));
    let rotated = instance
        .bre(&["audit", "signing-key", "rotate", "--revoke-old"])
        .exits(0)
        .parsed();
    assert_eq!(rotated["old_key_id"], first[0].key_id().to_string());
    let second = [public_key(&instance)];
    assert_eq!(rotated["key_id"], second[0].key_id().to_string());
    let later = instance.quote("AAPL");
    let by_new = instance.proof(&later);
    assert!(
        InclusionProof::from_json(by_new.as_bytes())
            .unwrap()
            .verify(&second)
            .is_ok()
    );
    instance.audit_is_sound();
    assert_eq!(
        instance.signing_keys()["statements"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let told = instance.value("SELECT count(*) FROM audit_log WHERE kind = 6 AND position > 1");
    assert!(told.parse::<u64>().unwrap() >= 2, "{told}");
    // Whoever has the old key alone follows by what was published; the old proof stays good under both.
    let keys = within(TIMEOUT, || {
        instance
            .log_file("keys")
            .filter(|keys| keys.contains("rotation-1"))
    });
    let (statements, files) = (
        instance.folder.join("keys"),
        ["one", "two"].map(|name| instance.folder.join(name)),
    );
    std::fs::write(&statements, keys.unwrap()).unwrap();
    std::fs::write(&files[0], &proof).unwrap();
    std::fs::write(&files[1], &by_new).unwrap();
    let new = instance.data().join("keys/audit_signing.pub");
    assert!(check(&instance, &files[0], &old, None));
    assert!(!check(&instance, &files[1], &old, None));
    assert!(check(&instance, &files[1], &old, Some(&statements)));
    assert!(check(&instance, &files[0], &new, Some(&statements)));
    assert!(!check(&instance, &files[0], &new, None));
    // The witness follows the new key, which it was never given, and continues to sign.
    let by_new_key = [second[0].clone()];
    let cosigned = within(TIMEOUT, || instance.checkpoint("1/cosigned", &by_new_key));
    let cosigned = cosigned.expect("a cosignature of a checkpoint by the new key");
    let signed = witness.signed(&cosigned.1, SignedPlace::Nowhere);
    assert!(signed.unwrap().is_some());
    watching.signal(Signal::TERM);
    watching.wait().exits(0);
    // The next start signs with the new key and trusts what the old one signed. And where not everybody shall see how
    // much there is, its gateway shows nothing; a client's proof is his own affair.
    assert!(instance.log_file("origins").is_some());
    let text = std::fs::read_to_string(instance.data().join("bre.toml")).unwrap();
    instance.settings(&text.replacen("[audit]\n", "[audit]\nshow_at_gateway = false\n", 1));
    instance.stop_cleanly();
    instance.up();
    for path in ["origins", "keys", "1/checkpoint", "1/cosigned"] {
        assert!(instance.log_file(path).is_none(), "{path}");
    }
    instance.proof(&instance.quote("GME"));
    instance.audit_is_sound();
    // A revocation that somebody takes away is missed.
    let folder = instance.repository().join("signing-keys/1");
    let said = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let ended = said.filter(|file| {
        std::fs::read_to_string(file)
            .unwrap()
            .contains("revocation-1")
    });
    ended.for_each(|file| std::fs::remove_file(file).unwrap());
    let told = instance.bre(&["verify", "audit"]).parsed();
    assert!(
        told["reason"].as_str().unwrap().contains("took it away"),
        "{told}"
    );
}
