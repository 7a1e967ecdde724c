//! Secrets of namespaces and of Secrets Manager, as sealed snapshots.

use jobs::{
    Availability, Deadline, FirstRun, JobSpec, RunContext, RunReport, Storage, schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, days, late};
use crate::{
    application_state::{StateComponent, figures, lacks, seal_secrets, unread},
    config::{self, OlderSettings},
    error::Error,
    snapshots,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(Secrets),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.secrets_days),
    },
};

pub const NAME: &str = "kubernetes.secrets";

struct Secrets;

fn spec(config: &config::Backup) -> JobSpec {
    let trigger = Trigger::daily(210);
    JobSpec {
        name: NAME.to_owned(),
        aliases: Vec::new(),
        component: StateComponent::Secrets.name().to_owned(),
        kind: "Secrets of namespaces".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: days(config.secrets_days),
        storage: Storage::Repository,
        locks: vec!["snapshots".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "read back at once, where the private key is".to_owned(),
        first_run: FirstRun::Soon,
    }
}

impl Task for Secrets {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        let lacks = lacks(&environment.config, StateComponent::Secrets);
        lacks.map_or(Availability::Ready, Availability::Unavailable)
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let instance = &environment.instance;
        let repository = environment.moment().repository;
        let mut sink = snapshots::sealed(instance, &repository, &instance.keys())?;
        let steps = environment.steps(context, "snapshot");
        let sealed = seal_secrets(instance, &environment.config, &mut sink, &steps);
        let (outcome, report) = sealed?;
        drop(steps);
        if let Some(lacks) = unread(&report) {
            context.lacks(lacks);
        }
        let new = &outcome.snapshot;
        let said = RunReport {
            summary: match new.is_new {
                true => format!("{}: {} Secrets", new.id, report.objects),
                false => format!("nothing changed since {}", new.id),
            },
            bytes: Some(new.bytes_stored),
            figures: figures(&report),
            unsound: None,
        };
        answer::give(context, || {
            (environment.screens)(JobResult::Secrets {
                outcome: Box::new(outcome),
                report,
            })
        });
        Ok(said)
    }
}
