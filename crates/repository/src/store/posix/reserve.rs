//! Room set aside for the marks of expiry (repository.md §11): a repository that is full can be emptied. A mark is written into blocks
//! that are there already, so that a stream that waits for room cannot take them first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{INCOMING, PosixStore, is_full, rename_new, sync_dir, write_synced};

const FOLDER: &str = ".reserve";
/// A mark names 10,000 objects at most, of some 70 bytes each.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;

/// Marks, and the probe by which the store's clock is read.
pub(super) fn is_for(name: &str) -> bool {
    name.starts_with("tombstones/") || name.starts_with("probes/")
}

impl PosixStore {
    fn pieces(&self) -> impl Iterator<Item = PathBuf> {
        let folder = self.root.join(FOLDER);
        (0..PIECES).map(move |number| folder.join(number.to_string()))
    }

    /// Creates what is missing of it, and the folders that marks and probes lie in.
    pub(super) fn fill_reserve(&self) -> io::Result<()> {
        for folder in [FOLDER, INCOMING, "tombstones", "probes"] {
            self.make_folder(&self.root.join(folder))?;
        }
        for piece in self.pieces().filter(|piece| !piece.exists()) {
            let temporary = self.temporary();
            let made = full_of_bytes(&temporary).and_then(|()| rename_new(&temporary, &piece));
            match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let _ = fs::remove_file(&temporary);
                }
                Err(error) => {
                    let _ = fs::remove_file(&temporary);
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        sync_dir(&self.root.join(FOLDER))
    }

    /// A new object in the place of one piece. Where the file system gives each write new blocks, the piece is given up first.
    pub(super) fn write_into_reserve(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if path.exists() {
            return Err(io::Error::from(ErrorKind::AlreadyExists));
        }
        let full = || io::Error::from(ErrorKind::StorageFull);
        for piece in self.pieces() {
            // Nobody else takes it from here on: a rename succeeds once.
            let taken = self.temporary();
            match fs::rename(&piece, &taken) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            }
            let written = written_over(&taken, bytes)
                .and_then(|()| self.in_parent(path, || rename_new(&taken, path)));
            match written {
                Ok(()) => return path.parent().map_or(Ok(()), sync_dir),
                Err(error) if is_full(&error) => {
                    fs::remove_file(&taken)?;
                    return self.write_new(path, |file| file.write_all(bytes));
                }
                Err(error) => {
                    let _ = fs::remove_file(&taken);
                    return Err(error);
                }
            }
        }
        Err(full())
    }
}

/// Neither zeros nor a pattern: what the file system would not keep as written sets nothing aside.
fn full_of_bytes(path: &Path) -> io::Result<()> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes: Vec<u8> = (0..PIECE / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    write_synced(path, |file| file.write_all(&bytes))
}

/// Its blocks hold these bytes now, and are as many as these need.
fn written_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > PIECE {
        return Err(io::Error::from(ErrorKind::StorageFull));
    }
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::super::{MARKER, Store};
    use super::*;
    use crate::error::StoreError;

    #[test]
    fn marks_are_written_into_what_was_set_aside_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = PosixStore::new(dir.path().join("repository"));
        store.put(MARKER, b"marker").unwrap();
        store.make_reserve().unwrap();
        store.make_reserve().unwrap();
        let pieces = || store.pieces().filter(|piece| piece.exists()).count();
        assert_eq!(pieces(), PIECES);
        assert_eq!(store.list("").unwrap().len(), 1, "it is no object");

        let mark = |number: usize| store.root().join(format!("tombstones/wal.{number}"));
        for number in 0..PIECES {
            store
                .write_into_reserve(&mark(number), number.to_string().as_bytes())
                .unwrap();
        }
        let full = store.write_into_reserve(&mark(9), b"9").unwrap_err();
        assert!(is_full(&full));
        let again = store.write_into_reserve(&mark(0), b"x").unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        for number in 0..PIECES {
            let name = format!("tombstones/wal.{number}");
            assert_eq!(store.get(&name).unwrap(), number.to_string().as_bytes());
            store.delete(&name).unwrap();
        }
        assert!(
            store.root().join("tombstones").is_dir(),
            "a folder needs room too"
        );
        store.make_reserve().unwrap();
        assert_eq!(pieces(), PIECES);
    }

    /// On a file system of its own, to the last byte; needs root for the mount.
    #[test]
    fn a_full_disk_takes_marks_and_gives_room_again() {
        let Some(disk) = small_disk() else {
            return;
        };
        let store = PosixStore::new(disk.path().join("repository"));
        store.put(MARKER, b"marker").unwrap();
        store.make_reserve().unwrap();
        let mut number = 0;
        let full = loop {
            match store.put(&format!("wal/{number}"), &[7; 64 << 10]) {
                Ok(()) => number += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StoreError::Full { .. }), "{full}");
        // To the last byte: what waits for room takes all that comes free.
        while store.put(&format!("tail/{number}"), &[7; 4096]).is_ok() {
            number += 1;
        }
        let mark = vec![b'm'; 600_000];
        store.put("tombstones/wal.1", &mark).unwrap();
        assert_eq!(store.get("tombstones/wal.1").unwrap(), mark);
        store.put("probes/1", b"").unwrap();
        store.delete("wal/0").unwrap();
        store.put("wal/new", b"small").unwrap();
    }

    /// A tmpfs of 16 MiB, in this process's own mount namespace.
    fn small_disk() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tests"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            _ => {
                testkit::skip!("mount", "a full disk is a small file system of its own");
                None
            }
        }
    }

    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount")
                .arg(self.0.path())
                .status();
        }
    }
}
