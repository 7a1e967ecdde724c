//! Reading a book: CSV here, Parquet next door; both give the same lines.

use bytes::Bytes;

use super::parquet;
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
}

impl BookError {
    /// Its reader gave up on it.
    pub(crate) fn unreadable() -> BookError {
        BookError::Broken("it is damaged".to_owned())
    }
}

pub(super) const LINES_MAX: u64 = 5_000_000;

/// A line as it was found; `Err`: it cannot even be taken apart.
#[derive(Debug)]
pub(super) struct Line {
    /// Of the file, the header being 1. Of Parquet the row, from 1.
    pub(super) number: u64,
    pub(super) cells: Result<Cells, String>,
}

pub(super) const TICKER: usize = 0;
pub(super) const CLIENT: usize = 1;
pub(super) const DAYS: usize = 2;
pub(super) const VALUE: usize = 3;
pub(super) const SHARES: usize = 4;
pub(super) const PRICE: usize = 5;
const NAMES: [(&str, &[&str]); 6] = [
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
            true => " (separate the columns by commas)",
            false => "",
        };
        Err(BookError::Columns { found, hint })
    }

    pub(super) fn cells(&self, cell: impl Fn(usize) -> Cell) -> Cells {
        let get = |ours: usize| self.at[ours].map(&cell).unwrap_or_default();
        Cells {
            ticker: get(TICKER),
            client_id: get(CLIENT),
            loan_days: get(DAYS),
            position_value: get(VALUE),
            shares: get(SHARES),
            share_price: get(PRICE),
        }
    }
}

/// Hands every line to `each` until it says to stop. Returns the names of columns that mean nothing here.
pub(super) fn read(
    bytes: &Bytes,
    each: &mut dyn FnMut(Line) -> bool,
) -> Result<Vec<String>, BookError> {
    if parquet::is_one(bytes) {
        return parquet::read(bytes, each);
    }
    csv(bytes, each)
}

fn csv(bytes: &[u8], each: &mut dyn FnMut(Line) -> bool) -> Result<Vec<String>, BookError> {
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
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader
        .byte_headers()
        .map_err(|error| BookError::Broken(error.to_string()))?;
    let header: Vec<String> = header
        .iter()
        .map(|name| std::str::from_utf8(name).map(str::to_owned))
        .collect::<Result<_, _>>()
        .map_err(|_| BookError::Encoding("its header has other bytes"))?;
    let columns = Columns::of(header.iter().map(String::as_str))?;
    let mut record = csv::ByteRecord::new();
    let mut lines = 0;
    let mut numbers = Numbers { at: 0, number: 1 };
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => return Err(BookError::Broken(error.to_string())),
        }
        lines += 1;
        if lines > LINES_MAX {
            return Err(BookError::TooLong);
        }
        let start = record.position().map_or(0, csv::Position::byte);
        let number = numbers.of(bytes, usize::try_from(start).unwrap_or(usize::MAX));
        let cells = cells(&record, &columns, header.len());
        if !each(Line { number, cells }) {
            break;
        }
    }
    match lines {
        0 => Err(BookError::Empty),
        _ => Ok(columns.ignored),
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

fn cells(record: &csv::ByteRecord, columns: &Columns, width: usize) -> Result<Cells, String> {
    if record.len() != width {
        return Err(format!(
            "has {} cells where the header has {width}",
            record.len()
        ));
    }
    for index in columns.at.iter().copied().flatten() {
        if std::str::from_utf8(&record[index]).is_err() {
            return Err(format!("cell {} is not UTF-8", index + 1));
        }
    }
    Ok(columns.cells(|index| {
        let text = String::from_utf8_lossy(&record[index]);
        Cell::Text(text.trim().to_owned())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<String>, BookError> {
        let mut lines = Vec::new();
        read(&Bytes::copy_from_slice(bytes), &mut |line| {
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
        wrong(b"PAR1", "cannot be read");
        wrong(b"PAR1 cut short in the middle PAR1", "cannot be read");
    }
}
