//! A registry that refuses what makes no sense, and a driver with real threads and a real folder.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jobs::{
    Deadline, Driver, FinishedRun, FirstRun, Job, JobSpec, OneRun, Outcome, Pause, Records,
    Registry, RunContext, RunRecord, RunReport, RunRequest, Settings, StateFile,
    schedule::{Cause, Now},
};

use crate::tasks::{Does, Task, done, spec};

fn task(name: &str, schedule: &str, does: Does) -> Arc<Task> {
    Task::of(spec(name, schedule), does)
}

fn until_told(context: &RunContext) -> Result<RunReport, String> {
    while !context.is_cancelled() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Err("it was told to end".to_owned())
}

fn driver(folder: &Path, jobs: Vec<Arc<dyn Job>>) -> Driver {
    let settings = Settings {
        root: folder,
        archive: None,
        claims: Vec::new(),
        host: "here",
        before_look: None,
    };
    Driver::start(Registry::new(jobs).unwrap(), settings).unwrap()
}

/// As a process of a person's own does, beside a driver.
fn run_by_hand(folder: &Path, jobs: Vec<Arc<dyn Job>>, name: &str) -> jobs::Result<RunRecord> {
    let one = OneRun {
        root: folder,
        archive: None,
        host: "by-hand",
    };
    let context = RunContext::asked("somebody".to_owned(), Arc::default());
    one.run(&Registry::new(jobs).unwrap(), name, &context)
}

/// Turns at one moment until something holds of the driver and of the runs that have ended.
fn until(
    driver: &mut Driver,
    now: Now,
    holds: &dyn Fn(&Driver, &[FinishedRun]) -> bool,
) -> Vec<FinishedRun> {
    let (mut ended, began) = (Vec::new(), Instant::now());
    while !holds(driver, &ended) {
        assert!(began.elapsed() < Duration::from_secs(60), "{ended:?}");
        ended.extend(driver.turn_at(now));
        std::thread::yield_now();
    }
    ended
}

/// Turns until that many runs have ended.
fn ended(driver: &mut Driver, runs: usize) -> Vec<FinishedRun> {
    let (mut ended, began) = (Vec::new(), Instant::now());
    while ended.len() < runs {
        assert!(began.elapsed() < Duration::from_secs(60), "{ended:?}");
        ended.extend(driver.turn());
        std::thread::yield_now();
    }
    ended
}

#[test]
fn a_plan_that_makes_no_sense_is_refused_and_says_why() {
    let check = |jobs: Vec<Arc<dyn Job>>, says: &[&str]| {
        let error = Registry::new(jobs).unwrap_err().to_string();
        for word in says {
            assert!(error.contains(word), "{error}");
        }
    };
    check(
        vec![task("a.b", "off", done), task("a.b", "hourly", done)],
        &["two jobs called \"a.b\""],
    );
    check(
        vec![task("a.b", "after a.c", done), task("x.y", "off", done)],
        &["a.b runs after \"a.c\"", "a.b, x.y"],
    );
    check(
        vec![task("a.b", "after every backup", done)],
        &["every backup"],
    );
    check(vec![task("a.b", "after a.b", done)], &["a.b after a.b"]);
    check(
        vec![
            task("a.a", "after a.c", done),
            task("a.b", "after a.a", done),
            task("a.c", "after a.b", done),
        ],
        &["circle", "a.a after a.c after a.b after a.a"],
    );
    for name in ["full", "A.b", "", "a.", "a b.c"] {
        check(vec![task(name, "off", done)], &["no name of a job"]);
    }
    let registry = Registry::new(vec![task("a.b", "off", done)]).unwrap();
    let error = registry.find("a.c").unwrap_err().to_string();
    assert!(
        error.contains("no job is called \"a.c\"; there are: a.b"),
        "{error}"
    );
}

#[test]
fn what_is_asked_for_runs_and_what_follows_it_runs_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = driver(
        folder.path(),
        vec![task("a.b", "manual", done), task("a.c", "after a.b", done)],
    );
    plan.request("a.b").unwrap();
    let first = ended(&mut plan, 1);
    assert_eq!(
        (first[0].record.job.as_str(), first[0].record.cause),
        ("a.b", Cause::Request)
    );
    // The follower waits out the first minute; asked for, it does not.
    plan.request("a.c").unwrap();
    assert_eq!(ended(&mut plan, 1)[0].record.outcome, Outcome::Succeeded);
    assert!(plan.request("a.x").is_err());
    drop(plan);
    let records = Records::read(folder.path()).unwrap();
    assert_eq!(records.newest(9).len(), 2);
    let first = records.newest_of("a.b").unwrap();
    assert_eq!(first.summary, "done");
    let since = |micros| Records::since(folder.path(), "a.b", micros).unwrap();
    assert_eq!(since(first.started_at_micros).first(), Some(&first));
    assert!(since(first.started_at_micros + 1).is_empty());
}

#[test]
fn another_process_asks_for_a_run_through_the_file_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = driver(folder.path(), vec![task("a.b", "off", done)]);
    let file = StateFile::at(&folder.path().join("jobs.json"));
    let requested = RunRequest {
        at_micros: 1,
        by: "an operator".to_owned(),
    };
    file.change(|state| state.job("a.b").requested = Some(requested))
        .unwrap();
    assert_eq!(ended(&mut plan, 1)[0].record.cause, Cause::Request);
    // Once: the file no longer asks.
    assert_eq!(file.read().unwrap().jobs["a.b"].requested, None);
}

#[test]
fn what_a_person_waits_for_starts_at_once_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let counting: Does = |context| {
        context.begin_bytes(100);
        context.add_bytes(40);
        context.progress("counting");
        until_told(context)
    };
    let shared = |name: &str, does: Does| -> Arc<Task> {
        let mut spec = spec(name, "manual");
        spec.locks = vec!["disk".to_owned()];
        Task::of(spec, does)
    };
    let answering: Does = |context| {
        context.answer(context.options().unwrap_or_default().to_owned());
        done(context)
    };
    let mut plan = driver(
        folder.path(),
        vec![
            shared("a.b", counting),
            shared("a.c", answering),
            task("a.d", "off", answering),
        ],
    );
    let by = || "ada".to_owned();
    let first = plan.run_now("a.b", by(), None).unwrap();
    let says = |came: jobs::Result<String>, word: &str| {
        let error = came.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    says(
        plan.run_now("a.b", by(), None),
        &format!("it runs already, as {first}"),
    );
    says(plan.run_now("a.c", by(), None), "a.b runs, and excludes it");
    says(plan.run_now("a.x", by(), None), "there are: a.b, a.c, a.d");
    let began = Instant::now();
    while plan
        .progress_of(&first)
        .is_some_and(|it| it.step != "counting")
    {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    let progress = plan.progress_of(&first).unwrap();
    assert_eq!((progress.bytes, progress.bytes_total), (40, 100));
    // One that shares nothing with it runs beside it, though its schedule is off.
    let beside = plan
        .run_now("a.d", by(), Some("quickly".to_owned()))
        .unwrap();
    let run = ended(&mut plan, 1).remove(0);
    assert_eq!(
        (run.record.run_id, run.answer.as_deref(), run.record.cause),
        (beside, Some("quickly"), Cause::Request)
    );
    plan.cancel_run(&first);
    let run = ended(&mut plan, 1).remove(0);
    assert_eq!(
        (run.record.run_id, run.record.outcome),
        (first, Outcome::Cancelled)
    );
    plan.run_now("a.c", by(), None).unwrap();
    assert_eq!(ended(&mut plan, 1)[0].record.outcome, Outcome::Succeeded);
}

#[test]
fn a_job_that_panics_or_fails_is_a_failed_run_and_no_failed_driver() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = driver(
        folder.path(),
        vec![
            task("a.b", "manual", |_| panic!("on purpose")),
            task("a.c", "manual", |_| Err("no space".to_owned())),
        ],
    );
    plan.request("a.b").unwrap();
    plan.request("a.c").unwrap();
    let ended = ended(&mut plan, 2);
    assert!(
        ended.iter().all(|it| it.record.outcome == Outcome::Failed),
        "{ended:?}"
    );
    assert!(plan.status().iter().all(|job| job.statistics.failing));
}

#[test]
fn what_cannot_run_here_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let away = task("a.b", "manual", done);
    away.away.store(true, Ordering::Relaxed);
    let mut plan = driver(folder.path(), vec![away.clone()]);
    let refused = |error: String| {
        assert!(
            error.contains("a.b is not started: not on this host"),
            "{error}"
        );
    };
    refused(plan.request("a.b").unwrap_err().to_string());
    let error = run_by_hand(folder.path(), vec![away], "a.b").unwrap_err();
    refused(error.to_string());
}

#[test]
fn a_stop_ends_what_runs_and_a_deadline_too() {
    let folder = tempfile::tempdir().unwrap();
    let deadline = Deadline::After(Duration::ZERO);
    let limited = JobSpec {
        deadline,
        ..spec("a.c", "manual")
    };
    let limited = Task::of(limited, until_told);
    let locked = || {
        let locks = vec!["one".to_owned()];
        let spec = spec("a.b", "continuous");
        Task::of(JobSpec { locks, ..spec }, until_told)
    };
    let mut plan = driver(folder.path(), vec![locked(), limited]);
    plan.request("a.c").unwrap();
    assert_eq!(ended(&mut plan, 1)[0].record.outcome, Outcome::TimedOut);
    let running: Vec<_> = plan
        .status()
        .into_iter()
        .filter(|job| job.running.is_some())
        .collect();
    assert_eq!(running.len(), 1, "the continuous one runs all the time");
    // In another process of this folder nothing runs it as well.
    let error = run_by_hand(folder.path(), vec![locked()], "a.b").unwrap_err();
    assert!(error.to_string().contains("it runs already"), "{error}");
    let stopped = plan.stop(Duration::from_secs(60));
    assert_eq!(stopped[0].record.outcome, Outcome::Cancelled);
}

#[test]
fn a_pause_that_a_job_refuses_has_no_effect_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Task::of(spec("a.b", "continuous"), until_told);
    kept.unpausable.store(true, Ordering::Relaxed);
    let mut plan = driver(folder.path(), vec![kept.clone()]);
    let file = StateFile::at(&folder.path().join("jobs.json"));
    let paused = Pause {
        since_micros: 1,
        by: "an operator".to_owned(),
        reason: String::new(),
    };
    file.change(|state| state.pause("a.b", paused)).unwrap();
    let began = Instant::now();
    while plan.status()[0].running.is_none() {
        assert!(began.elapsed() < Duration::from_secs(60));
        assert!(plan.turn().is_empty());
    }
    for _ in 0..50 {
        assert!(plan.turn().is_empty());
    }
    assert!(!plan.is_paused("a.b"));
    let troubles = plan.troubles();
    assert_eq!(
        troubles,
        ["the pause of a.b has no effect: commits wait for it"]
    );
    plan.stop(Duration::from_secs(60));
}

/// Some time after a moment, by both clocks.
fn later(now: Now, by: Duration) -> Now {
    let micros = i64::try_from(by.as_micros()).unwrap();
    Now {
        wall_micros: now.wall_micros + micros,
        steady: now.steady + by,
    }
}

#[test]
fn a_run_past_its_deadline_is_told_to_end_and_recorded_even_if_it_does_not() {
    static MAY_END: AtomicBool = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let limited = |name: &str, does: Does| {
        let deadline = Deadline::After(Duration::from_secs(3600));
        let spec = spec(name, "manual");
        Task::of(JobSpec { deadline, ..spec }, does)
    };
    let deaf = |_: &RunContext| {
        while !MAY_END.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Err("too late".to_owned())
    };
    let mut plan = driver(
        folder.path(),
        vec![limited("a.b", until_told), limited("a.c", deaf)],
    );
    plan.request("a.b").unwrap();
    plan.request("a.c").unwrap();
    let start = Now {
        wall_micros: 1_800_000_000_000_000,
        steady: Duration::from_secs(100),
    };
    let running = |plan: &Driver, name: &str| {
        let status = plan.status();
        let of_name = status.iter().find(|job| job.spec.name == name);
        of_name.unwrap().running.is_some()
    };
    until(&mut plan, start, &|plan, _| {
        running(plan, "a.b") && running(plan, "a.c")
    });
    let just_before = later(start, Duration::from_secs(3600));
    assert!(plan.turn_at(just_before).is_empty());
    let behind = later(start, Duration::from_secs(3601));
    let ended = until(&mut plan, behind, &|_, ended| !ended.is_empty());
    assert_eq!(
        (ended[0].record.job.as_str(), ended[0].record.outcome),
        ("a.b", Outcome::TimedOut)
    );
    assert!(running(&plan, "a.c"), "it has a minute to end");
    let far_behind = later(start, Duration::from_secs(3661));
    let ended = plan.turn_at(far_behind);
    let [ended] = &ended[..] else {
        panic!("{ended:?}");
    };
    assert_eq!(ended.record.outcome, Outcome::TimedOut);
    let reason = ended.record.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("deadline of 3600 s"), "{reason}");
    assert!(plan.status()[1].statistics.failing);
    // Nothing of the job is started beside what continues, and what comes of that changes no record.
    plan.request("a.c").unwrap();
    assert!(plan.turn_at(far_behind).is_empty());
    assert!(!running(&plan, "a.c") && plan.is_running("a.c"));
    MAY_END.store(true, Ordering::Relaxed);
    until(&mut plan, far_behind, &|plan, _| running(plan, "a.c"));
    let records = Records::read(folder.path()).unwrap();
    assert_eq!(records.of("a.c").len(), 1, "the second run continues");
    assert_eq!(records.newest_run("a.c").unwrap(), ended.record);
    plan.stop(Duration::from_secs(60));
}

#[test]
fn nothing_is_started_again_because_it_cannot_be_told_that_it_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let daily = |name: &str| {
        let first_run = FirstRun::Soon;
        let spec = spec(name, "daily 01:30");
        Task::of(JobSpec { first_run, ..spec }, done)
    };
    let done_elsewhere = daily("a.b");
    done_elsewhere.untold.store(true, Ordering::Relaxed);
    let jobs: Vec<Arc<dyn Job>> = vec![
        done_elsewhere.clone(),
        daily("a.c"),
        task("a.z", "manual", done),
    ];
    let mut plan = driver(folder.path(), jobs);
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap();
    let now = Now {
        wall_micros: i64::try_from(since_1970.as_micros()).unwrap() + 100_000_000,
        steady: Duration::from_secs(100),
    };
    let ended = until(&mut plan, now, &|_, ended| !ended.is_empty());
    assert_eq!(
        ended[0].record.job, "a.c",
        "of which is known that it never ran"
    );
    // It was done just now, by somebody else; the end of a run is when the driver looks again.
    (done_elsewhere.ran_micros).store(now.wall_micros, Ordering::Relaxed);
    done_elsewhere.untold.store(false, Ordering::Relaxed);
    plan.request("a.z").unwrap();
    let ended = until(&mut plan, now, &|plan, _| plan.status()[0].shown.is_some());
    assert!(ended.iter().all(|it| it.record.job == "a.z"), "{ended:?}");
    for _ in 0..50 {
        let ended = plan.turn_at(now);
        assert!(ended.iter().all(|it| it.record.job == "a.z"), "{ended:?}");
        assert!(!plan.is_running("a.b"));
    }
    plan.stop(Duration::from_secs(60));
    let records = Records::read(folder.path()).unwrap();
    assert_eq!(records.of("a.b"), [], "it was done, and by somebody else");
}

#[test]
fn a_pause_ends_what_runs_all_the_time_and_not_what_comes_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let both = vec![
        task("a.b", "continuous", |context| {
            assert!(context.pause(Duration::from_secs(60)));
            Ok(RunReport::said("told to end"))
        }),
        task("a.c", "manual", until_told),
    ];
    let mut plan = driver(
        folder.path(),
        both.into_iter()
            .map(|job| -> Arc<dyn Job> { job })
            .collect(),
    );
    plan.request("a.c").unwrap();
    let began = Instant::now();
    while plan.status().iter().any(|job| job.running.is_none()) {
        assert!(began.elapsed() < Duration::from_secs(60));
        plan.turn();
    }
    let file = StateFile::at(&folder.path().join("jobs.json"));
    file.change(|state| {
        for job in ["a.b", "a.c"] {
            let reason = String::new();
            let (since_micros, by) = (1, "an operator".to_owned());
            state.pause(
                job,
                Pause {
                    since_micros,
                    by,
                    reason,
                },
            );
        }
    })
    .unwrap();
    let ended = ended(&mut plan, 1);
    assert_eq!(
        (ended[0].record.job.as_str(), ended[0].record.outcome),
        ("a.b", Outcome::Succeeded)
    );
    plan.turn();
    let running: Vec<bool> = plan
        .status()
        .iter()
        .map(|job| job.running.is_some())
        .collect();
    assert_eq!(running, [false, true]);
    plan.stop(Duration::from_secs(60));
}

#[test]
fn a_pause_is_kept_over_a_start_and_ends_where_somebody_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::at(&folder.path().join("jobs.json"));
    let paused = Pause {
        since_micros: 1,
        by: "an operator".to_owned(),
        reason: "the disk is full".to_owned(),
    };
    file.change(|state| state.pause("a.b", paused.clone()))
        .unwrap();
    let mut plan = driver(folder.path(), vec![task("a.b", "continuous", until_told)]);
    for _ in 0..50 {
        assert!(plan.turn().is_empty());
        std::thread::yield_now();
    }
    assert_eq!(plan.status()[0].paused, Some(paused));
    assert!(plan.status()[0].running.is_none());
    file.change(|state| state.resume("a.b", 2)).unwrap();
    let began = Instant::now();
    while plan.status()[0].running.is_none() {
        assert!(began.elapsed() < Duration::from_secs(60));
        plan.turn();
    }
    plan.stop(Duration::from_secs(60));
    // A file that cannot be read pauses nothing, and is told.
    std::fs::write(folder.path().join("jobs.json"), "{").unwrap();
    let mut plan = driver(folder.path(), vec![task("a.b", "manual", done)]);
    plan.turn();
    assert!(
        plan.troubles()[0].contains("jobs.json"),
        "{:?}",
        plan.troubles()
    );
}

#[test]
fn a_run_by_hand_excludes_what_shares_its_lock_and_the_driver_learns_of_it() {
    let locked = |name: &str, schedule: &str, does: Does| {
        let locks = vec!["one".to_owned()];
        let spec = spec(name, schedule);
        Task::of(JobSpec { locks, ..spec }, does)
    };
    let folder = tempfile::tempdir().unwrap();
    let mut plan = driver(folder.path(), vec![locked("a.b", "manual", until_told)]);
    plan.request("a.b").unwrap();
    let began = Instant::now();
    while plan.status()[0].running.is_none() {
        assert!(began.elapsed() < Duration::from_secs(60));
        plan.turn();
    }
    let both = || -> Vec<Arc<dyn Job>> {
        vec![
            locked("a.b", "manual", until_told),
            locked("a.c", "manual", done),
        ]
    };
    let error = run_by_hand(folder.path(), both(), "a.c").unwrap_err();
    assert!(
        error.to_string().contains("a.b runs, and excludes it"),
        "{error}"
    );
    plan.stop(Duration::from_secs(60));
    let record = run_by_hand(folder.path(), both(), "a.c").unwrap();
    assert_eq!(
        (record.outcome, record.cause, record.summary.as_str()),
        (Outcome::Succeeded, Cause::Request, "done")
    );
    let records = plan.records();
    assert!(records.newest_run("a.c").is_none());
    records.catch_up().unwrap();
    assert_eq!(records.newest_run("a.c"), Some(record));
}
