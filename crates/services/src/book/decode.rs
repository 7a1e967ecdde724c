//! From a Parquet file to flat lines, in a child process with limits: what a hostile file makes of its reader (endless work, all
//! memory, a stack that overflows) ends there, and the engine goes on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::bounds::{CPU_SECONDS_MAX, DECODED_BYTES_MAX, Halt, LINES_MAX, MEMORY_BYTES_MAX, Meter};
use super::flat;
use super::input::{BookError, Line};
use super::parquet;

/// The program that decodes a book: the file is its standard input, the lines are its standard output, and words on standard
/// error say why there are none. It sets [`BookReader::LIMITS`] on itself before it reads, and calls [`decode_book`].
#[derive(Debug, Clone)]
pub struct BookReader {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// Of the process that decodes a book.
#[derive(Debug, Clone, Copy)]
pub struct ReaderLimits {
    pub cpu_seconds: u64,
    pub memory_bytes: u64,
    /// Of what it writes.
    pub file_bytes: u64,
}

impl BookReader {
    pub const LIMITS: ReaderLimits = ReaderLimits {
        cpu_seconds: CPU_SECONDS_MAX,
        memory_bytes: MEMORY_BYTES_MAX,
        // A line takes some bytes beside its text.
        file_bytes: DECODED_BYTES_MAX + 64 * LINES_MAX,
    };
}

/// Exit code of a reader that said why.
const TOLD: i32 = 1;
const SAID_BYTES_MAX: u64 = 4096;
/// How soon a child ends that nobody waits for.
const LOOK: Duration = Duration::from_millis(100);
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;
const SIGKILL: i32 = 9;

/// What a child does: its whole work. The error is for whoever sent the file.
pub fn decode_book(file: &File, out: File) -> Result<(), String> {
    decode_here(file, out, &Halt::default()).map_err(|error| error.to_string())
}

/// For fuzzing: decodes these bytes in this process. Returns how many lines there are; the error is for whoever sent them.
pub fn check_book(bytes: &[u8]) -> Result<u64, String> {
    let mut lines = 0;
    let read = read_here(bytes, &mut |_| {
        lines += 1;
        true
    });
    read.map(|_| lines).map_err(|error| error.to_string())
}

/// The lines of a file in any form, read in this process. Returns the names of columns that mean nothing here.
pub(super) fn read_here(
    bytes: &[u8],
    each: &mut dyn FnMut(Line) -> bool,
) -> Result<Vec<String>, BookError> {
    if !parquet::is_one(bytes) {
        return super::input::csv(bytes, each);
    }
    let failed = |error: std::io::Error| BookError::Broken(error.to_string());
    let file = tempfile::tempfile().map_err(failed)?;
    file.write_all_at(bytes, 0).map_err(failed)?;
    let out = tempfile::tempfile().map_err(failed)?;
    let own = out.try_clone().map_err(failed)?;
    decode_here(&file, own, &Halt::default())?;
    flat::read(&out, each)
}

fn decode_here(file: &File, out: File, halt: &Halt) -> Result<(), BookError> {
    let meter = Meter::new(halt, Duration::from_secs(CPU_SECONDS_MAX));
    parquet::decode(file, out, &meter)
}

/// The decoded lines, in a file without a name, and the processor time that they took. Without a reader it is done in this
/// process, which is for tests: memory and stack are not bounded then.
pub(crate) async fn decode(
    file: File,
    reader: Option<&BookReader>,
    spool: &Path,
    halt: &Halt,
) -> Result<(File, Duration), BookError> {
    let failed = |error: std::io::Error| BookError::Broken(error.to_string());
    let out = tempfile::tempfile_in(spool).map_err(failed)?;
    let own = out.try_clone().map_err(failed)?;
    match reader {
        Some(reader) => child(reader, file, own, halt).await?,
        None => {
            let halt = halt.clone();
            tokio::task::spawn_blocking(move || decode_here(&file, own, &halt))
                .await
                .unwrap_or_else(|_| Err(BookError::unreadable()))?;
        }
    }
    let cost = flat::cost(&out)?;
    Ok((out, cost))
}

/// The lines of a long CSV file: kept on disk as well, so that a client that takes its time with the answer holds no memory.
pub(crate) async fn decode_csv(
    file: File,
    spool: &Path,
    halt: &Halt,
) -> Result<(File, Duration), BookError> {
    let failed = |error: std::io::Error| BookError::Broken(error.to_string());
    let out = tempfile::tempfile_in(spool).map_err(failed)?;
    let own = out.try_clone().map_err(failed)?;
    let halt = halt.clone();
    let decoding = tokio::task::spawn_blocking(move || {
        let length = file.metadata().map_err(failed)?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let meter = Meter::new(&halt, Duration::from_secs(CPU_SECONDS_MAX));
        let mut writer = flat::Writer::new(own);
        let mut stopped = Ok(());
        let ignored = super::input::csv(&bytes, &mut |line| {
            stopped = meter.line().and_then(|()| writer.line(&line));
            stopped.is_ok()
        })?;
        stopped?;
        writer.finish(&ignored, meter.spent())
    });
    decoding
        .await
        .unwrap_or_else(|_| Err(BookError::unreadable()))?;
    let cost = flat::cost(&out)?;
    Ok((out, cost))
}

async fn child(reader: &BookReader, file: File, out: File, halt: &Halt) -> Result<(), BookError> {
    let failed =
        |error: std::io::Error| BookError::Broken(format!("its reader cannot be run: {error}"));
    let mut child = tokio::process::Command::new(&reader.program)
        .args(&reader.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(file))
        .stdout(Stdio::from(out))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut said = Vec::new();
    let errors = child.stderr.take();
    let ending = async {
        if let Some(errors) = errors {
            // Closed then: one that says more does not wait for a reader.
            let _ = errors.take(SAID_BYTES_MAX).read_to_end(&mut said).await;
        }
        child.wait().await.map_err(failed)
    };
    let halted = async {
        while !halt.is_set() {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Dropping the child kills it.
    let status = tokio::select! {
        status = ending => status?,
        () = halted => return Err(BookError::Halted),
    };
    match status.code() {
        Some(0) => Ok(()),
        Some(TOLD) => Err(BookError::Told(
            String::from_utf8_lossy(&said).trim().to_owned(),
        )),
        _ => {
            tracing::warn!(%status, "the reader of a book was ended by its limits, or by the file");
            Err(ended(status))
        }
    }
}

fn ended(status: ExitStatus) -> BookError {
    match status.signal() {
        Some(SIGXCPU | SIGKILL) => BookError::cpu(),
        Some(SIGXFSZ) => BookError::decoded(),
        _ => BookError::memory(),
    }
}
