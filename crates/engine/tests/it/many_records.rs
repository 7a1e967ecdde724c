//! How long it takes to look at jobs with very many records of runs: `make slow-many-runs` prints it.

use std::time::{Duration, Instant};

use crate::instance::{Instance, plain_http};
use crate::process::{TIMEOUT, within};

/// As long as single records are kept.
const DAYS: i64 = 120;
const DAY_MICROS: i64 = 86_400_000_000;
const MINUTE_MICROS: i64 = 60_000_000;

fn runs() -> i64 {
    std::env::var("RUNS").map_or(100_000, |runs| runs.parse().expect("RUNS is a number"))
}

/// Of the past days, in the folder alone: as a plan with a job every minute or two leaves them.
fn write_records(instance: &Instance) {
    let jobs = [
        "database.schema",
        "database.incremental",
        "database.expire",
        "audit_log.archive",
    ];
    let (runs, now) = (runs(), jiff::Timestamp::now().as_microsecond());
    let mut next_appointments = [None; 4];
    for run in 0..runs {
        let started = now - DAYS * DAY_MICROS * (runs - run) / runs;
        let at = jiff::Timestamp::from_microsecond(started).unwrap();
        let month = at.strftime("%Y-%m").to_string();
        // The first one is by far the most frequent.
        let place = usize::try_from(run % 16).unwrap().saturating_sub(12);
        let job = jobs[place];
        // Each covers what came since the one before: no appointment is left that a start would have to account for.
        let last = started - started % MINUTE_MICROS;
        let first = next_appointments[place].replace(last + MINUTE_MICROS);
        let first = first.unwrap_or(last).min(last);
        let run_id = format!("{started:016x}-{run:08x}");
        let record = serde_json::json!({
            "record_version": 1, "run_id": run_id, "job": job, "component": "database",
            "driver": "host-0a1b2c3d", "schedule": "every 1 minutes", "cause": "appointment",
            "planned_at_micros": last, "started_at_micros": started, "ended_at_micros": started + 900_000,
            "outcome": "succeeded", "reason": null, "summary": "nothing changed", "bytes": null,
            "covers": {
                "appointments": (last - first) / MINUTE_MICROS + 1, "first_micros": first, "last_micros": last,
            },
            "claims": ["instance", "database"],
        });
        let folder = instance.data().join("runs").join(month);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(run_id), format!("{record}\n")).unwrap();
    }
}

/// The least of several: what else the machine does is no part of it.
fn least(what: &str, mut act: impl FnMut()) {
    let took = (0..7).map(|_| {
        let began = Instant::now();
        act();
        began.elapsed()
    });
    let least = took.min().unwrap_or(Duration::ZERO);
    println!("{least:>14.1?}  {what}");
}

#[test]
#[ignore = "prints figures: make slow-many-runs"]
fn jobs_with_very_many_records_are_looked_at() {
    let mut instance = Instance::prepared(&[]);
    write_records(&instance);
    println!("{} records of {DAYS} days", runs());
    let list = |what: &str, instance: &Instance| {
        least(what, || drop(instance.bre(&["job", "list"]).json()));
    };
    list("bre job list, where no engine ever ran", &instance);
    let began = Instant::now();
    instance.up();
    println!("{:>14.1?}  bre up, until it is ready", began.elapsed());
    let planned = within(TIMEOUT, || {
        instance.data().join("run/plan.json").exists().then_some(())
    });
    assert!(planned.is_some());
    least("bre --version, for comparison", || {
        instance.bre(&["--version"]);
    });
    list("bre job list, beside an engine", &instance);
    least("bre job show schema", || {
        instance.bre(&["job", "show", "schema"]).json();
    });
    let url = format!("{}/metrics", instance.ready("url"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let http = plain_http();
    let scrape = || {
        runtime.block_on(async {
            let answer = http.get(&url).send().await.unwrap();
            answer.text().await.unwrap()
        })
    };
    assert!(scrape().contains("bre_job_success_ratio{name=\"database.schema\""));
    least("/metrics", || drop(scrape()));
    instance.stop_cleanly();
    list("bre job list, after it stopped", &instance);
}
