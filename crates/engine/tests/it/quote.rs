//! `bre quote` where the public port speaks TLS.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::instance::Instance;

/// The certificate has to be believed, and to be the named host's.
#[test]
fn a_quote_over_https_believes_only_the_certificates_it_is_given() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut instance = Instance::prepared(&[]);
    let data = instance.data();
    fs::create_dir_all(&data).unwrap();
    let (chain, key) = (data.join("chain.pem"), data.join("key.pem"));
    fs::write(&chain, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let settings = format!("[server]\ntls_certificate = {chain:?}\ntls_key = {key:?}\n");
    fs::write(data.join("bre.toml"), settings).unwrap();
    // A key that everybody on the machine can read is no secret.
    let path = data.to_str().unwrap();
    let exposed = ["up", "--port", "0", "--data", path];
    let exposed = instance.folder.run(&exposed);
    exposed.refused(&["key.pem", "0644", "chmod 600"]).exits(3);
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    instance.up();

    let (_, port) = instance.ready("url").rsplit_once(':').unwrap();
    let by_name = format!("https://localhost:{port}");
    let by_address = format!("https://127.0.0.1:{port}");
    let ask = |url: &str, more: &[&str]| {
        let words = [
            "quote", "--ticker", "GME", "--value", "100000", "--days", "30",
        ];
        let words = [
            &words[..],
            &["--client", "standard", "--json", "--url", url],
            more,
        ]
        .concat();
        instance.bre(&words)
    };
    let believed = ["--ca-file", chain.to_str().unwrap()];
    let quote = ask(&by_name, &believed).json();
    assert_eq!(quote["status"], "success", "{quote}");
    for (url, more) in [(&by_name, &[][..]), (&by_address, &believed[..])] {
        let refused = ask(url, more);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        let said = format!("{}{}", refused.out, refused.err);
        assert!(
            said.contains("certificate") && said.contains("--ca-file"),
            "{said}"
        );
    }
    // A client's locates the same way, and what operators set for a stock by the instance's own socket.
    let locate = |words: &[&str]| {
        let public = [&["--url", &by_name][..], &believed].concat();
        instance.bre(&[&["locate"][..], words, &public].concat())
    };
    let none = locate(&["availability", "--json"]).json();
    assert_eq!(none["items"], serde_json::json!([]), "{none}");
    let id = "00000000-0000-7000-8000-000000000000";
    for words in [
        &["availability", id][..],
        &["show", id],
        &["use", id, "--order", "o-1", "--shares", "100"],
    ] {
        locate(words).refused(&["404", "no such locate of yours"]);
    }
    let minimum =
        |words: &[&str]| instance.bre(&[&["stock", "minimum-rate", "--json"][..], words].concat());
    // any day: an end that no clock of a test reaches.
    let set = minimum(&["GME", "0.5", "--valid-to", "2099-01-01T00:00:00Z"]).json();
    assert_eq!(set["valid_to"], "2099-01-01T00:00:00.000000Z", "{set}");
    assert_eq!(minimum(&["GME"]).json()["source"], "minimum_rates");
    minimum(&["GMEE", "0.5"]).refused(&["404", "GMEE"]);
    let quote = ask(&by_name, &believed).json();
    assert_eq!(quote["borrow_rate_used"], 0.5, "{quote}");
    instance.stop_cleanly();
}
