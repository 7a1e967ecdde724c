//! The audit log kept for years, sealed to a key of its own. Who reads backups does not read it, and who reads it reads
//! no backup.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use audit::{Entry, Hash, Head, SignedHead, StoredEntry, VerifyingKey};
use host::{
    keys::{audit_writing_key, lacks_audit_writing_key, trusted},
    log::LOG,
    stored_heads::newest,
};
use repository::{
    Repository,
    archive::{ArchivePart, ArchivedEntries, archive_parts, put_archive},
    keys::{RecipientPublic, Vault, recipients_in},
};
use serde::Serialize;

use crate::error::Error;

/// A part is held in memory when it is written and when it is read.
const PART_BYTES: usize = 8 << 20;
const PART_ENTRIES: usize = 1 << 16;

#[derive(Debug, Serialize)]
pub struct ArchiveReport {
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

pub const NO_HEAD: &str =
    "the repository holds no signed head yet, and only what one vouches for is archived";

/// For the plan.
pub fn said(archived: Option<&ArchiveReport>) -> String {
    archived.map_or_else(
        || NO_HEAD.to_owned(),
        |archived| archived.sentences().trim_end().to_owned(),
    )
}

/// What is new up to the newest signed head; `None` while there is none.
pub async fn pass(
    repository: &Repository,
    keys: &Path,
    database: &str,
    stop: &AtomicBool,
) -> Result<Option<ArchiveReport>, Error> {
    let trusted = trusted(keys, repository)?;
    let Some(signed) = newest_head(repository, &trusted)? else {
        return Ok(None);
    };
    if lacks_audit_writing_key(keys) {
        let known = recipients_in(repository, Vault::Audit)?;
        if let Some(id) = known.first() {
            return Err(Error::refused(
                "the archive is sealed to another key",
                format!(
                    "it was made for recipient {id}, and {} holds no audit_recipient.pub. Bring that file from the host that archived before; \
                     a key of this host alone would close what follows to everybody else",
                    keys.display()
                ),
            ));
        }
    }
    let (recipient, key_made) = audit_writing_key(keys)?;
    let head = signed.verify(&trusted)?;
    let (from, previous) = begin(repository, database).await?;
    let mut archived = ArchiveReport {
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

impl ArchiveReport {
    pub fn sentences(&self) -> String {
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

fn newest_head(
    repository: &Repository,
    keys: &[VerifyingKey],
) -> Result<Option<SignedHead>, Error> {
    let heads = newest(repository, keys)?.into_iter();
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
        Error::refused(
            "the log is not archived further",
            format!(
                "after position {}: {why}. Run: bre verify audit",
                self.position
            ),
        )
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
            return ControlFlow::Break(Err(Error::failed(why.to_owned())));
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
