//! What the machine's journal says of logins, sudo, auditd and kernel, in chained stretches.

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
    task: || Box::new(SystemLogs),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.audit_logs.system_days),
    },
};

struct SystemLogs;

fn spec(config: &config::Backup) -> JobSpec {
    log_shipment::spec(config, LogKind::System, 170, "journal of the machine")
}

impl Task for SystemLogs {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match audit_logs::journal(&environment.config.audit_logs) {
            Ok(_) => Availability::Ready,
            Err(why) => Availability::Unavailable(why),
        }
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        log_shipment::run(LogKind::System, environment, context)
    }
}
