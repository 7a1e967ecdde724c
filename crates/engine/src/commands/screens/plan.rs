use super::*;
use crate::commands::screens::{NOW, at, backups, micros, readable};

pub(crate) fn standing() -> JobStatusFile {
    let standing = serde_json::json!({ "jobs": {
        "full": { "last": { "started_micros": at("01:30"), "ended_micros": at("01:34"), "succeeded": true,
            "said": "20260401T013000Z-0a1b2c3d" } },
        "proof": { "last": { "started_micros": at("09:05"), "ended_micros": at("09:10"), "succeeded": false,
            "said": "amcheck: 1 index is damaged" },
            "next_micros": at("10:40") },
        "expire": { "running": true, "last": { "started_micros": at("10:30"), "ended_micros": null, "succeeded": null,
            "said": "" } },
        "schema": { "cannot": "git was not found" },
    } });
    serde_json::from_value(standing).unwrap()
}

pub(crate) fn jobs<'a>(config: &'a config::Backup, backups: &'a [BackupSummary]) -> Jobs<'a> {
    Jobs {
        config,
        storage: "/srv/bre/repository (encrypted)".to_owned(),
        schema: "/srv/bre/schema".to_owned(),
        backups,
        standing: standing(),
        paused: &|_| None,
        is_kept: true,
        now: micros(NOW),
    }
}

#[test]
fn the_table_of_jobs() {
    let (config, backups) = (config::Backup::default(), backups());
    let rows = jobs(&config, &backups).rows();
    insta::assert_snapshot!("plan_show", readable(plan_table(&rows)));
    insta::assert_snapshot!("job_list", readable(job_table(&rows, micros(NOW))));
    let stopped = Jobs {
        is_kept: false,
        standing: JobStatusFile::default(),
        ..jobs(&config, &backups)
    };
    insta::assert_snapshot!(
        "job_list_stopped",
        readable(job_table(&stopped.rows(), micros(NOW)))
    );
    let paused = Jobs {
        paused: &|name| {
            (name == "database.full").then(|| Pause {
                since_micros: at("10:00"),
                by: "ada".to_owned(),
                reason: "the disk is full".to_owned(),
            })
        },
        ..jobs(&config, &backups)
    };
    insta::assert_snapshot!(
        "job_list_paused",
        readable(job_table(&paused.rows(), micros(NOW)))
    );
}
