//! What PostgreSQL wrote, in chained stretches: connections, DDL, statements of superusers, pgaudit.

use jobs::{Availability, JobSpec, RunContext, RunReport};
use repository::log_stretches::LogKind;

use super::{JobDefinition, JobEnvironment, Task, log_shipment};
use crate::{
    audit_logs,
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(PostgresLogs),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.audit_logs.postgres_days),
    },
};

struct PostgresLogs;

fn spec(config: &config::Backup) -> JobSpec {
    log_shipment::spec(config, LogKind::Postgres, 165, "log of PostgreSQL")
}

impl Task for PostgresLogs {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match audit_logs::postgres_log(&environment.instance, &environment.config.audit_logs) {
            Ok(()) => Availability::Ready,
            Err(why) => Availability::Unavailable(why),
        }
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        log_shipment::run(LogKind::Postgres, environment, context)
    }
}
