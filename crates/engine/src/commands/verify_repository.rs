//! `bre verify repository`: every object read back, the WAL followed to its end.

use std::process::ExitCode;

use postgres_physical::lsn::Lsn;
use repository::read_back::{Finding, ReadBack, ReadBackOptions, read_back};
use serde::Serialize;

use host::{instance::Instance, keys, progress::Steps, signals::interrupted};
use operations::audit_judge::AuditJudge;
use terminal::{self, KeyValue, Table, count, moment, sentence, size};

use crate::{cli::RepositoryArgs, error::Error};
use operations::{
    exit::Exit, jobs::settings, repository_handle::RepositoryHandle,
    stream_evidence::known_elsewhere,
};

/// Opening and decompressing is what takes the time: one thread a core.
const THREADS_MAX: usize = 4;

#[derive(Debug, Serialize)]
struct RepositoryReport {
    repository: String,
    verdict: Verdict,
    /// Objects that could not be opened with the keys that are here.
    not_opened: u64,
    #[serde(flatten)]
    read: ReadBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Sound,
    /// As far as it could be opened here.
    SoundAsFarAsOpened,
    Unsound,
    Interrupted,
}

impl Verdict {
    fn of(read: &ReadBack) -> Self {
        match (read.findings.is_empty(), read.cancelled, read.not_opened()) {
            (false, ..) => Self::Unsound,
            (true, true, _) => Self::Interrupted,
            (true, false, 0) => Self::Sound,
            (true, false, _) => Self::SoundAsFarAsOpened,
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Sound => Exit::Done,
            Self::Unsound => Exit::Failed,
            Self::SoundAsFarAsOpened | Self::Interrupted => Exit::Partial,
        }
    }
}

pub(super) fn run(
    instance: &Instance,
    json: bool,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let private = keys::reading_key_if_here(&opened.keys)?;
    let archive = keys::audit_reading_key_if_here(&opened.keys)?;
    let config = settings::load(None, instance.root())?;
    let further = args
        .repository
        .as_ref()
        .and_then(|name| config.repositories.get(name));
    let rules = further.map_or_else(
        || config.backup.rules(),
        |further| further.rules(&config.backup),
    );
    // A copy has an id of its own.
    let bound = std::fs::read_to_string(opened.keys.join("repository.id")).ok();
    let bound = bound.filter(|_| args.repository.is_none());
    let verifying = keys::verifying_key_if_here(&opened.keys)?;
    let judge = AuditJudge::new(verifying, &opened.repository);
    let steps = Steps::shown(json, "verify").cancelled_by(interrupted()?);
    let options = ReadBackOptions {
        private: private.as_ref(),
        archive: archive.as_ref(),
        rules,
        now_micros: jiff::Timestamp::now().as_microsecond(),
        repository_id: bound.as_deref().map(str::trim),
        audit: &judge,
        // Before anything is read: what it says was there then.
        evidence: known_elsewhere(instance, &args.into()),
        threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX)),
    };
    let read = read_back(&opened.repository, &options, &steps)?;
    drop(steps);
    let report = RepositoryReport {
        repository: opened.location.to_string(),
        verdict: Verdict::of(&read),
        not_opened: read.not_opened(),
        read,
    };
    terminal::result(json, &report, || sentences(&report));
    Ok(report.verdict.exit().into())
}

fn sentences(report: &RepositoryReport) -> String {
    let read = &report.read;
    let mut table = Table::new(&["objects", ">count", ">size", "result"]);
    for class in &read.classes {
        let notes = [
            (class.findings, "WITH FINDINGS"),
            (class.not_opened, "not opened"),
            (class.cold, "in an archive storage class"),
            (class.gone, "gone meanwhile"),
        ];
        let notes = notes.iter().filter(|(count, _)| *count > 0);
        let notes: Vec<String> = notes
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        table.row([
            class.class.describe().to_owned(),
            class.objects.to_string(),
            size(class.bytes),
            match notes.as_slice() {
                [] => "read back".to_owned(),
                notes => notes.join(", "),
            },
        ]);
    }
    let mut text = table.text() + "\n";
    let mut facts = KeyValue::new();
    for timeline in &read.timelines {
        let until = match timeline.until_micros {
            0 => String::new(),
            micros => format!(" ({})", moment(micros)),
        };
        let gaps = count(timeline.gaps.len() as u64, "gap");
        facts.row(
            "WAL",
            format!(
                "timeline {}: LSN {} to {}{until}, {gaps}",
                timeline.timeline,
                Lsn(timeline.from_lsn),
                Lsn(timeline.to_lsn),
            ),
        );
    }
    if let Some(newest) = read.newest.as_ref().filter(|newest| !newest.is_missing) {
        let (who, lsn) = (newest.evidence.describe(), Lsn(newest.evidence.lsn));
        facts.row("newest WAL", format!("is here: {who} knew of LSN {lsn}"));
    }
    let named = |it: &Finding| {
        format!(
            "{} ({}): {}. {}",
            it.object,
            it.class.describe(),
            it.what,
            it.remedy
        )
    };
    facts
        .rows("note", read.notes.iter().map(named))
        .rows("FOUND", read.findings.iter().map(named));
    let all: u64 = read.classes.iter().map(|class| class.findings).sum();
    if all > read.findings.len() as u64 {
        facts.row(
            "FOUND",
            format!("and {} more", all - read.findings.len() as u64),
        );
    }
    facts.rows("not opened", &read.closed);
    text.push_str(&facts.text());
    text.push_str(&sentence(&match report.verdict {
        Verdict::Sound => format!("{} is sound: every object was read back", report.repository),
        Verdict::SoundAsFarAsOpened => format!(
            "{}: nothing is wrong with what could be read; {} objects could not be opened with the keys that are here, and were checked by \
             what is clear of them. Verify where the private key is",
            report.repository, report.not_opened
        ),
        Verdict::Unsound => format!("{} is NOT sound: {all} findings", report.repository),
        Verdict::Interrupted => "stopped before the end; nothing was found until then".to_owned(),
    }));
    text
}

#[cfg(test)]
#[path = "screens/verify_repository.rs"]
mod screens;
