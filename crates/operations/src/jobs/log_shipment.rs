//! What the three jobs that ship logs share.

use std::collections::BTreeMap;

use jobs::{Deadline, FirstRun, JobSpec, RunContext, RunReport, Storage, schedule::Trigger};
use repository::log_stretches::LogKind;

use super::{JobEnvironment, answer, answer::JobResult, days, late};
use crate::{
    audit_logs::{own_repository, ship, span},
    config,
    error::Error,
};

pub(super) fn spec(config: &config::Backup, kind: LogKind, minute: u16, what: &str) -> JobSpec {
    let trigger = Trigger::daily(minute);
    JobSpec {
        name: format!("audit_log.{kind}"),
        aliases: Vec::new(),
        component: "audit_log".to_owned(),
        kind: what.to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: days(config.audit_logs.days(kind)),
        storage: Storage::Repository,
        // The archive's key is made at the first use, by one of them.
        locks: vec!["audit_archive".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "each stretch is read back before the log is passed; chained and counted"
            .to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

pub(super) fn run(
    kind: LogKind,
    environment: &JobEnvironment,
    context: &RunContext,
) -> Result<RunReport, Error> {
    let config = &environment.config;
    let steps = environment.steps(context, "log");
    let repository = match own_repository(&config.audit_logs.archive)? {
        Some(repository) => repository,
        None => environment.moment().repository,
    };
    let shipped = ship(
        kind,
        &environment.instance,
        &config.audit_logs,
        &repository,
        &steps,
    )?;
    drop(steps);
    // What was read is kept; what was not is a failure of this run.
    if let Some(trouble) = shipped.trouble() {
        return Err(Error::refused("not every log was read to its end", trouble));
    }
    let figure = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let figures = BTreeMap::from([
        ("lines".to_owned(), figure(shipped.lines())),
        ("stretches".to_owned(), figure(shipped.stretches())),
        ("logs".to_owned(), figure(shipped.logs.len() as u64)),
        ("gaps".to_owned(), figure(shipped.gaps().count() as u64)),
    ]);
    let gaps = shipped
        .gaps()
        .map(|(log, gap)| format!("{log}: lines are missing {}: {}", span(gap), gap.what));
    let gaps: Vec<String> = gaps.collect();
    let report = RunReport {
        summary: shipped.summary(),
        bytes: Some(shipped.bytes()),
        figures,
        unsound: (!gaps.is_empty()).then(|| gaps.join("; ")),
    };
    answer::give(context, || (environment.screens)(JobResult::Logs(shipped)));
    Ok(report)
}
