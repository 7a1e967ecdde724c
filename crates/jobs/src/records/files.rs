//! Records in a folder: write-once, durable before anything is told of them.

use std::{
    fs::{DirEntry, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    error::{Error, Result},
    record::{Outcome, RunRecord},
};

const RUNS: &str = "runs";
const OPEN: &str = "open";
/// Of a file that is being written.
const NEW: &str = ".new-";

/// A run that has not ended; the holder of this runs it.
#[derive(Debug)]
pub struct OpenRun {
    path: PathBuf,
    _held: File,
}

impl OpenRun {
    pub(super) fn close(self) -> Result<()> {
        remove(&self.path)
    }
}

pub(super) fn open_path(root: &Path, run_id: &str) -> PathBuf {
    root.join(RUNS).join(OPEN).join(run_id)
}

pub(super) fn begin(root: &Path, record: &RunRecord) -> Result<OpenRun> {
    let path = open_path(root, &record.run_id);
    // Held before it has its name: nothing finds it unheld.
    let held = write_once(&path, &record.to_bytes(), true)?;
    Ok(OpenRun { path, _held: held })
}

/// Open runs of processes that are gone. Each is held while it is looked at, so that of two drivers that start one
/// takes it.
pub(super) fn abandoned(root: &Path) -> Result<Vec<RunRecord>> {
    Ok(open_runs(root)?
        .into_iter()
        .filter(|(held, _)| !held)
        .map(|(_, record)| record)
        .collect())
}

/// Open runs of processes that live.
pub(super) fn held(root: &Path) -> Result<Vec<RunRecord>> {
    Ok(open_runs(root)?
        .into_iter()
        .filter(|(held, _)| *held)
        .map(|(_, record)| record)
        .collect())
}

fn open_runs(root: &Path) -> Result<Vec<(bool, RunRecord)>> {
    let mut found = Vec::new();
    for path in entries(&root.join(RUNS).join(OPEN))? {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let held = flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        match RunRecord::parse(&bytes) {
            Ok(record) => found.push((
                held,
                RunRecord {
                    outcome: Outcome::Interrupted,
                    ..record
                },
            )),
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "an open run cannot be read")
            }
        }
    }
    Ok(found)
}

pub(super) fn put(root: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    write_once(&root.join(name), bytes, false).map(drop)
}

fn write_once(path: &Path, bytes: &[u8], hold: bool) -> Result<File> {
    let Some(folder) = path.parent() else {
        return Err(Error::io("cannot write", path)(
            std::io::ErrorKind::InvalidInput.into(),
        ));
    };
    make_folder(folder)?;
    let new = folder.join(format!("{NEW}{:016x}", rand::random::<u64>()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        if hold {
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        match std::fs::hard_link(&new, path) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AlreadyExists
                    && !hold
                    && std::fs::read(path)? == bytes => {}
            linked => linked?,
        }
        std::fs::remove_file(&new)?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    })();
    written.map_err(|source| {
        let _ = std::fs::remove_file(&new);
        Error::io("cannot write", path)(source)
    })
}

/// Durable too, and those above it.
fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
    .and_then(|()| match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => File::open(above)?.sync_all(),
        _ => Ok(()),
    })
    .map_err(Error::io("cannot make the folder", folder))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
    .and_then(|()| match path.parent() {
        Some(folder) if folder.is_dir() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    })
    .map_err(Error::io("cannot remove", path))
}

/// What a process that was killed left half written.
pub(super) fn sweep(root: &Path) -> Result<()> {
    for folder in folders(root)? {
        for path in everything(&folder)? {
            let is_new = |name: &str| name.starts_with(NEW);
            if path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(is_new)
                && is_old(&path)
            {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

/// No record takes that long to write.
fn is_old(path: &Path) -> bool {
    let age = std::fs::metadata(path)
        .and_then(|it| it.modified())
        .ok()
        .and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age.as_secs() > 3600)
}

/// In no order that means something; what is open is not among them.
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    names_from(root, "")
}

/// The same, without months before this one; all that is compacted is among them.
pub(super) fn names_from(root: &Path, first_month: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in folders_of_records(root)? {
        // Letters come after digits: what is compacted is never before a month.
        let name = folder.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name >= first_month) {
            found.extend(names_in(root, &folder)?);
        }
    }
    Ok(found)
}

pub(super) fn folders_of_records(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = folders(root)?;
    found.retain(|folder| !folder.ends_with(OPEN));
    Ok(found)
}

pub(super) fn names_in(root: &Path, folder: &Path) -> Result<Vec<String>> {
    let name = |path: &PathBuf| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned());
    Ok(entries(folder)?.iter().filter_map(name).collect())
}

pub(super) fn all(root: &Path) -> Result<Vec<(String, std::io::Result<Vec<u8>>)>> {
    let names = names(root)?.into_iter();
    Ok(names
        .map(|name| (name.clone(), std::fs::read(root.join(name))))
        .collect())
}

fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let inside = everything(&root.join(RUNS))?;
    Ok(inside.into_iter().filter(|path| path.is_dir()).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_record = |entry: &DirEntry| {
        let is_whole = |name: &str| !name.starts_with('.');
        // As the folder says it: a look at each of very many files takes longer than all else.
        entry.file_name().to_str().is_some_and(is_whole)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    let inside = listed(folder)?.into_iter();
    Ok(inside.filter(is_record).map(|entry| entry.path()).collect())
}

fn everything(folder: &Path) -> Result<Vec<PathBuf>> {
    let inside = listed(folder)?.into_iter();
    Ok(inside.map(|entry| entry.path()).collect())
}

fn listed(folder: &Path) -> Result<Vec<DirEntry>> {
    let read = || std::fs::read_dir(folder)?.collect();
    match read() {
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        other => other.map_err(Error::io("cannot read the folder", folder)),
    }
}
