//! What the tables show of a job follows from the registry and from records alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jobs::{Driver, Outcome, Records, Settings};
use operations::{
    config,
    health::{ProtectionStatus, StreamMonitor},
    job_status::{JobStatusFile, short_name},
    jobs::{
        RunArchive, registry, settings, spec, specs,
        testing::{add_throw_away, environment, remove_throw_away, table_of_settings},
    },
    plan::{figures_of, state_of},
};

use super::{plan, status};

#[test]
fn a_job_is_one_file_and_one_line_and_is_seen_everywhere() {
    add_throw_away();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("repository")).unwrap();
    let environment = environment(folder.path());
    let archive = RunArchive(environment.moment().repository);
    let settings = Settings {
        root: folder.path(),
        archive: Some(Arc::new(archive)),
        claims: Vec::new(),
        host: "here",
        before_look: None,
    };
    let mut driver = Driver::start(registry(&environment).unwrap(), settings).unwrap();
    driver.request("test.throw_away").unwrap();
    let began = Instant::now();
    while driver.turn().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    let mut standing = JobStatusFile::default();
    for job in driver.status() {
        standing.set(short_name(&job.spec), state_of(&job));
    }
    // `bre plan show` and `bre job list`, from the file that the engine writes and without the engine's list of jobs.
    let file = folder.path().join("plan.json");
    standing.write(&file).unwrap();
    remove_throw_away();
    let config = config::Backup::default();
    let table = plan::Jobs {
        standing: JobStatusFile::read(&file),
        ..plan::screens::jobs(&config)
    };
    let rows = serde_json::to_value(table.rows()).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), specs(&config).len() + 1);
    let row = rows.iter().find(|row| row["name"] == "test.throw_away");
    let row = row.unwrap();
    assert_eq!(
        (
            &row["schedule"],
            &row["last_succeeded"],
            &row["said"],
            &row["retention"]
        ),
        (
            &"manual".into(),
            &true.into(),
            &"thrown away".into(),
            &"a moment".into()
        )
    );
    // Its record, in the folder and in the repository.
    let records = Records::read(folder.path()).unwrap();
    let record = records.newest_run("test.throw_away").unwrap();
    assert_eq!(record.outcome, Outcome::Succeeded);
    driver
        .records()
        .exchange(
            &RunArchive(environment.moment().repository),
            record.started_at_micros,
        )
        .unwrap();
    assert!(
        folder
            .path()
            .join("repository")
            .join(record.name())
            .is_file()
    );
    // Metrics.
    let monitor = StreamMonitor::default();
    monitor.set_protected(&ProtectionStatus {
        jobs: driver.status().iter().map(figures_of).collect(),
        ..ProtectionStatus::default()
    });
    let told = services::StreamHealth::jobs(&monitor);
    let told = told.iter().find(|job| job.name == "test.throw_away");
    let told = told.unwrap();
    assert_eq!((told.runs, told.succeeded, told.failing), (1, 1, false));
    assert_eq!(told.last_success_micros, record.ended_at_micros);
    // The tables and `bre status` once more, with the list of jobs and the records alone: no engine ever ran here.
    add_throw_away();
    let rows = plan::rows_of(&environment.instance, None).unwrap();
    let text = plan::job_table(&rows, record.started_at_micros);
    let row = text
        .lines()
        .find(|line| line.starts_with("test.throw_away"));
    assert!(row.is_some_and(|row| row.contains("thrown away")), "{text}");
    let text = plan::plan_table(&rows);
    assert!(
        text.contains("test.throw_away") && text.contains("a moment"),
        "{text}"
    );
    let row_count = rows.len();
    let briefs = status::job_briefs(rows);
    let told = serde_json::to_value(&briefs).unwrap();
    let brief = serde_json::json!({ "name": "test.throw_away", "state": "not running" });
    assert!(told.as_array().unwrap().contains(&brief), "{told}");
    let counted = format!("{} not running", row_count - 1);
    let words = status::view::jobs_words(&briefs);
    assert!(
        words.contains(&counted),
        "all but the copies, which are off: {words}"
    );
    // Settings, and what is written of them.
    let text = "[jobs.\"test.throw_away\"]\nschedule = \"weekly sunday 03:00\"\n";
    let path = folder.path().join("bre.toml");
    std::fs::write(&path, text).unwrap();
    let config = settings::load(Some(&path), folder.path()).unwrap().backup;
    let spec = spec(&config, "test.throw_away").unwrap();
    assert_eq!(spec.trigger.to_string(), "weekly sunday 03:00");
    assert!(
        table_of_settings().contains("| `test.throw_away` |"),
        "{}",
        table_of_settings()
    );
}
