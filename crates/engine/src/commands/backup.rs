//! `bre backup`: take, list, show, export; `bre verify backup`.

use std::{path::Path, process::ExitCode};

use ::backup::database::BackupOutcome;
use postgres_physical::lsn::Lsn;
use repository::{
    Repository,
    backup::{BackupReader, BackupState, BackupSummary, Catalogue, catalogue},
    wal::{Hole, WalReader, wal_inventory},
};
use serde::Serialize;

use super::{expire, job};
use host::{instance::Instance, progress::Steps};
use terminal::{self, KeyValue, Table, age, count, duration, moment_and_age, sentence, size, time};

use crate::{
    cli::{BackupCommand, ReadingArgs, RepositoryArgs},
    error::Error,
};
use operations::{
    command_output::CommandOutput, exit::Exit, health::hole_words,
    repository_handle::RepositoryHandle, stream_report::take_a_backup,
};

/// Reading back is bound by decompression: one thread a core.
const VERIFY_THREADS: usize = 2;

pub(crate) fn run(
    instance: &Instance,
    json: bool,
    command: BackupCommand,
) -> Result<ExitCode, Error> {
    match command {
        BackupCommand::Run {
            kind,
            reading,
            cluster,
            ..
        } => take(instance, json, kind.into(), reading, cluster.as_deref()),
        BackupCommand::List(args) => list(instance, json, &args),
        BackupCommand::Show { id, repository } => show(instance, json, &id, &repository),
        BackupCommand::Expire(args) => expire::run(instance, json, &args),
        BackupCommand::Export {
            id,
            dir,
            repository,
        } => export(instance, json, &id, &dir, &repository),
    }
}

/// A backup as machines read it; scripts rely on these names.
#[derive(Debug, Serialize)]
struct BackupRow {
    id: String,
    kind: repository::backup::BackupKind,
    state: BackupState,
    started_at: String,
    finished_at: String,
    start_lsn: String,
    stop_lsn: String,
    timeline: u32,
    /// The backup that an incremental one is based on.
    parent: Option<String>,
    bytes_source: u64,
    /// Newly written to the repository.
    bytes_stored: u64,
    /// Bytes of files that earlier backups had stored, and those that a killed attempt had stored.
    bytes_reused: u64,
    bytes_resumed: u64,
    files: u64,
    damaged_pages: u64,
    system_identifier: u64,
    pg_version: u32,
    restored_and_proved_at: Option<String>,
    /// The newest proof failed, at this time.
    proof_failed_at: Option<String>,
}

impl From<&BackupSummary> for BackupRow {
    fn from(backup: &BackupSummary) -> Self {
        Self {
            id: backup.id.clone(),
            kind: backup.kind,
            state: backup.state,
            started_at: time(backup.started_at_micros),
            finished_at: time(backup.finished_at_micros),
            start_lsn: Lsn(backup.start_lsn).to_string(),
            stop_lsn: Lsn(backup.stop_lsn).to_string(),
            timeline: backup.timeline,
            bytes_source: backup.bytes_source,
            parent: backup.parent.clone(),
            bytes_stored: backup.bytes_stored,
            bytes_reused: backup.bytes_reused,
            bytes_resumed: backup.bytes_resumed,
            files: backup.files,
            damaged_pages: backup.damaged_pages,
            system_identifier: backup.system_identifier,
            pg_version: backup.pg_version,
            restored_and_proved_at: backup.restored_and_proved_at_micros.map(time),
            proof_failed_at: backup.proof_failed_at_micros.map(time),
        }
    }
}

impl From<crate::cli::BackupKind> for repository::backup::BackupKind {
    fn from(kind: crate::cli::BackupKind) -> Self {
        match kind {
            crate::cli::BackupKind::Full => Self::Full,
            crate::cli::BackupKind::Incremental => Self::Incremental,
        }
    }
}

/// A backup that was just taken.
#[derive(Debug, Serialize)]
struct BackupReport {
    #[serde(flatten)]
    backup: BackupRow,
    /// Why it is full although an incremental was asked for.
    why_full: Option<String>,
    /// How the pages were found that an incremental one stores: `named by the server`, or `compared`. Of a full one `all`.
    changed_pages: &'static str,
    /// Why the server did not name them.
    why_not_named: Option<String>,
    /// From the server, or from its files.
    bytes_read: u64,
    /// What a restore of it will not have.
    warnings: Vec<String>,
}

impl BackupReport {
    fn text(&self) -> String {
        let backup = &self.backup;
        let mut facts = KeyValue::new();
        facts
            .row("backup", &backup.id)
            .row("kind", kind_word(backup.kind))
            .row(
                "state",
                match backup.state {
                    BackupState::Complete => "complete",
                    _ => "waits for WAL: bre backup list says when it is complete",
                },
            )
            .maybe("why full", self.why_full.as_ref())
            .row("size", size_in_files(backup.bytes_source, backup.files))
            .row("read", size(self.bytes_read))
            .row("stored", size(backup.bytes_stored));
        if backup.bytes_reused + backup.bytes_resumed > 0 {
            let (reused, resumed) = (size(backup.bytes_reused), size(backup.bytes_resumed));
            facts.row(
                "reused",
                format!("{reused} of earlier backups, {resumed} of an attempt that was stopped"),
            );
        }
        if backup.kind == repository::backup::BackupKind::Incremental {
            facts.row("changed pages", self.changed_pages);
        }
        facts
            .maybe("every page read", self.why_not_named.as_ref())
            .rows("WARNING", &self.warnings);
        facts.text()
    }
}

/// As the plan takes it, now.
fn take(
    instance: &Instance,
    json: bool,
    kind: repository::backup::BackupKind,
    reading: ReadingArgs,
    cluster: Option<&str>,
) -> Result<ExitCode, Error> {
    let job = match kind {
        repository::backup::BackupKind::Full => "database.full",
        repository::backup::BackupKind::Incremental => "database.incremental",
    };
    job::run_now(instance, json, job, reading.into(), cluster)
}

/// What a person sees of a backup that was taken.
pub(crate) fn taken(
    repository: &Repository,
    outcome: BackupOutcome,
) -> Result<CommandOutput, operations::Error> {
    let all = catalogue(repository)?;
    let taken = BackupReport {
        backup: find(&all, &outcome.id)?.into(),
        changed_pages: outcome.changed_pages.name(),
        why_not_named: outcome.changed_pages.why_not_named().map(str::to_owned),
        bytes_read: outcome.bytes_read,
        why_full: outcome.why_full,
        warnings: outcome.warnings,
    };
    let shown = CommandOutput::of(&taken, taken.text())?;
    Ok(match taken.backup.state {
        BackupState::Complete => shown,
        // The WAL of its end is still on its way.
        _ => shown.exits(Exit::Partial),
    })
}

fn list(instance: &Instance, json: bool, args: &RepositoryArgs) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let all = catalogue(&opened.repository)?;
    let shown: Vec<BackupRow> = all.backups.iter().map(BackupRow::from).collect();
    terminal::result(json, &shown, || match shown.as_slice() {
        [] => format!("no backup in {}: bre backup run", opened.location),
        _ => table(&all.backups, jiff::Timestamp::now().as_microsecond()),
    });
    for damaged in &all.damaged {
        terminal::note(&format!("bre: {damaged}"));
    }
    // Whoever looks at the list wants to know what can be restored from it.
    if let Some(hole) = open_hole(&opened, &all)? {
        let remedy = take_a_backup(args.cluster.as_deref());
        terminal::note(&format!("bre: ALARM: {}: {remedy}", hole_words(&hole)));
    }
    Ok(if all.damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// In the words of a person.
fn state_word(state: BackupState) -> &'static str {
    match state {
        BackupState::Complete => "complete",
        BackupState::Waiting => "waiting for WAL",
        BackupState::Failed => "FAILED",
        BackupState::Expiring => "expiring",
    }
}

fn size_in_files(bytes: u64, files: u64) -> String {
    format!("{} in {}", size(bytes), count(files, "file"))
}

fn kind_word(kind: repository::backup::BackupKind) -> &'static str {
    match kind {
        repository::backup::BackupKind::Full => "full",
        repository::backup::BackupKind::Incremental => "incremental",
    }
}

fn tested(backup: &BackupSummary, now_micros: i64) -> String {
    match (
        backup.proof_failed_at_micros,
        backup.restored_and_proved_at_micros,
    ) {
        (Some(at), _) => format!("FAILED {}", age(now_micros, at)),
        (None, Some(at)) => format!("passed {}", age(now_micros, at)),
        (None, None) => String::new(),
    }
}

fn table(backups: &[BackupSummary], now_micros: i64) -> String {
    let mut table = Table::new(&[
        "id",
        "kind",
        "state",
        ">age",
        ">size",
        ">stored",
        "restore test",
    ]);
    for backup in backups {
        let test = tested(backup, now_micros);
        let damaged = (backup.damaged_pages > 0)
            .then(|| format!("{} DAMAGED", count(backup.damaged_pages, "page")));
        let notes: Vec<String> = [Some(test).filter(|test| !test.is_empty()), damaged]
            .into_iter()
            .flatten()
            .collect();
        table.row([
            backup.id.clone(),
            kind_word(backup.kind).to_owned(),
            state_word(backup.state).to_owned(),
            duration(now_micros.saturating_sub(backup.finished_at_micros)),
            size(backup.bytes_source),
            size(backup.bytes_stored),
            notes.join("; "),
        ]);
    }
    table.text()
}

/// The newest hole of the newest timeline that no backup makes up for.
pub(super) fn open_hole(opened: &RepositoryHandle, all: &Catalogue) -> Result<Option<Hole>, Error> {
    let inventory = wal_inventory(&opened.repository)?;
    let newest = inventory.timelines.into_values().next_back();
    let holes = newest.into_iter().flat_map(|wal| wal.holes);
    Ok(holes
        .filter(|hole| !hole.is_made_up_for(&all.backups))
        .max_by_key(|hole| hole.end))
}

fn find<'a>(catalogue: &'a Catalogue, id: &str) -> Result<&'a BackupSummary, operations::Error> {
    catalogue
        .backups
        .iter()
        .find(|backup| backup.id == id)
        .ok_or_else(|| {
            operations::Error::argument(
                "backup",
                id.to_owned(),
                "the repository has none of this id; see: bre backup list",
            )
        })
}

#[derive(Debug, Serialize)]
struct Details {
    #[serde(flatten)]
    backup: BackupRow,
    label: String,
    wal_segment_bytes: u64,
}

fn show(
    instance: &Instance,
    json: bool,
    id: &str,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let all = catalogue(&opened.repository)?;
    let backup = find(&all, id)?;
    let details = Details {
        backup: backup.into(),
        label: backup.label.clone(),
        wal_segment_bytes: backup.wal_segment_bytes,
    };
    terminal::result(json, &details, || {
        facts(backup, jiff::Timestamp::now().as_microsecond())
    });
    Ok(ExitCode::SUCCESS)
}

fn facts(backup: &BackupSummary, now_micros: i64) -> String {
    let mut facts = KeyValue::new();
    facts
        .row("id", &backup.id)
        .row("kind", kind_word(backup.kind))
        .row("state", state_word(backup.state))
        .maybe("based on", backup.parent.as_ref())
        .row("restore test", tested(backup, now_micros))
        .row(
            "started",
            moment_and_age(now_micros, backup.started_at_micros),
        )
        .row(
            "took",
            duration(
                backup
                    .finished_at_micros
                    .saturating_sub(backup.started_at_micros),
            ),
        )
        .row(
            "WAL that it needs",
            format!(
                "LSN {} to {} on timeline {}",
                Lsn(backup.start_lsn),
                Lsn(backup.stop_lsn),
                backup.timeline
            ),
        )
        .row("size", size_in_files(backup.bytes_source, backup.files))
        .row("stored", size(backup.bytes_stored))
        .row(
            "reused",
            format!("{} of earlier backups", size(backup.bytes_reused)),
        )
        .row(
            "resumed",
            format!(
                "{} of an attempt that was stopped",
                size(backup.bytes_resumed)
            ),
        )
        .row("damaged pages", backup.damaged_pages.to_string())
        .row("label", &backup.label)
        .row("PostgreSQL", version(backup.pg_version))
        .row("system identifier", backup.system_identifier.to_string())
        .row("WAL segments", size(backup.wal_segment_bytes));
    facts.text()
}

/// PostgreSQL's number of its version, as it prints it.
fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[derive(Debug, Serialize)]
struct BackupVerification {
    id: String,
    state: BackupState,
    files: u64,
    chunks: u64,
    bytes: u64,
    /// Object, what is wrong with it, and the files of the cluster that need it.
    damaged: Vec<(String, String, Vec<String>)>,
    sound: bool,
}

pub(super) fn verify(
    instance: &Instance,
    json: bool,
    id: Option<&str>,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let private = opened.private()?;
    let all = catalogue(&opened.repository)?;
    let chosen: Vec<&BackupSummary> = match id {
        Some(id) => vec![find(&all, id)?],
        None => all.backups.iter().collect(),
    };
    let mut results = Vec::new();
    for backup in chosen {
        results.push(verify_one(&opened, &private, backup, json)?);
    }
    let sound =
        results.iter().all(|result| result.sound) && (id.is_some() || all.damaged.is_empty());
    terminal::result(json, &results, || verified_table(&results));
    for damaged in &all.damaged {
        terminal::note(&format!("bre: {damaged}"));
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn verify_one(
    opened: &RepositoryHandle,
    private: &repository::keys::RecipientPrivate,
    backup: &BackupSummary,
    json: bool,
) -> Result<BackupVerification, Error> {
    let steps = Steps::shown(json, "verify");
    steps.set_total(backup.bytes_source);
    let report = BackupReader::open(&opened.repository, private, &backup.id)?
        .verify(VERIFY_THREADS, &|bytes| steps.advanced(bytes))?;
    let mut damaged: Vec<_> = report
        .damaged
        .into_iter()
        .map(|object| (object.object, object.reason, object.files))
        .collect();
    // The WAL that makes it consistent belongs to it: a backup without it restores nothing.
    let wal = WalReader::new(&opened.repository, private);
    if let Err(error) = wal.bytes(backup.timeline, backup.start_lsn, backup.stop_lsn) {
        damaged.push((
            error.object().unwrap_or("WAL").to_owned(),
            error.to_string(),
            Vec::new(),
        ));
    }
    Ok(BackupVerification {
        id: backup.id.clone(),
        state: backup.state,
        files: report.files,
        chunks: report.chunks,
        bytes: report.bytes,
        sound: damaged.is_empty() && backup.state == BackupState::Complete,
        damaged,
    })
}

fn verified_table(results: &[BackupVerification]) -> String {
    let mut table = Table::new(&["id", "state", ">files", ">read back", "verdict"]);
    for result in results {
        table.row([
            result.id.clone(),
            state_word(result.state).to_owned(),
            result.files.to_string(),
            size(result.bytes),
            if result.sound { "sound" } else { "NOT SOUND" }.to_owned(),
        ]);
    }
    let mut text = table.text();
    for result in results {
        for (object, reason, files) in &result.damaged {
            let needed = count(files.len() as u64, "file");
            let id = &result.id;
            text.push_str(&sentence(&format!(
                "DAMAGED {object} of {id}: {reason} ({needed} of the cluster in it)"
            )));
        }
    }
    text
}

fn export(
    instance: &Instance,
    json: bool,
    id: &str,
    dir: &Path,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let private = opened.private()?;
    let exported = recovery::database::export(
        &opened.repository,
        &private,
        id,
        dir,
        &Steps::shown(json, "export"),
    )?;
    let shown =
        serde_json::json!({"id": id, "dir": dir, "files": exported.files, "bytes": exported.bytes});
    terminal::result(json, &shown, || {
        format!(
            "backup {id} is in {}; check it with: pg_verifybackup {}",
            dir.display(),
            dir.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
#[path = "screens/backup.rs"]
mod screens;
