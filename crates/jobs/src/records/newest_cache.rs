//! The newest run of each job where no process told of it: all records have to be read, and those of a month that stays
//! as it is only once.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Records, compaction, files};
use crate::{
    error::Result,
    record::{Outcome, RunRecord},
};

const VERSION: u32 = 1;
/// A folder that changed less long ago may change again without looking so: clocks of file systems have steps.
const STEADY: Duration = Duration::from_secs(2);

/// It may be deleted, and another version of it is not read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cache {
    version: u32,
    /// By the name of the folder below `runs/`.
    folders: BTreeMap<String, Folder>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Folder {
    /// When something came into it or went, as the file system tells it.
    changed_nanos: u64,
    newest: BTreeMap<String, RunRecord>,
}

impl Records {
    /// Of every job. What was read is remembered in the file that is named, where it can be written.
    ///
    /// # Errors
    /// When the folder of records is there and cannot be read.
    pub fn newest_of_all(root: &Path, cache: &Path) -> Result<BTreeMap<String, RunRecord>> {
        let known = Cache::read(cache);
        let mut next = Cache {
            version: VERSION,
            ..Cache::default()
        };
        let (mut is_news, mut newest) = (false, BTreeMap::new());
        for path in files::folders_of_records(root)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            // Before the records: what comes while they are read is seen next time.
            let changed = std::fs::metadata(&path).and_then(|it| it.modified()).ok();
            let changed_nanos = changed.and_then(nanos);
            let remembered = known.folders.get(name);
            let remembered = remembered.filter(|it| Some(it.changed_nanos) == changed_nanos);
            let found = match remembered {
                Some(folder) => folder.newest.clone(),
                None => newest_in(root, &path)?,
            };
            let age = changed.and_then(|at| at.elapsed().ok());
            if let Some(changed_nanos) = changed_nanos.filter(|_| age >= Some(STEADY)) {
                is_news |= remembered.is_none();
                let folder = Folder {
                    changed_nanos,
                    newest: found.clone(),
                };
                next.folders.insert(name.to_owned(), folder);
            }
            found
                .into_values()
                .for_each(|record| keep_newer(&mut newest, record));
        }
        if is_news && let Err(error) = next.write(cache) {
            tracing::debug!(%error, file = %cache.display(), "the newest runs are not remembered");
        }
        Ok(newest)
    }
}

fn nanos(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn newest_in(root: &Path, folder: &Path) -> Result<BTreeMap<String, RunRecord>> {
    let mut newest = BTreeMap::new();
    for name in files::names_in(root, folder)? {
        let bytes = std::fs::read(root.join(&name)).unwrap_or_default();
        let lines = match name.starts_with(compaction::PREFIX) {
            true => bytes.split_inclusive(|byte| *byte == b'\n').collect(),
            false => vec![&bytes[..]],
        };
        let records = lines.into_iter().map(RunRecord::parse);
        for record in records.filter_map(std::result::Result::ok) {
            keep_newer(&mut newest, record);
        }
    }
    Ok(newest)
}

/// What was skipped is no run.
fn keep_newer(newest: &mut BTreeMap<String, RunRecord>, record: RunRecord) {
    let is_newer = |known: &RunRecord| known.run_id < record.run_id;
    if record.outcome != Outcome::Skipped && newest.get(&record.job).is_none_or(is_newer) {
        newest.insert(record.job.clone(), record);
    }
}

impl Cache {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let read: Option<Self> = serde_json::from_slice(&bytes).ok();
        read.filter(|cache| cache.version == VERSION)
            .unwrap_or_default()
    }

    /// Whole, or not at all; it need not outlive the machine's next start.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = path.with_extension(format!("new-{:016x}", rand::random::<u64>()));
        let written = std::fs::write(&new, serde_json::to_vec(self)?);
        written
            .and_then(|()| std::fs::rename(&new, path))
            .inspect_err(|_| drop(std::fs::remove_file(&new)))
    }
}
