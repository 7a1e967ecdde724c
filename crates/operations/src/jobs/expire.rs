//! Deletes backups and WAL that are older than they are kept.

use jobs::{Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage};

use super::{JobDefinition, JobEnvironment, Task, answer, late};
use host::lock::lock;

use crate::{
    command_output::CommandOutput,
    config::{self, OlderSettings},
    error::Error,
    expiry,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(Expire),
    for_clusters: true,
    older_settings: |backup| OlderSettings {
        schedule: Some(&mut backup.expire),
        keep_days: None,
    },
};

struct Expire;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: "database.expire".to_owned(),
        aliases: vec!["expire".to_owned()],
        component: "database".to_owned(),
        kind: "expiry".to_owned(),
        group: None,
        trigger: config.expire.0.clone(),
        retention: Retention::default(),
        storage: Storage::Repository,
        locks: vec!["backups".to_owned()],
        covered_by: Vec::new(),
        priority: 20,
        deadline: Deadline::FourMedians,
        objective: config.expire.0.period().map(late),
        verification: "a reason for every decision; nothing that a kept backup needs".to_owned(),
        first_run: FirstRun::Soon,
    }
}

impl Task for Expire {
    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let _alone = lock(&environment.instance.backup_lock())?;
        let moment = environment.moment();
        let log = expiry::Log {
            asked_by: environment.event(context),
            record: &|event| environment.record(event),
        };
        let said = expiry::expire(
            &moment.repository,
            moment.private.as_ref(),
            moment.connect.as_ref(),
            &environment.config.rules(),
            &environment.steps(context, "expire"),
            &log,
        )?;
        let report = RunReport::said(said.clone());
        answer::give(context, || {
            let machines = serde_json::json!({ "job": "expire", "said": said });
            CommandOutput::of(&machines, said)
        });
        Ok(report)
    }
}
