//! Stretches of logs that an audit asks for (log_stretches.md): lines of one source of one day, sealed to the key of
//! the audit archive and chained by the digests of the stored objects, so that the chain can be followed without a
//! key.

mod chain;
mod expiry;

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

pub use chain::{ChainReport, KnownEnd, LogGap, LogGapCause, check_chain};
pub use expiry::{LogExpiry, LogHold, expire_logs, hold_name, log_holds};
pub(crate) use expiry::{hold_of, stretches_held};

use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPrivate, RecipientPublic, Vault, hex, new_data_key_in};
use crate::pipeline::{
    BoxKind, Compression, ObjectHeader, ObjectKind, open_single, read_header, seal_single,
};

const PREFIX: &str = "logs/";
const VERSION: u64 = 1;
const ZSTD_LEVEL: i32 = 9;
const SOURCE_BYTES_MAX: usize = 60;
/// Before the first stretch of a chain.
pub const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Whose log it is, and so for how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    Application,
    Postgres,
    System,
}

impl LogKind {
    pub const ALL: [Self; 3] = [Self::Application, Self::Postgres, Self::System];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Postgres => "postgres",
            Self::System => "system",
        }
    }

    /// Locked and kept for so long at least.
    #[must_use]
    pub fn days(self) -> u16 {
        crate::store::LockPolicy::days_of_log(&format!("{PREFIX}{}/", self.name())).unwrap_or(0)
    }
}

impl std::fmt::Display for LogKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Lines that are known to be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGap {
    pub from_micros: i64,
    pub to_micros: i64,
    pub why: SourceGapCause,
    /// For people; no content of a log.
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceGapCause {
    /// The place in a journal where the last stretch ended is not there any more.
    CursorGone,
    /// A file was deleted before its end was read.
    FileGone,
    /// A file became shorter, and what it held is nowhere.
    Truncated,
    #[serde(other)]
    Other,
}

/// What a stretch says about itself without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStretch {
    stretch_version: u64,
    pub kind: LogKind,
    pub source: String,
    /// From 1.
    pub number: u64,
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    pub lines: u64,
    pub from_micros: i64,
    pub to_micros: i64,
    /// SHA-256 of the object before it.
    pub previous: String,
    pub previous_bytes: u64,
    pub cursor: String,
    pub gaps: Vec<SourceGap>,
    pub host: String,
}

/// What a writer says of the next stretch.
#[derive(Debug)]
pub struct StretchFacts<'a> {
    pub kind: LogKind,
    pub source: &'a str,
    pub number: u64,
    pub day: jiff::civil::Date,
    /// Times of the earliest line and of the latest.
    pub span_micros: (i64, i64),
    /// Digest and length of the object before it.
    pub previous: (&'a str, u64),
    pub cursor: &'a str,
    pub gaps: Vec<SourceGap>,
    pub host: &'a str,
}

/// A stretch whose data key is durable, and which is not put yet.
#[derive(Debug)]
pub struct SealedStretch {
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    pub stretch: LogStretch,
    object: Vec<u8>,
}

/// An object of a chain, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedStretch {
    pub name: String,
    pub kind: LogKind,
    pub source: String,
    pub number: u64,
    pub day: String,
    pub bytes: u64,
    pub modified_micros: i64,
}

/// A plain name of one log of one host.
pub fn check_source(source: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest = |b: u8| plain(b) || b == b'_' || b == b'-';
    if source.len() <= SOURCE_BYTES_MAX
        && source.bytes().next().is_some_and(plain)
        && source.bytes().all(rest)
    {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{source:?} is no name of a log: lower-case letters, digits, _ and -, at most {SOURCE_BYTES_MAX}"
    )))
}

fn prefix_of(kind: LogKind, source: &str) -> String {
    format!("{PREFIX}{kind}/{source}/")
}

/// Seals lines; they are in the repository only once the result was put.
pub fn seal_stretch(
    repository: &Repository,
    recipient: &RecipientPublic,
    facts: StretchFacts<'_>,
    lines: &[Vec<u8>],
) -> Result<SealedStretch> {
    check_source(facts.source)?;
    let key = new_data_key_in(repository, Vault::Audit, recipient)?;
    let id = key.id().to_string();
    let name = format!(
        "{}{:016x}-{}.{}",
        prefix_of(facts.kind, facts.source),
        facts.number,
        facts.day.strftime("%Y%m%d"),
        &id[..8]
    );
    let stretch = LogStretch {
        stretch_version: VERSION,
        kind: facts.kind,
        source: facts.source.to_owned(),
        number: facts.number,
        day: facts.day.to_string(),
        lines: lines.len() as u64,
        from_micros: facts.span_micros.0,
        to_micros: facts.span_micros.1,
        previous: facts.previous.0.to_owned(),
        previous_bytes: facts.previous.1,
        cursor: facts.cursor.to_owned(),
        gaps: facts.gaps,
        host: facts.host.to_owned(),
    };
    let header = ObjectHeader {
        kind: ObjectKind::LogStretch,
        data_key: key.id(),
        clear: serde_json::to_vec(&stretch).map_err(|error| Error::Input(error.to_string()))?,
    };
    let object = seal_single(
        &key,
        &name,
        &header,
        BoxKind::LogLines,
        Compression::Zstd(ZSTD_LEVEL),
        (0, 0),
        &encode(lines)?,
    )?;
    Ok(SealedStretch {
        digest: digest_of(&object),
        name,
        stretch,
        object,
    })
}

impl SealedStretch {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.object.len() as u64
    }

    pub fn put(&self, repository: &Repository) -> Result<()> {
        Ok(repository.store().put(&self.name, &self.object)?)
    }

    /// Once it was put: the store has to hand out the bytes that it was given.
    pub fn read_back(&self, repository: &Repository) -> Result<()> {
        match repository.store().get(&self.name)? == self.object {
            true => Ok(()),
            false => Err(Error::damaged(
                &self.name,
                0,
                "the store hands out other bytes than it was given",
            )),
        }
    }
}

/// SHA-256, hex.
#[must_use]
pub fn digest_of(object: &[u8]) -> String {
    hex(digest(&SHA256, object).as_ref())
}

/// Digest and length of an object that is stored; none where it is not there.
pub fn stored_digest(repository: &Repository, name: &str) -> Result<Option<(String, u64)>> {
    match repository.store().get(name) {
        Ok(object) => Ok(Some((digest_of(&object), object.len() as u64))),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All kinds and sources that the repository holds.
pub fn log_sources(repository: &Repository) -> Result<BTreeSet<(LogKind, String)>> {
    let objects = repository.store().list(PREFIX)?.into_iter();
    let listed = objects.filter_map(|object| listed(&object));
    Ok(listed.map(|it| (it.kind, it.source)).collect())
}

/// By number; needs no key.
pub fn log_stretches(
    repository: &Repository,
    kind: LogKind,
    source: &str,
) -> Result<Vec<ListedStretch>> {
    let objects = repository.store().list(&prefix_of(kind, source))?;
    Ok(objects.iter().filter_map(listed).collect())
}

fn listed(object: &crate::store::ObjectInfo) -> Option<ListedStretch> {
    if crate::read_back::ObjectClass::of(&object.name) != crate::read_back::ObjectClass::LogStretch
    {
        return None;
    }
    let mut parts = object.name.strip_prefix(PREFIX)?.split('/');
    let (kind, source, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (number, rest) = rest.split_once('-')?;
    let (day, _) = rest.split_once('.')?;
    Some(ListedStretch {
        kind: LogKind::ALL.into_iter().find(|it| it.name() == kind)?,
        source: source.to_owned(),
        number: u64::from_str_radix(number, 16).ok()?,
        day: day.to_owned(),
        name: object.name.clone(),
        bytes: object.size,
        modified_micros: object.modified_micros,
    })
}

/// What a stretch says about itself.
pub fn stretch_facts(repository: &Repository, name: &str) -> Result<LogStretch> {
    let (header, _) = read_header(repository.store(), name)?;
    stretch_of(name, &header)
}

pub(crate) fn stretch_of(name: &str, header: &ObjectHeader) -> Result<LogStretch> {
    let stretch: LogStretch = serde_json::from_slice(&header.clear)
        .map_err(|error| Error::damaged(name, 28, error.to_string()))?;
    if stretch.stretch_version != VERSION {
        return Err(Error::Version {
            object: name.to_owned(),
            found: stretch.stretch_version,
        });
    }
    let said = format!(
        "{}{:016x}-{}.",
        prefix_of(stretch.kind, &stretch.source),
        stretch.number,
        stretch.day.replace('-', "")
    );
    match header.kind == ObjectKind::LogStretch && name.starts_with(&said) {
        true => Ok(stretch),
        false => Err(Error::damaged(name, 0, "it is not what its name says")),
    }
}

/// Mirror of [`seal_stretch`].
pub fn read_stretch(
    repository: &Repository,
    private: &RecipientPrivate,
    name: &str,
) -> Result<(LogStretch, Vec<Vec<u8>>)> {
    let bytes = repository.store().get(name)?;
    let kinds = (ObjectKind::LogStretch, BoxKind::LogLines);
    let (header, opened) = open_single(&KeyRing::new(repository, private), name, &bytes, kinds)?;
    let stretch = stretch_of(name, &header)?;
    let lines = lines_of(name, &stretch, &opened.raw)?;
    Ok((stretch, lines))
}

pub(crate) fn lines_of(name: &str, stretch: &LogStretch, raw: &[u8]) -> Result<Vec<Vec<u8>>> {
    let lines = decode(raw).filter(|lines| lines.len() as u64 == stretch.lines);
    lines.ok_or_else(|| Error::damaged(name, 0, "its lines cannot be told apart"))
}

fn encode(lines: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines {
        let length = u32::try_from(line.len())
            .map_err(|_| Error::Input("a line of a log is longer than 4 GiB".to_owned()))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(line);
    }
    Ok(bytes)
}

/// Mirror of [`encode`].
fn decode(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (line, rest) = rest.split_at_checked(length)?;
        lines.push(line.to_vec());
        bytes = rest;
    }
    Some(lines)
}
