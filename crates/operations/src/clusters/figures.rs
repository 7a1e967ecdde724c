//! What the records of named clusters say, for the metrics of the engine beside which they are protected: the process
//! that streams one has no metrics of its own.

use std::{
    collections::BTreeMap,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use host::instance::Instance;
use jobs::{JobSpec, Records, StateFile};
use services::JobReport;

use crate::{
    config,
    job_status::{JobStatusFile, short_name, told_of},
    jobs::specs,
};

const LOOK_PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct OfCluster {
    name: String,
    home: Instance,
    specs: Vec<JobSpec>,
    /// From the first look on.
    records: Option<Records>,
}

/// All of them, as they were a moment ago.
#[derive(Debug, Default)]
pub struct ClusterFigures {
    clusters: Option<Vec<OfCluster>>,
    /// In the background: there may be many records.
    look: Option<JoinHandle<(Vec<OfCluster>, Vec<JobReport>)>>,
    look_at: Option<Instant>,
    figures: Vec<JobReport>,
}

impl ClusterFigures {
    pub fn of(instance: &Instance, plans: &BTreeMap<String, config::Backup>) -> Self {
        let of_cluster = |(name, plan): (&String, &config::Backup)| {
            let home = super::home(instance, name).ok()?;
            super::is_name(name).then(|| OfCluster {
                name: name.clone(),
                home,
                specs: specs(plan),
                records: None,
            })
        };
        Self {
            clusters: Some(plans.iter().filter_map(of_cluster).collect()),
            ..Self::default()
        }
    }

    pub fn newest(&mut self) -> &[JobReport] {
        if self.look.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(Ok((clusters, figures))) = self.look.take().map(JoinHandle::join)
        {
            (self.clusters, self.figures) = (Some(clusters), figures);
        }
        let is_due = self.look_at.is_none_or(|at| at <= Instant::now());
        if is_due && let Some(mut clusters) = self.clusters.take_if(|all| !all.is_empty()) {
            self.look_at = Some(Instant::now() + LOOK_PAUSE);
            self.look = Some(std::thread::spawn(move || {
                let now = jiff::Timestamp::now().as_microsecond();
                let figures = clusters.iter_mut().flat_map(|it| it.look(now)).collect();
                (clusters, figures)
            }));
        }
        &self.figures
    }
}

impl OfCluster {
    fn look(&mut self, now_micros: i64) -> Vec<JobReport> {
        let read = match &self.records {
            Some(records) => records.catch_up(),
            None => Records::read(self.home.root()).map(|records| self.records = Some(records)),
        };
        if let Err(error) = read {
            tracing::warn!(cluster = self.name, %error, "its records of runs cannot be read");
        }
        let Some(records) = &self.records else {
            return Vec::new();
        };
        let state = StateFile::at(&self.home.root().join("jobs.json")).read();
        let state = state.unwrap_or_default();
        let standing = JobStatusFile::read(&self.home.plan_file());
        let is_kept = self.home.is_locked();
        let figures = |spec: &JobSpec| {
            let told = records.statistics(&spec.name, now_micros);
            let runs = standing.of(short_name(spec)).is_some_and(|it| it.running);
            JobReport {
                cluster: Some(self.name.clone()),
                paused: state.paused(&spec.name).is_some(),
                ..told_of(spec, &told, runs && is_kept)
            }
        };
        self.specs.iter().map(figures).collect()
    }
}

#[cfg(test)]
mod tests {
    use jobs::schedule::Cause;

    use super::*;

    #[test]
    fn what_a_named_clusters_records_say_is_told_beside_the_engines_own() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::at(folder.path()).unwrap();
        let text = "[clusters.desk]\nurl = \"postgres://bre@db/postgres\"\n[clusters.desk.jobs]\n";
        std::fs::write(instance.settings(), text).unwrap();
        let plans = crate::jobs::settings::load(None, instance.root())
            .unwrap()
            .backup
            .clusters;
        let home = super::super::home(&instance, "desk").unwrap();
        let record = |ended: bool| {
            let now = jiff::Timestamp::now().as_microsecond() - 5_000_000;
            let record = serde_json::json!({
                "record_version": 1, "run_id": format!("{now:016x}-0a1b2c3d"), "job": "database.full",
                "component": "database", "driver": "there-0a1b2c3d", "cause": Cause::Appointment,
                "planned_at_micros": now, "started_at_micros": now, "ended_at_micros": now + 1_000_000,
                "outcome": if ended { "succeeded" } else { "failed" }, "reason": null, "covers": null,
            });
            serde_json::from_value(record).unwrap()
        };
        let records = Records::open(home.root()).unwrap();
        records.write(&record(true)).unwrap();
        let mut figures = ClusterFigures::of(&instance, &plans);
        let mut seen = |holds: &dyn Fn(&JobReport) -> bool| {
            testkit::eventually("the figures of the cluster", || {
                figures.look_at = None;
                let mut all = figures.newest().iter();
                all.find(|job| job.name == "database.full" && holds(job))
                    .cloned()
            })
        };
        let full = seen(&|_| true);
        assert_eq!(full.cluster.as_deref(), Some("desk"));
        assert_eq!((full.runs, full.succeeded, full.failing), (1, 1, false));
        assert_eq!(full.expected_seconds, Some(86_400));
        records.write(&record(false)).unwrap();
        let full = seen(&|full| full.failing);
        assert_eq!((full.runs, full.succeeded), (2, 1));
        let none = ClusterFigures::of(&instance, &BTreeMap::new())
            .newest()
            .len();
        assert_eq!(none, 0);
    }
}
