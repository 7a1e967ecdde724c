use super::*;
use crate::commands::screens::{NOW, at, micros, readable};

pub(crate) fn standing() -> JobStatusFile {
    let standing = serde_json::json!({ "jobs": {
        "full": { "last": { "started_micros": at("01:30"), "ended_micros": at("01:34"), "succeeded": true,
            "said": "20260401T013000Z-0a1b2c3d" } },
        "proof": { "last": { "started_micros": at("09:05"), "ended_micros": at("09:10"), "succeeded": false,
            "said": "amcheck: 1 index is damaged" },
            "next_micros": at("10:40") },
        "wal": { "running": true, "last": { "started_micros": at("00:00"), "ended_micros": null, "succeeded": null,
            "said": "" },
          "progress": "timeline 1 up to LSN 1/3000028; every commit up to 2026-04-01 10:30:02Z is there" },
        "expire": { "running": true, "last": { "started_micros": at("10:30"), "ended_micros": null, "succeeded": null,
            "said": "" } },
        "schema": { "cannot": "git was not found" },
    } });
    serde_json::from_value(standing).unwrap()
}

/// By their records, which tell of runs by hand at once.
fn recorded(name: &str) -> Option<JobRun> {
    let (started, ended, succeeded, said) = match name {
        "database.incremental" => ("10:00", "10:01", true, "20260401T100000Z-8293a4b5"),
        "database.restore_test" => ("09:10", "09:10", false, "20260401T090000Z-4e5f6071"),
        _ => return None,
    };
    Some(JobRun {
        started_micros: at(started),
        ended_micros: Some(at(ended)),
        succeeded: Some(succeeded),
        summary: said.to_owned(),
    })
}

pub(crate) fn jobs(config: &config::Backup) -> Jobs<'_> {
    Jobs {
        config,
        storage: "/srv/bre/repository (encrypted)".to_owned(),
        schema: "/srv/bre/schema".to_owned(),
        state: "/srv/bre/application_state".to_owned(),
        recorded: &recorded,
        standing: standing(),
        paused: &|_| None,
        is_kept: true,
        now: micros(NOW),
    }
}

#[test]
fn the_table_of_jobs() {
    let config = config::Backup::default();
    let rows = jobs(&config).rows();
    insta::assert_snapshot!("plan_show", readable(plan_table(&rows)));
    insta::assert_snapshot!("job_list", readable(job_table(&rows, micros(NOW))));
    let stopped = Jobs {
        is_kept: false,
        standing: JobStatusFile::default(),
        ..jobs(&config)
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
        ..jobs(&config)
    };
    insta::assert_snapshot!(
        "job_list_paused",
        readable(job_table(&paused.rows(), micros(NOW)))
    );
}

#[test]
fn each_row_of_the_guide_is_judged() {
    let mut config = config::Backup::default();
    config.delegate(
        "cache.aof".to_owned(),
        Delegation::NotHere("the cache keeps nothing on its disk".to_owned()),
    );
    config.delegate(
        "kubernetes.config".to_owned(),
        Delegation::NotHere("one machine, no cluster".to_owned()),
    );
    let rows = jobs(&config).rows();
    let checks = strategy_checks(&config, Some(&rows));
    insta::assert_snapshot!("plan_check", readable(check_table(&checks)));
    assert_eq!(exit_of(&checks), Exit::Failed);
    let verdict = |verdict| RowCheck {
        section: "",
        component: "",
        job: "",
        verdict,
        why: None,
        mend: None,
    };
    let of = |verdicts: &[Verdict]| {
        let checks: Vec<RowCheck> = verdicts.iter().map(|it| verdict(*it)).collect();
        exit_of(&checks)
    };
    assert_eq!(of(&[Verdict::Runs, Verdict::ProvidedBy]), Exit::Done);
    assert_eq!(of(&[Verdict::Runs, Verdict::NotHere]), Exit::Partial);
    assert_eq!(
        of(&[Verdict::NotHere, Verdict::NotRunning]),
        Exit::NotRunning
    );
    assert_eq!(of(&[Verdict::NotHere, Verdict::Missing]), Exit::Failed);
}
