//! `bre plan show`, `bre job list|run`: the table of jobs, and running one of them now.

use std::process::ExitCode;

use backup::schedule::{Cadence, Job, next_appointment};
use jiff::Timestamp;
use postgres_physical::wire::ConnectOptions;
use repository::{
    backup::{BackupKind, BackupSummary, catalogue},
    retention::DAY_MICROS,
};
use serde::Serialize;

use super::{audit_archive, backup::take, restore::interrupted, restore_test};
use crate::{
    cli::{JobCommand, PlannedJob, ReadingArgs, RepositoryArgs},
    config::{self, Config},
    error::Error,
    expiry,
    host::{database::BACKUP, instance::Instance, lock::lock, progress::Steps, record::Event},
    jobs::{JobState, Ran, Standing},
    opened::Opened,
    schema,
    terminal::{self, KeyValue, Table, age, time},
};

pub(crate) fn run(instance: &Instance, json: bool, command: JobCommand) -> Result<ExitCode, Error> {
    match command {
        JobCommand::List => list(instance, json),
        JobCommand::Run { job } => match job {
            PlannedJob::Full => take(instance, json, BackupKind::Full, ReadingArgs::default()),
            PlannedJob::Incremental => take(
                instance,
                json,
                BackupKind::Incremental,
                ReadingArgs::default(),
            ),
            PlannedJob::Proof => {
                restore_test::run(instance, json, None, None, &RepositoryArgs::default())
            }
            PlannedJob::Expire => expire(instance, json),
            PlannedJob::Schema => super::schema::of_running(instance, json),
            PlannedJob::AuditArchive => {
                crate::host::runtime::wait(audit_archive::of_running(instance, json))
            }
        },
    }
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    job: &'static str,
    component: &'static str,
    kind: &'static str,
    schedule: String,
    retention: String,
    storage: String,
    verification: String,
    /// `running`, `waiting`, `failed`, `off`, `cannot`, or `not running` when no engine keeps the plan.
    state: &'static str,
    /// Why it cannot, or what its last run said.
    said: Option<String>,
    last_started_at: Option<String>,
    last_ended_at: Option<String>,
    last_succeeded: Option<bool>,
    next_at: Option<String>,
    /// The same for people.
    #[serde(skip)]
    last_started_micros: Option<i64>,
    #[serde(skip)]
    next_micros: Option<i64>,
}

/// The plan: what is meant to happen.
pub(crate) fn show(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let rows = rows(instance)?;
    terminal::result(json, &rows, || plan_table(&rows));
    Ok(ExitCode::SUCCESS)
}

/// The jobs: what happened, and what happens next.
fn list(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let rows = rows(instance)?;
    let now_micros = Timestamp::now().as_microsecond();
    terminal::result(json, &rows, || job_table(&rows, now_micros));
    Ok(ExitCode::SUCCESS)
}

fn rows(instance: &Instance) -> Result<Vec<Row>, Error> {
    let opened = Opened::at(instance, &RepositoryArgs::default())?;
    let config = Config::load(None, instance.root())?.backup;
    let backups = catalogue(&opened.repository)?.backups;
    let table = Jobs {
        config: &config,
        storage: format!("{} (encrypted)", opened.location),
        schema: schema::place(instance, config.schema_to.as_ref()),
        backups: &backups,
        standing: Standing::read(&instance.plan_file()),
        is_kept: instance.is_locked(),
        now: Timestamp::now().as_microsecond(),
    };
    Ok(table.rows())
}

struct Jobs<'a> {
    config: &'a config::Backup,
    storage: String,
    schema: String,
    backups: &'a [BackupSummary],
    standing: Standing,
    /// An engine runs.
    is_kept: bool,
    now: i64,
}

impl Jobs<'_> {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![self.row(Job::Full), self.row(Job::Incremental), self.wal()];
        let others = [Job::Proof, Job::Expire, Job::Schema, Job::AuditArchive];
        rows.extend(others.map(|job| self.row(job)));
        rows
    }

    fn row(&self, job: Job) -> Row {
        let kept = self.standing.cadence(job).filter(|_| self.is_kept);
        let cadence = kept.unwrap_or_else(|| self.config.cadence(job));
        let known = self.standing.of(job).cloned().unwrap_or_default();
        // What was done by hand is in the repository only.
        let last = match known.running {
            true => known.last.clone(),
            false => [known.last.clone(), self.last_in_repository(job)]
                .into_iter()
                .flatten()
                .max_by_key(|ran| ran.started_micros),
        };
        let state = self.state(cadence, &known, last.as_ref());
        let next_micros = self.next(cadence, known.next_micros, state);
        let rules = self.config.rules();
        let (kind, retention, verification) = match job {
            Job::Full => ("full", days(rules.full_micros), self.proofs()),
            Job::Incremental => ("incremental", days(rules.incremental_micros), self.proofs()),
            Job::Proof => (
                "restore test",
                "as long as its backup".into(),
                "its record is in the audit log".into(),
            ),
            Job::Schema => (
                "definitions as SQL",
                "as long as git's history".into(),
                "one commit a change".into(),
            ),
            Job::AuditArchive => (
                "audit log",
                "for ever".into(),
                "chain and signed head, before anything is written".into(),
            ),
            Job::Expire => (
                "expiry",
                String::new(),
                "a reason for every decision; nothing that a kept backup needs".into(),
            ),
        };
        Row {
            job: job.name(),
            component: match job {
                Job::AuditArchive => "audit_log",
                _ => "database",
            },
            kind,
            schedule: match cadence.period() {
                Some(_) => format!("{cadence} UTC"),
                None => cadence.to_string(),
            },
            retention,
            storage: match job {
                Job::Schema => self.schema.clone(),
                _ => self.storage.clone(),
            },
            verification,
            state,
            said: known
                .cannot
                .or_else(|| last.as_ref().map(|last| last.said.clone())),
            last_started_at: last.as_ref().map(|last| time(last.started_micros)),
            last_ended_at: last.as_ref().and_then(|last| last.ended_micros).map(time),
            last_succeeded: last.as_ref().and_then(|last| last.succeeded),
            next_at: next_micros.map(time),
            last_started_micros: last.as_ref().map(|last| last.started_micros),
            next_micros,
        }
    }

    fn state(&self, cadence: Cadence, known: &JobState, last: Option<&Ran>) -> &'static str {
        match (cadence, last.and_then(|last| last.succeeded)) {
            _ if known.cannot.is_some() => "cannot",
            (Cadence::Off, _) => "off",
            _ if !self.is_kept => "not running",
            _ if known.running => "running",
            (_, Some(false)) => "failed",
            _ => "waiting",
        }
    }

    fn next(&self, cadence: Cadence, kept: Option<i64>, state: &str) -> Option<i64> {
        match state {
            "waiting" => next_appointment(cadence, self.now).or(kept),
            "failed" => kept.map(|kept| kept.max(self.now)),
            _ => None,
        }
    }

    fn last_in_repository(&self, job: Job) -> Option<Ran> {
        let of_kind = |kind: BackupKind| {
            let newest = self.backups.iter().rfind(|backup| backup.kind == kind)?;
            Some(Ran {
                started_micros: newest.started_at_micros,
                ended_micros: Some(newest.finished_at_micros),
                succeeded: Some(true),
                said: newest.id.clone(),
            })
        };
        match job {
            Job::Full => of_kind(BackupKind::Full),
            Job::Incremental => of_kind(BackupKind::Incremental),
            Job::Proof => self.last_proof(),
            Job::Expire | Job::Schema | Job::AuditArchive => None,
        }
    }

    fn last_proof(&self) -> Option<Ran> {
        let proofs = self.backups.iter().flat_map(|backup| {
            [
                backup
                    .restored_and_proved_at_micros
                    .map(|at| (at, true, &backup.id)),
                backup
                    .proof_failed_at_micros
                    .map(|at| (at, false, &backup.id)),
            ]
        });
        let (at, passed, id) = proofs.flatten().max()?;
        Some(Ran {
            started_micros: at,
            ended_micros: Some(at),
            succeeded: Some(passed),
            said: id.clone(),
        })
    }

    fn proofs(&self) -> String {
        match self.config.proof.0 {
            Cadence::Off => "none planned; bre restore-test run ID".to_owned(),
            cadence => format!("restore test {cadence}"),
        }
    }

    /// Not a job that is started: it runs as long as the engine does.
    fn wal(&self) -> Row {
        Row {
            job: "wal",
            component: "database",
            kind: "transaction log",
            schedule: "continuous".to_owned(),
            retention: format!(
                "{}, and as long as a kept backup needs it",
                days(self.config.rules().wal_micros)
            ),
            storage: self.storage.clone(),
            verification:
                "each segment is read back before its tails go; every restore test replays it"
                    .to_owned(),
            state: if self.is_kept {
                "running"
            } else {
                "not running"
            },
            said: None,
            last_started_at: None,
            last_ended_at: None,
            last_succeeded: None,
            next_at: None,
            last_started_micros: None,
            next_micros: None,
        }
    }
}

fn days(micros: i64) -> String {
    format!("{} days", micros / DAY_MICROS)
}

fn plan_table(rows: &[Row]) -> String {
    let mut table = Table::new(&["job", "component", "schedule", "kept", "verification"]);
    for row in rows {
        table.row([
            row.job.to_owned(),
            row.component.to_owned(),
            row.schedule.clone(),
            row.retention.clone(),
            row.verification.clone(),
        ]);
    }
    // Each place once: most jobs write to the same one.
    let mut places: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        match places.iter_mut().find(|(place, _)| *place == row.storage) {
            Some((_, jobs)) => jobs.push(row.job),
            None => places.push((&row.storage, vec![row.job])),
        }
    }
    let mut stored = KeyValue::new();
    for (place, jobs) in places {
        stored.row("stored in", format!("{place}: {}", jobs.join(", ")));
    }
    format!("{}\n{}", table.text(), stored.text())
}

fn job_table(rows: &[Row], now_micros: i64) -> String {
    let mut table = Table::new(&["job", "state", "last run", "next run", "said"]);
    for row in rows {
        let ago = |at: Option<i64>| at.map(|at| age(now_micros, at)).unwrap_or_default();
        let last = ago(row.last_started_micros);
        let last = match row.last_succeeded {
            Some(false) => format!("FAILED {last}"),
            _ => last,
        };
        table.row([
            row.job.to_owned(),
            row.state.to_owned(),
            last,
            ago(row.next_micros),
            row.said.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

/// As the engine does it by itself, with its settings.
fn expire(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let running = instance.running()?;
    let opened = Opened::at(instance, &RepositoryArgs::default())?;
    let connect = ConnectOptions::from_url(&running.database_url)
        .map_err(|error| Error::Failed(error.to_string()))?
        .with_user(BACKUP)
        .with_database("postgres");
    let rules = Config::load(None, instance.root())?.backup.rules();
    let _alone = lock(&instance.backup_lock())?;
    let steps = Steps::shown(json, "expire").cancelled_by(interrupted()?);
    // A host that cannot read expires what it can judge.
    let private = opened.private().ok();
    let said = expiry::expire(
        &opened.repository,
        private.as_ref(),
        Some(&connect),
        &rules,
        &steps,
        &expiry::Log {
            asked_by: Event::by_person("BackupRun"),
            record: &|event| crate::host::runtime::wait(event.record(instance)),
        },
    )?;
    drop(steps);
    terminal::result(
        json,
        &serde_json::json!({ "job": "expire", "said": said }),
        || said.clone(),
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
#[path = "screens/plan.rs"]
mod screens;
