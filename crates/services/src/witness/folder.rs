//! A folder of small files that a witness answers for: each is whole, and on disk before the witness says so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::WitnessError;

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it when it is missing; it is on disk itself before anything is in it.
    pub(super) fn open(root: &Path, name: &str) -> Result<Folder, WitnessError> {
        let folder = root.join(name);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        for path in [folder.as_path(), root] {
            let synced = File::open(path).and_then(|folder| folder.sync_all());
            synced.map_err(failed(path))?;
        }
        Ok(Folder(folder))
    }

    /// Every file with its bytes. One that was never renamed was never answered for, and is removed.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, WitnessError> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.0).map_err(failed(&self.0))? {
            let path = file.map_err(failed(&self.0))?.path();
            if path.extension().is_some_and(|end| end == "new") {
                fs::remove_file(&path).map_err(failed(&path))?;
                continue;
            }
            let bytes = fs::read(&path).map_err(failed(&path))?;
            files.push((path, bytes));
        }
        Ok(files)
    }

    /// On disk when this returns; on an error what was there before counts.
    pub(super) fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.0.join(name);
        let beside = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Of a path below a witness's folder.
pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> WitnessError {
    let path = path.display().to_string();
    move |source| WitnessError::Folder { path, source }
}
