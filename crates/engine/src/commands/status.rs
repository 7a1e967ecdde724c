//! `bre status`: what runs, how far the stream is, what could be restored. Works without a running engine, too.

use std::process::ExitCode;

use postgres_physical::lsn::Lsn;
use repository::{BackupState, catalogue, wal_inventory};
use serde::Serialize;
use serde_json::Value;

use super::{backup::time, opened::Opened};
use crate::{cli::RepositoryArgs, control::Control, error::Error, instance::Instance, terminal};

#[derive(Debug, Serialize)]
struct Status {
    running: bool,
    /// The engine's own words; absent when it does not run.
    engine: Option<Value>,
    repository: String,
    backups_complete: usize,
    backups_other: usize,
    newest_complete: Option<String>,
    /// Intervals of WAL in which a moment can be chosen.
    window: Vec<Window>,
    holes: Vec<Hole>,
    damaged: Vec<String>,
    /// What an operator should look at now.
    alarms: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Window {
    timeline: u32,
    /// Where the first backup in this stretch is consistent.
    from_lsn: String,
    from_time: String,
    to_lsn: String,
    /// The last moment at which the server confirmed that the repository had everything.
    to_time: Option<String>,
}

#[derive(Debug, Serialize)]
struct Hole {
    timeline: u32,
    from_lsn: String,
    to_lsn: String,
    reason: String,
}

pub(crate) async fn run(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let engine: Option<Value> = match Control::to(instance) {
        Ok(control) if instance.is_locked() => Some(control.get("/internal/status").await?),
        _ => None,
    };
    let mut status = of_repository(instance)?;
    status.running = engine.is_some();
    status.alarms.extend(alarms(engine.as_ref()));
    status.engine = engine;
    terminal::result(json, &status, || sentences(&status));
    Ok(if status.alarms.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn alarms(engine: Option<&Value>) -> Vec<String> {
    let Some(engine) = engine else {
        return Vec::new();
    };
    let mut alarms = Vec::new();
    if let Some(alarm) = engine["components"]["wal_stream"]["alarm"].as_str() {
        alarms.push(alarm.to_owned());
    }
    if engine["components"]["wal_stream"]["attached"] == Value::Bool(false) {
        alarms.push("WAL does not reach the repository".to_owned());
    }
    alarms
}

fn of_repository(instance: &Instance) -> Result<Status, Error> {
    let mut status = Status {
        running: false,
        engine: None,
        repository: String::new(),
        backups_complete: 0,
        backups_other: 0,
        newest_complete: None,
        window: Vec::new(),
        holes: Vec::new(),
        damaged: Vec::new(),
        alarms: Vec::new(),
    };
    // A repository that is away is a state to show, not a reason to show nothing.
    let opened = match Opened::at(instance, &RepositoryArgs::default()) {
        Ok(opened) => opened,
        Err(error) => {
            status.alarms.push(error.to_string());
            return Ok(status);
        }
    };
    status.repository = opened.path.display().to_string();
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
    for (timeline, wal) in &inventory.timelines {
        for interval in &wal.intervals {
            let reaches = |stop: u64| (interval.start..=interval.end).contains(&stop);
            let first = complete
                .iter()
                .find(|backup| backup.timeline == *timeline && reaches(backup.stop_lsn));
            let Some(first) = first else { continue };
            status.window.push(Window {
                timeline: *timeline,
                from_lsn: Lsn(first.stop_lsn).to_string(),
                from_time: time(first.finished_at_micros),
                to_lsn: Lsn(interval.end).to_string(),
                to_time: Some(interval.end_time_micros)
                    .filter(|micros| *micros > 0)
                    .map(time),
            });
        }
        status.holes.extend(wal.holes.iter().map(|hole| Hole {
            timeline: *timeline,
            from_lsn: Lsn(hole.start).to_string(),
            to_lsn: Lsn(hole.end).to_string(),
            reason: hole.reason.clone(),
        }));
    }
    status.damaged = backups
        .damaged
        .iter()
        .chain(&inventory.damaged)
        .map(ToString::to_string)
        .collect();
    status.alarms.extend(status.damaged.iter().cloned());
    if status.backups_complete == 0 {
        status
            .alarms
            .push("there is no complete backup: nothing could be restored".to_owned());
    }
    Ok(status)
}

fn sentences(status: &Status) -> String {
    let mut text = format!(
        "engine      {}\nrepository  {}\nbackups     {} complete, {} other; newest complete {}\n",
        if status.running {
            "runs"
        } else {
            "does not run"
        },
        status.repository,
        status.backups_complete,
        status.backups_other,
        status.newest_complete.as_deref().unwrap_or("none"),
    );
    for window in &status.window {
        text.push_str(&format!(
            "restorable  timeline {}: {} ({}) to {} ({})\n",
            window.timeline,
            window.from_time,
            window.from_lsn,
            window.to_time.as_deref().unwrap_or("end of WAL"),
            window.to_lsn
        ));
    }
    for hole in &status.holes {
        text.push_str(&format!(
            "hole        timeline {}: {} to {}: {}\n",
            hole.timeline, hole.from_lsn, hole.to_lsn, hole.reason
        ));
    }
    if let Some(engine) = &status.engine {
        text.push_str(&format!(
            "stream      {}\n",
            engine["components"]["wal_stream"]
        ));
    }
    for alarm in &status.alarms {
        text.push_str(&format!("ALARM       {alarm}\n"));
    }
    text
}
