//! `bre audit archive`, and `bre audit verify --archive`: the log kept for years, sealed to a key of its own. Who reads backups does not
//! read it, and who reads it reads no backup.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use audit::{Entry, Hash, Head, Report, SignedHead, StoredEntry, Verifier, VerifyingKey};
use repository::{
    Repository,
    archive::{ArchivePart, ArchivedEntries, archive_parts, put_archive, read_archive},
    keys::{RecipientPublic, Vault, recipients_in},
};
use serde::Serialize;

use super::audit::verdict;
use crate::{
    cli::{AuditArgs, RepositoryArgs},
    error::Error,
    exit::Exit,
    host::{
        instance::Instance,
        log::{self, LOG},
    },
    keys::{audit_reading_key, audit_writing_key, lacks_audit_writing_key, trusted},
    opened::Opened,
    terminal,
};

/// A part is held in memory when it is written and when it is read.
const PART_BYTES: usize = 8 << 20;
const PART_ENTRIES: usize = 1 << 16;

#[derive(Debug, Serialize)]
pub(crate) struct Archived {
    recipient_id: String,
    /// The private key was made just now and lies here: it belongs elsewhere.
    key_made: Option<std::path::PathBuf>,
    /// Entries that were archived before, and now.
    entries_before: u64,
    entries: u64,
    parts: u64,
    /// Every entry up to this position is in the archive: as far as the newest signed head.
    archived_to: u64,
}

pub(super) async fn archive(
    instance: &Instance,
    json: bool,
    database: &str,
    args: &AuditArgs,
) -> Result<ExitCode, Error> {
    let opened = Opened::at(instance, &args.repository)?;
    show(json, &opened, database).await
}

/// As the plan does it, now.
pub(super) async fn of_running(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let opened = Opened::at(instance, &RepositoryArgs::default())?;
    show(json, &opened, &instance.running()?.database_url).await
}

async fn show(json: bool, opened: &Opened, database: &str) -> Result<ExitCode, Error> {
    let stop = super::restore::interrupted()?;
    let archived = pass(&opened.repository, &opened.keys, database, &stop).await?;
    let archived = archived.ok_or_else(|| Error::Refused {
        what: "nothing was archived",
        reason: NO_HEAD.into(),
    })?;
    terminal::result(json, &archived, || archived.sentences());
    Ok(ExitCode::SUCCESS)
}

const NO_HEAD: &str =
    "the repository holds no signed head yet, and only what one vouches for is archived";

/// For the plan.
pub(crate) fn said(archived: Option<&Archived>) -> String {
    archived.map_or_else(
        || NO_HEAD.to_owned(),
        |archived| archived.sentences().trim_end().to_owned(),
    )
}

/// What is new up to the newest signed head; `None` while there is none.
pub(crate) async fn pass(
    repository: &Repository,
    keys: &Path,
    database: &str,
    stop: &AtomicBool,
) -> Result<Option<Archived>, Error> {
    let Some(signed) = newest_head(repository)? else {
        return Ok(None);
    };
    if lacks_audit_writing_key(keys) {
        let known = recipients_in(repository, Vault::Audit)?;
        if let Some(id) = known.first() {
            return Err(Error::Refused {
                what: "the archive is sealed to another key",
                reason: format!(
                    "it was made for recipient {id}, and {} holds no audit_recipient.pub. Bring that file from the host that archived before; \
                     a key of this host alone would close what follows to everybody else",
                    keys.display()
                ),
            });
        }
    }
    let (recipient, key_made) = audit_writing_key(keys)?;
    let head = signed.verify(&trusted(keys, repository)?)?;
    let (from, previous) = begin(repository, database).await?;
    let mut archived = Archived {
        recipient_id: recipient.id(),
        key_made,
        entries_before: from - 1,
        entries: (head.size + 1).saturating_sub(from),
        parts: 0,
        archived_to: head.size.max(from - 1),
    };
    if archived.entries > 0 {
        // First without writing: nothing is archived of a log that does not end as its head says.
        let look = Pass::new(from, previous, &head);
        run(database, look, stop, |_, _| Ok(())).await?;
        let to = Destination {
            repository,
            recipient: &recipient,
            head: &signed,
        };
        let write = Pass::new(from, previous, &head);
        archived.parts = run(database, write, stop, |part, entries| {
            to.put(&part, entries)
        })
        .await?;
    }
    Ok(Some(archived))
}

impl Archived {
    fn sentences(&self) -> String {
        let mut text = format!(
            "{} entries archived in {} parts, sealed to {}; the archive holds the log up to position {}\n",
            self.entries, self.parts, self.recipient_id, self.archived_to
        );
        if let Some(path) = &self.key_made {
            text.push_str(&format!(
                "the archive's key was made: move {} to whoever may read the archive, and keep a copy elsewhere. Writing needs only audit_recipient.pub\n",
                path.display()
            ));
        }
        text
    }
}

fn newest_head(repository: &Repository) -> Result<Option<SignedHead>, Error> {
    let heads = log::newest(repository)?.into_iter();
    Ok(heads.max_by_key(|head| (head.claimed().epoch, head.claimed().size)))
}

/// Behind the newest part whose last entry the log still has: what a recovery left behind stays in the archive and is not gone on from.
async fn begin(repository: &Repository, database: &str) -> Result<(u64, Hash), Error> {
    let mut parts = archive_parts(repository, LOG)?;
    parts.sort_by_key(|part| std::cmp::Reverse((part.to, part.epoch)));
    for part in parts {
        let entry = services::entry(database, LOG, part.to).await?;
        let hash = entry.map(|entry| Entry::hash_of(&entry.bytes));
        if let Some(hash) = hash.filter(|hash| hash.to_string() == part.last) {
            return Ok((part.to + 1, hash));
        }
    }
    Ok((1, Hash::ZERO))
}

/// Walks along the chain and cuts it into parts.
struct Pass {
    from: u64,
    /// Hash before the first pending entry.
    before: Hash,
    /// Of the last entry.
    last: Hash,
    epoch: u32,
    position: u64,
    end: Head,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    parts: u64,
}

impl Pass {
    fn new(from: u64, previous: Hash, head: &Head) -> Self {
        Self {
            from,
            before: previous,
            last: previous,
            epoch: 0,
            position: from - 1,
            end: head.clone(),
            pending: Vec::new(),
            pending_bytes: 0,
            parts: 0,
        }
    }

    /// True when the head's entry was taken.
    fn take(
        &mut self,
        stored: StoredEntry,
        put: &impl Fn(ArchivePart, Vec<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let entry = Entry::parse(&stored.bytes).map_err(|error| self.broken(&error.to_string()))?;
        if entry.position != self.position + 1 || entry.previous != self.last {
            return Err(self.broken("the chain is broken"));
        }
        (self.position, self.epoch) = (entry.position, entry.epoch);
        self.last = Entry::hash_of(&stored.bytes);
        self.pending_bytes += stored.bytes.len();
        self.pending.push(stored.bytes);
        let at_end = self.position == self.end.size;
        if at_end && (self.last != self.end.last_hash || self.epoch != self.end.epoch) {
            return Err(self.broken("it is not the entry that the signed head names"));
        }
        if at_end || self.pending_bytes >= PART_BYTES || self.pending.len() >= PART_ENTRIES {
            self.cut(put)?;
        }
        Ok(at_end)
    }

    fn cut(
        &mut self,
        put: &impl Fn(ArchivePart, Vec<Vec<u8>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let ends = (self.from, self.position);
        let (before, last) = (self.before.to_string(), self.last.to_string());
        let part = ArchivePart::new(LOG, self.epoch, ends, before, last);
        put(part, std::mem::take(&mut self.pending))?;
        (self.pending_bytes, self.parts) = (0, self.parts + 1);
        (self.from, self.before) = (self.position + 1, self.last);
        Ok(())
    }

    fn broken(&self, why: &str) -> Error {
        Error::Refused {
            what: "the log is not archived further",
            reason: format!(
                "after position {}: {why}. Run: bre audit verify",
                self.position
            ),
        }
    }
}

async fn run(
    database: &str,
    mut pass: Pass,
    stop: &AtomicBool,
    put: impl Fn(ArchivePart, Vec<Vec<u8>>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let from = pass.from;
    let ended = services::export_from(database, LOG, from, |stored| {
        if stop.load(Ordering::Relaxed) {
            let why = "interrupted: what was archived stays, the next time goes on from there";
            return ControlFlow::Break(Err(Error::Failed(why.to_owned())));
        }
        match pass.take(stored, &put) {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(Ok(())),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    });
    match ended.await? {
        Some(end) => end.map(|()| pass.parts),
        None => Err(pass.broken("it ends before the newest signed head")),
    }
}

struct Destination<'a> {
    repository: &'a Repository,
    recipient: &'a RecipientPublic,
    head: &'a SignedHead,
}

impl Destination<'_> {
    fn put(&self, part: &ArchivePart, entries: Vec<Vec<u8>>) -> Result<(), Error> {
        let content = ArchivedEntries {
            signed_head: self.head.to_json(),
            entries,
        };
        Ok(put_archive(
            self.repository,
            self.recipient,
            part,
            &content,
        )?)
    }
}

#[derive(Debug, Serialize)]
struct ArchiveReport {
    road: &'static str,
    #[serde(flatten)]
    log: Report,
    parts: usize,
    /// Of stretches that a recovery left behind; they are kept.
    parts_left_behind: usize,
}

/// From an archive, its key and the public half of the signing key alone, or from what was exported. `place`: a folder or bucket that holds the
/// archive, or a file of `bre audit export`; the instance's own repository when absent.
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
        return Err(Error::Argument {
            what: "place of the archive",
            value: place.unwrap_or_default().to_owned(),
            reason: "--repository names another one; name one of the two".to_owned(),
        });
    }
    let args = RepositoryArgs {
        repository: place.map(str::to_owned).or_else(|| args.repository.clone()),
        keys: args.keys.clone(),
        cluster: args.cluster.clone(),
    };
    let opened = Opened::at(instance, &args)?;
    let private = audit_reading_key(&opened.keys)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let all = archive_parts(&opened.repository, LOG)?;
    let (parts, begins_at) = main_chain(&all);
    let read = |part: &ArchivePart| read_archive(&opened.repository, &private, part);
    let mut signed = Vec::new();
    for part in &all {
        signed.push(head_of(&read(part)?, &keys)?);
    }
    // Those of stretches left behind too: the opening that followed has to name what was lost.
    signed.dedup();
    let mut verifier = Verifier::new(LOG, &signed, &keys);
    if begins_at > 1 {
        verifier.reject(
            0,
            1,
            format!("the parts before position {begins_at} are missing"),
        );
    }
    for part in &parts {
        for (position, bytes) in (part.from..).zip(read(part)?.entries) {
            push(&mut verifier, part, position, bytes);
        }
    }
    let report = ArchiveReport {
        road: "archive",
        log: verifier.finish(),
        parts_left_behind: all.len() - parts.len(),
        parts: parts.len(),
    };
    terminal::result(json, &report, || report.sentences());
    Ok(Exit::of(report.log.plain_verdict()).into())
}

#[derive(Debug, Serialize)]
struct ExportReport {
    road: &'static str,
    #[serde(flatten)]
    log: Report,
}

/// One line of `bre audit export`.
#[derive(Debug, serde::Deserialize)]
struct Exported {
    epoch: i64,
    position: i64,
    hash: String,
    canonical: String,
}

/// Entries from a file, heads from the repository: no server has a part in it.
fn verify_export(
    instance: &Instance,
    json: bool,
    file: &Path,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = Opened::at(instance, args)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let signed: Vec<Head> = log::stored(&opened.repository)?
        .iter()
        .map(|head| head.verify(&keys))
        .collect::<Result<_, _>>()?;
    let mut verifier = Verifier::new(LOG, &signed, &keys);
    let lines = std::fs::File::open(file).map_err(Error::file("cannot read", file))?;
    let lines = std::io::BufRead::lines(std::io::BufReader::new(lines));
    for (number, line) in lines.enumerate() {
        let line = line.map_err(Error::file("cannot read", file))?;
        let entry = exported(&line).map_err(|reason| Error::Argument {
            what: "file of bre audit export",
            value: file.display().to_string(),
            reason: format!("line {}: {reason}", number + 1),
        })?;
        verifier.push(&entry);
    }
    let report = ExportReport {
        road: "export",
        log: verifier.finish(),
    };
    let log = &report.log;
    terminal::result(json, &report, || {
        format!(
            "road: the file {} and the heads of {}; no server was asked\n{} entries, {} verified, {} signed heads agreed, the newest at {}\n{}",
            file.display(),
            opened.location,
            log.entries,
            log.verified,
            log.heads_agreed,
            log.covered_to,
            verdict(log, log.plain_verdict())
        )
    });
    Ok(Exit::of(log.plain_verdict()).into())
}

fn exported(line: &str) -> Result<StoredEntry, String> {
    let line: Exported = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let bytes = |hex: &str| audit::hex::decode(hex).map_err(|error| error.to_string());
    Ok(StoredEntry {
        epoch: line.epoch,
        position: line.position,
        bytes: bytes(&line.canonical)?,
        hash: bytes(&line.hash)?,
    })
}

fn head_of(content: &ArchivedEntries, keys: &[VerifyingKey]) -> Result<Head, Error> {
    Ok(SignedHead::from_json(&content.signed_head)?.verify(keys)?)
}

fn push(verifier: &mut Verifier, part: &ArchivePart, position: u64, bytes: Vec<u8>) {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let epoch = match Entry::parse(&bytes) {
        Ok(entry) => i64::from(entry.epoch),
        Err(error) => return verifier.reject(part.epoch.into(), position, error.to_string()),
    };
    let hash = Entry::hash_of(&bytes).as_bytes().to_vec();
    verifier.push(&StoredEntry {
        epoch,
        position,
        bytes,
        hash,
    });
}

/// From the newest part back to the first, and where the first of them begins.
fn main_chain(all: &[ArchivePart]) -> (VecDeque<&ArchivePart>, u64) {
    let mut chain = VecDeque::new();
    let mut next = all.iter().max_by_key(|part| (part.epoch, part.to));
    let mut begins_at = 1;
    while let Some(part) = next {
        begins_at = part.from;
        chain.push_front(part);
        next = all
            .iter()
            .find(|before| before.to + 1 == part.from && before.last == part.previous);
    }
    (chain, begins_at)
}

impl ArchiveReport {
    fn sentences(&self) -> String {
        let log = &self.log;
        let mut text = format!(
            "road: the archive, with its own key; no server was asked\n{} entries in {} parts, {} verified, {} signed heads agreed, the newest at {}\n",
            log.entries, self.parts, log.verified, log.heads_agreed, log.covered_to
        );
        if self.parts_left_behind > 0 {
            text.push_str(&format!(
                "{} parts of stretches that a recovery left behind\n",
                self.parts_left_behind
            ));
        }
        text.push_str(&verdict(log, log.plain_verdict()));
        text
    }
}

#[cfg(test)]
mod tests {
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
        let (chain, begins_at) = main_chain(&all);
        assert_eq!(chain, [&all[0], &all[2]]);
        assert_eq!(begins_at, 1);
        let (chain, begins_at) = main_chain(&all[1..]);
        assert_eq!((chain.len(), begins_at), (1, 41));
    }
}
