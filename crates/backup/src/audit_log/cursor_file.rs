//! How far a log is shipped, on this host: written whole, and on disk before anything relies on it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use repository::log_stretches::NO_DIGEST;
use serde::{Deserialize, Serialize};

use super::LogError;

const VERSION: u64 = 1;

/// A place in a chain, and where its source continues behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub number: u64,
    /// SHA-256 of the stretch, and how long its object is.
    pub digest: String,
    pub bytes: u64,
    pub cursor: Option<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            number: 0,
            digest: NO_DIGEST.to_owned(),
            bytes: 0,
            cursor: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorFile {
    state_version: u64,
    #[serde(flatten)]
    pub place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Pending>,
    fingerprint_key: String,
}

impl CursorFile {
    fn new() -> Self {
        let key: [u8; 32] = rand::random();
        Self {
            state_version: VERSION,
            place: Place::default(),
            pending: None,
            fingerprint_key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// A new one where there is none.
    pub(super) fn load_or_new(path: &Path) -> Result<Self, LogError> {
        Ok(Self::load(path)?.unwrap_or_else(Self::new))
    }

    /// How far the log was shipped from this host; none where it never was.
    pub fn load(path: &Path) -> Result<Option<Self>, LogError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::file("read", path)(error)),
        };
        let odd = |reason: String| LogError::CursorFile {
            path: path.to_owned(),
            reason,
        };
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| odd(error.to_string()))?;
        if file.state_version != VERSION {
            let found = file.state_version;
            return Err(odd(format!(
                "it has version {found}, this program reads {VERSION}"
            )));
        }
        if file.key().is_none() {
            return Err(odd("its fingerprint key is not 64 hex digits".to_owned()));
        }
        Ok(Some(file))
    }

    fn key(&self) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        let digits = self.fingerprint_key.as_bytes();
        for (at, byte) in key.iter_mut().enumerate() {
            let pair = digits.get(2 * at..2 * at + 2)?;
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        (digits.len() == 64).then_some(key)
    }

    pub(super) fn fingerprint_key(&self) -> [u8; 32] {
        // Checked when it was read.
        self.key().unwrap_or_default()
    }

    /// `check` ends it between any two steps, as a machine that stops does.
    pub(super) fn save(
        &self,
        path: &Path,
        check: &dyn Fn() -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let next: PathBuf = path.with_extension("next");
        let bytes = serde_json::to_vec(self).map_err(|error| LogError::CursorFile {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let mut options = File::options();
        let opened = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = opened.open(&next).map_err(LogError::file("write", &next))?;
        check()?;
        file.write_all(&bytes)
            .map_err(LogError::file("write", &next))?;
        check()?;
        file.sync_all().map_err(LogError::file("sync", &next))?;
        check()?;
        fs::rename(&next, path).map_err(LogError::file("replace", path))?;
        check()?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(LogError::file("sync", folder))
    }
}
