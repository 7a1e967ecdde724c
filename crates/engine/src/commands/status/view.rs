//! What `bre status` says to people. The first three lines: the state, the RPO now, what to do.

use std::collections::BTreeMap;

use services::StreamReport;

use super::{JobBrief, Status, take_a_backup};
use terminal::{KeyValue, age, duration, moment, moment_and_age, size};

use crate::commands::standby;

/// From bad to good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Alarm,
    Warning,
    Sound,
}

/// How much would be lost if the database were lost now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rpo {
    /// Each commit waits until the repository holds it.
    Strict,
    /// At most so many microseconds: the repository held everything at that moment.
    Confirmed {
        micros: i64,
        at_micros: i64,
    },
    Unknown,
    /// Nothing can be restored.
    Everything,
}

pub(super) fn text(status: &Status, now_micros: i64) -> String {
    // Of a folder that only protects clusters there is nothing of its own to tell.
    let own =
        !status.repository.is_empty() || !status.alarms.is_empty() || status.clusters.is_empty();
    let all: Vec<(Option<&str>, &Status)> = own
        .then_some((None, status))
        .into_iter()
        .chain(
            status
                .clusters
                .iter()
                .map(|(name, it)| (Some(name.as_str()), it)),
        )
        .collect();
    if let [(_, one)] = all.as_slice() {
        return of_one(one, now_micros);
    }
    let mut text = of_all(&all, now_micros);
    for (name, it) in all {
        let title = name.map_or_else(
            || "this instance".to_owned(),
            |name| format!("cluster {name}"),
        );
        text.push_str(&format!("\n{title}\n{}", of_one(it, now_micros)));
    }
    text
}

/// The worst of several, by name.
fn of_all(all: &[(Option<&str>, &Status)], now_micros: i64) -> String {
    let named = |name: Option<&str>, what: String| match name {
        Some(name) => format!("cluster {name}: {what}"),
        None => format!("this instance: {what}"),
    };
    let worst = all.iter().min_by_key(|(_, it)| state(it));
    let furthest = all.iter().max_by_key(|(_, it)| rpo(it, now_micros));
    let mut head = KeyValue::new();
    if let (Some((name, it)), Some((far, furthest))) = (worst, furthest) {
        head.row("state", named(*name, state_words(it)))
            .row("RPO now", named(*far, rpo_words(rpo(furthest, now_micros))))
            .row("what to do", named(*name, what_to_do(it)));
    }
    head.text()
}

fn of_one(status: &Status, now_micros: i64) -> String {
    let mut head = KeyValue::new();
    head.row("state", state_words(status))
        .row("RPO now", rpo_words(rpo(status, now_micros)))
        .row("what to do", what_to_do(status));
    let mut text = head.text();
    let mut found = KeyValue::new();
    found
        .rows("ALARM", numbered(&status.alarms))
        .rows("warning", numbered(&status.warnings));
    for block in [found.text(), facts(status, now_micros)] {
        if !block.is_empty() {
            text.push_str(&format!("\n{block}"));
        }
    }
    text
}

/// Where there are several, each begins with its number.
fn numbered(all: &[String]) -> Vec<String> {
    match all {
        [one] => vec![one.clone()],
        all => all
            .iter()
            .enumerate()
            .map(|(at, it)| format!("{}. {it}", at + 1))
            .collect(),
    }
}

fn state(status: &Status) -> Condition {
    match (status.alarms.as_slice(), status.warnings.as_slice()) {
        ([], []) => Condition::Sound,
        ([], _) => Condition::Warning,
        _ => Condition::Alarm,
    }
}

fn state_words(status: &Status) -> String {
    let runs = match (status.cluster.is_some(), status.running) {
        (false, true) => "the engine runs",
        (false, false) => "no engine runs",
        (true, true) => "its WAL is streamed from this host",
        (true, false) => "nobody on this host streams its WAL",
    };
    let things = |count: usize| match count {
        1 => "1 thing needs".to_owned(),
        count => format!("{count} things need"),
    };
    match state(status) {
        Condition::Alarm => format!(
            "ALARM: {} an operator now; {runs}",
            things(status.alarms.len())
        ),
        Condition::Warning => format!(
            "sound, with warnings: {} attention in time; {runs}",
            things(status.warnings.len())
        ),
        Condition::Sound => format!("sound; {runs}"),
    }
}

fn rpo(status: &Status, now_micros: i64) -> Rpo {
    let strict = |stream: &StreamReport| stream.attached && stream.strict;
    let confirmed = status
        .window
        .iter()
        .filter_map(|window| window.to_micros)
        .max();
    match confirmed {
        _ if status.window.is_empty() => match status.repository.is_empty() {
            true => Rpo::Unknown,
            false => Rpo::Everything,
        },
        _ if status.stream.as_ref().is_some_and(strict) => Rpo::Strict,
        Some(at_micros) => Rpo::Confirmed {
            micros: now_micros.saturating_sub(at_micros).max(0),
            at_micros,
        },
        None => Rpo::Unknown,
    }
}

fn rpo_words(rpo: Rpo) -> String {
    match rpo {
        Rpo::Strict => {
            "0 s: each commit waits until the repository holds it (strict mode)".to_owned()
        }
        Rpo::Confirmed { micros, at_micros } => format!(
            "{} at most: the repository held everything at {}",
            duration(micros),
            moment(at_micros)
        ),
        Rpo::Unknown => {
            "unknown: the repository does not say up to when it holds everything".to_owned()
        }
        Rpo::Everything => "everything would be lost: nothing can be restored".to_owned(),
    }
}

/// One line. What is wrong in detail stands below, with more words.
fn what_to_do(status: &Status) -> String {
    let cluster = status.cluster.as_deref();
    let of_cluster = cluster
        .map(|name| format!(" --cluster {name}"))
        .unwrap_or_default();
    let attached = status.stream.as_ref().map(|stream| stream.attached);
    match state(status) {
        Condition::Alarm if status.repository.is_empty() => {
            "make the repository reachable: the alarm below says what is wrong".to_owned()
        }
        Condition::Alarm if status.backups_complete == 0 || status.open_hole.is_some() => {
            take_a_backup(cluster)
        }
        Condition::Alarm if !status.damaged.is_empty() => {
            format!("find out what is damaged: bre verify repository{of_cluster}")
        }
        Condition::Alarm if status.proof_failed.is_some() => {
            format!("see what the restore test found: bre restore-test show{of_cluster}")
        }
        Condition::Alarm if cluster.is_some() && attached.is_none() => {
            format!("stream its WAL: bre wal stream{of_cluster}")
        }
        Condition::Alarm if attached == Some(false) => {
            "bring the stream of WAL back: the alarm below and the engine's log say why it stopped"
                .to_owned()
        }
        Condition::Alarm => "see the alarm below".to_owned(),
        Condition::Warning => "see the warning below; nothing is wrong yet".to_owned(),
        Condition::Sound if !status.running && cluster.is_none() => {
            "nothing, or start the engine: bre up".to_owned()
        }
        Condition::Sound => "nothing".to_owned(),
    }
}

fn facts(status: &Status, now_micros: i64) -> String {
    let mut facts = KeyValue::new();
    if status.repository.is_empty() {
        return String::new();
    }
    let newest = match (&status.newest_complete, status.newest_complete_micros) {
        (Some(id), Some(at)) => format!("the newest complete one is {id}, {}", age(now_micros, at)),
        (Some(id), None) => format!("the newest complete one is {id}"),
        (None, _) => "none can be restored".to_owned(),
    };
    let other = match status.backups_other {
        0 => String::new(),
        other => format!(", {other} other"),
    };
    facts
        .row("repository", &status.repository)
        .row(
            "backups",
            format!("{} complete{other}; {newest}", status.backups_complete),
        )
        .row(
            "restore test",
            match &status.newest_test {
                Some((id, at)) => format!("{id} passed {}", age(now_micros, *at)),
                None => "no backup passed one yet".to_owned(),
            },
        )
        .rows(
            "restorable",
            status.window.iter().map(|window| window.words()),
        )
        .rows("missing WAL", status.holes.iter().map(|hole| hole.words()));
    if let Some(stream) = &status.stream {
        facts.row("WAL stream", stream_words(stream));
        facts.rows(
            "",
            [&stream.warning, &stream.refuse_locates]
                .into_iter()
                .flatten(),
        );
    }
    if let Some(standby) = &status.standby {
        // The reason first, where it cannot go on.
        let trouble = standby::trouble(standby).map(|why| format!("{why}; "));
        let trouble = trouble.unwrap_or_default();
        facts.row(
            "standby",
            format!(
                "{trouble}{}, {:.1} s behind",
                standby.phase.words(),
                standby.lag_seconds
            ),
        );
    }
    if let Some(archive) = &status.audit_archive {
        let to = match archive.archived_to {
            Some(to) => format!("holds the audit log up to position {to}"),
            None => "holds nothing of the audit log yet".to_owned(),
        };
        let last = archive
            .last_pass_micros
            .map(|at| format!("; last pass {}", age(now_micros, at)));
        facts.row("audit archive", format!("{to}{}", last.unwrap_or_default()));
    }
    if !status.jobs.is_empty() {
        facts.row("jobs", jobs_words(&status.jobs));
    }
    for (job, said) in &status.provider_snapshots {
        facts.row(job, said);
    }
    for (name, copy) in &status.copies {
        facts.row(
            &format!("copy {name}"),
            format!(
                "{} of WAL behind; up to {}; {}",
                size(copy.lag_bytes),
                moment_and_age(now_micros, copy.until_micros),
                copy.repository
            ),
        );
    }
    if let Some(key) = &status.repository_key {
        facts.row(
            "repository key",
            format!("{}, {} days old", key.recipient_id, key.days),
        );
    }
    facts.text()
}

/// Each state with its number, and the names of those that are not as they usually are.
pub(crate) fn jobs_words(jobs: &[JobBrief]) -> String {
    let mut states: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for job in jobs {
        states.entry(job.state).or_default().push(&job.name);
    }
    let words = |(state, names): (&str, Vec<&str>)| match state {
        "waiting" | "running" | "not running" => format!("{} {state}", names.len()),
        _ => format!("{} {state} ({})", names.len(), names.join(", ")),
    };
    states.into_iter().map(words).collect::<Vec<_>>().join(", ")
}

/// As a person reads it.
fn stream_words(stream: &StreamReport) -> String {
    let attached = match stream.attached {
        true => "attached",
        false => "NOT attached",
    };
    let mut parts = vec![attached.to_owned()];
    if stream.strict {
        parts.push("commits wait for it (strict mode)".to_owned());
    }
    if let Some(lsn) = stream.durable_lsn {
        parts.push(format!(
            "in the repository up to LSN {:X}/{:X}",
            lsn >> 32,
            lsn & 0xffff_ffff
        ));
    }
    if let Some(permille) = stream.slot_fill_permille {
        let percent = format!("{}.{} %", permille / 10, permille % 10);
        parts.push(format!(
            "{percent} of the WAL that PostgreSQL may keep for it in use"
        ));
    }
    parts.join("; ")
}
