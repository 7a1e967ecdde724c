//! `bre status`: what runs, how far the stream is, what could be restored. Works without a running engine, too.

use std::{collections::BTreeMap, process::ExitCode};

use backup::schedule::Job;
use repository::{BackupState, Repository, archived_to, catalogue, not_sealed_to, wal_inventory};
use serde::Serialize;
use serde_json::Value;

use super::{
    opened::Opened,
    window::{self, Hole, Window},
};
use crate::{
    cli::RepositoryArgs,
    control::Control,
    copies,
    error::Error,
    instance::Instance,
    jobs::Standing,
    keys::{
        age::{self, KeyAge},
        writing_key,
    },
    spare::Link,
    terminal::{self, time},
    up::{heads::LOG, plan::failed_proof_of},
};

#[derive(Debug, Serialize)]
struct Status {
    running: bool,
    /// The engine's own words; absent when it does not run.
    engine: Option<Value>,
    repository: String,
    backups_complete: usize,
    backups_other: usize,
    newest_complete: Option<String>,
    /// The backup that was restored and proved last, and when.
    newest_proved: Option<String>,
    proof_failed: Option<String>,
    /// Intervals of WAL in which a moment can be chosen.
    window: Vec<Window>,
    holes: Vec<Hole>,
    damaged: Vec<String>,
    /// When some process keeps one.
    spare: Option<recovery::spare::Status>,
    /// The key that backups are sealed to.
    repository_key: Option<KeyAge>,
    audit_archive: Archive,
    /// Further repositories, by name: how far their copies are.
    copies: BTreeMap<String, copies::Standing>,
    /// Nothing is wrong yet.
    warnings: Vec<String>,
    /// What an operator should look at now.
    alarms: Vec<String>,
}

/// How far the audit log is in its archive.
#[derive(Debug, Default, Serialize)]
struct Archive {
    archived_to: Option<u64>,
    /// The plan's last pass.
    last_pass_at: Option<String>,
    said: Option<String>,
}

impl Archive {
    fn of(instance: &Instance, repository: &Repository) -> Result<Self, Error> {
        let standing = Standing::read(&instance.plan_file());
        let last = standing.of(Job::AuditArchive);
        let last = last.and_then(|state| state.last.clone());
        Ok(Self {
            archived_to: archived_to(repository, LOG)?,
            last_pass_at: last.as_ref().map(|ran| time(ran.started_micros)),
            said: last.map(|ran| ran.said),
        })
    }

    fn line(&self) -> String {
        let to = match self.archived_to {
            Some(to) => format!("the audit log up to position {to}"),
            None => "nothing of the audit log yet".to_owned(),
        };
        let at = self.last_pass_at.as_deref().unwrap_or("-");
        format!("archive     {to}; last pass of the plan {at}\n")
    }
}

pub(crate) async fn run(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let engine: Option<Value> = match Control::to(instance) {
        Ok(control) if instance.is_locked() => Some(control.get("/internal/status").await?),
        _ => None,
    };
    let mut status = of_repository(instance)?;
    for (name, copy) in &status.copies {
        if let Some(trouble) = &copy.trouble {
            status.warnings.push(format!("the copy {name}: {trouble}"));
        }
        if let Some(why) = &copy.not_expired {
            let warning = format!("nothing expires in the copy {name}: {why}");
            status.warnings.push(warning);
        }
    }
    status.running = engine.is_some();
    status.alarms.extend(alarms(engine.as_ref()));
    note_spare(instance, &mut status);
    // The running engine says it in more words.
    if let Some(proof) = status.proof_failed.clone()
        && !status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("restore proof"))
    {
        status.alarms.push(proof);
    }
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
        newest_proved: None,
        proof_failed: None,
        window: Vec::new(),
        holes: Vec::new(),
        damaged: Vec::new(),
        spare: None,
        repository_key: None,
        audit_archive: Archive::default(),
        copies: copies::standings(instance),
        warnings: Vec::new(),
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
    status.repository = opened.location.to_string();
    note_key(&opened, &mut status)?;
    status.audit_archive = Archive::of(instance, &opened.repository)?;
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
    if status.backups_complete == 0 {
        status
            .alarms
            .push("there is no complete backup: nothing could be restored".to_owned());
    }
    status.proof_failed = failed_proof_of(&backups.backups);
    status.newest_proved = complete
        .iter()
        .filter_map(|backup| Some((backup.restored_and_proved_at_micros?, &backup.id)))
        .max()
        .map(|(at, id)| format!("{id} at {}", time(at)));
    Ok(status)
}

/// One that does not follow protects from nothing, and nothing else is wrong yet.
fn note_spare(instance: &Instance, status: &mut Status) {
    status.spare = Link::to(instance).status().ok().flatten();
    if let Some(spare) = status.spare.as_ref().filter(|spare| !spare.healthy) {
        let why = spare.trouble.as_deref().unwrap_or("it is not there yet");
        let phase = spare.phase.words();
        status.warnings.push(format!("the spare is {phase}: {why}"));
    }
}

fn note_key(opened: &Opened, status: &mut Status) -> Result<(), Error> {
    let Ok(age) = age::of(&opened.keys) else {
        return Ok(());
    };
    status.warnings.extend(age.warning.clone());
    status.repository_key = Some(age);
    let public = writing_key(&opened.keys)?;
    let not_sealed = not_sealed_to(&opened.repository, &public)?;
    if not_sealed > 0 {
        status.warnings.push(format!(
            "{not_sealed} data keys are not sealed to the repository's present key: bre repository-key rotate finishes that"
        ));
    }
    Ok(())
}

/// The engine's own words about its stream, as a person reads them.
fn stream_line(stream: &Value) -> String {
    let attached = match stream["attached"].as_bool() {
        Some(true) => "attached",
        _ => "not attached",
    };
    let mut parts = vec![attached.to_owned()];
    if stream["strict"] == Value::Bool(true) {
        parts.push("commits wait for it (strict)".to_owned());
    }
    if let Some(lsn) = stream["durable_lsn"].as_u64() {
        parts.push(format!(
            "in the repository up to {:X}/{:X}",
            lsn >> 32,
            lsn & 0xffff_ffff
        ));
    }
    if let Some(permille) = stream["slot_fill_permille"].as_u64() {
        let percent = format!("{}.{} %", permille / 10, permille % 10);
        parts.push(format!(
            "{percent} of the WAL that PostgreSQL keeps for it in use"
        ));
    }
    let ended = |name: &str, what: &str| {
        let at = stream[name].as_i64()?;
        Some(format!("{what} {}", time(at)))
    };
    parts.extend(ended("last_backup_at_micros", "newest backup ended"));
    parts.extend(ended("last_proof_at_micros", "newest proof ended"));
    let mut line = format!("stream      {}\n", parts.join("; "));
    // The alarm is among the alarms.
    for name in ["warning", "refuse_locates"] {
        if let Some(words) = stream[name].as_str() {
            line.push_str(&format!("            {words}\n"));
        }
    }
    line
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
    text.push_str(&format!(
        "proved      {}\n",
        status.newest_proved.as_deref().unwrap_or("no backup yet")
    ));
    text.push_str(&status.audit_archive.line());
    for (name, copy) in &status.copies {
        text.push_str(&format!(
            "copy        {name}: up to {}, {} of WAL behind; {}\n",
            time(copy.until_micros),
            indicatif::HumanBytes(copy.lag_bytes),
            copy.repository
        ));
    }
    text.extend(status.window.iter().map(Window::line));
    text.extend(status.holes.iter().map(Hole::line));
    if let Some(engine) = &status.engine {
        text.push_str(&stream_line(&engine["components"]["wal_stream"]));
    }
    if let Some(spare) = &status.spare {
        text.push_str(&format!(
            "spare       {}, {:.1} s behind\n",
            spare.phase.words(),
            spare.lag_seconds
        ));
    }
    if let Some(key) = &status.repository_key {
        text.push_str(&format!(
            "key         {} of {}, {} days old\n",
            key.recipient_id, key.created_at, key.days
        ));
    }
    for warning in &status.warnings {
        text.push_str(&format!("warning     {warning}\n"));
    }
    for alarm in &status.alarms {
        text.push_str(&format!("ALARM       {alarm}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_read_is_no_json() {
        let stream = json!({
            "attached": true, "strict": true, "durable_lsn": 0x1_0300_0028_u64, "slot_fill_permille": 15,
            "last_backup_at_micros": 0, "warning": "the key is old", "alarm": null,
        });
        let line = stream_line(&stream);
        for part in [
            "attached; ",
            "strict",
            "1/3000028",
            "1.5 %",
            "1970-01-01",
            "\n            the key is old\n",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let line = stream_line(&json!({ "attached": false }));
        assert_eq!(line, "stream      not attached\n");
        assert!(!line.contains(['{', '"']));
    }
}
