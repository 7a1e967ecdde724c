//! What a witness signed last, a file an origin: on disk before the signature leaves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use audit::{Checkpoint, Note, Seen};
use aws_lc_rs::digest::{SHA256, digest};

use super::WitnessError;

#[derive(Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    seen: BTreeMap<String, Seen>,
    /// Held as long as this process is the witness.
    _lock: File,
}

impl Memory {
    /// Makes the folder; a file in it that is not ours stops everything.
    pub(super) fn open(root: &Path) -> Result<Memory, WitnessError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| WitnessError::Folder { path, source }
        };
        let folder = root.join("seen");
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let lock = root.join("witness.lock");
        let held = File::create(&lock).map_err(failed(&lock))?;
        held.try_lock()
            .map_err(|_| WitnessError::Taken(root.display().to_string()))?;
        // The folders themselves are on disk before anything stands in them.
        for path in [folder.as_path(), root] {
            let synced = File::open(path).and_then(|folder| folder.sync_all());
            synced.map_err(failed(path))?;
        }
        let mut seen = BTreeMap::new();
        for file in fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = file.map_err(failed(&folder))?.path();
            if path.extension().is_some_and(|end| end == "new") {
                // Never renamed, so never signed.
                fs::remove_file(&path).map_err(failed(&path))?;
                continue;
            }
            let damaged = |why: String| WitnessError::Damaged {
                path: path.display().to_string(),
                why,
            };
            let bytes = fs::read(&path).map_err(failed(&path))?;
            let note = Note::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
            let last = Checkpoint::read(&note).map_err(|error| damaged(error.to_string()))?;
            if path.file_name() != Some(name_of(&last.origin).as_ref()) {
                return Err(damaged(format!("it is of {}", last.origin)));
            }
            let (size, root) = (last.size, last.root);
            seen.insert(last.origin, Seen { size, root });
        }
        Ok(Memory {
            folder,
            seen,
            _lock: held,
        })
    }

    pub(super) fn seen(&self, origin: &str) -> Option<Seen> {
        self.seen.get(origin).copied()
    }

    /// On disk when this returns; on an error what was seen before counts.
    pub(super) fn keep(&mut self, checkpoint: &Checkpoint, note: &Note) -> Result<(), String> {
        let path = self.folder.join(name_of(&checkpoint.origin));
        let beside = path.with_extension("new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&note.to_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| format!("{}: {error}", path.display()))?;
        let (size, root) = (checkpoint.size, checkpoint.root);
        self.seen
            .insert(checkpoint.origin.clone(), Seen { size, root });
        Ok(())
    }
}

/// Origins hold slashes, and may be long.
fn name_of(origin: &str) -> String {
    let hash = digest(&SHA256, origin.as_bytes());
    audit::hex::encode(&hash.as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit::{Frontier, SigningKey};

    #[test]
    fn what_was_kept_is_there_again_and_damage_stops_it() {
        let root = tempfile::tempdir().unwrap();
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let checkpoint = |size| Checkpoint {
            origin: "log.example/log-1/1".to_owned(),
            size,
            root: Frontier::new().root(),
            extensions: Vec::new(),
        };
        let mut memory = Memory::open(root.path()).unwrap();
        assert!(matches!(
            Memory::open(root.path()),
            Err(WitnessError::Taken(_))
        ));
        for size in [3, 9] {
            let note = checkpoint(size).sign(&key).unwrap();
            memory.keep(&checkpoint(size), &note).unwrap();
        }
        drop(memory);
        let file = root
            .path()
            .join("seen")
            .join(name_of("log.example/log-1/1"));
        // As a crash between writing and renaming leaves it.
        fs::write(file.with_extension("new"), "half").unwrap();
        let memory = Memory::open(root.path()).unwrap();
        assert_eq!(memory.seen("log.example/log-1/1").unwrap().size, 9);
        assert_eq!(memory.seen("log.example/log-1/2"), None);
        drop(memory);
        fs::write(&file, "").unwrap();
        assert!(matches!(
            Memory::open(root.path()),
            Err(WitnessError::Damaged { .. })
        ));
    }
}
