//! Stretches of logs (log_stretches.md) back into plain files, beside the live logs and never into them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use repository::keys::RecipientPrivate;
use repository::log_stretches::{LogKind, log_sources, log_stretches, read_stretch, stretch_facts};
use repository::{Progress, Repository};
use serde::Serialize;

use crate::error::{Error, Result};

/// Which stretches: those with a line in a period, both ends included.
#[derive(Debug, Clone)]
pub struct LogSelection {
    pub kinds: Vec<LogKind>,
    /// One log; all when absent.
    pub source: Option<String>,
    pub from_micros: i64,
    pub to_micros: i64,
}

/// What came of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogRestore {
    pub kind: LogKind,
    pub source: String,
    pub stretches: u64,
    pub lines: u64,
    pub files: Vec<PathBuf>,
    /// Stretches that are there and cannot be read, each with why.
    pub unread: Vec<String>,
}

/// Makes a folder for what comes back; one that holds something is refused.
pub fn make_log_folder(to: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(to);
    made.map_err(failed("cannot make", to))?;
    let mut entries = fs::read_dir(to).map_err(failed("cannot read", to))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::InTheWay(to.to_owned())),
    }
}

/// `to/<kind>/<source>/<number>-<day>.log`, each line as it was shipped. A stretch that cannot be read holds up none of
/// the others.
pub fn restore_logs(
    repository: &Repository,
    private: &RecipientPrivate,
    selection: &LogSelection,
    to: &Path,
    progress: &dyn Progress,
) -> Result<Vec<LogRestore>> {
    let mut restored = Vec::new();
    for (kind, source) in log_sources(repository)? {
        let is_named = selection
            .source
            .as_ref()
            .is_none_or(|named| *named == source);
        if !selection.kinds.contains(&kind) || !is_named {
            continue;
        }
        let mut log = LogRestore {
            kind,
            source,
            stretches: 0,
            lines: 0,
            files: Vec::new(),
            unread: Vec::new(),
        };
        for listed in log_stretches(repository, kind, &log.source)? {
            if progress.cancelled() {
                return Err(Error::Stopped);
            }
            let outside = match stretch_facts(repository, &listed.name) {
                Ok(stretch) => {
                    stretch.to_micros < selection.from_micros
                        || stretch.from_micros > selection.to_micros
                }
                // Whether it belongs here cannot be told: it is named.
                Err(error) if error.is_unavailable() => return Err(error.into()),
                Err(_) => false,
            };
            if outside {
                continue;
            }
            match read_stretch(repository, private, &listed.name) {
                Ok((stretch, lines)) => {
                    let folder = to.join(kind.name()).join(&log.source);
                    let made = DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(&folder);
                    made.map_err(failed("cannot make", &folder))?;
                    let id = listed.name.rsplit_once('.').map_or("", |(_, id)| id);
                    let name = format!("{:08}-{}.{id}.log", stretch.number, stretch.day);
                    let path = folder.join(name);
                    write(&path, &lines).map_err(failed("cannot write", &path))?;
                    log.stretches += 1;
                    log.lines += lines.len() as u64;
                    log.files.push(path);
                }
                Err(error) if error.is_unavailable() => return Err(error.into()),
                Err(error) => log.unread.push(error.to_string()),
            }
            progress.advance(listed.bytes);
        }
        if log.stretches > 0 || !log.unread.is_empty() {
            restored.push(log);
        }
    }
    Ok(restored)
}

/// On disk when it returns, and read back.
fn write(path: &Path, lines: &[Vec<u8>]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut out = BufWriter::new(file);
    let mut bytes = 0;
    for line in lines {
        out.write_all(line)?;
        out.write_all(b"\n")?;
        bytes += line.len() as u64 + 1;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    match fs::metadata(path)?.len() == bytes {
        true => Ok(()),
        false => Err(io::Error::other("it is not as long as what was written")),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
