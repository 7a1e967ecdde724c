//! What was restored of the logs and what is missing for ever, for compliance: one record, as JSON and as Markdown.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use audit::Entry;
use host::{
    files::{make_folder, write_whole},
    instance::Instance,
    person::{machine, who},
};
use recovery::audit_log::{LogRestore, LogSelection, make_log_folder, restore_logs};
use repository::{Progress, Repository, keys::RecipientPrivate, log_stretches::ChainReport};
use serde::Serialize;

use crate::{
    audit_gaps::{
        EntryComparison, Lacks, archived_entries, compare_entries, gap_sentence, log_chains,
    },
    error::Error,
};

const VERSION: u64 = 1;

/// Where the archives are: that of the engine's chain, and that of logs.
#[derive(Debug)]
pub struct Archives<'a> {
    pub entries: &'a Repository,
    pub logs: &'a Repository,
    pub private: &'a RecipientPrivate,
}

/// What is asked for.
#[derive(Debug)]
pub struct AuditLogRestore<'a> {
    pub selection: LogSelection,
    /// The engine's own chain too.
    pub with_entries: bool,
    pub to: &'a Path,
    /// Where it is compared with one.
    pub database: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct GapReport {
    report_version: u64,
    pub made_at_micros: i64,
    made_by: String,
    host: String,
    engine: &'static str,
    from_micros: i64,
    to_micros: i64,
    /// Where what was restored is.
    pub to: PathBuf,
    /// None: the engine's own chain was not asked for.
    pub entries: Option<EntryComparison>,
    /// Entries that were written, and into which file.
    pub entries_restored: u64,
    entries_file: Option<PathBuf>,
    pub logs: Vec<ChainReport>,
    pub logs_restored: Vec<LogRestore>,
}

/// Brings back what the archives have of a period, beside the live logs, and writes the report there.
pub async fn restore_audit_log(
    instance: &Instance,
    archives: &Archives<'_>,
    asked: &AuditLogRestore<'_>,
    progress: &dyn Progress,
) -> Result<GapReport, Error> {
    make_log_folder(asked.to)?;
    let mut report = GapReport {
        report_version: VERSION,
        made_at_micros: jiff::Timestamp::now().as_microsecond(),
        made_by: who(),
        host: machine(),
        engine: env!("CARGO_PKG_VERSION"),
        from_micros: asked.selection.from_micros,
        to_micros: asked.selection.to_micros,
        to: asked.to.to_owned(),
        entries: None,
        entries_restored: 0,
        entries_file: None,
        logs: log_chains(archives.logs, instance, progress)?,
        logs_restored: Vec::new(),
    };
    if asked.with_entries {
        let compared = compare_entries(archives.entries, archives.private, asked.database).await?;
        report.write_entries(archives, asked, &compared)?;
        report.entries = Some(compared);
    }
    report.logs_restored = restore_logs(
        archives.logs,
        archives.private,
        &asked.selection,
        asked.to,
        progress,
    )?;
    report
        .logs
        .retain(|chain| asked.selection.kinds.contains(&chain.kind));
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    write_whole(&asked.to.join("gap_report.json"), &json, 0o600)?;
    let markdown = report.markdown();
    write_whole(&asked.to.join("gap_report.md"), markdown.as_bytes(), 0o600)?;
    Ok(report)
}

impl GapReport {
    /// Those that the database lacks or has otherwise; all of the period where none was asked. In the form of
    /// `bre audit export`.
    fn write_entries(
        &mut self,
        archives: &Archives<'_>,
        asked: &AuditLogRestore<'_>,
        compared: &EntryComparison,
    ) -> Result<(), Error> {
        let folder = asked.to.join("database");
        make_folder(&folder, 0o700)?;
        let path = folder.join("log-1.jsonl");
        let failed = || Error::file("cannot write", &path);
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let mut out = BufWriter::new(file.map_err(failed())?);
        let is_missing = |position: u64| {
            let missing = |lacks| matches!(lacks, Lacks::Database | Lacks::Agreement);
            let gaps = compared.gaps.iter().filter(|gap| missing(gap.lacks));
            let mut ranges = gaps.map(|gap| gap.from_position..=gap.to_position);
            ranges.any(|range| range.contains(&position))
        };
        let mut written = 0;
        archived_entries(archives.entries, archives.private, |position, bytes| {
            let entry = Entry::parse(&bytes);
            let entry =
                entry.map_err(|error| Error::failed(format!("position {position}: {error}")))?;
            let selection = &asked.selection;
            let period = selection.from_micros..=selection.to_micros;
            let is_wanted = asked.database.is_none() || is_missing(position);
            if !is_wanted || !period.contains(&entry.recorded_at_micros) {
                return Ok(());
            }
            let line = serde_json::json!({
                "epoch": entry.epoch, "position": position,
                "hash": Entry::hash_of(&bytes).to_string(), "canonical": audit::hex::encode(&bytes),
            });
            written += 1;
            writeln!(out, "{line}").map_err(failed())
        })?;
        let file = out
            .into_inner()
            .map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        self.entries_restored = written;
        self.entries_file = Some(path);
        Ok(())
    }

    /// Every gap of the period, in words.
    pub fn gaps(&self) -> Vec<String> {
        let touches = |from: Option<i64>, to: Option<i64>| {
            from.is_none_or(|from| from <= self.to_micros)
                && to.is_none_or(|to| to >= self.from_micros)
        };
        let entries = self.entries.iter().flat_map(|compared| &compared.gaps);
        let entries = entries.filter(|gap| touches(gap.from_micros, gap.to_micros));
        let logs = self.logs.iter().flat_map(|chain| &chain.gaps);
        let logs = logs.filter(|gap| touches(gap.from_micros, gap.to_micros));
        let mut all: Vec<String> = entries.map(super::audit_gaps::EntryGap::sentence).collect();
        all.extend(logs.map(gap_sentence));
        let unread = self.logs_restored.iter().flat_map(|log| {
            let of = format!("{} {}", log.kind, log.source);
            log.unread.iter().map(move |why| format!("{of}: {why}"))
        });
        all.extend(unread);
        all
    }

    pub fn markdown(&self) -> String {
        let moment = |micros: i64| {
            let at = jiff::Timestamp::from_microsecond(micros);
            at.map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"))
        };
        // The ends of time stand for no limit.
        let limit = |micros: i64| match micros {
            0 | i64::MAX => "no limit".to_owned(),
            micros => moment(micros),
        };
        let mut text = format!(
            "# Gap report of the audit logs\n\nMade {} by {} on {}, bre {}. Period: from {} to {}.\n\n## Gaps\n",
            moment(self.made_at_micros),
            self.made_by,
            self.host,
            self.engine,
            limit(self.from_micros),
            limit(self.to_micros)
        );
        let gaps = self.gaps();
        match gaps.is_empty() {
            true => text.push_str("None.\n"),
            false => gaps
                .iter()
                .for_each(|gap| text.push_str(&format!("- {gap}\n"))),
        }
        text.push_str("\n## Restored\n| log | stretches | lines | files |\n|---|---|---|---|\n");
        if let Some(file) = &self.entries_file {
            text.push_str(&format!(
                "| database, the engine's own chain |  | {} | {} |\n",
                self.entries_restored,
                file.display()
            ));
        }
        for log in &self.logs_restored {
            text.push_str(&format!(
                "| {} {} | {} | {} | {} |\n",
                log.kind,
                log.source,
                log.stretches,
                log.lines,
                log.files.len()
            ));
        }
        text.push_str("\n## Chains\n| log | stretches | lines | from | to | state |\n|---|---|---|---|---|---|\n");
        let at = |micros: Option<i64>| micros.map_or_else(String::new, moment);
        if let Some(compared) = &self.entries {
            let database = compared.database_to;
            text.push_str(&format!(
                "| database | archived to {} | {} entries compared |  |  | {} |\n",
                compared.archived_to,
                compared.entries_compared,
                database.map_or_else(
                    || "the database was not asked".to_owned(),
                    |to| format!("the database goes to {to}")
                )
            ));
        }
        for chain in &self.logs {
            text.push_str(&format!(
                "| {} {} | {} to {} | {} | {} | {} | {} |\n",
                chain.kind,
                chain.source,
                chain.first_number,
                chain.last_number,
                chain.lines,
                at(chain.from_micros),
                at(chain.to_micros),
                match chain.gaps.len() {
                    0 => "whole".to_owned(),
                    gaps => format!("{gaps} gaps"),
                }
            ));
        }
        text
    }
}
