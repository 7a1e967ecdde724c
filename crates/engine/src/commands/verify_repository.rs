//! `bre verify repository`: every object read back, the WAL followed to its end.

use std::process::ExitCode;

use postgres_physical::lsn::Lsn;
use repository::read_back::{Finding, ReadBack, ReadBackOptions, read_back};
use serde::Serialize;

use super::{audit_judge::AuditJudge, restore::interrupted};
use crate::{
    cli::RepositoryArgs,
    config::Config,
    error::Error,
    exit::Exit,
    host::{instance::Instance, progress::Steps},
    keys, missing,
    opened::Opened,
    terminal,
};

/// Opening and decompressing is what takes the time: one thread a core.
const THREADS_MAX: usize = 4;

#[derive(Debug, Serialize)]
struct Report {
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
    let opened = Opened::at(instance, args)?;
    let private = keys::reading_key_if_here(&opened.keys)?;
    let archive = keys::audit_reading_key_if_here(&opened.keys)?;
    let config = Config::load(None, instance.root())?;
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
        evidence: missing::known_elsewhere(instance, args),
        threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX)),
    };
    let read = read_back(&opened.repository, &options, &steps)?;
    drop(steps);
    let report = Report {
        repository: opened.location.to_string(),
        verdict: Verdict::of(&read),
        not_opened: read.not_opened(),
        read,
    };
    terminal::result(json, &report, || sentences(&report));
    Ok(report.verdict.exit().into())
}

fn sentences(report: &Report) -> String {
    let read = &report.read;
    let mut text = String::new();
    for class in &read.classes {
        text.push_str(&format!(
            "{:26}{:>9} objects  {:>11}",
            class.class.describe(),
            class.objects,
            indicatif::HumanBytes(class.bytes).to_string(),
        ));
        for (count, what) in [
            (class.findings, "WITH FINDINGS"),
            (class.not_opened, "not opened"),
            (class.cold, "in an archive storage class"),
            (class.gone, "gone meanwhile"),
        ] {
            if count > 0 {
                text.push_str(&format!("  {count} {what}"));
            }
        }
        text.push('\n');
    }
    for timeline in &read.timelines {
        let until = match timeline.until_micros {
            0 => String::new(),
            micros => format!(" ({})", terminal::time(micros)),
        };
        text.push_str(&format!(
            "WAL of timeline {} from {} to {}{until}, {} gaps\n",
            timeline.timeline,
            Lsn(timeline.from_lsn),
            Lsn(timeline.to_lsn),
            timeline.gaps.len()
        ));
    }
    if let Some(newest) = read.newest.as_ref().filter(|newest| !newest.is_missing) {
        text.push_str(&format!(
            "The newest WAL is here: {} knew of {}\n",
            newest.evidence.describe(),
            Lsn(newest.evidence.lsn)
        ));
    }
    let lines = |text: &mut String, word: &str, all: &[Finding]| {
        for it in all {
            text.push_str(&format!(
                "{word}  {} ({}): {}. {}\n",
                terminal::word(&it.object),
                it.class.describe(),
                terminal::word(&it.what),
                it.remedy
            ));
        }
    };
    lines(&mut text, "note", &read.notes);
    lines(&mut text, "FOUND", &read.findings);
    let all: u64 = read.classes.iter().map(|class| class.findings).sum();
    if all > read.findings.len() as u64 {
        text.push_str(&format!("and {} more\n", all - read.findings.len() as u64));
    }
    for why in &read.closed {
        text.push_str(&format!("not opened: {}\n", terminal::word(why)));
    }
    text.push_str(&match report.verdict {
        Verdict::Sound => format!("{} is sound: every object was read back", report.repository),
        Verdict::SoundAsFarAsOpened => format!(
            "{}: nothing is wrong with what could be read; {} objects could not be opened with the keys that are here, and were checked by \
             what is clear of them. Verify where the private key is",
            report.repository, report.not_opened
        ),
        Verdict::Unsound => format!("{} is NOT sound: {all} findings", report.repository),
        Verdict::Interrupted => "stopped before the end; nothing was found until then".to_owned(),
    });
    text + "\n"
}
