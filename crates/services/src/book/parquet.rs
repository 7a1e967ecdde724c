//! Books in Parquet: our columns are decoded, and nothing else of the file, whatever it holds.

use std::fs::File;
use std::io::Write;

use ::parquet::basic::{Compression, ConvertedType, LogicalType, Type as Physical};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescPtr;

use super::bounds::{CELL_BYTES_MAX, LINES_MAX, Meter};
use super::flat;
use super::footer;
use super::input::{BookError, Columns, Line, NAMES};
use super::position::{self, Cell};

const MAGIC: &[u8] = b"PAR1";
/// Rows that are in memory at once.
const TOGETHER: usize = 256;

pub(crate) fn is_one(begin: &[u8]) -> bool {
    begin.starts_with(MAGIC)
}

/// Writes the lines of the book as a flat file.
pub(super) fn decode<W: Write>(file: &File, out: W, meter: &Meter<'_>) -> Result<(), BookError> {
    footer::check(file)?;
    let own = file.try_clone().map_err(|error| damaged(&error))?;
    let reader = SerializedFileReader::new(own).map_err(|error| damaged(&error))?;
    let metadata = reader.metadata();
    let rows = metadata.file_metadata().num_rows();
    if u64::try_from(rows).unwrap_or(u64::MAX) > LINES_MAX {
        return Err(BookError::TooLong);
    }
    let fields = metadata.file_metadata().schema().get_fields();
    let columns = Columns::of(fields.iter().map(|field| field.name()))?;
    let mut out = flat::Writer::new(out);
    let leaves = columns
        .at
        .map(|root| root.and_then(|root| leaf(metadata, root)));
    let mut row = 0;
    let mut lines = 0;
    for index in 0..reader.num_row_groups() {
        let group = reader
            .get_row_group(index)
            .map_err(|error| damaged(&error))?;
        let mut cells = Vec::new();
        for (ours, root) in columns.at.iter().enumerate() {
            if root.is_some() {
                cells.push((ours, Cells::of(&*group, ours, leaves[ours])?));
            }
        }
        let rows = group.metadata().num_rows();
        let mut left = usize::try_from(rows).map_err(|_| BookError::unreadable())?;
        while left > 0 {
            meter.look()?;
            let count = left.min(TOGETHER);
            for (_, cells) in &mut cells {
                cells.read(count, row)?;
            }
            for at in 0..count {
                row += 1;
                if row > LINES_MAX {
                    return Err(BookError::TooLong);
                }
                let line = line(row, at, &mut cells);
                if line.is_empty() {
                    continue;
                }
                lines += 1;
                out.line(&line)?;
            }
            left -= count;
        }
    }
    match lines {
        0 => Err(BookError::Empty),
        _ => out.finish(&columns.ignored, meter.spent()),
    }
}

fn damaged(error: &dyn std::fmt::Display) -> BookError {
    BookError::Broken(format!("{error}; was the Parquet file cut short?"))
}

/// The one column below that field; none when it is a group.
fn leaf(metadata: &ParquetMetaData, root: usize) -> Option<usize> {
    let schema = metadata.file_metadata().schema_descr();
    let field = metadata.file_metadata().schema().get_fields().get(root)?;
    if !field.is_primitive() {
        return None;
    }
    let leaf = (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == root)?;
    // Repeated: a list of its own.
    (schema.column(leaf).max_rep_level() == 0).then_some(leaf)
}

fn line(number: u64, at: usize, cells: &mut [(usize, Cells)]) -> Line {
    let mut found: [Cell; NAMES.len()] = Default::default();
    for (ours, cells) in cells {
        match std::mem::replace(&mut cells.found[at], Ok(Cell::default())) {
            Ok(cell) => found[*ours] = cell,
            Err(reason) => {
                let cells = Err(format!("{} {reason}", NAMES[*ours].0));
                return Line { number, cells };
            }
        }
    }
    Line {
        number,
        cells: Ok(position::Cells::of(found)),
    }
}

type CellResult = Result<Cell, &'static str>;

const NO_TEXT: &str = "is neither a number nor text";
/// The whole file is refused for it.
const TOO_LONG: &str = "is too long";

/// One of our columns in one group of rows.
struct Cells {
    name: &'static str,
    /// How it is compressed.
    codec: Compression,
    /// `None`: a group or a list, which has no cells.
    values: Option<(ColumnReader, ColumnDescPtr)>,
    /// Those in memory.
    found: Vec<CellResult>,
}

impl Cells {
    fn of(
        group: &dyn RowGroupReader,
        ours: usize,
        leaf: Option<usize>,
    ) -> Result<Cells, BookError> {
        let name = NAMES[ours].0;
        let Some(leaf) = leaf else {
            return Ok(Cells {
                name,
                codec: Compression::UNCOMPRESSED,
                values: None,
                found: Vec::new(),
            });
        };
        let chunk = group.metadata().column(leaf);
        let mut cells = Cells {
            name,
            codec: chunk.compression(),
            values: None,
            found: Vec::new(),
        };
        let reader = group.get_column_reader(leaf);
        let reader = reader.map_err(|error| cells.failed(&error))?;
        cells.values = Some((reader, chunk.column_descr_ptr()));
        Ok(cells)
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> BookError {
        let codec = codec(self.codec);
        let advice = match self.codec {
            Compression::LZO => "write it with another one, for example zstd",
            _ => "was the Parquet file cut short?",
        };
        BookError::Broken(format!(
            "column {} (compressed by {codec}): {error}; {advice}",
            self.name
        ))
    }

    /// The next `count` rows, of which the first one is the file's row `row`, counted from 0.
    fn read(&mut self, count: usize, row: u64) -> Result<(), BookError> {
        let values = self.values.take();
        let Some((mut reader, column)) = values else {
            self.found = vec![Err(NO_TEXT); count];
            return Ok(());
        };
        self.found.clear();
        let read = decoded(&mut reader, &column, count, &mut self.found);
        read.map_err(|error| self.failed(&error))?;
        if self.found.len() < count {
            return Err(self.failed(&"it ends before its rows do"));
        }
        let long = |found: &CellResult| *found == Err(TOO_LONG);
        if let Some(long) = self.found.iter().position(long) {
            let place = format!("row {}", row + long as u64 + 1);
            return Err(BookError::cell(&place, self.name));
        }
        self.values = Some((reader, column));
        Ok(())
    }
}

fn codec(compression: Compression) -> &'static str {
    match compression {
        Compression::UNCOMPRESSED => "nothing",
        Compression::SNAPPY => "Snappy",
        Compression::GZIP(_) => "gzip",
        Compression::LZO => "LZO",
        Compression::BROTLI(_) => "Brotli",
        Compression::LZ4 | Compression::LZ4_RAW => "LZ4",
        Compression::ZSTD(_) => "zstd",
    }
}

fn decoded(
    reader: &mut ColumnReader,
    column: &ColumnDescPtr,
    count: usize,
    into: &mut Vec<CellResult>,
) -> Result<(), ParquetError> {
    use ColumnReader as R;
    let kind = column.converted_type();
    let scale = column.type_scale();
    match reader {
        R::Int32ColumnReader(reader) => cells(reader, column, count, into, |number| {
            integer(kind, scale, i64::from(*number), 32)
        }),
        R::Int64ColumnReader(reader) => cells(reader, column, count, into, |number| {
            integer(kind, scale, *number, 64)
        }),
        // A binary float counts as the shortest decimal that reads back as it, which is what the tool that wrote it shows.
        R::FloatColumnReader(reader) => cells(reader, column, count, into, typed),
        R::DoubleColumnReader(reader) => cells(reader, column, count, into, typed),
        R::ByteArrayColumnReader(reader) => cells(reader, column, count, into, |value| {
            bytes(column, value.data())
        }),
        R::FixedLenByteArrayColumnReader(reader) => cells(reader, column, count, into, |value| {
            bytes(column, value.data())
        }),
        R::BoolColumnReader(reader) => cells(reader, column, count, into, |_| Err(NO_TEXT)),
        R::Int96ColumnReader(reader) => cells(reader, column, count, into, |_| Err(NO_TEXT)),
    }
}

/// The next `count` cells; a row without a value is an empty one.
fn cells<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    column: &ColumnDescPtr,
    count: usize,
    into: &mut Vec<CellResult>,
    cell: impl Fn(&T::T) -> CellResult,
) -> Result<(), ParquetError> {
    let level = column.max_def_level();
    let (mut values, mut levels) = (Vec::with_capacity(count), Vec::with_capacity(count));
    while into.len() < count {
        values.clear();
        levels.clear();
        let wanted = count - into.len();
        let known = (level > 0).then_some(&mut levels);
        let (records, _, _) = reader.read_records(wanted, known, None, &mut values)?;
        if records == 0 {
            break;
        }
        let mut values = values.iter();
        for row in 0..records {
            let is_there = level == 0 || levels.get(row) == Some(&level);
            into.push(match is_there {
                false => Ok(Cell::default()),
                true => match values.next() {
                    Some(value) => cell(value),
                    None => return Err(ParquetError::General("a value is missing".to_owned())),
                },
            });
        }
    }
    Ok(())
}

/// `bits`: what it is stored in.
fn integer(kind: ConvertedType, scale: i32, number: i64, bits: u32) -> CellResult {
    use ConvertedType as C;
    match kind {
        C::NONE | C::INT_8 | C::INT_16 | C::INT_32 | C::INT_64 => typed(&number),
        // Stored as a signed number of the same bits.
        C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64 if bits == 32 => {
            typed(&(number & 0xffff_ffff))
        }
        C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64 => typed(&number.cast_unsigned()),
        C::DECIMAL => decimal(i128::from(number), scale),
        _ => Err(NO_TEXT),
    }
}

fn typed(number: &impl ToString) -> CellResult {
    Ok(Cell::Typed(number.to_string()))
}

fn bytes(column: &ColumnDescPtr, bytes: &[u8]) -> CellResult {
    use ConvertedType as C;
    // One long value may stand in every row: it is not copied even once.
    if bytes.len() > CELL_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let fixed = column.physical_type() == Physical::FIXED_LEN_BYTE_ARRAY;
    match column.converted_type() {
        C::DECIMAL => {
            let number = unscaled(bytes).ok_or("has more digits than an amount can have")?;
            decimal(number, column.type_scale())
        }
        C::NONE if column.logical_type_ref() == Some(&LogicalType::Float16) => Err(NO_TEXT),
        // Not every writer says that its bytes are text.
        C::NONE | C::UTF8 | C::ENUM | C::JSON => {
            let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
            let text = match fixed {
                true => text.trim_end_matches('\0'),
                false => text,
            };
            Ok(Cell::Text(text.trim().to_owned()))
        }
        _ => Err(NO_TEXT),
    }
}

/// Big-endian two's complement, of any width; what does not fit is no amount.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    const WIDTH: usize = size_of::<i128>();
    let sign = match bytes.first() {
        Some(first) if *first >= 0x80 => 0xff,
        _ => 0,
    };
    let excess = bytes.len().saturating_sub(WIDTH);
    let (padding, digits) = bytes.split_at(excess);
    let mut number = [sign; WIDTH];
    number[WIDTH - digits.len()..].copy_from_slice(digits);
    let number = i128::from_be_bytes(number);
    let fits = padding.iter().all(|byte| *byte == sign) && (number < 0) == (sign != 0);
    fits.then_some(number)
}

/// A typed number counts by its value: noughts at its end are no digits.
fn decimal(unscaled: i128, scale: i32) -> CellResult {
    let scale = usize::try_from(scale).ok().filter(|scale| *scale <= 38);
    let scale = scale.ok_or(NO_TEXT)?;
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Ok(Cell::Typed(match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }))
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
