//! One entry and its only byte form (format §1).

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::encoded::EncodedFields;
use crate::fields::{FIELDS_MAX, Fields, NAME_BYTES_MAX};
use crate::hash::Hash;
use crate::stored::{self, PACKED_MAGIC};

/// Longest entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
pub(crate) const MAGIC: &[u8; 4] = b"BREA";
const VERSION: u16 = 1;
pub(crate) const HEADER_BYTES: usize = 65;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub log: u16,
    pub epoch: u32,
    pub position: u64,
    pub previous: Hash,
    pub recorded_at_micros: i64,
    pub kind: Kind,
    pub fields: Fields,
}

/// What an entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, std::hash::Hash)]
pub enum Kind {
    Quote,
    EpochOpened,
    FeedLoaded,
    KeyChanged,
    BrokerChanged,
    ConfigurationChanged,
    BackupRun,
    RestoreRun,
    DrillRun,
    LocateChanged,
    BookPriced,
    EntryRecovered,
    JobRun,
    RunbookStep,
    ApprovalGiven,
    AlertChanged,
    RoleChanged,
    /// Written by a later version: verified like the others, not understood.
    Other(u8),
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum EntryError {
    #[error("the entry ends at byte {len}, in the middle of {what}")]
    Truncated { what: &'static str, len: usize },
    #[error("the entry does not begin with BREA")]
    Magic,
    #[error(
        "the entry is kept compressed and its fields do not open: its bytes were changed, or a newer engine wrote them"
    )]
    Packed,
    #[error(
        "entry version {0} is not known here (this engine reads version 1); a newer engine wrote it"
    )]
    Version(u16),
    #[error("epoch {0} is outside 1..=2147483647")]
    Epoch(u32),
    #[error("position {0} is outside 1..=9223372036854775807")]
    Position(u64),
    #[error("kind 0 is not a kind")]
    Kind,
    #[error("{0} fields are more than an entry may have ({FIELDS_MAX})")]
    FieldCount(u64),
    #[error("the field name {name:?} is not 1 to {NAME_BYTES_MAX} of a-z, 0-9, '_' and '.'")]
    Name { name: String },
    #[error("the field {name:?} does not come after {after:?}: names must ascend and occur once")]
    Order { name: String, after: String },
    #[error("the value of {name:?} is not UTF-8")]
    Utf8 { name: String },
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
    #[error("{0} bytes are more than an entry may have ({ENTRY_BYTES_MAX})")]
    TooLong(usize),
}

/// What is before the fields.
pub(crate) struct Head {
    pub(crate) log: u16,
    pub(crate) epoch: u32,
    pub(crate) position: u64,
    pub(crate) previous: Hash,
    pub(crate) recorded_at_micros: i64,
    pub(crate) kind: Kind,
}

impl Head {
    /// An entry whose fields are encoded already, as it is kept, at the end of `into`; and its hash. On an error
    /// nothing is added.
    pub(crate) fn put_entry(
        &self,
        fields: &EncodedFields,
        into: &mut Vec<u8>,
    ) -> Result<Hash, EntryError> {
        let count = fields.count();
        check_numbers(
            self.epoch,
            self.position,
            self.kind.number(),
            u64::from(count),
        )?;
        check_length(fields.entry_bytes())?;
        let at = into.len();
        self.put(count, into);
        // Of the canonical bytes, wherever they lie.
        let hash = Hash::of(&[&[0], &into[at..], fields.bytes()]);
        match fields.packed() {
            Some(packed) => stored::pack(into, at, packed),
            None => into.extend_from_slice(fields.bytes()),
        }
        Ok(hash)
    }

    fn put(&self, fields: u32, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.log.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes.extend_from_slice(self.previous.as_bytes());
        bytes.extend_from_slice(&self.recorded_at_micros.to_be_bytes());
        bytes.push(self.kind.number());
        bytes.extend_from_slice(&fields.to_be_bytes());
    }
}

impl Entry {
    /// The canonical bytes. Fails on what the format cannot hold, never otherwise.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        check_numbers(
            self.epoch,
            self.position,
            self.kind.number(),
            self.fields.len() as u64,
        )?;
        let body: usize = self.fields.iter().map(|(n, v)| 6 + n.len() + v.len()).sum();
        check_length(HEADER_BYTES + body)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body);
        let head = Head {
            log: self.log,
            epoch: self.epoch,
            position: self.position,
            previous: self.previous,
            recorded_at_micros: self.recorded_at_micros,
            kind: self.kind,
        };
        head.put(self.fields.len() as u32, &mut bytes);
        for (name, value) in self.fields.iter() {
            check_name(name.as_bytes())?;
            bytes.extend_from_slice(&(name.len() as u16).to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Ok(bytes)
    }

    /// Reads canonical bytes; anything that `to_bytes` would not have written is refused.
    pub fn parse(bytes: &[u8]) -> Result<Entry, EntryError> {
        check_length(bytes.len())?;
        let mut reader = Reader { bytes, at: 0 };
        match &reader.take::<4>("the magic")? {
            MAGIC => {}
            PACKED_MAGIC => return Err(EntryError::Packed),
            _ => return Err(EntryError::Magic),
        }
        let version = u16::from_be_bytes(reader.take("the version")?);
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        let log = u16::from_be_bytes(reader.take("the log number")?);
        let epoch = u32::from_be_bytes(reader.take("the epoch")?);
        let position = u64::from_be_bytes(reader.take("the position")?);
        let previous = Hash::from_bytes(reader.take("the previous hash")?);
        let recorded_at_micros = i64::from_be_bytes(reader.take("the time")?);
        let [kind] = reader.take("the kind")?;
        let count = u32::from_be_bytes(reader.take("the field count")?);
        check_numbers(epoch, position, kind, u64::from(count))?;
        let fields = parse_fields(&mut reader, count)?;
        match bytes.len() - reader.at {
            0 => {}
            more => return Err(EntryError::Trailing(more)),
        }
        Ok(Entry {
            log,
            epoch,
            position,
            previous,
            recorded_at_micros,
            kind: Kind::from_number(kind),
            fields,
        })
    }

    /// The entry's hash, which is also its leaf in the Merkle tree.
    pub fn hash_of(bytes: &[u8]) -> Hash {
        Hash::of(&[&[0], bytes])
    }
}

fn parse_fields(reader: &mut Reader<'_>, count: u32) -> Result<Fields, EntryError> {
    let mut fields = Fields::new();
    let mut last: &[u8] = &[];
    for _ in 0..count {
        let length = u16::from_be_bytes(reader.take("a name's length")?);
        let name_bytes = reader.slice(usize::from(length), "a field's name")?;
        check_name(name_bytes)?;
        let name = String::from_utf8_lossy(name_bytes).into_owned();
        if name_bytes <= last {
            let after = String::from_utf8_lossy(last).into_owned();
            return Err(EntryError::Order { name, after });
        }
        last = name_bytes;
        let length = u32::from_be_bytes(reader.take("a value's length")?);
        let value = reader.slice(length as usize, "a field's value")?;
        match std::str::from_utf8(value) {
            Ok(value) => fields.set(name, value),
            Err(_) => return Err(EntryError::Utf8 { name }),
        };
    }
    Ok(fields)
}

fn check_length(len: usize) -> Result<(), EntryError> {
    if len > ENTRY_BYTES_MAX {
        return Err(EntryError::TooLong(len));
    }
    Ok(())
}

fn check_numbers(epoch: u32, position: u64, kind: u8, fields: u64) -> Result<(), EntryError> {
    if epoch == 0 || epoch > i32::MAX as u32 {
        return Err(EntryError::Epoch(epoch));
    }
    if position == 0 || position > i64::MAX as u64 {
        return Err(EntryError::Position(position));
    }
    if kind == 0 {
        return Err(EntryError::Kind);
    }
    if fields > FIELDS_MAX as u64 {
        return Err(EntryError::FieldCount(fields));
    }
    Ok(())
}

pub(crate) fn check_name(name: &[u8]) -> Result<(), EntryError> {
    let allowed = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(allowed) {
        let name = String::from_utf8_lossy(name).into_owned();
        return Err(EntryError::Name { name });
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A slice of the input: no length read from it makes anything allocate.
    fn slice(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], EntryError> {
        let truncated = EntryError::Truncated {
            what,
            len: self.bytes.len(),
        };
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let slice = rest.get(..len).ok_or(truncated)?;
        self.at += len;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], EntryError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N, what)?);
        Ok(array)
    }
}

const KINDS: [(Kind, u8, &str); 17] = [
    (Kind::Quote, 1, "Quote"),
    (Kind::EpochOpened, 2, "EpochOpened"),
    (Kind::FeedLoaded, 3, "FeedLoaded"),
    (Kind::KeyChanged, 4, "KeyChanged"),
    (Kind::BrokerChanged, 5, "BrokerChanged"),
    (Kind::ConfigurationChanged, 6, "ConfigurationChanged"),
    (Kind::BackupRun, 7, "BackupRun"),
    (Kind::RestoreRun, 8, "RestoreRun"),
    (Kind::DrillRun, 9, "DrillRun"),
    (Kind::LocateChanged, 10, "LocateChanged"),
    (Kind::BookPriced, 11, "BookPriced"),
    (Kind::EntryRecovered, 12, "EntryRecovered"),
    (Kind::JobRun, 13, "JobRun"),
    (Kind::RunbookStep, 14, "RunbookStep"),
    (Kind::ApprovalGiven, 15, "ApprovalGiven"),
    (Kind::AlertChanged, 16, "AlertChanged"),
    (Kind::RoleChanged, 17, "RoleChanged"),
];

impl Kind {
    pub fn number(self) -> u8 {
        match self {
            Kind::Other(number) => number,
            known => KINDS
                .iter()
                .find(|row| row.0 == known)
                .map_or(0, |row| row.1),
        }
    }

    pub fn from_number(number: u8) -> Kind {
        KINDS
            .iter()
            .find(|row| row.1 == number)
            .map_or(Kind::Other(number), |row| row.0)
    }

    /// The name in the format document; `Other` for what is not in it.
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|row| row.0 == self)
            .map_or("Other", |row| row.2)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Other(number) => write!(f, "Other({number})"),
            known => f.write_str(known.name()),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
