//! A log in files: one that grows, and those that it was before. It is followed through rotation by name, by copying
//! and cutting (copytruncate), and into compressed files: a file is known again by its first bytes, not by its name.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use repository::log_stretches::{SourceGap, SourceGapCause};
use serde::{Deserialize, Serialize};

use super::time::time_of;
use super::{LogError, LogItem, LogReading, LogSource};

/// By so many of its first bytes a file is known again.
const HEAD_BYTES: u64 = 1024;
/// Fewer say too little: such a file is read again from its start.
const HEAD_BYTES_MIN: u64 = 32;
/// A longer line is cut; its pieces follow each other.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The cursor names them all.
const FILES_MAX: usize = 4000;
/// A folder that changes while it is read is read again.
const LOOKS_MAX: usize = 5;

/// Files of one folder that hold one log.
#[derive(Debug, Clone)]
pub struct FileLog {
    folder: PathBuf,
    /// The file that grows, or what comes before and behind the only `*`.
    before: String,
    behind: Option<String>,
}

impl FileLog {
    /// `…/engine.log`, with what it was before (`engine.log.1`, `engine.log-20261130.gz`); or `…/postgresql-*.log`, of
    /// which the newest grows.
    pub fn new(path: &Path) -> Result<Self, LogError> {
        let odd = |what: &str| LogError::Folder {
            folder: path.to_owned(),
            what: what.to_owned(),
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| odd("it names no file"))?;
        let folder = path.parent().filter(|folder| folder.is_absolute());
        let folder = folder
            .ok_or_else(|| odd("it is not an absolute path"))?
            .to_owned();
        if folder.to_string_lossy().contains('*') {
            return Err(odd("a * may be a part of the file's name only"));
        }
        let (before, behind) = match name.split_once('*') {
            None => (name.to_owned(), None),
            Some((_, rest)) if rest.contains('*') => return Err(odd("one * is enough")),
            Some((before, behind)) => (before.to_owned(), Some(behind.to_owned())),
        };
        Ok(Self {
            folder,
            before,
            behind,
        })
    }

    fn describe(&self) -> String {
        let behind = self.behind.as_ref().map(|behind| format!("*{behind}"));
        let name = format!("{}{}", self.before, behind.unwrap_or_default());
        self.folder.join(name).display().to_string()
    }

    fn is_of_log(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.before) else {
            return false;
        };
        match &self.behind {
            None => rest.is_empty() || rest.starts_with(['.', '-']),
            Some(behind) => rest.contains(behind.as_str()),
        }
    }

    /// Oldest first; the one that grows is the last.
    fn look(&self) -> Result<Vec<Candidate>, LogError> {
        let listed = match fs::read_dir(&self.folder) {
            Ok(listed) => listed,
            Err(error) => return Err(LogError::file("read the folder", &self.folder)(error)),
        };
        let mut found = Vec::new();
        for entry in listed {
            let entry = entry.map_err(LogError::file("read the folder", &self.folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| self.is_of_log(name)) else {
                continue;
            };
            let path = entry.path();
            // Rotated away since it was listed.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            found.push((self.behind.is_none() && name == self.before, modified, path));
        }
        if found.len() > FILES_MAX {
            return Err(LogError::Folder {
                folder: self.folder.clone(),
                what: format!(
                    "it holds {} files of one log; more than {FILES_MAX} are not followed. Delete old ones, or \
                        name fewer",
                    found.len()
                ),
            });
        }
        found.sort();
        let last = found.len().saturating_sub(1);
        let mut candidates = Vec::new();
        for (at, (is_named, _, path)) in found.into_iter().enumerate() {
            let grows = match self.behind {
                None => is_named,
                Some(_) => at == last,
            };
            candidates.extend(Candidate::open(path, grows)?);
        }
        Ok(candidates)
    }
}

/// What is known of a file, by which it is found again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KnownFile {
    dev: u64,
    inode: u64,
    /// Of its content, decompressed.
    offset: u64,
    /// How long the file was when all of it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_bytes: Option<u64>,
    /// Size and time of change when it was opened to be read to its end: nothing came since.
    #[serde(default)]
    seen: (u64, i64),
    /// Of how many first bytes `head` is the keyed fingerprint.
    head_bytes: u64,
    head: String,
    /// It grew, or was not read to its end: losing it loses lines.
    open: bool,
    /// Of the last line that was read.
    at_micros: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct FileCursor {
    files: Vec<KnownFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// Not read here.
    Other,
}

#[derive(Debug)]
struct Candidate {
    path: PathBuf,
    file: File,
    packing: Packing,
    grows: bool,
    known: KnownFile,
    size: u64,
    modified_nanos: i64,
}

impl Candidate {
    /// None where it is gone again.
    fn open(path: PathBuf, grows: bool) -> Result<Option<Self>, LogError> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::file("read the log", &path)(error)),
        };
        let metadata = file
            .metadata()
            .map_err(LogError::file("read the log", &path))?;
        let packing = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Packing::Gzip,
            Some("zst") => Packing::Zstd,
            Some("xz" | "bz2" | "lz4") => Packing::Other,
            _ => Packing::Plain,
        };
        Ok(Some(Self {
            packing,
            file,
            grows,
            known: KnownFile {
                dev: metadata.dev(),
                inode: metadata.ino(),
                open: true,
                ..KnownFile::default()
            },
            size: metadata.size(),
            modified_nanos: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            path,
        }))
    }

    fn seen(&self) -> (u64, i64) {
        (self.size, self.modified_nanos)
    }

    fn is_same_file(&self, known: &KnownFile) -> bool {
        (self.known.dev, self.known.inode) == (known.dev, known.inode)
    }

    fn reader(&self) -> Result<Box<dyn BufRead>, LogError> {
        let again = File::open(&self.path);
        // Under the name another file may be by now; what was opened stays what it is.
        let file = match again {
            Ok(file) if file.metadata().is_ok_and(|it| it.ino() == self.known.inode) => file,
            _ => self
                .file
                .try_clone()
                .map_err(LogError::file("read the log", &self.path))?,
        };
        let mut file = file;
        file.seek(SeekFrom::Start(0))
            .map_err(LogError::file("read the log", &self.path))?;
        Ok(match self.packing {
            Packing::Plain | Packing::Other => Box::new(BufReader::with_capacity(1 << 16, file)),
            Packing::Gzip => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
            Packing::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(file);
                Box::new(BufReader::new(
                    decoder.map_err(LogError::file("read the log", &self.path))?,
                ))
            }
        })
    }

    /// A keyed fingerprint of exactly so many first bytes; none where there are fewer, or none that can be read.
    fn head(&self, bytes: u64, key: &[u8; 32]) -> Result<Option<String>, LogError> {
        let mut head = Vec::new();
        let read = self.reader()?.take(bytes).read_to_end(&mut head);
        match read {
            Ok(read) if read as u64 == bytes => Ok(Some(fingerprint(key, &head))),
            // A compressed file that is being written.
            Ok(_) => Ok(None),
            Err(_) if self.packing != Packing::Plain => Ok(None),
            Err(error) => Err(LogError::file("read the log", &self.path)(error)),
        }
    }

    /// Whether it begins as this one did, and is as long at least.
    fn continues(&self, known: &KnownFile, key: &[u8; 32]) -> Result<bool, LogError> {
        if self.packing == Packing::Other {
            return Ok(false);
        }
        // Of a short one the head says too little, unless it is as it was left.
        if known.head_bytes < HEAD_BYTES_MIN {
            return Ok(self.is_same_file(known) && self.seen() == known.seen);
        }
        if self.packing == Packing::Plain && self.size < known.offset {
            return Ok(false);
        }
        Ok(self.head(known.head_bytes, key)?.as_deref() == Some(known.head.as_str()))
    }
}

fn fingerprint(key: &[u8; 32], head: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    let tag = aws_lc_rs::hmac::sign(&key, head);
    tag.as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl LogSource for FileLog {
    fn open(
        &self,
        cursor: Option<&str>,
        fingerprint_key: &[u8; 32],
    ) -> Result<Box<dyn LogReading + '_>, LogError> {
        let cursor: FileCursor = match cursor {
            None => FileCursor::default(),
            Some(text) => serde_json::from_str(text).map_err(|error| LogError::Folder {
                folder: self.folder.clone(),
                what: format!("the cursor of this log is not understood: {error}"),
            })?,
        };
        let mut looks = 0;
        let (files, lost) = loop {
            looks += 1;
            let (files, lost) = self.matched(&cursor, fingerprint_key)?;
            // A rotation between the listing and the opening hides a file from one look.
            if lost.is_empty() || looks == LOOKS_MAX {
                break (files, lost);
            }
        };
        let now = jiff::Timestamp::now().as_microsecond();
        let gaps = lost.into_iter().map(|(known, why)| SourceGap {
            from_micros: known.at_micros,
            to_micros: now.max(known.at_micros),
            why,
            what: format!(
                "a file of the log {} (inode {}) was read up to byte {} and is not there any more: what was \
                    written to it later is lost",
                self.describe(),
                known.inode,
                known.offset
            ),
        });
        Ok(Box::new(FileReading {
            gaps: gaps.collect(),
            key: *fingerprint_key,
            files,
            at: 0,
            open: None,
            before: None,
        }))
    }
}

impl FileLog {
    /// What there is, each with how far it was read; and what was lost.
    #[allow(clippy::type_complexity, reason = "a pair that is taken apart at once")]
    fn matched(
        &self,
        cursor: &FileCursor,
        key: &[u8; 32],
    ) -> Result<(Vec<Candidate>, Vec<(KnownFile, SourceGapCause)>), LogError> {
        let mut files = self.look()?;
        let mut is_found = vec![false; cursor.files.len()];
        for file in &mut files {
            // The same file before another that begins like it.
            let mut order: Vec<usize> = (0..cursor.files.len()).collect();
            order.sort_by_key(|at| !file.is_same_file(&cursor.files[*at]));
            for at in order {
                let known = &cursor.files[at];
                let untouched = file.is_same_file(known) && known.read_bytes == Some(file.size);
                let short = file.is_same_file(known) && known.head_bytes < HEAD_BYTES_MIN;
                if short {
                    is_found[at] = true;
                }
                let continues = match file.packing {
                    // By its inode alone: nothing of it can be compared.
                    Packing::Other => file.is_same_file(known) && known.read_bytes.is_some(),
                    _ => file.continues(known, key)?,
                };
                if !continues {
                    continue;
                }
                is_found[at] = true;
                file.known.offset = known.offset;
                file.known.at_micros = known.at_micros;
                (file.known.head_bytes, file.known.head) = (known.head_bytes, known.head.clone());
                file.known.read_bytes = known.read_bytes.filter(|_| untouched);
                file.known.open = known.open || !untouched;
                break;
            }
        }
        let unread = |known: &KnownFile| known.open && known.offset > 0;
        let lost = cursor
            .files
            .iter()
            .zip(is_found)
            .filter(|(known, found)| !found && unread(known));
        let lost = lost.map(|(known, _)| {
            let cut = files.iter().any(|file| file.is_same_file(known));
            let why = match cut {
                true => SourceGapCause::Truncated,
                false => SourceGapCause::FileGone,
            };
            (known.clone(), why)
        });
        let lost = lost.collect();
        Ok((files, lost))
    }
}

struct FileReading {
    gaps: Vec<SourceGap>,
    key: [u8; 32],
    files: Vec<Candidate>,
    at: usize,
    /// Of the file at `at`.
    open: Option<Box<dyn BufRead>>,
    /// Place and offset before the last line.
    before: Option<(usize, KnownFile)>,
}

impl FileReading {
    /// A reader of the file at hand, behind what was read of it.
    fn begin(&mut self) -> Result<(), LogError> {
        let file = &self.files[self.at];
        let mut reader = file.reader()?;
        let passed = std::io::copy(
            &mut (&mut reader).take(file.known.offset),
            &mut std::io::sink(),
        );
        self.open = match passed {
            Ok(_) => Some(reader),
            // It is being compressed.
            Err(_) if file.packing != Packing::Plain => Some(Box::new(std::io::empty())),
            Err(error) => return Err(LogError::file("read the log", &file.path)(error)),
        };
        Ok(())
    }

    /// The next line of the file at hand.
    fn line(&mut self) -> Result<Option<(i64, Vec<u8>)>, LogError> {
        if self.open.is_none() {
            self.begin()?;
        }
        let file = &mut self.files[self.at];
        let Some(reader) = self.open.as_mut() else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let read = (&mut *reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        let read = match read {
            Ok(read) => read as u64,
            // It is being compressed: the plain one was read, or it is whole at the next run.
            Err(_) if file.packing != Packing::Plain => 0,
            Err(error) => return Err(LogError::file("read the log", &file.path)(error)),
        };
        let is_whole = line.last() == Some(&b'\n') || read == LINE_BYTES_MAX;
        // The rest of the line is still to come.
        if read == 0 || (file.grows && !is_whole) {
            return Ok(None);
        }
        self.before = Some((self.at, file.known.clone()));
        file.known.offset += read;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let earlier = match file.known.at_micros {
            0 => file.modified_nanos / 1000,
            earlier => earlier,
        };
        let at_micros = time_of(&line).unwrap_or(earlier);
        file.known.at_micros = at_micros;
        Ok(Some((at_micros, line)))
    }

    /// What is known of the file at hand once it was read to its end.
    fn close(&mut self) -> Result<(), LogError> {
        self.open = None;
        let key = self.key;
        let file = &mut self.files[self.at];
        file.known.open = file.grows;
        file.known.seen = file.seen();
        // Of one that grows, the rest of a line may be there already.
        file.known.read_bytes = (!file.grows).then_some(file.size);
        refresh_head(file, &key)
    }
}

fn refresh_head(file: &mut Candidate, key: &[u8; 32]) -> Result<(), LogError> {
    let bytes = file.known.offset.min(HEAD_BYTES);
    if bytes > file.known.head_bytes
        && let Some(head) = file.head(bytes, key)?
    {
        (file.known.head_bytes, file.known.head) = (bytes, head);
    }
    Ok(())
}

impl LogReading for FileReading {
    fn next(&mut self) -> Result<Option<LogItem>, LogError> {
        if let Some(gap) = self.gaps.pop() {
            return Ok(Some(LogItem::Gap(gap)));
        }
        while self.at < self.files.len() {
            let file = &self.files[self.at];
            let done = !file.grows && file.known.read_bytes == Some(file.size);
            if file.packing == Packing::Other {
                let (is_new, path) = (file.known.read_bytes.is_none(), file.path.clone());
                let (at, bytes) = (file.modified_nanos / 1000, file.size);
                self.files[self.at].known.read_bytes = Some(bytes);
                self.files[self.at].known.open = false;
                self.at += 1;
                // Where the plain one was read before, this names what is not lost; it is named once.
                if is_new && self.files[self.at - 1].known.offset == 0 {
                    return Ok(Some(LogItem::Gap(SourceGap {
                        from_micros: at,
                        to_micros: at,
                        why: SourceGapCause::Other,
                        what: format!(
                            "{} is compressed in a way that is not read here (gz and zst are): what of it was \
                                not read before is not kept",
                            path.display()
                        ),
                    })));
                }
                continue;
            }
            if !done && let Some((at_micros, bytes)) = self.line()? {
                if self.files[self.at].known.head_bytes < HEAD_BYTES_MIN {
                    let key = self.key;
                    refresh_head(&mut self.files[self.at], &key)?;
                }
                return Ok(Some(LogItem::Line { at_micros, bytes }));
            }
            if done {
                self.files[self.at].known.open = false;
            } else {
                self.close()?;
            }
            self.at += 1;
        }
        Ok(None)
    }

    fn cursor(&self, before_last: bool) -> String {
        let mut files: Vec<KnownFile> = self.files.iter().map(|file| file.known.clone()).collect();
        if let (true, Some((at, known))) = (before_last, &self.before) {
            // What came behind it is not passed either.
            let (offset, at_micros) = (known.offset, known.at_micros);
            (files[*at].offset, files[*at].at_micros) = (offset, at_micros);
            (files[*at].read_bytes, files[*at].open) = (None, true);
            files[*at].seen = (0, 0);
            if files[*at].head_bytes > offset {
                (files[*at].head_bytes, files[*at].head) = (known.head_bytes, known.head.clone());
            }
        }
        serde_json::to_string(&FileCursor { files }).unwrap_or_default()
    }
}
