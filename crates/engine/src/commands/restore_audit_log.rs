//! `bre restore audit-log`: what the archives have of a period into a folder beside the live logs, and the gap report
//! for compliance.

use std::process::ExitCode;

use host::{instance::Instance, keys::audit_reading_key, progress::Steps, signals::interrupted};
use operations::{
    audit_logs::own_repository,
    exit::Exit,
    gap_report::{Archives, AuditLogRestore, GapReport, restore_audit_log},
    jobs::settings,
    repository_handle::RepositoryHandle,
};
use recovery::audit_log::LogSelection;

use super::moment;
use crate::{
    cli::{AuditLogKind, RestoreAuditLogArgs},
    error::Error,
};

pub(super) async fn run(
    instance: &Instance,
    json: bool,
    args: &RestoreAuditLogArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let private = audit_reading_key(&opened.keys)?;
    let logs = match args.repository.repository {
        // One that is named holds both.
        Some(_) => None,
        None => own_repository(&settings::load(None, instance.root())?.audit_archive)?,
    };
    let limit = |text: Option<&String>, none: i64| text.map_or(Ok(none), |text| moment(text));
    let from_micros = limit(args.from.as_ref(), 0)?;
    let to_micros = limit(args.until.as_ref(), i64::MAX)?;
    if from_micros > to_micros {
        let from = args.from.clone().unwrap_or_default();
        return Err(Error::argument("--from", from, "it is later than --until"));
    }
    let kinds: Vec<AuditLogKind> = match args.kind {
        Some(kind) => vec![kind],
        None => AuditLogKind::ALL.to_vec(),
    };
    let to = std::path::absolute(&args.to).map_err(Error::file("cannot find", &args.to))?;
    let running = instance.announced().map(|running| running.database_url);
    let asked = AuditLogRestore {
        selection: LogSelection {
            kinds: kinds.iter().filter_map(|kind| kind.of_log()).collect(),
            source: args.source.clone(),
            from_micros,
            to_micros,
        },
        with_entries: args.source.is_none() && kinds.contains(&AuditLogKind::Database),
        to: &to,
        database: running.as_deref(),
    };
    let archives = Archives {
        entries: &opened.repository,
        logs: logs.as_ref().unwrap_or(&opened.repository),
        private: &private,
    };
    let steps = Steps::shown(json, "stretches").cancelled_by(interrupted()?);
    let report = restore_audit_log(instance, &archives, &asked, &steps).await?;
    drop(steps);
    terminal::result(json, &report, || sentences(&report));
    // Something is missing for ever, or until a copy of the repository brings it.
    let exit = match report.gaps().is_empty() {
        true => Exit::Done,
        false => Exit::Partial,
    };
    Ok(exit.into())
}

fn sentences(report: &GapReport) -> String {
    let mut text = String::new();
    if report.entries.is_some() {
        text.push_str(&format!(
            "database: {} entries restored\n",
            report.entries_restored
        ));
    }
    for log in &report.logs_restored {
        text.push_str(&format!(
            "{} {}: {} lines of {} stretches restored\n",
            log.kind, log.source, log.lines, log.stretches
        ));
    }
    for gap in report.gaps() {
        text.push_str(&format!("MISSING: {gap}\n"));
    }
    let folder = report.to.display();
    text.push_str(&format!(
        "the live logs are as they were; what was restored and the report for compliance are in {folder} \
         (gap_report.md, gap_report.json)\n"
    ));
    text
}
