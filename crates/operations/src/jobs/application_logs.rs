//! What the services of this instance wrote, in chained stretches: docs/operations/audit_logs.md.

use jobs::{JobSpec, RunContext, RunReport};
use repository::log_stretches::LogKind;

use super::{JobDefinition, JobEnvironment, Task, log_shipment};
use crate::{
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(ApplicationLogs),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.audit_logs.application_days),
    },
};

struct ApplicationLogs;

fn spec(config: &config::Backup) -> JobSpec {
    log_shipment::spec(config, LogKind::Application, 160, "log files of services")
}

impl Task for ApplicationLogs {
    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        log_shipment::run(LogKind::Application, environment, context)
    }
}
