//! A decoded book: its lines one after the other, in a file that only this engine writes and reads, and that has no name.
//! Whoever decoded it may have been a child with limits that a hostile file made do anything: nothing in it is believed.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::bounds::{CELL_BYTES_MAX, DECODED_BYTES_MAX, LINE_BYTES_MAX, LINES_MAX};
use super::input::{BookError, Line};
use super::position::{Cell, Cells};

const CELLS: u8 = 0;
const REFUSED: u8 = 1;
const END: u8 = 2;
/// Of a cell.
const TEXT: u8 = 0;
const TYPED: u8 = 1;
/// The last bytes of one that was written to its end.
const WHOLE: &[u8; 8] = b"bre book";
const NAME_BYTES_MAX: usize = 256;
/// A line of CSV can name no more.
const COLUMNS_MAX: u64 = LINE_BYTES_MAX as u64;

fn failed(error: &io::Error) -> BookError {
    BookError::Broken(format!("its decoded lines cannot be kept: {error}"))
}

/// First the lines, then the names of columns that mean nothing here, last what it cost.
pub(super) struct Writer<W: Write> {
    out: BufWriter<W>,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Writer {
            out: BufWriter::with_capacity(1 << 16, out),
            bytes: 0,
        }
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), BookError> {
        self.out.write_all(bytes).map_err(|error| failed(&error))
    }

    fn text(&mut self, text: &str) -> Result<(), BookError> {
        self.bytes += text.len() as u64;
        if self.bytes > DECODED_BYTES_MAX {
            return Err(BookError::decoded());
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.raw(&length.to_le_bytes())?;
        self.raw(text.as_bytes())
    }

    pub(super) fn line(&mut self, line: &Line) -> Result<(), BookError> {
        let kind = match &line.cells {
            Ok(_) => CELLS,
            Err(_) => REFUSED,
        };
        self.raw(&[kind])?;
        self.raw(&line.number.to_le_bytes())?;
        match &line.cells {
            Ok(cells) => {
                for cell in cells.all() {
                    let (kind, text) = match cell {
                        Cell::Text(text) => (TEXT, text),
                        Cell::Typed(number) => (TYPED, number),
                    };
                    self.raw(&[kind])?;
                    self.text(text)?;
                }
                Ok(())
            }
            Err(reason) => self.text(reason),
        }
    }

    pub(super) fn finish(mut self, ignored: &[String], cost: Duration) -> Result<(), BookError> {
        self.raw(&[END])?;
        self.raw(&(ignored.len() as u64).to_le_bytes())?;
        for name in ignored {
            self.text(shortened(name))?;
        }
        let micros = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        self.raw(&micros.to_le_bytes())?;
        self.raw(WHOLE)?;
        self.out.flush().map_err(|error| failed(&error))
    }
}

/// A name of a column may be as long as a file.
fn shortened(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Reads at places of its own: a file is read twice, and its descriptor may be shared.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct Reader<'a>(BufReader<At<'a>>);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> io::Result<String> {
        let length = u32::from_le_bytes(self.bytes()?) as usize;
        if length > CELL_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn cell(&mut self) -> io::Result<Cell> {
        let [kind] = self.bytes()?;
        match kind {
            TEXT => self.text().map(Cell::Text),
            TYPED => self.text().map(Cell::Typed),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        let count = self.number()?;
        if count > COLUMNS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        (0..count).map(|_| self.text()).collect()
    }

    fn line(&mut self, kind: u8) -> io::Result<Line> {
        let number = self.number()?;
        let cells = match kind {
            CELLS => Ok(Cells::of([
                self.cell()?,
                self.cell()?,
                self.cell()?,
                self.cell()?,
                self.cell()?,
                self.cell()?,
            ])),
            REFUSED => Err(self.text()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Line { number, cells })
    }
}

/// What decoding it cost, as it says at its end.
pub(super) fn cost(file: &File) -> Result<Duration, BookError> {
    let length = file.metadata().map_err(|error| failed(&error))?.len();
    let mut end = [0; 16];
    let at = length.checked_sub(16).ok_or_else(BookError::unreadable)?;
    file.read_exact_at(&mut end, at)
        .map_err(|error| failed(&error))?;
    let (micros, whole) = end.split_at(8);
    if whole != WHOLE {
        return Err(BookError::unreadable());
    }
    let micros = u64::from_le_bytes(micros.try_into().unwrap_or_default());
    Ok(Duration::from_micros(micros))
}

/// Hands every line to `each` until it says to stop. Returns the names of columns that mean nothing here.
pub(super) fn read(
    file: &File,
    each: &mut dyn FnMut(Line) -> bool,
) -> Result<Vec<String>, BookError> {
    let mut reader = Reader(BufReader::with_capacity(1 << 16, At { file, at: 0 }));
    let mut reading = || -> io::Result<Option<Vec<String>>> {
        for _ in 0..=LINES_MAX {
            let [kind] = reader.bytes()?;
            if kind == END {
                return reader.names().map(Some);
            }
            if !each(reader.line(kind)?) {
                return Ok(Some(Vec::new()));
            }
        }
        Ok(None)
    };
    match reading() {
        Ok(Some(ignored)) => Ok(ignored),
        Ok(None) => Err(BookError::TooLong),
        Err(_) => Err(BookError::unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_again_and_nothing_else_is_believed() {
        let mut file = tempfile::tempfile().unwrap();
        let cells = Cells {
            ticker: Cell::Text("GME".into()),
            position_value: Cell::Typed("1.5".into()),
            ..Cells::default()
        };
        let mut writer = Writer::new(&mut file);
        for (number, cells) in [(1, Ok(cells.clone())), (2, Err("is no line".to_owned()))] {
            writer.line(&Line { number, cells }).unwrap();
        }
        let ignored = ["desk".to_owned(), "é".repeat(200)];
        writer.finish(&ignored, Duration::from_micros(77)).unwrap();
        for _ in 0..2 {
            let mut lines = Vec::new();
            let ignored = read(&file, &mut |line| {
                lines.push((line.number, line.cells));
                true
            });
            assert_eq!(ignored.unwrap(), ["desk".to_owned(), "é".repeat(128)]);
            let expected = [(1, Ok(cells.clone())), (2, Err("is no line".to_owned()))];
            assert_eq!(lines, expected);
        }
        assert_eq!(cost(&file).unwrap(), Duration::from_micros(77));
        let length = file.metadata().unwrap().len();
        for cut in (0..length).rev() {
            file.set_len(cut).unwrap();
            // What it cost stands after all that is read.
            assert!(cost(&file).is_err(), "{cut}");
            let is_read = read(&file, &mut |_| true).is_ok();
            assert_eq!(is_read, cut >= length - 16, "{cut}");
        }
        file.write_all_at(&[CELLS], 0).unwrap();
        file.write_all_at(&[0xff; 20], 1).unwrap();
        assert!(read(&file, &mut |_| true).is_err());
    }
}
