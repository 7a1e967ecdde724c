//! The archive of an audit log (repository.md §13): stretches of its entries, each with a signed head, sealed to recipients of their own. The
//! bytes of entries and heads belong to the audit log's own format. Nothing here ever expires.

use serde::{Deserialize, Serialize};

use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPrivate, RecipientPublic, Vault, new_data_key_in};
use crate::pipeline::{
    BoxKind, Compression, ObjectHeader, ObjectKind, open_single, read_header, seal_single,
};

const VERSION: u64 = 1;
const ZSTD_LEVEL: i32 = 9;

/// What an archived stretch says about itself without a key: no more than the signed heads tell, which are not sealed either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivePart {
    archive_version: u64,
    pub log: u16,
    /// Of the last entry.
    pub epoch: u32,
    /// Positions of the first entry and of the last.
    pub from: u64,
    pub to: u64,
    /// Hash of the entry before the first, 64 hex digits.
    pub previous: String,
    /// Of the last entry.
    pub last: String,
}

/// The sealed content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEntries {
    pub signed_head: Vec<u8>,
    pub entries: Vec<Vec<u8>>,
}

impl ArchivePart {
    #[must_use]
    pub fn new(
        log: u16,
        epoch: u32,
        (from, to): (u64, u64),
        previous: String,
        last: String,
    ) -> Self {
        Self {
            archive_version: VERSION,
            log,
            epoch,
            from,
            to,
            previous,
            last,
        }
    }

    #[must_use]
    pub fn name(&self) -> String {
        format!(
            "{}{:08x}-{:016x}-{:016x}",
            prefix(self.log),
            self.epoch,
            self.from,
            self.to
        )
    }
}

fn prefix(log: u16) -> String {
    format!("audit/entries/{log}/")
}

/// Seals a stretch and puts it, once. One that is there with the same ends is the same and stays.
pub fn put_archive(
    repository: &Repository,
    recipient: &RecipientPublic,
    part: &ArchivePart,
    content: &ArchivedEntries,
) -> Result<()> {
    let name = part.name();
    match repository.store().size(&name) {
        Ok(_) => return same(repository, part),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let key = new_data_key_in(repository, Vault::Audit, recipient)?;
    let header = ObjectHeader {
        kind: ObjectKind::AuditArchive,
        data_key: key.id(),
        clear: serde_json::to_vec(part).map_err(|error| Error::Input(error.to_string()))?,
    };
    let object = seal_single(
        &key,
        &name,
        &header,
        BoxKind::AuditEntries,
        Compression::Zstd(ZSTD_LEVEL),
        (0, 0),
        &encode(content)?,
    )?;
    match repository.store().put(&name, &object) {
        // Another process was quicker.
        Err(StoreError::AlreadyExists { .. }) => same(repository, part),
        other => Ok(other?),
    }
}

fn same(repository: &Repository, part: &ArchivePart) -> Result<()> {
    let name = part.name();
    if read_part(repository, &name)? == *part {
        return Ok(());
    }
    Err(Error::Input(format!(
        "`{name}` is another chain's: two logs of one number were archived here. Nothing was overwritten"
    )))
}

/// What is archived of a log, by epoch and position. Needs no key.
pub fn archive_parts(repository: &Repository, log: u16) -> Result<Vec<ArchivePart>> {
    let parts = archive_listing(repository, log)?.into_iter();
    parts.map(|(_, part)| part).collect()
}

/// The same by the names of the objects: a stretch whose header is damaged hides none of the others.
pub fn archive_listing(
    repository: &Repository,
    log: u16,
) -> Result<Vec<(String, Result<ArchivePart>)>> {
    let objects = repository.store().list(&prefix(log))?.into_iter();
    let read = |name: String| {
        let part = read_part(repository, &name);
        (name, part)
    };
    Ok(objects.map(|object| read(object.name)).collect())
}

/// The newest stretch of a log that is archived. Needs no key.
pub fn newest_archived(repository: &Repository, log: u16) -> Result<Option<ArchivePart>> {
    // Epoch and positions are of fixed width in the names, and these are listed in order.
    let objects = repository.store().list(&prefix(log))?;
    let newest = objects.last();
    newest
        .map(|object| read_part(repository, &object.name))
        .transpose()
}

/// How far a log is archived, from names alone: the last position of the newest stretch.
pub fn archived_to(repository: &Repository, log: u16) -> Result<Option<u64>> {
    let prefix = prefix(log);
    let objects = repository.store().list(&prefix)?;
    let ends = objects.iter().filter_map(|object| {
        let mut numbers = object.name.strip_prefix(&prefix)?.split('-');
        let mut next = || u64::from_str_radix(numbers.next()?, 16).ok();
        let (epoch, _, to) = (next()?, next()?, next()?);
        Some((epoch, to))
    });
    Ok(ends.max().map(|(_, to)| to))
}

fn read_part(repository: &Repository, name: &str) -> Result<ArchivePart> {
    let (header, _) = read_header(repository.store(), name)?;
    part_of(name, &header)
}

pub(crate) fn part_of(name: &str, header: &ObjectHeader) -> Result<ArchivePart> {
    let part: ArchivePart = serde_json::from_slice(&header.clear)
        .map_err(|error| Error::damaged(name, 28, error.to_string()))?;
    if part.archive_version != VERSION {
        return Err(Error::Version {
            object: name.to_owned(),
            found: part.archive_version,
        });
    }
    match header.kind == ObjectKind::AuditArchive && part.name() == name {
        true => Ok(part),
        false => Err(Error::damaged(name, 0, "it is not what its name says")),
    }
}

/// Mirror of [`put_archive`].
pub fn read_archive(
    repository: &Repository,
    private: &RecipientPrivate,
    part: &ArchivePart,
) -> Result<ArchivedEntries> {
    let name = part.name();
    let bytes = repository.store().get(&name)?;
    let kinds = (ObjectKind::AuditArchive, BoxKind::AuditEntries);
    let (header, opened) = open_single(&KeyRing::new(repository, private), &name, &bytes, kinds)?;
    if part_of(&name, &header)? != *part {
        return Err(Error::damaged(&name, 28, "it changed while it was read"));
    }
    content_of(&name, part, &opened.raw)
}

pub(crate) fn content_of(name: &str, part: &ArchivePart, raw: &[u8]) -> Result<ArchivedEntries> {
    let content = decode(raw).filter(|content| {
        part.to.checked_sub(part.from).map(|count| count + 1) == Some(content.entries.len() as u64)
    });
    content.ok_or_else(|| Error::damaged(name, 0, "its entries cannot be told apart"))
}

/// The head, then the entries, each with its length before it.
fn encode(content: &ArchivedEntries) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for one in std::iter::once(&content.signed_head).chain(&content.entries) {
        let length = u32::try_from(one.len())
            .map_err(|_| Error::Input("an audit entry is longer than 4 GiB".to_owned()))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(one);
    }
    Ok(bytes)
}

/// Mirror of [`encode`].
fn decode(mut bytes: &[u8]) -> Option<ArchivedEntries> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (one, rest) = rest.split_at_checked(length)?;
        all.push(one.to_vec());
        bytes = rest;
    }
    let mut all = all.into_iter();
    Some(ArchivedEntries {
        signed_head: all.next()?,
        entries: all.collect(),
    })
}
