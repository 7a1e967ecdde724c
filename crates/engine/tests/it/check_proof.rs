//! `bre audit check-proof` on the list of cases that all verifiers agree on (docs/formats/audit_transparency.md §7).

use serde_json::Value;

use crate::instance::Folder;

const CASES: &str = include_str!("../../../audit/proof_cases.json");
/// RFC 8032, test 1.
const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[test]
fn the_command_agrees_with_the_list_of_cases() {
    let folder = Folder::new();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (file, key) = (path("proof.json"), path("audit_signing.pub"));
    std::fs::write(&key, format!("bre-audit-verifying-key-1 {KEY}\n")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() >= 30, "{}", cases.len());
    for case in cases {
        std::fs::write(&file, case["proof"].as_str().unwrap()).unwrap();
        let output = folder.run(&["--json", "audit", "check-proof", &file, "--key", &key]);
        let expected = if case["holds"] == true { 0 } else { 1 };
        assert_eq!(output.code, Some(expected), "{}: {output:?}", case["name"]);
        assert_eq!(
            output.parsed()["verified"],
            case["holds"],
            "{}",
            case["name"]
        );
    }
}
