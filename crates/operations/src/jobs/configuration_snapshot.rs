//! The instance's own configuration, as a sealed snapshot.

use std::collections::BTreeMap;

use jobs::{Deadline, FirstRun, JobSpec, RunContext, RunReport, Storage, schedule::Trigger};

use super::{
    JobDefinition, JobEnvironment, Task, answer, answer::JobResult, days, late,
    settings::plan_document,
};
use crate::{
    config::{self, OlderSettings},
    error::Error,
    snapshots::Configuration,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(ConfigurationSnapshot),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.snapshot_days),
    },
};

pub const NAME: &str = "configuration.snapshot";

struct ConfigurationSnapshot;

fn spec(config: &config::Backup) -> JobSpec {
    let trigger = Trigger::daily(180);
    JobSpec {
        name: NAME.to_owned(),
        aliases: Vec::new(),
        component: backup::configuration::COMPONENT.to_owned(),
        kind: "settings, plan and runbooks".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: days(config.snapshot_days),
        storage: Storage::Repository,
        locks: vec!["snapshots".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "read back at once, where the private key is".to_owned(),
        first_run: FirstRun::Soon,
    }
}

impl Task for ConfigurationSnapshot {
    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let instance = &environment.instance;
        let source = Configuration::of(
            instance,
            environment.config.settings_file.as_deref(),
            plan_document,
        )?;
        let (repository, keys) = (environment.moment().repository, instance.keys());
        let steps = environment.steps(context, "snapshot");
        let outcome = source.run(instance, &repository, &keys, &steps)?;
        drop(steps);
        let new = &outcome.snapshot;
        let documents = i64::try_from(new.documents).unwrap_or(i64::MAX);
        let report = RunReport {
            summary: match new.is_new {
                true => new.id.clone(),
                false => format!("nothing changed since {}", new.id),
            },
            bytes: Some(new.bytes_stored),
            figures: BTreeMap::from([("documents".to_owned(), documents)]),
            unsound: None,
        };
        answer::give(context, || {
            (environment.screens)(JobResult::Snapshot {
                component: backup::configuration::COMPONENT,
                outcome: Box::new(outcome),
            })
        });
        Ok(report)
    }
}
