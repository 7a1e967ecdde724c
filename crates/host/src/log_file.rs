//! The file that keeps each event as a line of JSON, turned over by its size: `engine.log`, `engine.log.1`, …

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::error::Error;

/// Which file, and when it is turned over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    pub path: PathBuf,
    pub bytes_max: u64,
    /// How many that were turned over stay.
    pub files: u16,
}

static IS_OPEN: AtomicBool = AtomicBool::new(false);
static OPEN: Mutex<Option<OpenFile>> = Mutex::new(None);

/// From now on; a second call names another file. Without one nothing is kept.
pub fn to_file(file: Option<LogFile>) -> Result<(), Error> {
    let opened = file.map(OpenFile::open).transpose()?;
    IS_OPEN.store(opened.is_some(), Ordering::Relaxed);
    *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = opened;
    Ok(())
}

pub(crate) fn is_open() -> bool {
    IS_OPEN.load(Ordering::Relaxed)
}

/// Each call of `write` is a whole event.
pub(crate) struct Writer;

impl Write for Writer {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut() {
            open.write(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct OpenFile {
    settings: LogFile,
    file: File,
    bytes: u64,
}

impl OpenFile {
    fn open(settings: LogFile) -> Result<Self, Error> {
        let path = settings.path.clone();
        Self::at(settings).map_err(Error::file("cannot write the log", &path))
    }

    fn at(settings: LogFile) -> io::Result<Self> {
        let mut options = File::options();
        let file = options
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&settings.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            settings,
            file,
            bytes,
        })
    }

    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + event.len() as u64 > self.settings.bytes_max {
            self.turn_over()?;
        }
        self.file.write_all(event)?;
        self.bytes += event.len() as u64;
        Ok(())
    }

    /// The oldest goes, each other gets the next number, and a new file begins.
    fn turn_over(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        for number in (0..self.settings.files).rev() {
            let from = numbered(path, number);
            if from.exists() {
                fs::rename(&from, numbered(path, number + 1))?;
            }
        }
        *self = Self::at(self.settings.clone())?;
        Ok(())
    }
}

fn numbered(path: &Path, number: u16) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            name.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_turned_over_by_its_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogFile {
            path: folder.path().join("engine.log"),
            bytes_max: 12,
            files: 2,
        };
        let mut open = OpenFile::open(settings.clone()).unwrap();
        for event in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "five and more than it may be\n",
            "six\n",
        ] {
            open.write(event.as_bytes()).unwrap();
        }
        let read = |number| fs::read_to_string(numbered(&settings.path, number)).ok();
        assert_eq!(read(0).as_deref(), Some("six\n"));
        assert_eq!(read(1).as_deref(), Some("five and more than it may be\n"));
        assert_eq!(read(2).as_deref(), Some("three\nfour\n"));
        assert_eq!(read(3), None);
        // A restart continues the same file.
        drop(open);
        let mut open = OpenFile::open(settings.clone()).unwrap();
        open.write(b"seven\n").unwrap();
        assert_eq!(read(0).as_deref(), Some("six\nseven\n"));
    }
}
