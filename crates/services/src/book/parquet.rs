//! Books in Parquet.

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use super::input::{BookError, Columns, LINES_MAX, Line};
use super::position::{Cell, Cells};

const MAGIC: &[u8] = b"PAR1";

pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(super) fn read(
    bytes: &Bytes,
    each: &mut dyn FnMut(Line) -> bool,
) -> Result<Vec<String>, BookError> {
    let broken = |error: &dyn std::fmt::Display| {
        BookError::Broken(format!("{error}; was the Parquet file cut short?"))
    };
    let reader = SerializedFileReader::new(bytes.clone()).map_err(|error| broken(&error))?;
    let metadata = reader.metadata().file_metadata();
    if u64::try_from(metadata.num_rows()).unwrap_or(u64::MAX) > LINES_MAX {
        return Err(BookError::TooLong);
    }
    let names: Vec<String> = metadata
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    let columns = Columns::of(names.iter().map(String::as_str))?;
    let rows = reader.get_row_iter(None).map_err(|error| broken(&error))?;
    let mut number = 0;
    for row in rows {
        let row = row.map_err(|error| broken(&error))?;
        number += 1;
        let cells = line(&row, &columns);
        if !each(Line { number, cells }) {
            break;
        }
    }
    match number {
        0 => Err(BookError::Empty),
        _ => Ok(columns.ignored),
    }
}

fn line(row: &Row, columns: &Columns) -> Result<Cells, String> {
    let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
    for index in columns.at.iter().copied().flatten() {
        if let Some(Err(reason)) = fields.get(index).map(|field| cell(field)) {
            return Err(format!("cell {} {reason}", index + 1));
        }
    }
    Ok(columns.cells(|index| {
        let cell = fields.get(index).and_then(|field| cell(field).ok());
        cell.unwrap_or_default()
    }))
}

/// A binary float counts as the shortest decimal that reads back as it, which is what the tool that wrote it shows.
fn cell(field: &Field) -> Result<Cell, &'static str> {
    Ok(Cell::Typed(match field {
        Field::Null => return Ok(Cell::default()),
        Field::Str(text) => return Ok(Cell::Text(text.trim().to_owned())),
        Field::Byte(number) => number.to_string(),
        Field::Short(number) => number.to_string(),
        Field::Int(number) => number.to_string(),
        Field::Long(number) => number.to_string(),
        Field::UByte(number) => number.to_string(),
        Field::UShort(number) => number.to_string(),
        Field::UInt(number) => number.to_string(),
        Field::ULong(number) => number.to_string(),
        Field::Float(number) => number.to_string(),
        Field::Double(number) => number.to_string(),
        decimal @ Field::Decimal(_) => decimal.to_string(),
        _ => return Err("is neither a number nor text"),
    }))
}
