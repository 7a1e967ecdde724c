//! What a witness signed last, a file an origin: on disk before the signature leaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use audit::{Checkpoint, KnownTree, Note};
use aws_lc_rs::digest::{SHA256, digest};

use super::WitnessError;
use super::folder::{Folder, failed};

#[derive(Debug)]
pub(super) struct Memory {
    folder: Folder,
    seen: BTreeMap<String, KnownTree>,
    /// Held as long as this process is the witness.
    _lock: File,
}

impl Memory {
    /// Makes the folder; a file in it that is not ours stops everything.
    pub(super) fn open(root: &Path) -> Result<Memory, WitnessError> {
        let folder = Folder::open(root, "seen")?;
        let lock = root.join("witness.lock");
        let held = File::create(&lock).map_err(failed(&lock))?;
        held.try_lock()
            .map_err(|_| WitnessError::Taken(root.display().to_string()))?;
        let mut seen = BTreeMap::new();
        for (path, bytes) in folder.files()? {
            let damaged = |why: String| WitnessError::Damaged {
                path: path.display().to_string(),
                why,
            };
            let note = Note::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
            let last = Checkpoint::read(&note).map_err(|error| damaged(error.to_string()))?;
            if path.file_name() != Some(name_of(&last.origin).as_ref()) {
                return Err(damaged(format!("it is of {}", last.origin)));
            }
            let (size, root) = (last.size, last.root);
            seen.insert(last.origin, KnownTree { size, root });
        }
        Ok(Memory {
            folder,
            seen,
            _lock: held,
        })
    }

    pub(super) fn seen(&self, origin: &str) -> Option<KnownTree> {
        self.seen.get(origin).copied()
    }

    /// On disk when this returns; on an error what was seen before counts.
    pub(super) fn keep(&mut self, checkpoint: &Checkpoint, note: &Note) -> Result<(), String> {
        self.folder
            .keep(&name_of(&checkpoint.origin), &note.to_bytes())?;
        let (size, root) = (checkpoint.size, checkpoint.root);
        self.seen
            .insert(checkpoint.origin.clone(), KnownTree { size, root });
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
    use std::fs;

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
