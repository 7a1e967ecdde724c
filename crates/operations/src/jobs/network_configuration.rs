//! The network of the account, into git.

use backup::infrastructure::network::{COMPONENT, NetworkSource};
use control_plane::aws::network::PARTS;
use jobs::{
    Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, infrastructure_run::into_git, late};
use crate::{
    config::{self, OlderSettings},
    error::Error,
    infrastructure::{client_for, git_availability},
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(NetworkConfiguration),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct NetworkConfiguration;

fn spec(_: &config::Backup) -> JobSpec {
    let trigger = Trigger::EveryMinutes { minutes: 5 };
    JobSpec {
        name: "network.configuration".to_owned(),
        aliases: Vec::new(),
        component: COMPONENT.to_owned(),
        kind: "VPCs, subnets, routes, security groups".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: Retention::without_end("as long as git's history"),
        storage: Storage::Git,
        locks: vec!["infrastructure".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "one commit a change".to_owned(),
        first_run: FirstRun::Soon,
    }
}

impl Task for NetworkConfiguration {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        git_availability(&environment.config)
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let aws = client_for(&environment.config)?;
        let source = NetworkSource {
            aws: &aws,
            parts: &PARTS,
        };
        into_git(&source, environment, context)
    }
}
