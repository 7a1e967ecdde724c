use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    Outcome, RunRecord,
    record::{Origin, month_of},
    schedule::Cause,
};

const DAY: i64 = 86_400_000_000;
const START: i64 = 1_795_421_730_000_000;

/// Write-once, as a repository is; refuses every call from one on.
#[derive(Default)]
struct MemoryArchive {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    calls: AtomicUsize,
    away_from: Option<usize>,
}

impl MemoryArchive {
    fn call(&self) -> Result<MutexGuard<'_, BTreeMap<String, Vec<u8>>>, String> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.away_from.is_some_and(|from| call >= from) {
            true => Err("the store is away".to_owned()),
            false => Ok(self.objects.lock().unwrap()),
        }
    }

    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }
}

impl Archive for MemoryArchive {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let mut objects = self.call()?;
        match objects.get(name) {
            Some(there) if there != bytes => Err(format!("{name} is there and is another one")),
            _ => {
                objects.insert(name.to_owned(), bytes.to_owned());
                Ok(())
            }
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        let objects = self.call()?;
        Ok(objects
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        self.call()?
            .get(name)
            .cloned()
            .ok_or_else(|| format!("{name} is not there"))
    }

    fn delete(&self, name: &str) -> Result<(), String> {
        self.call()?.remove(name);
        Ok(())
    }
}

fn record(job: &str, started: i64, outcome: Outcome) -> RunRecord {
    let origin = Origin {
        job,
        component: "database",
        driver: "host-1",
        schedule: "daily 01:30".to_owned(),
        claims: vec!["instance".to_owned()],
    };
    let mut record = RunRecord::begun(origin, Cause::Appointment, started, started);
    record.ended_at_micros = Some(started + 5_000_000);
    record.outcome = outcome;
    record
}

fn ids(records: &Records) -> Vec<String> {
    let mut ids: Vec<String> = records
        .newest(usize::MAX)
        .into_iter()
        .map(|it| it.run_id)
        .collect();
    ids.sort();
    ids
}

#[test]
fn what_is_written_is_there_at_the_next_start_and_what_was_open_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(folder.path()).unwrap();
    let done = record("database.full", START, Outcome::Succeeded);
    let open = records.begin(&done).unwrap();
    let running = Records::running(folder.path()).unwrap();
    assert_eq!(running[0].run_id, done.run_id);
    records.end(open, &done).unwrap();
    assert_eq!(Records::running(folder.path()).unwrap(), []);
    let killed = record("database.full", START + DAY, Outcome::Interrupted);
    let held = records.begin(&killed).unwrap();
    let other = Records::open(folder.path()).unwrap();
    assert_eq!(other.len(), 1, "its process lives: it is not interrupted");
    drop(held);
    // The process is gone, its open run is not.
    let next = Records::open(folder.path()).unwrap();
    let found = next.newest_of("database.full").unwrap();
    assert_eq!(
        (found.run_id, found.outcome),
        (killed.run_id, Outcome::Interrupted)
    );
    assert!(found.reason.unwrap().contains("found at the next start"));
    let again = Records::open(folder.path()).unwrap();
    assert_eq!(again.len(), 2, "and once");
    assert_eq!(again.of("database.full")[0], done);
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(folder.path()).unwrap();
    let good = record("database.full", START, Outcome::Succeeded);
    records.write(&good).unwrap();
    let month = folder.path().join("runs").join(month_of(START));
    let text = String::from_utf8(good.to_bytes()).unwrap();
    let newer = text.replace("\"record_version\":1", "\"record_version\":2");
    let odd = text.replace("\"succeeded\"", "\"marvellous\"");
    for (name, content) in [
        ("00000000000000aa-00000001", &text[..40]),
        ("00000000000000aa-00000002", ""),
        ("00000000000000aa-00000003", newer.as_str()),
        ("00000000000000aa-00000004", odd.as_str()),
        ("00000000000000aa-00000005", text.as_str()),
    ] {
        std::fs::write(month.join(name), content).unwrap();
    }
    let records = Records::open(folder.path()).unwrap();
    assert_eq!(ids(&records), [good.run_id]);
    let unreadable = records.unreadable();
    assert_eq!(unreadable.len(), 5, "{unreadable:?}");
    let why = |digit: char| {
        unreadable
            .iter()
            .find(|(name, _)| name.ends_with(digit))
            .unwrap()
            .1
            .as_str()
    };
    assert!(
        why('3').contains("version 2") && why('4').contains("marvellous"),
        "{unreadable:?}"
    );
    assert!(why('5').contains("it is the record of"), "{unreadable:?}");
}

#[test]
fn records_reach_the_archive_when_it_is_back_and_are_found_there_when_the_host_is_gone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let records = Records::open(one.path()).unwrap();
    for day in 0..4 {
        records
            .write(&record(
                "database.full",
                START + day * DAY,
                Outcome::Succeeded,
            ))
            .unwrap();
    }
    let away = MemoryArchive {
        away_from: Some(3),
        ..MemoryArchive::default()
    };
    assert!(records.exchange(&away, START).is_err());
    assert_eq!(records.unsent(), 2, "two went before the store was away");
    let archive = MemoryArchive {
        objects: Mutex::new(away.objects.into_inner().unwrap()),
        ..MemoryArchive::default()
    };
    records.exchange(&archive, START).unwrap();
    assert_eq!((records.unsent(), archive.names().len()), (0, 4));
    archive.put("runs/2026-11/nonsense", b"{").unwrap();
    let elsewhere = Records::open(two.path()).unwrap();
    elsewhere.exchange(&archive, START).unwrap();
    assert_eq!(ids(&elsewhere), ids(&records));
    assert_eq!(elsewhere.take_learnt().len(), 4);
    assert_eq!(
        elsewhere.unreadable().len(),
        1,
        "{:?}",
        elsewhere.unreadable()
    );
    // What another driver does later comes with the next look.
    elsewhere
        .write(&record("database.full", START + 5 * DAY, Outcome::Failed))
        .unwrap();
    elsewhere.exchange(&archive, START + 5 * DAY).unwrap();
    records.exchange(&archive, START + 5 * DAY).unwrap();
    assert_eq!(records.len(), 5);
    assert!(records.statistics("database.full", START + 5 * DAY).failing);
}

#[test]
fn a_month_becomes_one_object_wherever_the_store_stops() {
    let long_after = START + 150 * DAY;
    for stop in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        for hour in 0..6 {
            records
                .write(&record(
                    "a.b",
                    START + hour * 3_600_000_000,
                    Outcome::Succeeded,
                ))
                .unwrap();
        }
        let young = record("a.b", long_after - DAY, Outcome::Succeeded);
        records.write(&young).unwrap();
        let archive = MemoryArchive::default();
        records.exchange(&archive, long_after).unwrap();
        let all = ids(&records);
        let stopping = MemoryArchive {
            objects: Mutex::new(archive.objects.into_inner().unwrap()),
            away_from: Some(stop),
            ..MemoryArchive::default()
        };
        let stopped = records.compact(Some(&stopping), long_after).is_err();
        let archive = MemoryArchive {
            objects: Mutex::new(stopping.objects.into_inner().unwrap()),
            ..MemoryArchive::default()
        };
        // Another start, on this host and on one that has nothing.
        let next = Records::open(folder.path()).unwrap();
        assert_eq!(ids(&next), all, "stopped at call {stop}");
        next.exchange(&archive, long_after).unwrap();
        next.compact(Some(&archive), long_after).unwrap();
        let empty = tempfile::tempdir().unwrap();
        let elsewhere = Records::open(empty.path()).unwrap();
        elsewhere.exchange(&archive, long_after).unwrap();
        assert_eq!(ids(&elsewhere), all, "stopped at call {stop}");
        let names = archive.names();
        assert_eq!(
            names.len(),
            2,
            "one month and one young record: {names:?}, stopped at call {stop}"
        );
        assert!(names.contains(&young.name()));
        if !stopped {
            // Seven years on the month itself goes.
            let late = START + (7 * 366 + 20) * DAY;
            next.compact(Some(&archive), late).unwrap();
            next.compact(Some(&archive), late).unwrap();
            assert_eq!(ids(&next), [young.run_id]);
            return;
        }
    }
    panic!("the store never let it come to its end");
}

#[test]
fn very_many_records_go_in_parts_the_newest_first_and_become_one_month() {
    let folder = tempfile::tempdir().unwrap();
    let month = folder.path().join("runs").join(month_of(START));
    std::fs::create_dir_all(&month).unwrap();
    for minute in 0..1500 {
        let record = record("a.b", START + minute * 60_000_000, Outcome::Succeeded);
        std::fs::write(month.join(&record.run_id), record.to_bytes()).unwrap();
    }
    let records = Records::open(folder.path()).unwrap();
    let (all, archive) = (ids(&records), MemoryArchive::default());
    let long_after = START + 150 * DAY;
    let keep = || {
        let is_left = records.keep(Some(&archive), long_after).unwrap();
        let names = archive.names();
        let months = names.iter().filter(|name| name.contains("compacted"));
        (is_left, months.count(), names)
    };
    let (is_left, months, names) = keep();
    let newest = all[500..].iter();
    let newest: Vec<String> = newest
        .map(|id| format!("runs/{}/{id}", month_of(START)))
        .collect();
    assert!(names == newest, "{} of them", names.len());
    assert_eq!((is_left, months), (true, 0), "a month goes as a whole");
    let (is_left, months, names) = keep();
    assert_eq!((is_left, months, names.len()), (true, 1, 501));
    let (is_left, months, names) = keep();
    assert_eq!((is_left, months, names.len()), (false, 1, 1));
    let empty = tempfile::tempdir().unwrap();
    for root in [folder.path(), empty.path()] {
        let next = Records::open(root).unwrap();
        assert!(!next.keep(Some(&archive), long_after).unwrap());
        assert_eq!((ids(&next) == all, archive.names().len()), (true, 1));
    }
}

#[test]
fn a_damaged_month_is_told_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(folder.path()).unwrap();
    for hour in 0..3 {
        records
            .write(&record(
                "a.b",
                START + hour * 3_600_000_000,
                Outcome::Succeeded,
            ))
            .unwrap();
    }
    records.compact(None, START + 150 * DAY).unwrap();
    let compacted = folder.path().join("runs/compacted");
    let month = std::fs::read_dir(compacted)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(&month)
        .unwrap()
        .replacen("\"job\"", "\"jab\"", 1);
    std::fs::write(&month, text).unwrap();
    let records = Records::open(folder.path()).unwrap();
    assert_eq!(records.len(), 2);
    let names: Vec<String> = records.unreadable().into_keys().collect();
    assert!(
        names.len() == 2 && names[1].ends_with("line 1"),
        "{names:?}"
    );
}

#[test]
fn figures_come_from_records_alone() {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(folder.path()).unwrap();
    let now = START + 40 * DAY;
    for day in 0..40 {
        let mut run = record("a.b", START + day * DAY, Outcome::Succeeded);
        run.ended_at_micros = Some(run.started_at_micros + (day + 1) * 1_000_000);
        run.bytes = Some(1000);
        if day % 10 == 9 {
            run.outcome = Outcome::Failed;
        }
        records.write(&run).unwrap();
    }
    records
        .write(&record("a.b", now - DAY / 2, Outcome::Skipped))
        .unwrap();
    let told = records.statistics("a.b", now);
    assert_eq!(
        (told.runs, told.succeeded, told.success_permille()),
        (29, 26, Some(896))
    );
    assert!(
        told.failing,
        "the newest run failed; what was skipped is none"
    );
    assert_eq!(told.age_micros(now), Some(2 * DAY));
    // Days 39 and 29 failed: the last fourteen that succeeded are 24..=38 without 29.
    assert_eq!(told.duration_median_micros, Some(33_000_000));
    assert_eq!(told.bytes_median, Some(1000));
    let mut double = record("a.b", now, Outcome::Succeeded);
    double.planned_at_micros = START + 38 * DAY;
    double.driver = "host-2".to_owned();
    records.write(&double).unwrap();
    let told = records.statistics("a.b", now);
    assert_eq!(told.double_runs, [double.run_id]);
    assert!(!told.failing);
    assert_eq!(records.statistics("no.such", now), Statistics::default());
}

#[test]
fn the_newest_runs_are_found_without_reading_all_and_are_those_that_all_records_tell_of() {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(folder.path()).unwrap();
    let write = |job: &str, day: i64, outcome| {
        let record = record(job, START + day * DAY, outcome);
        records.write(&record).unwrap();
    };
    for day in 0..200 {
        write("a.daily", day, Outcome::Succeeded);
    }
    write("a.once", 3, Outcome::Failed);
    write("a.passed", 20, Outcome::Succeeded);
    write("a.passed", 190, Outcome::Skipped);
    let now = START + 200 * DAY;
    assert!(records.compact(None, now).unwrap().months > 1);
    // Came later than its month was compacted, and is older than what that holds.
    write("a.late", 5, Outcome::Succeeded);
    write("a.late", 2, Outcome::Succeeded);
    write("a.once", 1, Outcome::Succeeded);
    let jobs = ["a.daily", "a.once", "a.passed", "a.late", "a.never"];
    let names = || jobs.map(str::to_owned);
    let found = Records::newest_runs(folder.path(), names(), 0).unwrap();
    for job in jobs {
        assert_eq!(found.get(job), records.newest_run(job).as_ref(), "{job}");
    }
    let since = START + 150 * DAY;
    let found = Records::newest_runs(folder.path(), names(), since).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a.daily"]);
    // What is older is not even opened.
    let month = month_of(START + 120 * DAY);
    std::fs::remove_dir_all(folder.path().join("runs").join(month)).unwrap();
    let again = Records::newest_runs(folder.path(), names(), since).unwrap();
    assert_eq!(again, found);
    let nothing = Records::newest_runs(&folder.path().join("none"), names(), 0);
    assert!(nothing.unwrap().is_empty());
}

#[test]
fn the_newest_runs_of_months_that_stay_as_they_are_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let records = Records::open(root).unwrap();
    let write = |job: &str, day: i64, outcome| {
        let record = record(job, START + day * DAY, outcome);
        records.write(&record).unwrap();
        record
    };
    for day in 0..70 {
        write("a.daily", day, Outcome::Succeeded);
    }
    write("a.once", 2, Outcome::Failed);
    write("a.passed", 60, Outcome::Skipped);
    records.compact(None, START + 130 * DAY).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let months = || files::folders_of_records(root).unwrap();
    let set_back = || {
        for month in months() {
            let folder = std::fs::File::open(month).unwrap();
            folder.set_modified(long_ago).unwrap();
        }
    };
    set_back();
    let cache = root.join("cache/newest_runs.json");
    let newest = || Records::newest_of_all(root, &cache).unwrap();
    let first = newest();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["a.daily", "a.once"]);
    for (job, record) in &first {
        assert_eq!(Some(record), records.newest_run(job).as_ref());
    }
    // What is not read is not missed.
    for month in months() {
        for name in files::names_in(root, &month).unwrap() {
            std::fs::write(root.join(name), b"").unwrap();
        }
    }
    set_back();
    assert_eq!(newest(), first);
    // A month that something came into is read again, and the others are not.
    let late = write("a.once", 69, Outcome::Succeeded);
    let again = newest();
    assert_eq!(again.get("a.once"), Some(&late));
    let started = |found: &BTreeMap<String, RunRecord>| found["a.daily"].started_at_micros;
    assert!(started(&again) < started(&first), "its month is empty now");
    // One that cannot be understood is none.
    std::fs::write(&cache, b"{").unwrap();
    assert_eq!(newest().keys().collect::<Vec<_>>(), ["a.once"]);
}
