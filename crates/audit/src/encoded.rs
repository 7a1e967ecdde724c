//! An entry's fields in their canonical bytes, before the entry has its position. Callers encode what they record; the
//! log's one writer only adds the front.

use std::io;
use std::ops::Range;

use crate::entry::{ENTRY_BYTES_MAX, EntryError, HEADER_BYTES, check_name};
use crate::fields::{FIELDS_MAX, Fields};
use crate::stored;

/// Fields in ascending order of their names, as they stand in an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedFields {
    count: u32,
    bytes: Vec<u8>,
    /// Where the last name stands.
    last: Range<usize>,
    /// The same compressed, once they are complete and where that saves something.
    packed: Option<Vec<u8>>,
}

/// Takes a value's bytes.
#[derive(Debug)]
pub struct ValueWriter<'a>(&'a mut Vec<u8>);

impl io::Write for ValueWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EncodedFields {
    pub fn with_capacity(bytes: usize) -> EncodedFields {
        EncodedFields {
            bytes: Vec::with_capacity(bytes),
            ..EncodedFields::default()
        }
    }

    /// Names come in ascending order, each once.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), EntryError> {
        self.push_with(name, |into| into.0.extend_from_slice(value.as_bytes()))
    }

    /// The value is what `write` puts there, which has to be UTF-8. On an error the fields are what they were.
    pub fn push_with(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut ValueWriter<'_>),
    ) -> Result<(), EntryError> {
        self.packed = None;
        let before = self.bytes.len();
        let pushed = self.try_push(name, write);
        match pushed {
            Ok(()) => self.count += 1,
            Err(_) => self.bytes.truncate(before),
        }
        pushed
    }

    fn try_push(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut ValueWriter<'_>),
    ) -> Result<(), EntryError> {
        check_name(name.as_bytes())?;
        if self.count as usize >= FIELDS_MAX {
            return Err(EntryError::FieldCount(u64::from(self.count) + 1));
        }
        let last = self.bytes.get(self.last.clone()).unwrap_or_default();
        if name.as_bytes() <= last {
            let after = String::from_utf8_lossy(last).into_owned();
            let name = name.to_owned();
            return Err(EntryError::Order { name, after });
        }
        self.bytes
            .extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut ValueWriter(&mut self.bytes));
        let value = &self.bytes[at + 4..];
        let length = value.len();
        if HEADER_BYTES + self.bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong(HEADER_BYTES + self.bytes.len()));
        }
        if std::str::from_utf8(value).is_err() {
            let name = name.to_owned();
            return Err(EntryError::Utf8 { name });
        }
        self.bytes[at..at + 4].copy_from_slice(&(length as u32).to_be_bytes());
        self.last = at - name.len()..at;
        Ok(())
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let (value, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = after;
            Some((
                std::str::from_utf8(name).ok()?,
                std::str::from_utf8(value).ok()?,
            ))
        })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// Compresses what is there, to be kept that way. The entry is the same one, and so is its hash.
    pub fn pack(&mut self) {
        self.packed = stored::compress(&self.bytes);
    }

    pub(crate) fn packed(&self) -> Option<&[u8]> {
        self.packed.as_deref()
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of an entry of these fields.
    pub fn entry_bytes(&self) -> usize {
        HEADER_BYTES + self.bytes.len()
    }
}

impl TryFrom<&Fields> for EncodedFields {
    type Error = EntryError;

    fn try_from(fields: &Fields) -> Result<EncodedFields, EntryError> {
        let mut encoded = EncodedFields::default();
        for (name, value) in fields.iter() {
            encoded.push(name, value)?;
        }
        Ok(encoded)
    }
}
