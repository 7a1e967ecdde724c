//! `bre quote` where the public port speaks TLS.

use std::fs;

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
    let settings = format!("[server]\ntls_certificate = {chain:?}\ntls_key = {key:?}\n");
    fs::write(data.join("bre.toml"), settings).unwrap();
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
    instance.stop_cleanly();
}
