//! The footer of a Parquet file, looked over before anything else reads it: its library goes into a schema as deep as the schema
//! says, and a stack ends sooner. Nothing here recurses deeper than a fixed bound, and nothing is kept.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::bounds::{DEPTH_MAX, ELEMENTS_MAX, FOOTER_BYTES_MAX};
use super::input::BookError;

const MAGIC: &[u8] = b"PAR1";
const ENCRYPTED: &[u8] = b"PARE";
/// Structures within structures, whatever they mean. The format itself has no more than seven.
const NESTING_MAX: u32 = 16;

fn cut() -> BookError {
    BookError::Broken("its end is missing; was the Parquet file cut short?".to_owned())
}

fn damaged() -> BookError {
    BookError::Broken("the footer of the Parquet file is damaged".to_owned())
}

/// The file has a whole footer with a schema that a book can have.
pub(super) fn check(file: &File) -> Result<(), BookError> {
    let broken = |error: std::io::Error| BookError::Broken(error.to_string());
    let length = file.metadata().map_err(broken)?.len();
    let tail_at = length.checked_sub(8).ok_or_else(cut)?;
    let mut tail = [0; 8];
    file.read_exact_at(&mut tail, tail_at).map_err(broken)?;
    let (size, magic) = tail.split_at(4);
    if magic == ENCRYPTED {
        let reason = "its footer is encrypted; write the Parquet file without encryption";
        return Err(BookError::Broken(reason.to_owned()));
    }
    if magic != MAGIC {
        return Err(cut());
    }
    let size = u64::from(u32::from_le_bytes(size.try_into().unwrap_or_default()));
    let start = tail_at.checked_sub(size).ok_or_else(cut)?;
    if size > FOOTER_BYTES_MAX {
        return Err(BookError::Bound(format!(
            "the footer of the Parquet file has {size} bytes; at most {FOOTER_BYTES_MAX} are read"
        )));
    }
    let mut footer = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_exact_at(&mut footer, start).map_err(broken)?;
    check_metadata(&footer)
}

/// `FileMetaData` in Thrift's compact protocol.
fn check_metadata(bytes: &[u8]) -> Result<(), BookError> {
    let mut thrift = Compact { rest: bytes };
    let mut id = 0;
    let mut seen = false;
    while let Some(kind) = thrift.field(&mut id).ok_or_else(damaged)? {
        if (id, kind) == (2, LIST) {
            seen = true;
            schema(&mut thrift)?;
        } else {
            thrift.skip(kind, 1).ok_or_else(damaged)?;
        }
    }
    match seen {
        true => Ok(()),
        false => Err(damaged()),
    }
}

/// The elements of the schema, each followed by its children.
fn schema(thrift: &mut Compact<'_>) -> Result<(), BookError> {
    let (kind, elements) = thrift.list().ok_or_else(damaged)?;
    if kind != STRUCT || elements == 0 {
        return Err(damaged());
    }
    if elements > ELEMENTS_MAX {
        return Err(BookError::Bound(format!(
            "the Parquet file has {elements} columns and groups; a book has at most {ELEMENTS_MAX}"
        )));
    }
    // How many children each open group still waits for.
    let mut open: Vec<u64> = Vec::new();
    for element in 0..elements {
        if element > 0 {
            while open.last() == Some(&0) {
                open.pop();
            }
            *open.last_mut().ok_or_else(damaged)? -= 1;
        }
        let children = self::element(thrift).ok_or_else(damaged)?;
        if children > 0 {
            open.push(children);
        }
        if open.len() > DEPTH_MAX {
            return Err(BookError::Bound(format!(
                "the Parquet file has groups within groups, more than {DEPTH_MAX} deep; a book is flat"
            )));
        }
    }
    match open.iter().all(|waiting| *waiting == 0) {
        true => Ok(()),
        false => Err(damaged()),
    }
}

/// How many children it has.
fn element(thrift: &mut Compact<'_>) -> Option<u64> {
    let (mut id, mut children) = (0, 0);
    while let Some(kind) = thrift.field(&mut id)? {
        match (id, kind) {
            (5, I32) => children = u64::try_from(thrift.integer()?).ok()?,
            _ => thrift.skip(kind, 2)?,
        }
    }
    Some(children)
}

const I32: u8 = 5;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Thrift's compact protocol. `None`: it is not that.
struct Compact<'a> {
    rest: &'a [u8],
}

impl Compact<'_> {
    fn take(&mut self, count: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Zigzag.
    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The next field's type, its number into `id`; `Some(None)` at the end of the structure.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.integer()?,
            more => id.checked_add(i64::from(more))?,
        };
        Some(Some(head & 0x0f))
    }

    /// Type and count of its elements; each takes a byte at least.
    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        (count <= self.rest.len() as u64).then_some((head & 0x0f, count))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > NESTING_MAX {
            return None;
        }
        match kind {
            // Truth stands in the field's own head.
            1 | 2 => Some(()),
            3 => self.take(1),
            4..=6 => self.varint().map(drop),
            7 => self.take(8),
            8 => {
                let length = self.varint()?;
                self.take(length)
            }
            LIST | 10 => {
                let (kind, count) = self.list()?;
                for _ in 0..count {
                    self.skip_element(kind, depth)?;
                }
                Some(())
            }
            11 => {
                let count = self.varint()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                if count > self.rest.len() as u64 {
                    return None;
                }
                for _ in 0..count {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0x0f, depth)?;
                }
                Some(())
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            13 => self.take(16),
            _ => None,
        }
    }

    fn skip_element(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            1 | 2 => self.take(1),
            kind => self.skip(kind, depth + 1),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn varint(mut value: u64, into: &mut Vec<u8>) {
        while value >= 0x80 {
            into.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        into.push(value as u8);
    }

    /// A schema whose elements have that many children; leaves are INT32.
    pub(crate) fn metadata(children: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xfc];
        varint(children.len() as u64, &mut bytes);
        for (index, children) in children.iter().enumerate() {
            match (index, children) {
                (0, _) => bytes.push(0x48),
                (_, 0) => bytes.extend([0x15, 0x02, 0x25, 0x02, 0x18]),
                (_, _) => bytes.extend([0x35, 0x02, 0x18]),
            }
            bytes.extend([1, b'a']);
            if *children > 0 {
                bytes.push(0x15);
                varint(children * 2, &mut bytes);
            }
            bytes.push(0);
        }
        bytes.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
        bytes
    }

    /// A whole file of it.
    pub(crate) fn file_of(metadata: &[u8]) -> Vec<u8> {
        let size = (metadata.len() as u32).to_le_bytes();
        [MAGIC, metadata, &size, MAGIC].concat()
    }

    fn nested(depth: usize) -> Vec<u64> {
        let mut children = vec![1; depth];
        children.push(0);
        children
    }

    #[track_caller]
    fn check(children: &[u64], expected: Result<(), &str>) {
        let found = check_metadata(&metadata(children)).map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_schema_is_bounded_before_anything_goes_into_it() {
        check(&[3, 0, 0, 0], Ok(()));
        check(&nested(DEPTH_MAX), Ok(()));
        check(&nested(DEPTH_MAX + 1), Err("more than 8 deep"));
        check(&nested(900), Err("more than 8 deep"));
        check(&nested(4000), Err("4001 columns and groups"));
        let mut wide = vec![999];
        wide.extend([0; 999]);
        check(&wide, Ok(()));
        wide[0] += 1;
        wide.push(0);
        check(&wide, Err("1001 columns and groups"));
        // Beside each other is not within each other.
        check(&[3, 1, 0, 1, 0, 1, 0], Ok(()));
        check(&[2, 0], Err("damaged"));
        check(&[1, 0, 0], Err("damaged"));
        check(&[], Err("damaged"));
    }

    #[test]
    fn no_footer_makes_it_go_deep_or_on_and_on() {
        // Structures in structures, lists in lists, maps in maps.
        for head in [0x1c, 0x19, 0x1b] {
            let bytes = vec![head; 100_000];
            assert!(check_metadata(&bytes).is_err());
        }
        // A list that says that it is longer than the file.
        assert!(check_metadata(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        // Every cut of a good one.
        let good = metadata(&[2, 1, 0, 0]);
        for cut in 0..good.len() {
            assert!(check_metadata(&good[..cut]).is_err(), "{cut}");
        }
    }
}
