//! `bre drill`: short ones, judged by their losses; their times are judged elsewhere, on an idle machine.

use serde_json::{Value, json};

use crate::{instance::Folder, process::processes_on};

/// The fields that scripts rely on.
const REPORTED: [&str; 11] = [
    "scenario",
    "seed",
    "acknowledged",
    "recovered",
    "lost",
    "rpo_seconds",
    "rto_seconds",
    "audit_verified",
    "replayed",
    "replay_mismatches",
    "passed",
];

fn drill(seed: &str, more: &[&str]) -> Value {
    drill_for(seed, "4", more)
}

fn drill_for(seed: &str, seconds: &str, more: &[&str]) -> Value {
    let folder = Folder::new();
    let work = folder.join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let arguments = [
        &[
            "drill",
            "run",
            "database-loss",
            "--clients",
            "4",
            "--seconds",
            seconds,
            "--json",
        ][..],
        &["--seed", seed, "--work", work.to_str().unwrap()],
        more,
    ];
    let output = folder.run(&arguments.concat());
    let report = output.json();
    assert_eq!(processes_on(folder.path()), Vec::new(), "{report}");
    for field in REPORTED {
        assert!(report.get(field).is_some(), "{field}: {report}");
    }
    assert_eq!(report["scenario"], "database-loss", "{report}");
    assert_eq!(report["seed"].to_string(), seed, "{report}");
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(report["audit_verified"], true, "{report}");
    assert_eq!(report["replay_mismatches"], 0, "{report}");
    for counted in ["acknowledged", "recovered", "replayed"] {
        assert!(report[counted].as_u64() > Some(0), "{counted}: {report}");
    }
    report
}

fn loses_nothing(report: &Value) {
    assert_eq!(report["lost"], 0, "{report}");
    assert_eq!(report["rpo_seconds"], json!(0.0), "{report}");
    assert_eq!(report["recovered"], report["acknowledged"], "{report}");
}

#[test]
fn a_database_that_is_lost_comes_back_by_itself() {
    let report = drill("1", &[]);
    let (acknowledged, recovered) = (&report["acknowledged"], &report["recovered"]);
    let lost = acknowledged.as_u64().unwrap() - recovered.as_u64().unwrap();
    assert_eq!(report["lost"], lost, "what is lost is counted: {report}");
}

#[test]
fn in_strict_mode_nothing_acknowledged_is_lost_with_the_database() {
    loses_nothing(&drill("2", &["--strict"]));
}

#[test]
fn in_strict_mode_nothing_acknowledged_is_lost_with_a_repository_in_s3() {
    let Some(s3) = testkit::TestS3::start() else {
        return;
    };
    s3.make_bucket("drills");
    let place = s3.location("drills", "below");
    loses_nothing(&drill_for(
        "4",
        // Each commit waits for S3, and moto is slow: two seconds are hundreds of requests.
        "2",
        &["--strict", "--and-engine", "--repository", &place],
    ));
}

/// The repository is gone before the database is, and still gone when the recovery begins.
#[test]
fn in_strict_mode_nothing_acknowledged_is_lost_while_the_repository_is_away() {
    let report = drill("5", &["--strict", "--fault", "repository-away"]);
    assert_eq!(report["fault"], "repository-away", "{report}");
    loses_nothing(&report);
}

#[test]
fn in_strict_mode_nothing_acknowledged_is_lost_amid_kills() {
    loses_nothing(&drill("6", &["--strict", "--fault", "kills"]));
}

#[test]
fn in_strict_mode_nothing_acknowledged_is_lost_when_the_spare_takes_the_place() {
    let report = drill("4", &["--strict", "--standby"]);
    assert_eq!(report["spare"], true, "{report}");
    loses_nothing(&report);
}

#[test]
fn in_strict_mode_nothing_acknowledged_is_lost_with_database_and_engine() {
    loses_nothing(&drill("3", &["--strict", "--and-engine"]));
}
