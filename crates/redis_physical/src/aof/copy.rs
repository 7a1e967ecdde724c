//! Local copies of an append-only file, as `docs/formats/cache_copies.md` has them: a folder a copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Manifest;
use crate::error::{RedisError, Result};

pub const COPY_VERSION: u32 = 1;
/// Written last: with it the copy is whole, and was loaded once.
pub const FACTS: &str = "copy.json";
/// Behind the name of a folder that is being written.
pub const UNFINISHED: &str = ".unfinished";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFacts {
    pub copy_version: u32,
    /// Everything that the server had written to its file by then is in the copy.
    pub taken_at_micros: i64,
    /// `Redis 7.0.15`.
    pub server: String,
    /// Of the process: its files grow under the same names as long as it lives.
    pub run_id: String,
    pub databases: u32,
    /// `appenddirname` and `appendfilename`.
    pub folder: String,
    pub name: String,
    pub bytes: u64,
    /// Of files that the server and this copy share.
    pub bytes_linked: u64,
    /// Of a command that was being written.
    pub bytes_cut: u64,
    /// That the throw-away server had when it was loaded.
    pub keys: u64,
    /// How long that server took to start and load it; absent in copies of earlier engines.
    #[serde(default)]
    pub load_millis: Option<u64>,
    /// The earliest and the latest moment that it can be restored to, when the file has marks.
    pub first_moment_seconds: Option<i64>,
    pub last_moment_seconds: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofCopy {
    pub id: String,
    pub path: PathBuf,
    pub facts: CopyFacts,
}

impl AofCopy {
    #[must_use]
    pub fn aof_folder(&self) -> PathBuf {
        self.path.join(&self.facts.folder)
    }

    #[must_use]
    pub fn manifest_name(&self) -> String {
        format!("{}.manifest", self.facts.name)
    }

    pub fn manifest(&self) -> Result<Manifest> {
        let path = self.aof_folder().join(self.manifest_name());
        let text = fs::read_to_string(&path).map_err(RedisError::file("read", &path))?;
        Manifest::parse(&text).map_err(|fault| RedisError::Manifest { path, fault })
    }

    /// Whether the other one holds all of this one, and can go back to any moment that this one can.
    pub fn is_covered_by(&self, other: &AofCopy) -> Result<bool> {
        let (facts, later) = (&self.facts, &other.facts);
        Ok(facts.run_id == later.run_id
            && facts.taken_at_micros < later.taken_at_micros
            && facts.bytes <= later.bytes
            && facts.first_moment_seconds.is_some()
            && facts.first_moment_seconds == later.first_moment_seconds
            && self.manifest()? == other.manifest()?)
    }
}

/// Those that count, oldest first, and of folders that do not why.
pub fn copies(folder: &Path) -> Result<(Vec<AofCopy>, Vec<String>)> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((found, faults)),
        Err(error) => return Err(RedisError::file("read", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(RedisError::file("read", folder))?;
        let path = entry.path();
        let id = entry.file_name().to_string_lossy().into_owned();
        if id.ends_with(UNFINISHED) || !path.is_dir() {
            continue;
        }
        match read_facts(&path) {
            Ok(facts) => found.push(AofCopy { id, path, facts }),
            Err(fault) => faults.push(format!("{}: {fault}", path.display())),
        }
    }
    found.sort_by_key(|copy| (copy.facts.taken_at_micros, copy.id.clone()));
    Ok((found, faults))
}

fn read_facts(path: &Path) -> Result<CopyFacts, String> {
    let text = fs::read(path.join(FACTS)).map_err(|error| format!("{FACTS}: {error}"))?;
    let facts: CopyFacts =
        serde_json::from_slice(&text).map_err(|error| format!("{FACTS}: {error}"))?;
    let is_plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    match (
        facts.copy_version,
        is_plain(&facts.folder) && is_plain(&facts.name),
    ) {
        (COPY_VERSION, true) => Ok(facts),
        (COPY_VERSION, false) => Err(format!("{FACTS}: its names are no plain names")),
        (other, _) => Err(format!(
            "a copy of version {other}, which this program does not read"
        )),
    }
}
