use repository::backup::RestoreTestRecord;
use serde_json::json;

use super::*;
use crate::commands::screens::{NOW, at, micros, readable};

fn tests() -> Vec<RestoreTest> {
    let test = |id: &str, at_micros: i64, passed: bool, checks: Value| RestoreTest {
        backup_id: id.to_owned(),
        object: format!("backups/{id}/proof-1"),
        record: RestoreTestRecord {
            proved_at_micros: at_micros,
            passed,
            details:
                json!({ "millis": 83_250, "host": "db-1", "engine": "VERSION", "checks": checks })
                    .as_object()
                    .unwrap()
                    .clone(),
        },
    };
    let passed = json!([{ "name": "restore", "verdict": "passed", "detail": {} }]);
    let failed = json!([
        { "name": "restore", "verdict": "passed", "detail": {} },
        { "name": "amcheck", "verdict": "failed",
            "why": "index public.a_idx: item order invariant violated", "detail": {} },
        { "name": "of a newer engine", "verdict": "unheard of" },
    ]);
    vec![
        test("20260401T013000Z-0a1b2c3d", at("01:40"), true, passed),
        test("20260401T090000Z-4e5f6071", at("09:10"), false, failed),
    ]
}

#[test]
fn the_list_and_one_of_them() {
    let tests = tests();
    let shown: Vec<RestoreTestRow> = tests.iter().map(RestoreTestRow::from).collect();
    insta::assert_snapshot!("restore_test_list", readable(table(&shown, micros(NOW))));
    let details = Details {
        shown: (&tests[1]).into(),
        object: tests[1].object.clone(),
        engine: Some("VERSION".to_owned()),
        host: Some("db-1".to_owned()),
        checks: checks(&tests[1]),
    };
    insta::assert_snapshot!("restore_test_show", readable(details.text(micros(NOW))));
}
