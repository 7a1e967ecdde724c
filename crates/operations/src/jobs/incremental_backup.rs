//! Incremental backups of the database.

use jobs::{Availability, History, JobSpec, RunContext, RunReport};
use repository::backup::BackupKind;

use super::{
    JobDefinition, JobEnvironment, Task, days,
    full_backup::{newest, of_both, take, with_stream},
};
use crate::{
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(Incremental),
    for_clusters: true,
    older_settings: |backup| OlderSettings {
        schedule: Some(&mut backup.incremental),
        keep_days: Some(&mut backup.incremental_days),
    },
};

struct Incremental;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: "database.incremental".to_owned(),
        aliases: vec!["incremental".to_owned()],
        kind: "incremental".to_owned(),
        retention: days(config.incremental_days),
        covered_by: vec!["database.full".to_owned()],
        priority: 10,
        ..of_both(config, &config.incremental.0)
    }
}

impl Task for Incremental {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        with_stream(environment)
    }

    fn history(&self, environment: &JobEnvironment) -> Option<History> {
        newest(environment, BackupKind::Incremental)
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        take(environment, context, BackupKind::Incremental)
    }
}
