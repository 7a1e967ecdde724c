//! A journal of systemd, read by its own client: `journalctl --directory PLACE --cursor … --output json`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use control_plane::call::client;
use repository::log_stretches::{SourceGap, SourceGapCause};

use super::{LogError, LogItem, LogReading, LogSource};

const PROGRAM: &str = "journalctl";
/// A line of a journal: a core dump may be in one.
const LINE_BYTES_MAX: u64 = 64 << 20;
const SAID_BYTES_MAX: u64 = 2000;

/// Who came in and what they did as root; the kernel's and the audit subsystem's lines come by their transport.
pub const SYSTEM_IDENTIFIERS: [&str; 9] = [
    "sshd",
    "sshd-session",
    "sudo",
    "su",
    "login",
    "systemd-logind",
    "auditd",
    "audit",
    "kernel",
];

/// The entries of these identifiers, of the kernel and of the audit subsystem.
#[derive(Debug, Clone)]
pub struct JournalLog {
    /// A folder of journal files, or one file.
    pub place: PathBuf,
    pub identifiers: Vec<String>,
}

impl JournalLog {
    fn command(&self, cursor: Option<&str>) -> Command {
        let mut command = client(Path::new(PROGRAM));
        command.args(["--output", "json", "--all", "--no-pager", "--quiet"]);
        command.arg(match self.place.is_dir() {
            true => "--directory",
            false => "--file",
        });
        command.arg(&self.place);
        if let Some(cursor) = cursor {
            command.args(["--cursor", cursor]);
        }
        command
    }

    fn begin(&self, mut command: Command) -> Result<Entries, LogError> {
        let said = tempfile::tempfile().map_err(LogError::file("make", &std::env::temp_dir()))?;
        let told = said
            .try_clone()
            .map_err(LogError::file("open", &std::env::temp_dir()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(told);
        let program = PROGRAM;
        let mut child = command
            .spawn()
            .map_err(|source| LogError::ProgramMissing { program, source })?;
        let out = child
            .stdout
            .take()
            .ok_or_else(|| self.failed("it has no output"))?;
        Ok(Entries {
            place: self.place.clone(),
            child,
            out: BufReader::with_capacity(1 << 16, out),
            said,
        })
    }

    fn failed(&self, said: &str) -> LogError {
        LogError::Journal {
            place: self.place.clone(),
            said: said.trim().to_owned(),
        }
    }

    /// The first entry at or behind a cursor, of any identifier.
    fn at(&self, cursor: &str) -> Result<Option<Entry>, LogError> {
        self.begin(self.command(Some(cursor)))?.next()
    }

    /// None where all that was there when the cursor was made is there, or nothing came between.
    fn gap(&self, cursor: &str) -> Result<Option<SourceGap>, LogError> {
        let was = CursorParts::of(cursor);
        let found = self.at(cursor)?;
        let now = jiff::Timestamp::now().as_microsecond();
        let from_micros = was.time_micros.unwrap_or(0);
        let (to_micros, what) = match &found {
            Some(entry) => {
                let is = CursorParts::of(&entry.cursor);
                let follows = was
                    .sequence
                    .zip(is.sequence)
                    .is_some_and(|(was, is)| is <= was + 1 && is >= was);
                if was.file == is.file && follows {
                    return Ok(None);
                }
                let what = "the journal does not hold the entry with which the last stretch ended: what came \
                    between it and the next one that is there was deleted (vacuumed), or the journal is another";
                (entry.at_micros.max(from_micros), what)
            }
            None => (
                now.max(from_micros),
                "the journal holds nothing from the last stretch on",
            ),
        };
        Ok(Some(SourceGap {
            from_micros,
            to_micros,
            why: SourceGapCause::CursorGone,
            what: what.to_owned(),
        }))
    }
}

impl LogSource for JournalLog {
    fn open(
        &self,
        cursor: Option<&str>,
        _: &[u8; 32],
    ) -> Result<Box<dyn LogReading + '_>, LogError> {
        if !self.place.exists() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(LogError::file("read the journal", &self.place)(missing));
        }
        let mut command = self.command(cursor);
        // Alternatives of one field are alternatives; `+` joins fields.
        command.args(["_TRANSPORT=kernel", "_TRANSPORT=audit", "+"]);
        command.args(
            self.identifiers
                .iter()
                .map(|name| format!("SYSLOG_IDENTIFIER={name}")),
        );
        let mut entries = self.begin(command)?;
        let mut first = entries.next()?;
        let mut gap = None;
        if let Some(cursor) = cursor {
            // The entry of the cursor itself was shipped.
            match &first {
                Some(entry) if entry.cursor == cursor => first = entries.next()?,
                _ => gap = self.gap(cursor)?,
            }
        }
        let cursor = cursor.unwrap_or_default().to_owned();
        Ok(Box::new(JournalReading {
            entries,
            first,
            gap,
            before: cursor.clone(),
            last: cursor,
        }))
    }
}

/// `s=…;i=…;b=…;m=…;t=…;x=…`, numbers in hex.
#[derive(Default, PartialEq, Eq)]
struct CursorParts<'a> {
    file: &'a str,
    sequence: Option<u64>,
    time_micros: Option<i64>,
}

impl<'a> CursorParts<'a> {
    fn of(cursor: &'a str) -> Self {
        let mut parts = Self::default();
        for part in cursor.split(';') {
            match part.split_once('=') {
                Some(("s", file)) => parts.file = file,
                Some(("i", number)) => parts.sequence = u64::from_str_radix(number, 16).ok(),
                Some(("t", at)) => parts.time_micros = i64::from_str_radix(at, 16).ok(),
                _ => {}
            }
        }
        parts
    }
}

struct Entry {
    cursor: String,
    at_micros: i64,
    line: Vec<u8>,
}

/// What the client prints, while it prints it.
struct Entries {
    place: PathBuf,
    child: Child,
    out: BufReader<ChildStdout>,
    said: File,
}

impl Entries {
    fn next(&mut self) -> Result<Option<Entry>, LogError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.out).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        let read = read.map_err(LogError::file("read the journal", &self.place))?;
        if read == 0 {
            return self.ended().map(|()| None);
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(self.odd("an entry is cut short, or longer than 64 MiB"));
        }
        #[derive(serde::Deserialize)]
        struct Fields {
            #[serde(rename = "__CURSOR")]
            cursor: String,
            #[serde(rename = "__REALTIME_TIMESTAMP")]
            at: String,
        }
        let fields: Fields = serde_json::from_slice(&line)
            .map_err(|error| self.odd(&format!("an entry is not understood: {error}")))?;
        let at_micros = fields.at.parse();
        Ok(Some(Entry {
            at_micros: at_micros.map_err(|_| self.odd("an entry has no time"))?,
            cursor: fields.cursor,
            line,
        }))
    }

    fn odd(&self, what: &str) -> LogError {
        LogError::Journal {
            place: self.place.clone(),
            said: what.to_owned(),
        }
    }

    fn ended(&mut self) -> Result<(), LogError> {
        let status = self.child.wait();
        let status = status.map_err(LogError::file("read the journal", &self.place))?;
        if status.success() {
            return Ok(());
        }
        let mut said = Vec::new();
        let read = self.said.rewind();
        let read = read.and_then(|()| (&mut self.said).take(SAID_BYTES_MAX).read_to_end(&mut said));
        let said = match read {
            Ok(_) => String::from_utf8_lossy(&said).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Err(self.odd(&format!("{PROGRAM} ended with {status}: {said}")))
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct JournalReading {
    entries: Entries,
    first: Option<Entry>,
    gap: Option<SourceGap>,
    before: String,
    last: String,
}

impl LogReading for JournalReading {
    fn next(&mut self) -> Result<Option<LogItem>, LogError> {
        if let Some(gap) = self.gap.take() {
            return Ok(Some(LogItem::Gap(gap)));
        }
        let next = match self.first.take() {
            Some(entry) => Some(entry),
            None => self.entries.next()?,
        };
        Ok(next.map(|entry| {
            self.before = std::mem::replace(&mut self.last, entry.cursor);
            LogItem::Line {
                at_micros: entry.at_micros,
                bytes: entry.line,
            }
        }))
    }

    fn cursor(&self, before_last: bool) -> String {
        match before_last {
            true => self.before.clone(),
            false => self.last.clone(),
        }
    }
}
