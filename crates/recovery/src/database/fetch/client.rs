//! The other end: the program that runs as `restore_command`.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{ABSENT, FOUND, STAGED};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchOutcome {
    HandedOut,
    /// Proven not to be in the repository.
    NotThere,
    /// Anything else. PostgreSQL must not take it for the end of WAL.
    Trouble(String),
}

impl FetchOutcome {
    /// PostgreSQL takes 1 for "no such file" and stops hard above 125.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::HandedOut => 0,
            Self::NotThere => 1,
            Self::Trouble(_) => 200,
        }
    }
}

/// Asks the server at `socket` for a WAL segment or history file and writes it to `destination`.
#[must_use]
pub fn wal_fetch(socket: &Path, name: &str, destination: &Path) -> FetchOutcome {
    match fetch(socket, name, destination) {
        Ok(outcome) => outcome,
        Err(error) => {
            // Half a segment must not stay.
            let _ = std::fs::remove_file(destination);
            FetchOutcome::Trouble(format!("{name} from {}: {error}", socket.display()))
        }
    }
}

fn fetch(socket: &Path, name: &str, destination: &Path) -> io::Result<FetchOutcome> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u64::from_be_bytes(length);
    match kind {
        FOUND => {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(destination)?;
            let copied = io::copy(&mut stream.take(length), &mut file)?;
            if copied != length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            Ok(FetchOutcome::HandedOut)
        }
        STAGED => {
            let mut path = Vec::new();
            stream.take(length).read_to_end(&mut path)?;
            take_over(
                &PathBuf::from(std::ffi::OsString::from_vec(path)),
                destination,
            )?;
            Ok(FetchOutcome::HandedOut)
        }
        ABSENT => Ok(FetchOutcome::NotThere),
        _ => {
            let mut message = String::new();
            stream.take(length).read_to_string(&mut message)?;
            Ok(FetchOutcome::Trouble(message))
        }
    }
}

/// Within one file system a move costs nothing.
fn take_over(staged: &Path, destination: &Path) -> io::Result<()> {
    if std::fs::rename(staged, destination).is_ok() {
        return Ok(());
    }
    std::fs::copy(staged, destination)?;
    std::fs::remove_file(staged)
}
