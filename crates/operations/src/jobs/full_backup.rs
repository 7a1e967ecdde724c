//! Full backups of the database; what both kinds of backups have in common.

use std::collections::BTreeMap;

use jobs::{
    Availability, Deadline, FirstRun, History, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::Trigger,
};
use repository::backup::{BackupKind, BackupState};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, days, late};

use crate::{
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(Full),
    for_clusters: true,
    older_settings: |backup| OlderSettings {
        schedule: Some(&mut backup.full),
        keep_days: Some(&mut backup.full_days),
    },
};

struct Full;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: "database.full".to_owned(),
        aliases: vec!["full".to_owned()],
        kind: "full".to_owned(),
        retention: days(config.full_days),
        priority: 30,
        ..of_both(config, &config.full.0)
    }
}

impl Task for Full {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        with_stream(environment)
    }

    fn history(&self, environment: &JobEnvironment) -> Option<History> {
        newest(environment, BackupKind::Full)
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        take(environment, context, BackupKind::Full)
    }
}

pub(super) fn of_both(config: &config::Backup, trigger: &Trigger) -> JobSpec {
    JobSpec {
        name: String::new(),
        aliases: Vec::new(),
        component: "database".to_owned(),
        kind: String::new(),
        group: Some("backup".to_owned()),
        trigger: trigger.clone(),
        retention: Retention::default(),
        storage: Storage::Repository,
        locks: vec!["backups".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::None,
        objective: trigger.period().map(late),
        verification: match &config.proof.0 {
            Trigger::Off => "none planned; bre restore-test run ID".to_owned(),
            trigger => format!("restore test {trigger}"),
        },
        first_run: FirstRun::Soon,
    }
}

/// Without the stream a backup never gets the WAL that completes it.
pub(super) fn with_stream(environment: &JobEnvironment) -> Availability {
    match environment.moment().attached {
        true => Availability::Ready,
        false => Availability::Waiting("the WAL stream is not attached".to_owned()),
    }
}

pub(super) fn newest(environment: &JobEnvironment, kind: BackupKind) -> Option<History> {
    let backups = environment.backups();
    let of_kind = backups.iter().filter(|backup| backup.kind == kind);
    let newest = of_kind.max_by_key(|backup| backup.started_at_micros);
    Some(newest.map_or_else(History::default, |newest| History {
        started_micros: Some(newest.started_at_micros),
        ended_micros: Some(newest.finished_at_micros),
        summary: newest.id.clone(),
        ..History::default()
    }))
}

pub(super) fn take(
    environment: &JobEnvironment,
    context: &RunContext,
    kind: BackupKind,
) -> Result<RunReport, Error> {
    let moment = environment.moment();
    let outcome = environment
        .backup_request(&moment, kind, context)?
        .run(&environment.steps(context, "backup"))?;
    if let Some(stream) = moment.stream
        && outcome.state == BackupState::Complete
        && outcome.kind == BackupKind::Full
    {
        stream.full_backup_taken();
    }
    crate::backup_record::note(&outcome);
    environment.tell(crate::backup_record::event(
        environment.event(context),
        &outcome,
    ));
    let figure = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let damaged_pages = figure(outcome.damaged.len() as u64);
    let report = RunReport {
        summary: outcome.id.clone(),
        bytes: Some(outcome.bytes_stored),
        figures: BTreeMap::from([
            ("source_bytes".to_owned(), figure(outcome.bytes_source)),
            ("read_bytes".to_owned(), figure(outcome.bytes_read)),
            ("damaged_pages".to_owned(), damaged_pages),
        ]),
        unsound: None,
    };
    let is_complete = outcome.state == BackupState::Complete;
    answer::give(context, || {
        let shown = (environment.screens)(JobResult::Backup(moment.repository, Box::new(outcome)))?;
        Ok(match &environment.config.cluster {
            Some(name) if !is_complete => shown.noted(format!(
                "bre: the backup waits for its WAL. Is it streamed? bre wal stream --cluster {name}"
            )),
            _ => shown,
        })
    });
    Ok(report)
}
