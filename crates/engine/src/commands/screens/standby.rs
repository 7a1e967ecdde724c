use super::*;
use crate::commands::screens::{at, readable};
use terminal::time;

#[test]
fn a_standby_that_follows_and_one_that_cannot() {
    let status = Status {
        phase: Phase::Following,
        healthy: true,
        timeline: 1,
        replayed_lsn: "1/3000028".to_owned(),
        repository_lsn: "1/3000028".to_owned(),
        lag_bytes: 0,
        lag_seconds: 0.4,
        wal_objects: 77,
        since: Some(time(at("08:00"))),
        backup_id: Some("20260401T013000Z-0a1b2c3d".to_owned()),
        newest_commit_at: Some(time(at("10:30"))),
        repository_confirmed_at: Some(time(at("10:30"))),
        ..Status::default()
    };
    let lost = Status {
        phase: Phase::Lost,
        healthy: false,
        trouble: Some("WAL from 1/2000000 on is missing in the repository".to_owned()),
        lag_bytes: 34_567_890,
        lag_seconds: 812.25,
        ..status.clone()
    };
    let screens = format!("{}--\n{}", text(&status), text(&lost));
    insta::assert_snapshot!("standby_status", readable(screens));
}
