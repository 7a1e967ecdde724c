//! Stacks of CloudFormation, as a sealed snapshot.

use backup::{
    documents::take,
    infrastructure::cloudformation::{COMPONENT, StackSource},
};
use jiff::civil::Weekday;
use jobs::{
    Availability, Deadline, FirstRun, JobSpec, RunContext, RunReport, Storage,
    schedule::{Calendar, Recurrence, Trigger},
};
use serde_json::json;

use super::{
    JobDefinition, JobEnvironment, Task, days,
    infrastructure_run::{end, figures},
    late,
};
use crate::{
    config::{self, OlderSettings},
    error::Error,
    infrastructure::{availability, client_for},
    snapshots,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(CloudFormationStacks),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct CloudFormationStacks;

fn spec(config: &config::Backup) -> JobSpec {
    let weekly = Recurrence::Weekly(Weekday::Sunday);
    let trigger = Trigger::Calendar(Calendar::utc(weekly, 220));
    JobSpec {
        name: "cloudformation.stacks".to_owned(),
        aliases: Vec::new(),
        component: COMPONENT.to_owned(),
        kind: "templates, parameters and tags".to_owned(),
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

impl Task for CloudFormationStacks {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        availability(&environment.config)
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let (instance, config) = (&environment.instance, &environment.config);
        let aws = client_for(config)?;
        let source = StackSource {
            aws: &aws,
            stacks: &config.infrastructure.stacks,
        };
        let steps = environment.steps(context, "snapshot");
        let mut sink =
            snapshots::sealed(instance, &environment.moment().repository, &instance.keys())?;
        let (outcome, found) = take::<_, _, Error>(&source, &mut sink, &steps)?;
        drop(steps);
        let new = &outcome.snapshot;
        let summary = match new.is_new {
            true => format!("{}: {} stacks", new.id, found.objects),
            false => format!("nothing changed since {}", new.id),
        };
        let report = RunReport {
            summary: summary.clone(),
            bytes: Some(new.bytes_stored),
            figures: figures(&found, &[]),
            unsound: None,
        };
        let machines = json!({"component": COMPONENT, "id": new.id, "is_new": new.is_new,
            "stacks": found.objects, "not_read": found.not_read});
        end(context, &machines, summary, &found);
        Ok(report)
    }
}
