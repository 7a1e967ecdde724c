//! Whether the audit logs are kept as compliance asks for: locks, keys, readers, chains, clocks. One report, as JSON
//! and as Markdown.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use control_plane::{Call, call::client};
use host::{
    files::{make_folder, write_whole},
    instance::Instance,
    person::{machine, who},
};
use repository::{
    Progress, Repository,
    keys::{Vault, recipients_in},
    retention::DAY_MICROS,
    store::{LockMode, LockPolicy},
};
use serde::Serialize;

use crate::{
    audit_gaps::{archive_holes, gap_sentence, log_chains},
    config::AuditArchive,
    error::Error,
};

const VERSION: u64 = 1;
/// The archive of entries and its wraps have the days of the longest kind.
const LONGEST: &str = "logs/application/";
/// Between the moment of a lock and that which the store gives an object.
const SLACK_MICROS: i64 = DAY_MICROS;
const NAMED_MAX: usize = 20;
const CHRONYC: &str = "chronyc";
const CHRONYC_TIMEOUT: Duration = Duration::from_secs(20);
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Serialize)]
pub struct ComplianceReport {
    report_version: u64,
    pub made_at_micros: i64,
    made_by: String,
    host: String,
    engine: &'static str,
    pub checks: Vec<ComplianceCheck>,
    /// Where it is on this host, without its ending.
    pub file: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ComplianceCheck {
    /// `locks`, `keys`, `readers`, `chains`, `clock`.
    pub name: &'static str,
    pub passed: bool,
    /// What was found wrong, and what mends it.
    pub findings: Vec<String>,
    /// What was seen.
    pub evidence: Vec<String>,
}

impl ComplianceCheck {
    fn new(name: &'static str, findings: Vec<String>, evidence: Vec<String>) -> Self {
        Self {
            name,
            passed: findings.is_empty(),
            findings,
            evidence,
        }
    }
}

/// The repositories of the engine's own chain and of logs.
#[derive(Debug)]
pub struct ArchivePair<'a> {
    pub entries: &'a Repository,
    pub logs: &'a Repository,
}

/// Looks at all of it, and writes the report below the instance's folder.
pub fn check(
    instance: &Instance,
    config: &AuditArchive,
    archived: &ArchivePair<'_>,
    progress: &dyn Progress,
) -> Result<ComplianceReport, Error> {
    let made_at_micros = jiff::Timestamp::now().as_microsecond();
    let is_apart = archived.entries.id() != archived.logs.id();
    let mut locks = vec![check_locks(archived.logs, progress)?];
    let mut readers = vec![check_readers(archived.logs, &config.readers)?];
    if is_apart {
        locks.push(check_locks(archived.entries, progress)?);
        readers.push(check_readers(archived.entries, &config.readers)?);
    }
    let mut checks = locks;
    checks.push(check_keys(instance, archived)?);
    checks.extend(readers);
    checks.push(check_chains(instance, archived, progress)?);
    checks.push(check_clock(config, &|| progress.cancelled()));
    let folder = instance.root().join("reports");
    make_folder(&folder, 0o700)?;
    let at = jiff::Timestamp::from_microsecond(made_at_micros).unwrap_or_default();
    let report = ComplianceReport {
        report_version: VERSION,
        made_at_micros,
        made_by: who(),
        host: machine(),
        engine: env!("CARGO_PKG_VERSION"),
        checks,
        file: folder.join(format!(
            "audit_compliance-{}",
            at.strftime("%Y%m%dT%H%M%SZ")
        )),
    };
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    write_whole(&report.file.with_extension("json"), &json, 0o600)?;
    let markdown = report.markdown();
    write_whole(
        &report.file.with_extension("md"),
        markdown.as_bytes(),
        0o600,
    )?;
    Ok(report)
}

impl ComplianceReport {
    pub fn findings(&self) -> impl Iterator<Item = String> {
        let checks = self.checks.iter();
        checks.flat_map(|check| {
            check
                .findings
                .iter()
                .map(|what| format!("{}: {what}", check.name))
        })
    }

    pub fn sentences(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let word = if check.passed { "passed" } else { "FAILED" };
            text.push_str(&format!("{}: {word}\n", check.name));
            for finding in &check.findings {
                text.push_str(&format!("  {finding}\n"));
            }
        }
        text.push_str(&format!("report: {}.md and .json\n", self.file.display()));
        text
    }

    pub fn markdown(&self) -> String {
        let at = jiff::Timestamp::from_microsecond(self.made_at_micros).unwrap_or_default();
        let mut text = format!(
            "# Compliance of the audit logs\n\nMade {at:.0} by {} on {}, bre {}.\n\n| check | result |\n|---|---|\n",
            self.made_by, self.host, self.engine
        );
        for check in &self.checks {
            let word = match check.findings.len() {
                0 => "passed".to_owned(),
                findings => format!("FAILED: {findings} findings"),
            };
            text.push_str(&format!("| {} | {word} |\n", check.name));
        }
        for check in &self.checks {
            text.push_str(&format!("\n## {}\n", check.name));
            for finding in &check.findings {
                text.push_str(&format!("- FAILED: {finding}\n"));
            }
            for seen in &check.evidence {
                text.push_str(&format!("- {seen}\n"));
            }
        }
        text
    }
}

/// Every object of the archive and of logs: locked in compliance mode, for its years from when it was written.
fn check_locks(repository: &Repository, progress: &dyn Progress) -> Result<ComplianceCheck, Error> {
    let store = repository.store();
    let (mut findings, mut seen, mut wrong) = (Vec::new(), 0_u64, 0_u64);
    for prefix in ["audit/", "logs/"] {
        for object in store.list(prefix).map_err(repository::Error::from)? {
            if progress.cancelled() {
                return Err(Error::failed("interrupted; no report was written"));
            }
            seen += 1;
            let days = LockPolicy::days_of_log(&object.name).or(LockPolicy::days_of_log(LONGEST));
            let wanted = object.modified_micros + i64::from(days.unwrap_or(0)) * DAY_MICROS;
            let now = jiff::Timestamp::now().as_microsecond();
            let fault = match store
                .lock_of(&object.name)
                .map_err(repository::Error::from)?
            {
                // Its years are over.
                None if wanted < now => continue,
                None => "it is not locked".to_owned(),
                Some(lock) if lock.mode == Some(LockMode::Governance) => {
                    "its lock has the mode governance: those with a permission of their own lift it"
                        .to_owned()
                }
                Some(lock)
                    if lock
                        .until_micros
                        .is_none_or(|until| until < wanted - SLACK_MICROS) =>
                {
                    format!(
                        "{lock}; {} days from when it was written are asked for",
                        days.unwrap_or(0)
                    )
                }
                Some(_) => continue,
            };
            wrong += 1;
            if findings.len() < NAMED_MAX {
                findings.push(format!("`{}`: {fault}", object.name));
            }
        }
    }
    if wrong > NAMED_MAX as u64 {
        findings.push(format!("and {} more objects", wrong - NAMED_MAX as u64));
    }
    if wrong > 0 {
        findings.push(
            "new objects are locked with [repository.lock] (or [audit_archive] lock) mode = \"compliance\" on a \
                bucket with object \
             lock: docs/operations/s3.md#object-lock"
                .to_owned(),
        );
    }
    let evidence = format!(
        "{}: {seen} objects, {wrong} of them wrong",
        repository.describe()
    );
    Ok(ComplianceCheck::new("locks", findings, vec![evidence]))
}

/// The archive's key is another than that of the backups, and its private half is not on the host that writes.
fn check_keys(instance: &Instance, archived: &ArchivePair<'_>) -> Result<ComplianceCheck, Error> {
    let mut findings = Vec::new();
    let backups = recipients_in(archived.entries, Vault::Backups)?;
    let mut archive = recipients_in(archived.logs, Vault::Audit)?;
    archive.extend(recipients_in(archived.entries, Vault::Audit)?);
    for id in archive.iter().filter(|id| backups.contains(*id)) {
        findings.push(format!(
            "recipient {id} reads backups and the archive: rotate the archive's key (bre audit key rotate)"
        ));
    }
    let private = instance.keys().join("audit_recipient.key");
    if private.exists() {
        findings.push(format!(
            "the archive's private key is on the host that writes it: move {} to those who may read the archive",
            private.display()
        ));
    }
    let evidence = vec![
        format!("backups are sealed to {}", listed(&backups)),
        format!("the archive is sealed to {}", listed(&archive)),
    ];
    Ok(ComplianceCheck::new("keys", findings, evidence))
}

fn listed(ids: &BTreeSet<String>) -> String {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ids.join(", ")
}

/// Who can open the archive, against whom the settings name.
fn check_readers(repository: &Repository, named: &[String]) -> Result<ComplianceCheck, Error> {
    let there = recipients_in(repository, Vault::Audit)?;
    let extra = there.iter().filter(|id| !named.contains(id));
    let mut findings: Vec<String> = extra
        .map(|id| {
            format!(
                "recipient {id} can read the archive, and [audit_archive] readers does not name it: retire that \
                    key (bre audit key \
                 retire-old), or name it"
            )
        })
        .collect();
    if !there.is_empty() {
        let lacking = named.iter().filter(|id| !there.contains(*id));
        findings.extend(lacking.map(|id| {
            format!(
                "recipient {id} is named in [audit_archive] readers, and nothing is sealed to it"
            )
        }));
    }
    let evidence = format!("{}: readers {}", repository.describe(), listed(&there));
    Ok(ComplianceCheck::new("readers", findings, vec![evidence]))
}

/// Nothing that was put is missing or other than it was. What a log lost before it was read is on record, too.
fn check_chains(
    instance: &Instance,
    archived: &ArchivePair<'_>,
    progress: &dyn Progress,
) -> Result<ComplianceCheck, Error> {
    let (mut findings, mut evidence) = (Vec::new(), Vec::new());
    for (from, to) in archive_holes(archived.entries)? {
        findings.push(format!(
            "database: positions {from} to {to} are not in the archive"
        ));
    }
    for chain in log_chains(archived.logs, instance, progress)? {
        let (store, source): (Vec<_>, Vec<_>) =
            chain.gaps.iter().partition(|gap| gap.cause.is_of_store());
        findings.extend(store.into_iter().map(gap_sentence));
        evidence.push(format!(
            "{} {}: stretches {} to {}, {} lines",
            chain.kind, chain.source, chain.first_number, chain.last_number, chain.lines
        ));
        evidence.extend(
            source
                .into_iter()
                .map(|gap| format!("known loss: {}", gap_sentence(gap))),
        );
    }
    Ok(ComplianceCheck::new("chains", findings, evidence))
}

/// What chrony says of this host's clock: its own words are the evidence.
fn check_clock(config: &AuditArchive, cancelled: &dyn Fn() -> bool) -> ComplianceCheck {
    let program = std::path::Path::new(CHRONYC);
    let mut command = client(program);
    if let Some(socket) = &config.chrony {
        command.arg("-h").arg(socket);
    }
    command.args(["-c", "tracking"]);
    let call = Call {
        command,
        program: CHRONYC,
        doing: "tracking".to_owned(),
        input: b"",
        timeout: CHRONYC_TIMEOUT,
        cancelled,
    };
    let (findings, evidence) = match call.output(OUTPUT_BYTES_MAX) {
        Err(error) => (
            vec![format!(
                "no evidence that the clock is synchronised: {error}. Install and start chrony"
            )],
            Vec::new(),
        ),
        Ok(said) => {
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let fault = judge_tracking(&said, config.clock_offset_millis_max.get());
            (
                fault.into_iter().collect(),
                vec![format!("chronyc -c tracking: {said}")],
            )
        }
    };
    ComplianceCheck::new("clock", findings, evidence)
}

/// The fields of `chronyc -c tracking`: the fifth is how far the clock is from the time, the last one the leap status.
fn judge_tracking(said: &str, millis_max: u16) -> Option<String> {
    let fields: Vec<&str> = said.split(',').collect();
    let (Some(offset), Some(leap), 14) = (fields.get(4), fields.last(), fields.len()) else {
        return Some(format!("what chronyc says is not understood: {said}"));
    };
    if *leap != "Normal" {
        return Some(format!(
            "the clock is not synchronised: chrony says {leap:?}"
        ));
    }
    let seconds = offset.trim_start_matches(['-', '+']).parse::<f64>().ok();
    let apart = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let Some(apart) = apart else {
        return Some(format!("what chronyc says is not understood: {said}"));
    };
    match apart <= Duration::from_millis(millis_max.into()) {
        true => None,
        false => Some(format!(
            "the clock is {offset} s from the time; at most {millis_max} ms are allowed ([audit_archive] \
                clock_offset_millis_max)"
        )),
    }
}

#[cfg(test)]
mod tests;
