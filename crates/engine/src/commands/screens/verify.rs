use super::*;
use crate::commands::screens::{NOW, readable};

#[test]
fn a_database() {
    let mut checks = vec![
        Check::passed("connectivity", json!({})),
        Check::failed(
            "indexes",
            "2 indexes are invalid: public.a_idx, public.b_idx",
            json!({ "invalid": 2 }),
        ),
        Check::skipped("amcheck", "the extension amcheck is not installed"),
        Check::not_applicable("row_counts", "the database holds no tables of an engine"),
        Check::passed("replication_slot", json!({ "active": true })),
    ];
    let report = |checks: Vec<Check>| VerifyReport {
        passed: passed(&checks),
        strict: false,
        checked_at: NOW.to_owned(),
        checks,
    };
    let mut text = sentences(&report(checks.clone()));
    checks.retain(|check| check.name == "connectivity" || check.not_applicable);
    text.push_str(&format!("--\n{}", sentences(&report(checks))));
    insta::assert_snapshot!("verify_database", readable(text));
}
