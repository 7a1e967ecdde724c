//! The definitions of all databases, into git.

use jobs::{Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, late};
use crate::{
    config::{self, OlderSettings},
    error::Error,
    schema::{self, Schema},
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(Definitions),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: Some(&mut backup.schema),
        keep_days: None,
    },
};

struct Definitions;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: "database.schema".to_owned(),
        aliases: vec!["schema".to_owned()],
        component: "database".to_owned(),
        kind: "definitions as SQL".to_owned(),
        group: None,
        trigger: config.schema.0.clone(),
        retention: Retention::without_end("as long as git's history"),
        storage: Storage::Git,
        locks: vec!["schema".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        objective: config.schema.0.period().map(late),
        verification: "one commit a change".to_owned(),
        // Migrations run when the engine starts: it looks then, and at its appointments.
        first_run: FirstRun::SoonAtEachStart,
    }
}

impl Task for Definitions {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        let lacks = match environment.moment().definitions {
            None => Some(
                "no role here may read every definition: run bre schema backup with one that may"
                    .to_owned(),
            ),
            Some(_) => environment.lacks_for_schema(),
        };
        lacks.map_or(Availability::Ready, Availability::Unavailable)
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let moment = environment.moment();
        let not_here = || Error::failed("PostgreSQL's programs are not on this host");
        let remote = environment.config.schema_to.as_ref();
        let schema = Schema::new(
            &environment.instance,
            moment.definitions.ok_or_else(not_here)?,
            &moment.binaries.ok_or_else(not_here)?,
            &moment.user.ok_or_else(not_here)?,
            remote.map(|remote| remote.0.as_str()),
        );
        let outcome = schema.run(&environment.steps(context, "schema"))?;
        let failure = schema::failure(&outcome);
        let report = RunReport::said(schema::said(&outcome));
        answer::give(context, || {
            (environment.screens)(JobResult::Definitions {
                folder: schema.folder,
                outcome,
            })
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(report),
        }
    }
}
