use super::*;
use crate::commands::{
    plan::screens::jobs,
    screens::{NOW, at, micros, readable},
};
use operations::config;

fn record(job: &str, started: &str, ended: &str, more: serde_json::Value) -> RunRecord {
    let started = at(started);
    let mut record = serde_json::json!({
        "record_version": 1,
        "run_id": format!("{started:016x}-0a1b2c3d"),
        "job": job,
        "component": "database",
        "driver": "host-0a1b2c3d",
        "cause": "appointment",
        "planned_at_micros": started,
        "started_at_micros": started,
        "ended_at_micros": at(ended),
        "outcome": "succeeded",
        "reason": null,
        "covers": { "appointments": 1, "first_micros": started, "last_micros": started },
    });
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    serde_json::from_value(record).unwrap()
}

#[test]
fn what_is_shown_of_one_job_and_of_what_ran() {
    let config = config::Backup::default();
    let mut rows = jobs(&config).rows();
    let shown = JobRow {
        row: rows.swap_remove(0),
        statistics: Statistics {
            runs: 31,
            succeeded: 30,
            last_success_started_micros: Some(at("01:30")),
            last_success_ended_micros: Some(at("01:34")),
            duration_median_micros: Some(245_000_000),
            bytes_median: Some(234_567_890),
            ..Statistics::default()
        },
    };
    insta::assert_snapshot!("job_show", readable(shown.text(micros(NOW))));
    let backup = "20260401T013000Z-0a1b2c3d";
    let history = History {
        runs: vec![
            record(
                "database.expire",
                "10:30",
                "10:30",
                serde_json::json!({ "cause": "request", "covers": null, "summary": "nothing is old enough" }),
            ),
            record(
                "database.incremental",
                "10:00",
                "10:02",
                serde_json::json!({ "outcome": "failed", "reason": "the store is away" }),
            ),
            record(
                "database.incremental",
                "09:00",
                "09:00",
                serde_json::json!({ "outcome": "skipped", "reason": "the job was paused",
                    "covers": { "appointments": 7, "first_micros": at("03:00"), "last_micros": at("09:00") } }),
            ),
            record(
                "database.full",
                "01:30",
                "01:34",
                serde_json::json!({ "summary": backup }),
            ),
        ],
        unreadable: BTreeMap::new(),
    };
    insta::assert_snapshot!("job_history", readable(history.text(micros(NOW))));
}
