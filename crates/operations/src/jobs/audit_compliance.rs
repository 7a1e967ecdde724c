//! Whether the audit logs are kept as compliance asks for: a monthly report.

use std::collections::BTreeMap;

use jobs::{
    Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::{Calendar, Recurrence, Trigger},
};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, late};
use crate::{
    audit_compliance::{ArchivePair, check},
    audit_logs::own_repository,
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(AuditCompliance),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct AuditCompliance;

fn spec(_: &config::Backup) -> JobSpec {
    let monthly = Recurrence::Months { every: 1, day: 1 };
    let trigger = Trigger::Calendar(Calendar::utc(monthly, 250));
    JobSpec {
        name: "audit_log.compliance".to_owned(),
        aliases: Vec::new(),
        component: "audit_log".to_owned(),
        kind: "compliance report".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: Retention::without_end("for ever, in DIR/reports"),
        storage: Storage::Local,
        locks: vec!["audit_archive".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "locks, keys, readers, chains and the clock; each finding with its object"
            .to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for AuditCompliance {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match environment.config.audit_logs.archive.readers.is_empty() {
            false => Availability::Ready,
            true => Availability::Unavailable(
                "who may read the archive is not said: [audit_archive] readers = [\"…\"], the recipients that \
                 bre audit key show lists"
                    .to_owned(),
            ),
        }
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let archive = &environment.config.audit_logs.archive;
        let steps = environment.steps(context, "compliance");
        let entries = environment.moment().repository;
        let apart = own_repository(archive)?;
        let archived = ArchivePair {
            entries: &entries,
            logs: apart.as_ref().unwrap_or(&entries),
        };
        let report = check(&environment.instance, archive, &archived, &steps)?;
        drop(steps);
        let findings: Vec<String> = report.findings().collect();
        let number = i64::try_from(findings.len()).unwrap_or(i64::MAX);
        let file = report.file.display();
        let done = RunReport {
            summary: format!("{number} findings; {file}.md"),
            bytes: None,
            figures: BTreeMap::from([("findings".to_owned(), number)]),
            unsound: (!findings.is_empty()).then(|| findings.join("; ")),
        };
        answer::give(context, || {
            (environment.screens)(JobResult::Compliance(report))
        });
        Ok(done)
    }
}
