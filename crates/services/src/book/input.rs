//! Reading a book: CSV here, Parquet next door; both give the same lines.

use std::cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::bounds::{
    CELL_BYTES_MAX, CPU_SECONDS_MAX, DECODED_BYTES_MAX, LINE_BYTES_MAX, LINES_MAX, MEMORY_BYTES_MAX,
};
use super::position::{Cell, Cells};

/// Why a file as a whole cannot be priced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BookError {
    #[error("the file is empty: a header line and at least one position are needed")]
    Empty,
    #[error("the file is not in UTF-8 ({0}); save it as CSV UTF-8 with commas")]
    Encoding(&'static str),
    #[error(
        "the header needs the columns ticker, client_id, loan_days and either position_value or shares and share_price (short names: client, \
         days, value, price); found: {found}{hint}"
    )]
    Columns { found: String, hint: &'static str },
    #[error("two columns are {0}")]
    Twice(&'static str),
    #[error("the file cannot be read: {0}")]
    Broken(String),
    #[error("the file has more than {LINES_MAX} lines; price it in parts")]
    TooLong,
    /// It would cost more than a book may.
    #[error("{0}")]
    Bound(String),
    /// What the child said that decodes it.
    #[error("{0}")]
    Told(String),
    /// Nobody waits for it any more.
    #[error("the work on this book was stopped")]
    Halted,
}

impl BookError {
    /// Its reader gave up on it.
    pub(crate) fn unreadable() -> BookError {
        BookError::Broken("it is damaged".to_owned())
    }

    pub(super) fn cpu() -> BookError {
        BookError::Bound(format!(
            "the book takes more than {CPU_SECONDS_MAX} seconds of processor time; price it in parts"
        ))
    }

    pub(super) fn memory() -> BookError {
        BookError::Bound(format!(
            "the file is damaged, or decoding it takes more than {} MiB of memory; write it with smaller pages, or as CSV",
            MEMORY_BYTES_MAX >> 20
        ))
    }

    pub(super) fn decoded() -> BookError {
        BookError::Bound(format!(
            "the file holds more than {} MiB of text when decoded; price it in parts",
            DECODED_BYTES_MAX >> 20
        ))
    }

    /// `place`: `line 7`, `row 7`.
    pub(super) fn cell(place: &str, column: &str) -> BookError {
        BookError::Bound(format!(
            "{place}: the {column} is longer than {} KiB",
            CELL_BYTES_MAX >> 10
        ))
    }
}

/// A line as it was found; `Err`: it cannot even be taken apart.
#[derive(Debug)]
pub(super) struct Line {
    /// Of the file, the header being 1. Of Parquet the row, from 1.
    pub(super) number: u64,
    pub(super) cells: Result<Cells, String>,
}

pub(super) const DAYS: usize = 2;
pub(super) const VALUE: usize = 3;
pub(super) const SHARES: usize = 4;
pub(super) const PRICE: usize = 5;
pub(super) const NAMES: [(&str, &[&str]); 6] = [
    ("ticker", &["ticker", "symbol"]),
    ("client_id", &["client_id", "client"]),
    ("loan_days", &["loan_days", "days"]),
    ("position_value", &["position_value", "value"]),
    ("shares", &["shares", "quantity"]),
    ("share_price", &["share_price", "price"]),
];

/// Where each of our columns is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) at: [Option<usize>; 6],
    /// Columns of the file that mean nothing here.
    pub(super) ignored: Vec<String>,
}

impl Columns {
    pub(super) fn of<'a>(header: impl Iterator<Item = &'a str>) -> Result<Columns, BookError> {
        let (mut at, mut ignored, mut found) = ([None; 6], Vec::new(), Vec::new());
        for (index, name) in header.enumerate() {
            let name = name.trim();
            found.push(name.to_owned());
            let lower = name.to_ascii_lowercase();
            match NAMES.iter().position(|(_, names)| names.contains(&&*lower)) {
                Some(ours) if at[ours].is_some() => return Err(BookError::Twice(NAMES[ours].0)),
                Some(ours) => at[ours] = Some(index),
                None => ignored.push(name.to_owned()),
            }
        }
        let needed = at[..=DAYS].iter().all(Option::is_some);
        let worth = at[VALUE].is_some() || (at[SHARES].is_some() && at[PRICE].is_some());
        if needed && worth {
            return Ok(Columns { at, ignored });
        }
        let found = found.join(", ").chars().take(200).collect::<String>();
        let hint = match found.contains(';') || found.contains('\t') {
            true => {
                " (separate the columns by commas, or name the separator in a first line: sep=;)"
            }
            false => "",
        };
        Err(BookError::Columns { found, hint })
    }

    pub(super) fn cells(&self, cell: impl Fn(usize) -> Cell) -> Cells {
        Cells::of(self.at.map(|at| at.map(&cell).unwrap_or_default()))
    }
}

impl Line {
    /// Every cell that is ours is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.as_ref().is_ok_and(Cells::is_empty)
    }
}

/// The separator, and the rest, when the first line does nothing but name it: `sep=;`.
fn separator(bytes: &[u8]) -> (u8, u64, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (first, rest) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    match first.trim_ascii_end().trim_ascii_start() {
        [s, e, p, b'=', mark]
            if [*s, *e, *p].eq_ignore_ascii_case(b"sep") && mark.is_ascii_punctuation() =>
        {
            (*mark, 1, rest)
        }
        // A tabulator is white space.
        [s, e, p, b'='] if [*s, *e, *p].eq_ignore_ascii_case(b"sep") && first.contains(&b'\t') => {
            (b'\t', 1, rest)
        }
        _ => (b',', 0, bytes),
    }
}

/// Stops a line that does not end: its reader would go on collecting it.
struct BoundedReader<'a> {
    rest: &'a [u8],
    /// Bytes that may still come before the line has to end.
    left: Rc<cell::Cell<usize>>,
}

/// What the reader takes at once, beyond the line that it is at.
const AHEAD_BYTES: usize = 16 << 10;

impl Read for BoundedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !self.rest.is_empty() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut part = self.rest;
        part = &part[..part.len().min(left)];
        let read = part.read(buffer)?;
        self.rest = &self.rest[read..];
        self.left.set(left - read);
        Ok(read)
    }
}

/// Hands every line to `each` until it says to stop. Returns the names of columns that mean nothing here.
pub(super) fn csv(
    bytes: &[u8],
    each: &mut dyn FnMut(Line) -> bool,
) -> Result<Vec<String>, BookError> {
    let bytes = match bytes {
        [] => return Err(BookError::Empty),
        [0xef, 0xbb, 0xbf, rest @ ..] => rest,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(BookError::Encoding("it is UTF-16")),
        [0x1f, 0x8b, ..] => return Err(BookError::Encoding("it is gzip")),
        [b'P', b'K', 3, 4, ..] => {
            return Err(BookError::Encoding("it is a spreadsheet or a zip"));
        }
        bytes => bytes,
    };
    let (separator, passed, bytes) = separator(bytes);
    let left = Rc::new(cell::Cell::new(LINE_BYTES_MAX));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .has_headers(false)
        .delimiter(separator)
        .buffer_capacity(AHEAD_BYTES)
        .from_reader(BoundedReader {
            rest: bytes,
            left: Rc::clone(&left),
        });
    let mut record = csv::ByteRecord::new();
    let mut lines = 0;
    let mut columns: Option<(Columns, usize)> = None;
    let mut numbers = Numbers {
        at: 0,
        number: 1 + passed,
    };
    loop {
        left.set(LINE_BYTES_MAX);
        let start = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX);
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => {
                let number = numbers.of(bytes, start);
                return Err(BookError::line(number, &error));
            }
        }
        if record.iter().all(|cell| cell.trim_ascii().is_empty()) {
            continue;
        }
        let start = record.position().map_or(0, csv::Position::byte);
        let number = numbers.of(bytes, usize::try_from(start).unwrap_or(usize::MAX));
        let Some((columns, width)) = &columns else {
            columns = Some((header(&record)?, record.len()));
            continue;
        };
        lines += 1;
        if lines > LINES_MAX {
            return Err(BookError::TooLong);
        }
        let cells = cells(&record, number, columns, *width)?;
        if !each(Line { number, cells }) {
            break;
        }
    }
    match columns {
        Some((columns, _)) if lines > 0 => Ok(columns.ignored),
        _ => Err(BookError::Empty),
    }
}

fn header(record: &csv::ByteRecord) -> Result<Columns, BookError> {
    let header: Vec<&str> = record
        .iter()
        .map(std::str::from_utf8)
        .collect::<Result<_, _>>()
        .map_err(|_| BookError::Encoding("its header has other bytes"))?;
    Columns::of(header.into_iter())
}

impl BookError {
    fn line(number: u64, error: &csv::Error) -> BookError {
        match error.kind() {
            csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                BookError::Bound(format!(
                    "line {number} is longer than {} KiB; is a quotation mark not closed?",
                    LINE_BYTES_MAX >> 10
                ))
            }
            _ => BookError::Broken(error.to_string()),
        }
    }
}

/// Counts lines as an editor does. The reader's own count takes the end of a line of Windows for half of the next one.
struct Numbers {
    at: usize,
    number: u64,
}

impl Numbers {
    fn of(&mut self, bytes: &[u8], start: usize) -> u64 {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let rest = bytes.get(start..).unwrap_or_default();
        let start = start + rest.iter().take_while(|byte| is_end(byte)).count();
        let passed = bytes.get(self.at..start).unwrap_or_default();
        self.number += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = start;
        self.number
    }
}

fn cells(
    record: &csv::ByteRecord,
    number: u64,
    columns: &Columns,
    width: usize,
) -> Result<Result<Cells, String>, BookError> {
    if record.len() != width {
        return Ok(Err(format!(
            "has {} cells where the header has {width}",
            record.len()
        )));
    }
    for (ours, index) in columns.at.iter().enumerate() {
        let Some(index) = *index else { continue };
        if record[index].len() > CELL_BYTES_MAX {
            let place = format!("line {number}");
            return Err(BookError::cell(&place, NAMES[ours].0));
        }
        if std::str::from_utf8(&record[index]).is_err() {
            return Ok(Err(format!("cell {} is not UTF-8", index + 1)));
        }
    }
    Ok(Ok(columns.cells(|index| {
        let text = String::from_utf8_lossy(&record[index]);
        Cell::Text(text.trim().to_owned())
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<String>, BookError> {
        let mut lines = Vec::new();
        csv(bytes, &mut |line| {
            lines.push(match line.cells {
                Ok(cells) => format!(
                    "{} {} {} {} {} {} {}",
                    line.number,
                    cells.ticker.text(),
                    cells.client_id.text(),
                    cells.loan_days.text(),
                    cells.position_value.text(),
                    cells.shares.text(),
                    cells.share_price.text()
                ),
                Err(reason) => format!("{} {reason}", line.number),
            });
            true
        })?;
        Ok(lines)
    }

    #[test]
    fn columns_are_found_by_name() {
        let found = lines(
            b"\xef\xbb\xbfDesk,Days,Client,Ticker,Value\r\nA,30,standard,GME,100\r\n\r\nB,7,premium,\"BRK A\", 5.5 \r\n",
        );
        assert_eq!(
            found.unwrap(),
            ["2 GME standard 30 100  ", "4 BRK A premium 7 5.5  "]
        );
        let found = lines(b"ticker,client,days,shares,price\nGME,standard,30,100,12.5\n");
        assert_eq!(found.unwrap(), ["2 GME standard 30  100 12.5"]);
    }

    #[test]
    fn a_first_line_that_names_the_separator_is_obeyed() {
        for (mark, name) in [
            (";", "sep=;"),
            (",", "SEP=,"),
            ("|", " sep=| "),
            ("\t", "sep=\t"),
        ] {
            let lines_of = ["ticker,client,days,value", "GME,standard,30,1.5", "A,x", ""];
            let book = lines_of.map(|line| line.replace(',', mark)).join("\r\n");
            let book = format!("\u{feff}{name}\r\n{book}");
            assert_eq!(
                lines(book.as_bytes()).unwrap(),
                [
                    "3 GME standard 30 1.5  ",
                    "4 has 2 cells where the header has 4"
                ],
                "{name}"
            );
        }
        // A column may be called so.
        let found = lines(b"ticker,client,days,value,sep=\nGME,standard,30,1,x\n");
        assert_eq!(found.unwrap(), ["2 GME standard 30 1  "]);
    }

    #[test]
    fn empty_rows_are_no_rows() {
        let book =
            b",,,\n \nticker,client,days,value\n,,,\nGME,standard,30,1\n\n , ,,\n;\n,,,,,,\n";
        assert_eq!(
            lines(book).unwrap(),
            [
                "5 GME standard 30 1  ",
                "8 has 1 cells where the header has 4"
            ]
        );
        let blank = [&b"ticker,client,days,value\n"[..], &b",,,\n".repeat(998)].concat();
        assert_eq!(lines(&blank), Err(BookError::Empty));
        assert_eq!(lines(b"\n\n\n"), Err(BookError::Empty));
    }

    #[test]
    fn a_cell_or_a_line_without_an_end_is_refused_with_its_place() {
        let begin = b"ticker,client,days,value\nGME,standard,30,1\n";
        let wrong = |rest: Vec<u8>, part: &str| {
            let error = lines(&[&begin[..], &rest].concat())
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        };
        let long = |bytes: usize| [b"\"", &b"x".repeat(bytes)[..], b"\",y,1,1\n"].concat();
        wrong(
            long(CELL_BYTES_MAX + 1),
            "line 3: the ticker is longer than 64 KiB",
        );
        assert_eq!(
            lines(&[&begin[..], &long(CELL_BYTES_MAX)].concat())
                .unwrap()
                .len(),
            2
        );
        // A quotation mark that is not closed takes all the rest into one cell.
        wrong(
            [&b"\""[..], &b"GME,standard,30,1\n".repeat(70_000)].concat(),
            "line 3 is longer than 1024 KiB",
        );
        wrong(
            b",".repeat(2 * LINE_BYTES_MAX),
            "line 3 is longer than 1024 KiB",
        );
        // Many short ones are no long one.
        let many = [&begin[..], &b"GME,standard,30,1\n".repeat(70_000)].concat();
        assert_eq!(lines(&many).unwrap().len(), 70_001);
    }

    #[test]
    fn a_broken_line_is_one_broken_line() {
        let found = lines(
            b"ticker,client,days,value\nGME,standard,30\nGME,stand\xe4rd,30,1\nGME,standard,30,1\n",
        );
        assert_eq!(
            found.unwrap(),
            [
                "2 has 3 cells where the header has 4",
                "3 cell 2 is not UTF-8",
                "4 GME standard 30 1  "
            ]
        );
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let wrong = |bytes: &[u8], part: &str| {
            let error = lines(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        wrong(b"", "empty");
        wrong(b"ticker,client,days,value\n", "empty");
        wrong(
            b"ticker,client,value\nGME,standard,1\n",
            "found: ticker, client, value",
        );
        wrong(
            b"ticker,client,days,shares\nGME,standard,1,1\n",
            "share_price",
        );
        wrong(b"ticker;client;days;value\nGME;standard;1;1\n", "by commas");
        wrong(
            b"ticker,symbol,client,days,value\n",
            "two columns are ticker",
        );
        wrong(b"\xff\xfet\0i\0", "UTF-16");
        wrong(b"\x1f\x8b\x08\0", "gzip");
        wrong(b"PK\x03\x04", "spreadsheet");
        wrong(b"tick\xe4r,client,days,value\nGME,standard,1,1\n", "header");
        for file in [&b"PAR1"[..], b"PAR1 cut short in the middle PAR1"] {
            let error = super::super::check_book(file).unwrap_err();
            assert!(error.contains("cannot be read"), "{error}");
        }
    }
}
