//! A standby's state over a restart, in one small file that is replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{StandbyError, StandbyResult};

const FILE: &str = "state.json";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// Files are being written: worthless after a crash.
    Restoring,
    Following,
    /// From before the promotion until it is certain: after a crash nobody knows on which timeline the folder would
    /// come up.
    Promoting,
    Promoted,
}

/// What came of a promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionReport {
    /// Names the claim on the new timeline.
    pub restore_id: String,
    pub timeline: u32,
    pub parent_timeline: u32,
    /// Everything before it was replayed.
    pub switch_lsn: u64,
    /// The data folder.
    pub folder: PathBuf,
    /// How long each step took.
    pub steps: Vec<StepMillis>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMillis {
    pub step: String,
    pub micros: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredState {
    pub(super) step: Step,
    /// Names the data folder, and later the claim on a timeline.
    pub(super) restore_id: String,
    pub(super) backup_id: String,
    pub(super) start_lsn: u64,
    pub(super) stop_lsn: u64,
    pub(super) timeline: u32,
    pub(super) segment_bytes: u64,
    pub(super) since_micros: i64,
    pub(super) wal_objects: u64,
    pub(super) promoted: Option<PromotionReport>,
}

impl StoredState {
    /// `None` when there is none, or none that can be understood: then nothing of it is worth keeping.
    pub(super) fn read(folder: &Path) -> StandbyResult<Option<Self>> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StandbyError::io("read", path)(error)),
        }
    }

    /// Durable when it returns.
    pub(super) fn write(&self, folder: &Path) -> StandbyResult<()> {
        let text = serde_json::to_vec(self).map_err(|error| {
            StandbyError::io("write", folder.join(FILE))(std::io::Error::other(error))
        })?;
        put_whole(folder, FILE, &text, |_| Ok(()))
    }

    pub(super) fn forget(folder: &Path) -> StandbyResult<()> {
        let path = folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StandbyError::io("remove", path)(error))
            }
            _ => sync(folder),
        }
    }

    pub(super) fn data(&self, folder: &Path) -> PathBuf {
        folder.join(format!("data-{}", self.restore_id))
    }
}

/// Appears whole under its name, and is on disk when this returns.
pub(super) fn put_whole(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    own: impl FnOnce(&Path) -> StandbyResult<()>,
) -> StandbyResult<()> {
    put_written(folder, name, |file| file.write_all(bytes), own)
}

/// The same for what is not in memory as a whole.
pub(super) fn put_written(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    own: impl FnOnce(&Path) -> StandbyResult<()>,
) -> StandbyResult<()> {
    let incoming = folder.join(format!("bre_incoming.{name}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&incoming)
        .map_err(StandbyError::io("create", &incoming))?;
    write(&mut file)
        .and_then(|()| file.sync_all())
        .map_err(StandbyError::io("write", &incoming))?;
    own(&incoming)?;
    let path = folder.join(name);
    fs::rename(&incoming, &path).map_err(StandbyError::io("put in place", &path))?;
    sync(folder)
}

pub(super) fn sync(folder: &Path) -> StandbyResult<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StandbyError::io("sync", folder))
}
