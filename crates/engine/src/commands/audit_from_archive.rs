//! `bre verify audit --archive`: the log from its archive, with the archive's key alone, or from a file of
//! `bre audit export`. No server has a part in it.

use std::{path::Path, process::ExitCode};

use audit::{
    BadEntry, Entry, Head, Report, SignedHead, StoredEntry, Verdict, Verifier, VerifyingKey,
};
use repository::{
    archive::{ArchivePart, ArchivedEntries, archive_listing, read_archive},
    keys::RecipientPrivate,
    log_stretches::{ChainReport, LogGapCause},
};
use serde::Serialize;

use super::audit::verdict;
use host::{
    instance::Instance,
    keys::{audit_reading_key, trusted},
    log::LOG,
    stored_heads::{UncountedHead, uncounted_head},
};

use crate::{cli::RepositoryArgs, error::Error};
use operations::{
    audit_gaps::{EntryComparison, Lacks, compare_entries, gap_sentence, log_chains, main_chain},
    audit_logs::own_repository,
    audit_outside::{Extent, Outside, OutsideEvidence},
    audit_statements::PublishedStatements,
    exit::Exit,
    jobs::settings,
    repository_handle::RepositoryHandle,
};

#[derive(Debug, Serialize)]
struct ArchiveReport {
    road: &'static str,
    verdict: &'static str,
    #[serde(flatten)]
    log: Report,
    parts: usize,
    /// Of stretches that a recovery left behind; they are kept.
    parts_left_behind: usize,
    /// Parts that cannot be read, each by the name of its object.
    parts_damaged: Vec<String>,
    /// The archive against the database that runs here.
    compared: EntryComparison,
    /// Logs of services, PostgreSQL and the machine: each chain, with what it lacks.
    logs: Vec<ChainReport>,
    /// Of those chains: `sound`, `known_loss` (what a log lost before it was read), `cut`, `rewritten`.
    logs_verdict: &'static str,
    #[serde(flatten)]
    beside: OutsideEvidence,
}

/// From an archive, its key and the public half of the signing key alone, or from what was exported. `place`: a folder
/// or bucket that holds the archive, or a file of `bre audit export`; the instance's own repository when absent.
pub(super) fn verify(
    instance: &Instance,
    json: bool,
    place: Option<&str>,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    if let Some(file) = place.map(Path::new).filter(|path| path.is_file()) {
        return verify_export(instance, json, file, args);
    }
    if place.is_some() && args.repository.is_some() {
        return Err(Error::argument(
            "place of the archive",
            place.unwrap_or_default().to_owned(),
            "--repository names another one; name one of the two",
        ));
    }
    let args = RepositoryArgs {
        repository: place.map(str::to_owned).or_else(|| args.repository.clone()),
        keys: args.keys.clone(),
        cluster: args.cluster.clone(),
    };
    let opened = RepositoryHandle::at(instance, &args)?;
    let private = audit_reading_key(&opened.keys)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let mut outside = Outside::gather(instance, opened.log(), &keys)?;
    let archive = Archive::look(&opened, &private, &keys)?;
    outside.also_uncounted(archive.uncounted.clone());
    let (mut log, extent) = archive.walk(&outside, &keys)?;
    let now = jiff::Timestamp::now().as_microsecond();
    let (word, beside) = outside.judge(&mut log, &extent, now);
    let running = match place {
        // A copy elsewhere is no part of this instance.
        Some(_) => None,
        None => instance.announced().map(|running| running.database_url),
    };
    let entries = compare_entries(&opened.repository, &private, running.as_deref());
    let entries = host::runtime::wait(entries)?;
    let apart = match args.repository {
        Some(_) => None,
        None => own_repository(&settings::load(None, instance.root())?.audit_archive)?,
    };
    let logs = log_chains(apart.as_ref().unwrap_or(&opened.repository), instance, &())?;
    let logs_word = word_of_logs(&logs, &entries);
    let report = ArchiveReport {
        compared: entries,
        logs,
        logs_verdict: logs_word.name(),
        road: "archive",
        verdict: word.name(),
        log,
        parts_left_behind: archive.parts.len() - archive.chain.len(),
        parts: archive.chain.len(),
        parts_damaged: archive.damaged,
        beside,
    };
    terminal::result(json, &report, || report.sentences(word));
    let exit = match word {
        Verdict::Sound => Exit::of(logs_word),
        word => Exit::of(word),
    };
    Ok(exit.into())
}

/// The worst of what is missing.
fn word_of_logs(logs: &[ChainReport], entries: &EntryComparison) -> Verdict {
    let causes = || {
        logs.iter()
            .flat_map(|chain| &chain.gaps)
            .map(|gap| gap.cause)
    };
    let lacks = |what| entries.gaps.iter().any(|gap| gap.lacks == what);
    if causes().any(|cause| cause == LogGapCause::Damaged) || lacks(Lacks::Agreement) {
        return Verdict::Rewritten;
    }
    if causes().any(|cause| cause == LogGapCause::Missing)
        || lacks(Lacks::Archive)
        || lacks(Lacks::Database)
    {
        return Verdict::Cut;
    }
    match causes().next() {
        Some(_) => Verdict::KnownLoss,
        None => Verdict::Sound,
    }
}

/// What an archive holds, its parts opened once to know their heads.
struct Archive<'a> {
    opened: &'a RepositoryHandle,
    private: &'a RecipientPrivate,
    parts: Vec<ArchivePart>,
    /// From the first to the newest, each going on from the one before, by their places in `parts`.
    chain: Vec<usize>,
    begins_at: u64,
    damaged: Vec<String>,
    /// Those that the parts hold.
    heads: Vec<Head>,
    /// Those among them whose signers had ended.
    uncounted: Vec<UncountedHead>,
}

impl<'a> Archive<'a> {
    /// A part that is damaged hides none of the others.
    fn look(
        opened: &'a RepositoryHandle,
        private: &'a RecipientPrivate,
        keys: &[VerifyingKey],
    ) -> Result<Self, Error> {
        let (mut parts, mut damaged) = (Vec::new(), Vec::new());
        let (mut heads, mut uncounted) = (Vec::new(), Vec::new());
        for (name, read) in archive_listing(&opened.repository, LOG)? {
            match read {
                Ok(part) => parts.push(part),
                Err(error) => damaged.push(format!("`{name}`: {}", told(error)?)),
            }
        }
        for part in &parts {
            let head = match read_archive(&opened.repository, private, part) {
                Ok(content) => head_of(&content, keys),
                Err(error) => Err(told(error)?),
            };
            match head {
                Ok(HeadOfPart::Counted(head)) => heads.push(head),
                Ok(HeadOfPart::UncountedHead(one)) => uncounted.push(one),
                Err(why) => damaged.push(format!("`{}`: {why}", part.name())),
            }
        }
        let (chain, begins_at) = main_chain(&parts);
        heads.sort_by_key(|head| (head.epoch, head.size));
        heads.dedup();
        Ok(Self {
            opened,
            private,
            chain: chain.into(),
            begins_at,
            parts,
            damaged,
            heads,
            uncounted,
        })
    }

    /// The entries against every head that they reach. Those of stretches left behind too: the opening that followed
    /// has to name what was lost.
    fn walk(&self, outside: &Outside, keys: &[VerifyingKey]) -> Result<(Report, Extent), Error> {
        let parts = || self.chain.iter().map(|at| &self.parts[*at]);
        let end = parts()
            .next_back()
            .map_or((0, 0), |part| (part.epoch, part.to));
        let is_reached = |head: &&Head| (head.epoch, head.size) <= end;
        let known = outside.heads.iter();
        let mut heads: Vec<Head> = known.clone().filter(is_reached).cloned().collect();
        let later: Vec<Head> = known.filter(|head| !is_reached(head)).cloned().collect();
        heads.extend(self.heads.iter().cloned());
        heads.sort_by_key(|head| (head.epoch, head.size));
        heads.dedup_by_key(|head| (head.epoch, head.size, head.last_hash, head.root));
        let published = PublishedStatements::read(&self.opened.repository)?;
        let mut verifier = Verifier::new(LOG, &heads, keys);
        if self.begins_at > 1 {
            verifier.reject(
                0,
                1,
                format!("the parts before position {} are missing", self.begins_at),
            );
        }
        for part in parts() {
            let content = match read_archive(&self.opened.repository, self.private, part) {
                Ok(content) => content,
                Err(error) => {
                    let from = i64::try_from(part.from).unwrap_or(i64::MAX);
                    let why = format!("`{}`: {}", part.name(), told(error)?);
                    verifier.reject(part.epoch.into(), from, why);
                    continue;
                }
            };
            for (position, bytes) in (part.from..).zip(content.entries) {
                push(&mut verifier, &published, part, position, bytes);
            }
        }
        let mut report = verifier.finish();
        // One that belongs to no stretch of this chain, or to its end.
        if let (Some(why), true) = (self.damaged.first(), report.is_sound()) {
            unreadable_part(&mut report, end, why);
        }
        Ok((report, Extent::Part { later }))
    }
}

fn unreadable_part(report: &mut Report, (epoch, size): (u32, u64), why: &str) {
    report.first_bad = Some(BadEntry {
        epoch: i64::from(epoch),
        position: i64::try_from(size).map_or(i64::MAX, |size| size.saturating_add(1)),
    });
    report.reason = Some(format!("a part of the archive cannot be read: {why}"));
}

/// What is wrong with one object, in words; an error where nothing can be asked, or the key at hand is not the
/// archive's.
fn told(error: repository::Error) -> Result<String, Error> {
    use repository::Error as E;
    match error {
        // A bad sector is of one object.
        E::Store(repository::StoreError::Io { .. }) => Ok(error.to_string()),
        E::WrongKey(_) | E::KeyClosed(_) => Err(error.into()),
        error if error.is_unavailable() => Err(error.into()),
        error => Ok(error.to_string()),
    }
}

#[derive(Debug, Serialize)]
struct ExportReport {
    road: &'static str,
    verdict: &'static str,
    #[serde(flatten)]
    log: Report,
    #[serde(flatten)]
    beside: OutsideEvidence,
}

/// One line of `bre audit export`.
#[derive(Debug, serde::Deserialize)]
struct ExportedEntry {
    epoch: i64,
    position: i64,
    hash: String,
    canonical: String,
}

/// Entries from a file, heads from the repository and from beside it. A file that ends before the newest of them was
/// cut, or is old.
fn verify_export(
    instance: &Instance,
    json: bool,
    file: &Path,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let outside = Outside::gather(instance, opened.log(), &keys)?;
    let published = PublishedStatements::read(&opened.repository)?;
    let mut verifier = Verifier::new(LOG, &outside.heads, &keys);
    let lines = std::fs::File::open(file).map_err(Error::file("cannot read", file))?;
    let lines = std::io::BufRead::lines(std::io::BufReader::new(lines));
    for (number, line) in lines.enumerate() {
        let line = line.map_err(Error::file("cannot read", file))?;
        let entry = exported(&line).map_err(|reason| {
            Error::argument(
                "file of bre audit export",
                file.display().to_string(),
                format!("line {}: {reason}", number + 1),
            )
        })?;
        take(&mut verifier, &published, &entry);
    }
    let mut log = verifier.finish();
    let now = jiff::Timestamp::now().as_microsecond();
    let (word, beside) = outside.judge(&mut log, &Extent::Whole, now);
    let report = ExportReport {
        road: "export",
        verdict: word.name(),
        log,
        beside,
    };
    let log = &report.log;
    terminal::result(json, &report, || {
        format!(
            "road: the file {} and the heads of {}; no server was asked\n\
             {} entries, {} verified, {} signed heads agreed, the newest at {}\n{}{}",
            file.display(),
            opened.location,
            log.entries,
            log.verified,
            log.heads_agreed,
            log.covered_to,
            report.beside.sentences(),
            verdict(log, word)
        )
    });
    Ok(Exit::of(word).into())
}

fn exported(line: &str) -> Result<StoredEntry, String> {
    let line: ExportedEntry = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let bytes = |hex: &str| audit::hex::decode(hex).map_err(|error| error.to_string());
    Ok(StoredEntry {
        epoch: line.epoch,
        position: line.position,
        bytes: bytes(&line.canonical)?,
        hash: bytes(&line.hash)?,
    })
}

/// What the head of a part is worth. Entries are held against the other heads as well, so one that does not count
/// takes nothing from them.
enum HeadOfPart {
    Counted(Head),
    UncountedHead(UncountedHead),
}

fn head_of(content: &ArchivedEntries, keys: &[VerifyingKey]) -> Result<HeadOfPart, String> {
    let signed = SignedHead::from_json(&content.signed_head).map_err(|error| error.to_string())?;
    match signed.verify(keys) {
        Ok(head) => Ok(HeadOfPart::Counted(head)),
        Err(error) => match uncounted_head(&signed, &error) {
            Some(one) => Ok(HeadOfPart::UncountedHead(UncountedHead {
                what: "heads in the archive",
                ..one
            })),
            None => Err(error.to_string()),
        },
    }
}

/// The next entry, and what it records of signing keys against what the repository holds.
fn take(verifier: &mut Verifier, published: &PublishedStatements, stored: &StoredEntry) {
    let fault = verifier
        .push(stored)
        .and_then(|entry| published.fault_of(&entry));
    if let Some((bad, reason)) = fault {
        verifier.reject(bad.epoch, bad.position, reason);
    }
}

fn push(
    verifier: &mut Verifier,
    published: &PublishedStatements,
    part: &ArchivePart,
    position: u64,
    bytes: Vec<u8>,
) {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let epoch = match Entry::parse(&bytes) {
        Ok(entry) => i64::from(entry.epoch),
        Err(error) => return verifier.reject(part.epoch.into(), position, error.to_string()),
    };
    let hash = Entry::hash_of(&bytes).as_bytes().to_vec();
    let stored = StoredEntry {
        epoch,
        position,
        bytes,
        hash,
    };
    take(verifier, published, &stored);
}

impl ArchiveReport {
    fn sentences(&self, word: Verdict) -> String {
        let log = &self.log;
        let mut text = format!(
            "road: the archive, with its own key; no server was asked\n\
             {} entries in {} parts, {} verified, {} signed heads agreed, the newest at {}\n",
            log.entries, self.parts, log.verified, log.heads_agreed, log.covered_to
        );
        if self.parts_left_behind > 0 {
            text.push_str(&format!(
                "{} parts of stretches that a recovery left behind\n",
                self.parts_left_behind
            ));
        }
        for part in &self.parts_damaged {
            text.push_str(&format!("FOUND: {part}\n"));
        }
        text.push_str(&self.beside.sentences());
        text.push_str(&self.gap_sentences());
        text.push_str(&verdict(log, word));
        text
    }

    fn gap_sentences(&self) -> String {
        let mut text = match self.compared.database_to {
            Some(to) => format!(
                "{} entries compared with the database, which goes to {to}; the archive goes to {}\n",
                self.compared.entries_compared, self.compared.archived_to
            ),
            None => "the database was not asked: it does not run here\n".to_owned(),
        };
        for gap in &self.compared.gaps {
            text.push_str(&format!("MISSING: {}\n", gap.sentence()));
        }
        for chain in &self.logs {
            text.push_str(&format!(
                "{} {}: {} lines in {} stretches, {}\n",
                chain.kind,
                chain.source,
                chain.lines,
                chain.stretches,
                match chain.gaps.len() {
                    0 => "whole".to_owned(),
                    gaps => format!("{gaps} gaps"),
                }
            ));
            for gap in &chain.gaps {
                text.push_str(&format!("MISSING: {}\n", gap_sentence(gap)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn part(epoch: u32, from: u64, to: u64, previous: &str, last: &str) -> ArchivePart {
        ArchivePart::new(LOG, epoch, (from, to), previous.into(), last.into())
    }

    #[test]
    fn a_stretch_left_behind_is_not_gone_on_from() {
        let all = [
            part(1, 1, 40, "0", "a"),
            part(1, 41, 100, "a", "b"),
            part(2, 41, 60, "a", "c"),
        ];
        assert_eq!(main_chain(&all), (VecDeque::from([0, 2]), 1));
        let (chain, begins_at) = main_chain(&all[1..]);
        assert_eq!((chain.len(), begins_at), (1, 41));
    }
}
