//! Who may do what in the account, into git.

use backup::infrastructure::iam::{COMPONENT, IamSource};
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
    task: || Box::new(IamPolicies),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct IamPolicies;

fn spec(_: &config::Backup) -> JobSpec {
    let trigger = Trigger::EveryMinutes { minutes: 15 };
    JobSpec {
        name: "iam.policies".to_owned(),
        aliases: Vec::new(),
        component: COMPONENT.to_owned(),
        kind: "users, groups, roles and policies".to_owned(),
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

impl Task for IamPolicies {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        git_availability(&environment.config)
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let aws = client_for(&environment.config)?;
        into_git(&IamSource { aws: &aws }, environment, context)
    }
}
