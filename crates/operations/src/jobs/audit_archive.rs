//! What is new in the audit log, into its archive.

use jobs::{Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, late};
use crate::{
    audit_archive,
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(Archive),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: Some(&mut backup.audit_archive),
        keep_days: None,
    },
};

struct Archive;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: "audit_log.archive".to_owned(),
        aliases: vec!["audit_archive".to_owned(), "audit-archive".to_owned()],
        component: "audit_log".to_owned(),
        kind: "audit log".to_owned(),
        group: None,
        trigger: config.audit_archive.0.clone(),
        retention: Retention::without_end("for ever"),
        storage: Storage::Repository,
        locks: vec!["audit_archive".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        objective: config.audit_archive.0.period().map(late),
        verification: "chain and signed head, before anything is written".to_owned(),
        first_run: FirstRun::Soon,
    }
}

impl Task for Archive {
    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let database = environment.instance.running()?.database_url;
        let (repository, keys) = (environment.moment().repository, environment.instance.keys());
        let cancel = context.cancellation();
        let pass = audit_archive::pass(&repository, &keys, &database, &cancel);
        let archived = environment.wait(pass)?;
        let said = audit_archive::said(archived.as_ref());
        tracing::info!(said, "the audit archive");
        answer::give(context, || {
            (environment.screens)(JobResult::AuditArchive(archived))
        });
        Ok(RunReport::said(said))
    }
}
