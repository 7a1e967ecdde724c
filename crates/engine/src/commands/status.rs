//! `bre status`: what runs, how far the stream is, what could be restored. Works without a running engine, too.

pub(crate) mod view;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use ::backup::database::slot_status;
use repository::{
    Repository,
    archive::archived_to,
    backup::{BackupState, catalogue},
    keys::not_sealed_to,
    wal::wal_inventory,
};
use serde::Serialize;
use serde_json::Value;
use services::{StreamHealth, StreamReport};

use super::{
    backup::open_hole,
    plan::{PlanOwner, Row},
    standby,
    window::{self, Hole, Window},
};
use host::{
    control::Control,
    instance::Instance,
    keys::{
        age::{self, KeyAge},
        writing_key,
    },
    log::LOG,
};
use terminal::{self, time};

use crate::{cli::RepositoryArgs, error::Error};
use operations::{
    clusters::{self, NamedCluster},
    copies,
    health::{StreamMonitor, hole_words},
    job_status::JobStatusFile,
    jobs::settings::{self, runs_by_itself},
    passed_over::{PassedOver, unsettled},
    repository_handle::RepositoryHandle,
    restore_test::{failed_proof, newest_failure},
    standby::Link,
    stream_report::take_a_backup,
};

/// A server that lives answers sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// WAL that was confirmed within this is streamed by somebody.
const HEARD_MICROS: i64 = 120_000_000;

#[derive(Debug, Default, Serialize)]
struct Status {
    /// The named cluster that it is about; the instance's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// An engine; of a named cluster the process that streams its WAL.
    running: bool,
    /// The engine's own words; absent when it does not run.
    engine: Option<Value>,
    /// Of the WAL into the repository, where it is streamed from this host.
    stream: Option<StreamReport>,
    repository: String,
    backups_complete: usize,
    backups_other: usize,
    newest_complete: Option<String>,
    /// The backup that was restored and proved last, and when.
    newest_proved: Option<String>,
    /// The same two for people.
    #[serde(skip)]
    newest_complete_micros: Option<i64>,
    #[serde(skip)]
    newest_test: Option<(String, i64)>,
    proof_failed: Option<String>,
    /// Backups that a recovery could not use.
    passed_over: Vec<PassedOver>,
    /// WAL that was lost and that no backup makes up for, and what to do.
    open_hole: Option<String>,
    /// Intervals of WAL in which a moment can be chosen.
    window: Vec<Window>,
    holes: Vec<Hole>,
    damaged: Vec<String>,
    /// When some process keeps one.
    #[serde(rename = "spare")]
    standby: Option<recovery::standby::Status>,
    /// The key that backups are sealed to.
    repository_key: Option<KeyAge>,
    /// Of the instance's own database.
    audit_archive: Option<Archive>,
    /// Further repositories, by name: how far their copies are.
    copies: BTreeMap<String, copies::CopyStatus>,
    /// The jobs of the plan, as `bre job list` has them.
    jobs: Vec<JobBrief>,
    /// What the last runs said of jobs whose snapshots a service keeps: which moments it can restore.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    provider_snapshots: BTreeMap<String, String>,
    /// Nothing is wrong yet.
    warnings: Vec<String>,
    /// What an operator should look at now.
    alarms: Vec<String>,
    /// Of each cluster that [clusters.NAME] names, when none is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    clusters: BTreeMap<String, Status>,
}

impl Status {
    fn is_alarming(&self) -> bool {
        !self.alarms.is_empty() || self.clusters.values().any(Self::is_alarming)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct JobBrief {
    name: String,
    state: &'static str,
}

pub(crate) fn job_briefs(rows: Vec<Row>) -> Vec<JobBrief> {
    let brief = |row: Row| JobBrief {
        name: row.name,
        state: row.state,
    };
    rows.into_iter().map(brief).collect()
}

fn note_jobs(instance: &Instance, cluster: Option<&str>, status: &mut Status) {
    match PlanOwner::of(instance, cluster).and_then(|owner| owner.rows()) {
        Ok(rows) => {
            let ran = |row: &&Row| row.storage_class == "provider" && row.last_succeeded.is_some();
            let said = |row: &Row| Some((row.name.clone(), row.said.clone()?));
            status.provider_snapshots = rows.iter().filter(ran).filter_map(said).collect();
            status.jobs = job_briefs(rows);
        }
        Err(error) => status.alarms.push(format!("the plan: {error}")),
    }
}

/// How far the audit log is in its archive.
#[derive(Debug, Default, Serialize)]
struct Archive {
    archived_to: Option<u64>,
    /// The plan's last pass.
    last_pass_at: Option<String>,
    said: Option<String>,
    #[serde(skip)]
    last_pass_micros: Option<i64>,
}

impl Archive {
    fn of(instance: &Instance, repository: &Repository) -> Result<Self, Error> {
        let standing = JobStatusFile::read(&instance.plan_file());
        let last = standing.of("audit_archive");
        let last = last.and_then(|state| state.last.clone());
        Ok(Self {
            archived_to: archived_to(repository, LOG)?,
            last_pass_at: last.as_ref().map(|ran| time(ran.started_micros)),
            last_pass_micros: last.as_ref().map(|ran| ran.started_micros),
            said: last.map(|ran| ran.summary),
        })
    }
}

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    cluster: Option<&str>,
) -> Result<ExitCode, Error> {
    let status = match cluster {
        Some(name) => of_cluster(instance, name)?,
        None => of_instance(instance).await?,
    };
    let now_micros = jiff::Timestamp::now().as_microsecond();
    terminal::result(json, &status, || view::text(&status, now_micros));
    Ok(if status.is_alarming() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn of_instance(instance: &Instance) -> Result<Status, Error> {
    let names = clusters::names(instance);
    let mut status = Status::default();
    // A folder that only protects clusters of others has no database of its own, and nothing of it is missing.
    if names.is_empty() || has_own(instance) {
        let args = RepositoryArgs::default();
        status = of_repository(instance, RepositoryHandle::at(instance, &args), None)?;
        ask_engine(instance, &mut status).await;
        note_standby(instance, &mut status);
        note_jobs(instance, None, &mut status);
        finish(&mut status);
    }
    for name in names {
        // One that cannot be looked at is one that an operator has to look at.
        let of_it = of_cluster(instance, &name).unwrap_or_else(|error| Status {
            cluster: Some(name.clone()),
            alarms: vec![error.to_string()],
            ..Status::default()
        });
        status.clusters.insert(name, of_it);
    }
    Ok(status)
}

fn has_own(instance: &Instance) -> bool {
    let named =
        settings::load(None, instance.root()).is_ok_and(|config| config.repository.path.is_some());
    named
        || instance.is_locked()
        || instance.repository().exists()
        || instance.keys().join("repository.id").exists()
}

async fn ask_engine(instance: &Instance, status: &mut Status) {
    status.running = instance.is_locked();
    if !status.running {
        return;
    }
    let asked = async {
        Control::to(instance)?
            .get::<Value>("/internal/status")
            .await
    };
    match asked.await {
        Ok(engine) => {
            let stream = engine["components"]["wal_stream"].clone();
            status.stream = serde_json::from_value(stream).ok();
            let locates = &engine["locates"];
            if locates["quotes_served"] == Value::Bool(true) {
                let why = locates["reason"].as_str().map(ToOwned::to_owned);
                status.alarms.extend(why);
            }
            note_log(&engine, status);
            status.engine = Some(engine);
        }
        Err(error) => status.alarms.push(error.to_string()),
    }
}

/// The audit log where it is damaged, and what does not work of it for outsiders: the public log, and each witness that
/// signs nothing.
fn note_log(engine: &Value, status: &mut Status) {
    for concern in engine["degraded"].as_array().into_iter().flatten() {
        let word = |name: &str| concern[name].as_str().unwrap_or_default();
        let (part, reason) = (word("part"), word("reason"));
        match (part, part.strip_prefix("witness.")) {
            ("audit_log", _) => status.alarms.push(format!("the audit log: {reason}")),
            ("public_log", _) => status
                .warnings
                .push(format!("the public log does not grow: {reason}")),
            (_, Some(name)) => status
                .warnings
                .push(format!("the witness {name} signs nothing: {reason}")),
            _ => {}
        }
    }
}

/// The same of a cluster that somebody else runs: its stream is a process of its own.
fn of_cluster(instance: &Instance, name: &str) -> Result<Status, Error> {
    let cluster = clusters::find(instance, name)?;
    let args = RepositoryArgs {
        cluster: Some(name.to_owned()),
        ..RepositoryArgs::default()
    };
    let opened = RepositoryHandle::at(instance, &args);
    let heard_micros = opened.as_ref().ok().and_then(last_heard);
    let mut status = of_repository(&cluster.instance, opened, Some(name))?;
    let standing = cluster.stream();
    status.running = standing.is_some();
    status.stream = standing.map(|standing| standing.report);
    if !status.stream.as_ref().is_some_and(|stream| stream.attached) {
        look_at_slot(&cluster, &mut status);
    }
    if status.stream.is_none() {
        let heard = heard_micros.map_or_else(|| "never".to_owned(), time);
        let nobody = format!(
            "no process on this host streams its WAL (last confirmed: {heard}): bre wal stream --cluster {name}"
        );
        let fresh = |at: i64| jiff::Timestamp::now().as_microsecond() - at < HEARD_MICROS;
        // Another host may.
        match heard_micros.is_some_and(fresh) {
            true => status.warnings.push(nobody),
            false => status.alarms.push(nobody),
        }
    }
    note_standby(&cluster.instance, &mut status);
    if runs_by_itself(&cluster.plan) {
        note_jobs(instance, Some(name), &mut status);
    }
    finish(&mut status);
    Ok(status)
}

/// By the server's clock, when the repository last had everything.
fn last_heard(opened: &RepositoryHandle) -> Option<i64> {
    let inventory = wal_inventory(&opened.repository).ok()?;
    let intervals = inventory.timelines.values().flat_map(|wal| &wal.intervals);
    let times = intervals.map(|interval| interval.end_time_micros);
    times.max().filter(|micros| *micros > 0)
}

/// Where nobody streams, nobody else says how much WAL waits.
fn look_at_slot(cluster: &NamedCluster, status: &mut Status) {
    let mut connect = cluster.connect.clone().with_database("postgres");
    connect.timeout = ANSWER_TIMEOUT;
    match slot_status(&connect, &cluster.slot) {
        Ok(slot) => {
            let monitor = StreamMonitor::default();
            monitor.set_slot(slot.as_ref());
            status.alarms.extend(monitor.report().alarm);
        }
        Err(error) => status.alarms.push(format!(
            "PostgreSQL at {} cannot be asked: {error}",
            connect.target()
        )),
    }
}

/// What the parts say together.
fn finish(status: &mut Status) {
    for (name, copy) in &status.copies {
        if let Some(trouble) = &copy.trouble {
            status.warnings.push(format!("the copy {name}: {trouble}"));
        }
        if let Some(why) = &copy.not_expired {
            let warning = format!("nothing expires in the copy {name}: {why}");
            status.warnings.push(warning);
        }
    }
    if let Some(stream) = &status.stream {
        status.alarms.extend(stream.alarm.clone());
        if !stream.attached {
            let alarm = "WAL does not reach the repository".to_owned();
            status.alarms.push(alarm);
        }
    }
    // Whoever runs says it in more words.
    if let Some(proof) = status.proof_failed.clone()
        && !status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("restore proof"))
    {
        status.alarms.push(proof);
    }
    for sentence in status.passed_over.iter().map(PassedOver::sentence) {
        let is_told = |alarm: &String| alarm.contains(&sentence);
        if !status.alarms.iter().any(is_told) {
            status.alarms.push(sentence);
        }
    }
    // A running engine takes the backup by itself, and says so.
    let takes_it = status.running && status.cluster.is_none();
    if let Some(hole) = status.open_hole.clone().filter(|_| !takes_it) {
        status.alarms.push(hole);
    }
}

fn of_repository(
    instance: &Instance,
    opened: Result<RepositoryHandle, operations::Error>,
    cluster: Option<&str>,
) -> Result<Status, Error> {
    let mut status = Status {
        cluster: cluster.map(ToOwned::to_owned),
        copies: copies::standings(instance),
        ..Status::default()
    };
    // A repository that is away is a state to show, not a reason to show nothing.
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            status.alarms.push(error.to_string());
            return Ok(status);
        }
    };
    status.repository = opened.location.to_string();
    note_key(&opened, &mut status)?;
    if cluster.is_none() {
        status.audit_archive = Some(Archive::of(instance, &opened.repository)?);
    }
    let backups = catalogue(&opened.repository)?;
    let inventory = wal_inventory(&opened.repository)?;
    let complete: Vec<_> = backups
        .backups
        .iter()
        .filter(|backup| backup.state == BackupState::Complete)
        .collect();
    status.backups_complete = complete.len();
    status.backups_other = backups.backups.len() - complete.len();
    status.newest_complete = complete.last().map(|backup| backup.id.clone());
    status.newest_complete_micros = complete.last().map(|backup| backup.finished_at_micros);
    let windows = match opened.private() {
        Ok(private) => window::proven(&opened.repository, &private).unwrap_or_else(|error| {
            status.alarms.push(error.to_string());
            window::claimed(&inventory, &complete)
        }),
        Err(_) => window::claimed(&inventory, &complete),
    };
    (status.window, status.holes) = (windows.window, windows.holes);
    status.alarms.extend(windows.alarms);
    status.damaged = backups
        .damaged
        .iter()
        .chain(&inventory.damaged)
        .map(ToString::to_string)
        .collect();
    status.alarms.extend(status.damaged.iter().cloned());
    let hole = open_hole(&opened, &backups)?;
    status.open_hole = hole.map(|hole| {
        let remedy = take_a_backup(cluster);
        format!("{}: {remedy}", hole_words(&hole))
    });
    if status.backups_complete == 0 {
        status.alarms.push(format!(
            "there is no complete backup: nothing could be restored; {}",
            take_a_backup(cluster)
        ));
    }
    for passed_over in unsettled(instance, &backups.backups)? {
        status.passed_over.push(passed_over);
    }
    // When no engine says it in more words.
    status.proof_failed = newest_failure(&backups.backups)
        .map(|id| failed_proof(id, "bre restore-test run says why"));
    status.newest_test = complete
        .iter()
        .filter_map(|backup| Some((backup.restored_and_proved_at_micros?, &backup.id)))
        .max()
        .map(|(at, id)| (id.clone(), at));
    let newest = status.newest_test.as_ref();
    status.newest_proved = newest.map(|(id, at)| format!("{id} at {}", time(*at)));
    Ok(status)
}

/// One that does not follow protects from nothing, and nothing else is wrong yet.
fn note_standby(instance: &Instance, status: &mut Status) {
    status.standby = Link::to(instance).status().ok().flatten();
    if let Some(standby) = status.standby.as_ref().filter(|standby| !standby.healthy) {
        let why = standby::trouble(standby).unwrap_or_else(|| "it is not there yet".to_owned());
        let phase = standby.phase.words();
        status
            .warnings
            .push(format!("the standby: {why} ({phase})"));
    }
    let warnings = status.standby.iter().flat_map(|standby| &standby.warnings);
    let warnings = warnings.map(|warning| format!("the standby: {warning}"));
    status.warnings.extend(warnings.collect::<Vec<_>>());
}

fn note_key(opened: &RepositoryHandle, status: &mut Status) -> Result<(), Error> {
    let Ok(age) = age::of(&opened.keys) else {
        return Ok(());
    };
    status.warnings.extend(age.warning.clone());
    status.repository_key = Some(age);
    let public = writing_key(&opened.keys)?;
    let not_sealed = not_sealed_to(&opened.repository, &public)?;
    if not_sealed > 0 {
        status.warnings.push(format!(
            "{not_sealed} data keys are not sealed to the repository's present key: bre repository key rotate finishes that"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "screens/status.rs"]
mod screens;
