//! All records in memory, and what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use crate::{
    record::{Outcome, RunRecord},
    schedule::Cause,
};

/// Success is looked at over this long.
const WINDOW_MICROS: i64 = 30 * 86_400_000_000;
/// What is normal is the median of the last runs, once there are enough of them.
const BASELINE_RUNS: usize = 14;
const BASELINE_RUNS_MIN: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Index {
    jobs: BTreeMap<String, BTreeMap<String, RunRecord>>,
    ids: BTreeSet<String>,
    /// Ids of those that lie by themselves, not only in a month.
    singles: BTreeMap<String, String>,
}

/// What the records of one job say, now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Of the last 30 days, without what was skipped.
    pub runs: u64,
    pub succeeded: u64,
    /// The newest run failed, and nothing has succeeded since.
    pub failing: bool,
    pub last_success_started_micros: Option<i64>,
    pub last_success_ended_micros: Option<i64>,
    /// Medians of the last 14 runs that succeeded; none below 5 of them.
    pub duration_median_micros: Option<i64>,
    pub bytes_median: Option<u64>,
    /// Runs of an appointment that another driver had kept, too.
    pub double_runs: Vec<String>,
}

impl Statistics {
    /// Thousandths; none where nothing ran.
    #[must_use]
    pub fn success_permille(&self) -> Option<u64> {
        (self.succeeded * 1000).checked_div(self.runs)
    }

    #[must_use]
    pub fn duration_median(&self) -> Option<Duration> {
        Some(Duration::from_micros(
            self.duration_median_micros?.unsigned_abs(),
        ))
    }

    /// Since the start of what succeeded last: how old what it made is.
    #[must_use]
    pub fn age_micros(&self, now_micros: i64) -> Option<i64> {
        Some((now_micros - self.last_success_started_micros?).max(0))
    }
}

impl Index {
    pub(super) fn contains(&self, run_id: &str) -> bool {
        self.ids.contains(run_id)
    }

    pub(super) fn insert(&mut self, record: RunRecord, single: bool) {
        if single {
            self.singles.insert(record.run_id.clone(), record.name());
        }
        if self.ids.insert(record.run_id.clone()) {
            let of_job = self.jobs.entry(record.job.clone()).or_default();
            of_job.insert(record.run_id.clone(), record);
        }
    }

    /// It is in a month only.
    pub(super) fn folded(&mut self, run_id: &str) {
        self.singles.remove(run_id);
    }

    pub(super) fn forget(&mut self, run_id: &str) {
        self.ids.remove(run_id);
        self.singles.remove(run_id);
        for records in self.jobs.values_mut() {
            records.remove(run_id);
        }
    }

    pub(super) fn singles(&self) -> BTreeSet<String> {
        self.singles.values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn of(&self, job: &str) -> impl DoubleEndedIterator<Item = &RunRecord> {
        self.jobs
            .get(job)
            .into_iter()
            .flat_map(|records| records.values())
    }

    pub(super) fn by_id(&self, run_id: &str) -> Option<&RunRecord> {
        self.jobs.values().find_map(|records| records.get(run_id))
    }

    pub(super) fn newest(&self, most: usize) -> Vec<RunRecord> {
        let newest = self.ids.iter().rev().take(most);
        newest
            .filter_map(|run_id| self.by_id(run_id))
            .cloned()
            .collect()
    }

    pub(super) fn statistics(&self, job: &str, now_micros: i64) -> Statistics {
        let mut told = Statistics::default();
        let (mut durations, mut bytes) = (Vec::new(), Vec::new());
        let mut newest = None;
        for record in self.of(job).rev() {
            let in_window = record.started_at_micros > now_micros - WINDOW_MICROS;
            let has_all =
                durations.len() >= BASELINE_RUNS && told.last_success_started_micros.is_some();
            if !in_window && has_all {
                break;
            }
            if record.outcome == Outcome::Skipped {
                continue;
            }
            newest = newest.or(Some(record.outcome));
            told.runs += u64::from(in_window);
            if record.outcome != Outcome::Succeeded {
                continue;
            }
            told.succeeded += u64::from(in_window);
            if told.last_success_started_micros.is_none() {
                told.last_success_started_micros = Some(record.started_at_micros);
                told.last_success_ended_micros = record.ended_at_micros;
            }
            if durations.len() < BASELINE_RUNS {
                durations.extend(record.duration_micros());
                bytes.extend(record.bytes);
            }
        }
        told.failing = newest.is_some_and(Outcome::is_failure);
        told.duration_median_micros = median(durations);
        told.bytes_median = median(bytes);
        let window = format!("{:016x}", (now_micros - WINDOW_MICROS).max(0));
        let recent = self
            .jobs
            .get(job)
            .into_iter()
            .flat_map(|records| records.range(window.clone()..));
        told.double_runs = double_runs(recent.map(|(_, record)| record));
        told
    }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    (values.len() >= BASELINE_RUNS_MIN).then(|| values[values.len() / 2])
}

/// The later of two that succeeded for one appointment, by different drivers.
pub(super) fn double_runs<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Vec<String> {
    let mut kept: BTreeMap<i64, &str> = BTreeMap::new();
    let mut found = Vec::new();
    let for_appointment = |record: &&RunRecord| {
        record.outcome == Outcome::Succeeded
            && matches!(record.cause, Cause::Appointment | Cause::Retry)
    };
    for record in records.filter(for_appointment) {
        match kept.get(&record.planned_at_micros) {
            Some(driver) if *driver != record.driver => found.push(record.run_id.clone()),
            _ => {
                kept.insert(record.planned_at_micros, &record.driver);
            }
        }
    }
    found
}
