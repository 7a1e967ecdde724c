use crate::commands::screens::{NOW, at, micros, readable};
use recovery::standby::Phase;

use super::*;

fn stream() -> StreamReport {
    StreamReport {
        attached: true,
        strict: true,
        durable_lsn: Some(0x1_0300_0028),
        slot_fill_permille: Some(15),
        last_backup_at_micros: Some(at("09:01")),
        last_proof_at_micros: Some(at("01:40")),
        ..StreamReport::default()
    }
}

fn running() -> Status {
    Status {
        running: true,
        stream: Some(stream()),
        repository: "/srv/bre/repository".to_owned(),
        backups_complete: 2,
        backups_other: 1,
        newest_complete: Some("20260401T090000Z-4e5f6071".to_owned()),
        newest_complete_micros: Some(at("09:01")),
        newest_test: Some(("20260401T013000Z-0a1b2c3d".to_owned(), at("01:40"))),
        newest_proved: Some(format!(
            "20260401T013000Z-0a1b2c3d at {}",
            time(at("01:40"))
        )),
        window: vec![Window {
            timeline: 1,
            from_timeline: 1,
            from_lsn: "0/3000158".to_owned(),
            from_time: time(at("01:34")),
            to_lsn: "1/3000028".to_owned(),
            to_time: Some(time(at("10:30"))),
            from_micros: at("01:34"),
            to_micros: Some(at("10:30")),
        }],
        repository_key: Some(KeyAge {
            recipient_id: "rk-0a1b2c3d".to_owned(),
            created_at: time(at("00:00")),
            days: 0,
            warning: None,
        }),
        audit_archive: Some(Archive {
            archived_to: Some(41_207),
            last_pass_at: Some(time(at("02:30"))),
            said: Some("41207 entries".to_owned()),
            last_pass_micros: Some(at("02:30")),
        }),
        jobs: [
            ("database.full", "waiting"),
            ("wal.stream", "running"),
            ("database.schema", "cannot"),
            ("repository.copy", "running"),
        ]
        .map(|(name, state)| JobBrief {
            name: name.to_owned(),
            state,
        })
        .into(),
        copies: BTreeMap::from([(
            "far".to_owned(),
            copies::CopyStatus {
                repository: "s3://bre-far/engine".to_owned(),
                until_micros: at("10:29"),
                lag_bytes: 345_678,
                ..copies::CopyStatus::default()
            },
        )]),
        standby: Some(recovery::standby::Status {
            phase: Phase::Following,
            healthy: true,
            lag_seconds: 0.4,
            ..recovery::standby::Status::default()
        }),
        ..Status::default()
    }
}

#[test]
fn a_sound_instance() {
    insta::assert_snapshot!(
        "status_sound",
        readable(view::text(&running(), micros(NOW)))
    );
}

#[test]
fn a_warning() {
    let mut status = running();
    status
        .warnings
        .push("the repository's key is 91 days old".to_owned());
    insta::assert_snapshot!("status_warning", readable(view::text(&status, micros(NOW))));
}

#[test]
fn an_alarm() {
    let mut status = running();
    status.stream = Some(StreamReport {
        attached: false,
        alarm: Some("PostgreSQL keeps WAL for a stream that does not come".to_owned()),
        warning: Some("the key is old".to_owned()),
        ..stream()
    });
    status.holes.push(Hole {
        timeline: 1,
        from_lsn: "0/5000000".to_owned(),
        to_lsn: "0/6000000".to_owned(),
        reason: "removed by PostgreSQL".to_owned(),
    });
    finish(&mut status);
    insta::assert_snapshot!("status_alarm", readable(view::text(&status, micros(NOW))));
}

#[test]
fn stopped_and_never_backed_up() {
    let status = Status {
        repository: "/srv/bre/repository".to_owned(),
        alarms: vec![format!(
            "there is no complete backup: nothing could be restored; {}",
            take_a_backup(None)
        )],
        ..Status::default()
    };
    insta::assert_snapshot!(
        "status_no_backup",
        readable(view::text(&status, micros(NOW)))
    );
}

#[test]
fn clusters_of_others() {
    let mut desk = running();
    (desk.cluster, desk.audit_archive) = (Some("desk".to_owned()), None);
    let gone = Status {
        cluster: Some("gone".to_owned()),
        alarms: vec!["PostgreSQL at gone:5432 cannot be asked: connection refused".to_owned()],
        ..Status::default()
    };
    let status = Status {
        clusters: BTreeMap::from([("desk".to_owned(), desk), ("gone".to_owned(), gone)]),
        ..Status::default()
    };
    insta::assert_snapshot!(
        "status_clusters",
        readable(view::text(&status, micros(NOW)))
    );
}
