//! Manual snapshots of an ElastiCache group, and whether its automated ones are as the plan demands.

use backup::infrastructure::provider::elasticache::run;
use jobs::{
    Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, days, late, provider_run};
use crate::{
    config::{self, OlderSettings},
    error::Error,
    infrastructure::{availability, client_for},
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(ElastiCacheSnapshots),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct ElastiCacheSnapshots;

const ABSENT: &str =
    "no ElastiCache group is named: write [elasticache] group = \"…\" into bre.toml";

fn spec(config: &config::Backup) -> JobSpec {
    let trigger = Trigger::daily(250);
    let settings = config.infrastructure.elasticache.as_ref();
    JobSpec {
        name: "elasticache.snapshots".to_owned(),
        aliases: Vec::new(),
        component: "elasticache".to_owned(),
        kind: "manual snapshot".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: match settings {
            Some(settings) => days(settings.keep_days),
            None => Retention::in_words("as [elasticache] says"),
        },
        storage: Storage::Provider,
        locks: vec!["elasticache".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "listed by the service; its settings against the plan".to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for ElastiCacheSnapshots {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match environment.config.infrastructure.elasticache {
            None => Availability::Unavailable(ABSENT.to_owned()),
            Some(_) => availability(&environment.config),
        }
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let settings = environment.config.infrastructure.elasticache.as_ref();
        let settings = settings.ok_or_else(|| Error::refused("no snapshot was made", ABSENT))?;
        let aws = client_for(&environment.config)?;
        let demand = provider_run::Demand {
            automated_days: settings.automated_days,
            multi_az: settings.multi_az,
            kms_key: settings.kms_key.as_deref(),
            keep_days: settings.keep_days,
            tags: &settings.tags,
        };
        provider_run::run(&demand, environment, context, |plan, steps| {
            run(&settings.group, plan, &aws, steps)
        })
    }
}
