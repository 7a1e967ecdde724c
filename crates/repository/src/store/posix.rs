//! A folder. New objects appear whole (temporary file, fsync, rename without replacing, fsync of the folder).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Appender, MARKER, NextPiece, ObjectInfo, Store, check_name};
use crate::error::StoreError;

mod ahead;
mod reserve;

use ahead::{Ahead, class_of};

const INCOMING: &str = ".incoming";
/// Temporary files of writers that were killed are swept after this long.
const INCOMING_KEPT: Duration = Duration::from_secs(24 * 3600);

static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
pub struct PosixStore {
    root: PathBuf,
    ahead: Arc<Ahead>,
}

impl PosixStore {
    /// Names a folder; it is created by [`crate::Repository::init`] only.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let store = Self {
            root: root.into(),
            ahead: Arc::default(),
        };
        store.sweep_incoming();
        store
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn sweep_incoming(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(INCOMING)) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry
                .metadata()
                .ok()
                .and_then(|m| m.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age > INCOMING_KEPT) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    fn marker_is_there(&self) -> bool {
        self.root.join(MARKER).exists()
    }

    fn away(&self) -> StoreError {
        StoreError::Away {
            store: self.describe(),
            what: format!("its marker `{MARKER}` cannot be found"),
        }
    }

    fn present_for_writing(&self, name: &str) -> Result<(), StoreError> {
        if name == MARKER || self.marker_is_there() {
            return Ok(());
        }
        Err(self.away())
    }

    fn fault(&self, object: &str, source: io::Error) -> StoreError {
        let store = self.describe();
        let object = object.to_owned();
        match source.kind() {
            _ if is_full(&source) => StoreError::Full {
                store,
                object,
                wanted: None,
            },
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => StoreError::ReadOnly {
                store,
                object,
                what: source.to_string(),
            },
            ErrorKind::NotFound if !self.marker_is_there() => self.away(),
            ErrorKind::NotFound => StoreError::NotFound { store, object },
            ErrorKind::AlreadyExists => StoreError::AlreadyExists { object },
            ErrorKind::StaleNetworkFileHandle | ErrorKind::NotConnected => StoreError::Away {
                store,
                what: source.to_string(),
            },
            _ => StoreError::Io {
                store,
                object,
                source,
            },
        }
    }

    /// Creates missing parent folders below the root. A root that is gone is away: making it anew would stand in the way of
    /// the real one.
    fn make_parents(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if parent == self.root && !parent.is_dir() => {
                Err(io::Error::from(ErrorKind::NotFound))
            }
            Some(parent) => self.make_folder(parent),
            None => Ok(()),
        }
    }

    /// With those above it, each durable in its own parent.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        match folder.parent() {
            Some(_) if folder.starts_with(&self.root) && folder != self.root => {
                self.make_parents(folder)?;
            }
            Some(parent) => self.make_folder(parent)?,
            None => {}
        }
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        folder.parent().map_or(Ok(()), sync_dir)
    }

    /// Runs `create`, which makes `path` appear, again when a sweep removed the empty folder meanwhile.
    fn in_parent<T>(&self, path: &Path, create: impl Fn() -> io::Result<T>) -> io::Result<T> {
        for _ in 0..8 {
            self.make_parents(path)?;
            match create() {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Err(io::Error::from(ErrorKind::NotFound))
    }

    fn temporary(&self) -> PathBuf {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let stamp = super::now_micros();
        let name = format!("{}-{serial}-{stamp}", std::process::id());
        self.root.join(INCOMING).join(name)
    }

    /// A new file to append to, and the zeros that lie in it: one that was made ahead, or an empty one.
    fn new_tail(&self, path: &Path) -> io::Result<(File, u64)> {
        if let Some(zeroed) = self.ahead.take() {
            let len = zeroed.len;
            let renamed = self.in_parent(path, || rename_new(zeroed.path(), path));
            if renamed.is_ok()
                && let Some(file) = zeroed.keep()
            {
                return Ok((file, len));
            }
        }
        let create = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        };
        Ok((self.in_parent(path, create)?, 0))
    }

    /// The next tail will probably be as long as this one.
    fn look_ahead(&self, class: u64) {
        let path = self.temporary();
        if self.make_parents(&path).is_ok() {
            self.ahead.want(class, path);
        }
    }

    pub(super) fn write_new(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        if path.exists() {
            return Err(io::Error::from(ErrorKind::AlreadyExists));
        }
        let temporary = self.temporary();
        self.make_parents(&temporary)?;
        let result = write_synced(&temporary, write)
            .and_then(|()| self.in_parent(path, || rename_new(&temporary, path)));
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    fn put_written(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.path(name)?;
        self.present_for_writing(name)?;
        let root = || match name {
            MARKER => self.make_folder(&self.root),
            _ => Ok(()),
        };
        root()
            .and_then(|()| self.write_new(&path, write))
            .map_err(|e| self.fault(name, e))?;
        // Unmounted while it was written: it may lie in the empty folder underneath.
        self.present_for_writing(name)
    }

    fn walk(&self, dir: &Path, prefix: &str, found: &mut Vec<ObjectInfo>) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let Some(name) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) else {
                continue;
            };
            let above =
                |prefix: &str| prefix.starts_with(name) && prefix[name.len()..].starts_with('/');
            // Before the look: a folder of a year's WAL has many thousand entries, and most calls ask for one of them.
            if !(name.starts_with(prefix) || above(prefix)) || check_name(name).is_err() {
                continue;
            }
            let meta = match entry.metadata() {
                // Expired between the listing and the look: it is not there.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            if meta.is_dir() {
                if prefix.starts_with(&format!("{name}/")) || name.starts_with(prefix) {
                    self.walk(&path, prefix, found)?;
                }
            } else if name.starts_with(prefix) {
                let modified = meta
                    .modified()?
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                found.push(ObjectInfo {
                    name: name.to_owned(),
                    size: meta.len(),
                    modified_micros: i64::try_from(modified.as_micros()).unwrap_or(i64::MAX),
                });
            }
        }
        Ok(())
    }
}

impl Store for PosixStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self.put_written(name, |file| file.write_all(bytes)) {
            Err(StoreError::Full { .. }) if reserve::is_for(name) => self
                .write_into_reserve(&self.path(name)?, bytes)
                .map_err(|error| self.fault(name, error).wanting(bytes.len()))
                .and_then(|()| self.present_for_writing(name)),
            other => other.map_err(|error| error.wanting(bytes.len())),
        }
    }

    fn put_pieces(&self, name: &str, next: &mut NextPiece<'_>) -> Result<(), StoreError> {
        let mut cut_short = None;
        let put = self.put_written(name, |file| {
            loop {
                match next() {
                    Ok(Some(piece)) => file.write_all(&piece)?,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        cut_short = Some(error);
                        return Err(io::Error::from(ErrorKind::Interrupted));
                    }
                }
            }
        });
        cut_short.map_or(put, Err)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        fs::read(self.path(name)?).map_err(|e| self.fault(name, e))
    }

    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let file = File::open(self.path(name)?).map_err(|e| self.fault(name, e))?;
        let mut bytes = vec![0; len];
        match file.read_exact_at(&mut bytes, offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(StoreError::Damaged {
                object: name.to_owned(),
                what: format!("bytes {offset} to {} were asked for", offset + len as u64),
            }),
            other => other.map(|()| bytes).map_err(|e| self.fault(name, e)),
        }
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        let meta = fs::metadata(self.path(name)?).map_err(|e| self.fault(name, e))?;
        Ok(meta.len())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        if !self.marker_is_there() {
            return Err(self.away());
        }
        let start = match prefix.rfind('/') {
            Some(end) => self.root.join(&prefix[..end]),
            None => self.root.clone(),
        };
        let mut found = Vec::new();
        self.walk(&start, prefix, &mut found)
            .map_err(|e| self.fault(prefix, e))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        // Unmounted while it was read: the listing proves nothing.
        if self.marker_is_there() {
            Ok(found)
        } else {
            Err(self.away())
        }
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name)?;
        self.present_for_writing(name)?;
        fs::remove_file(&path).map_err(|e| self.fault(name, e))?;
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        sync_dir(parent).map_err(|e| self.fault(name, e))?;
        if parent != self.root && !reserve::is_for(name) {
            // Fails, rightly, when something is left in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        let open = || -> Result<Box<dyn Appender>, StoreError> {
            let path = self.path(name)?;
            self.present_for_writing(name)?;
            let (file, zeros) = self
                .new_tail(&path)
                .and_then(|made| path.parent().map_or(Ok(()), sync_dir).map(|()| made))
                .map_err(|e| self.fault(name, e))?;
            let meta = file.metadata().map_err(|e| self.fault(name, e))?;
            Ok(Box::new(PosixAppender {
                store: self.clone(),
                name: name.to_owned(),
                path,
                identity: (meta.dev(), meta.ino()),
                file,
                end: 0,
                zeros,
                class: 0,
            }))
        };
        Some(open())
    }

    fn make_reserve(&self) -> Result<(), StoreError> {
        self.present_for_writing(".reserve")?;
        self.fill_reserve()
            .map_err(|error| self.fault(".reserve", error))
    }

    fn appends(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

#[derive(Debug)]
struct PosixAppender {
    store: PosixStore,
    name: String,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    file: File,
    /// Of what was appended; zeros follow.
    end: u64,
    /// The length of the file when it was opened.
    zeros: u64,
    /// Of the file that was asked for, for the next tail.
    class: u64,
}

impl Appender for PosixAppender {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, self.end)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| self.store.fault(&self.name, e).wanting(bytes.len()))?;
        self.still_findable()?;
        self.end += bytes.len() as u64;
        if class_of(self.end) > self.class {
            self.class = class_of(self.end).max(self.store.ahead.expected());
            self.store.look_ahead(self.class);
        }
        Ok(())
    }
}

impl Drop for PosixAppender {
    /// Zeros at the end do no harm; they only take room.
    fn drop(&mut self) {
        self.store.ahead.came_to(self.end);
        if self.end < self.zeros {
            let _ = self.file.set_len(self.end);
        }
    }
}

impl PosixAppender {
    /// An open file outlives its name: after a lazy unmount, a rename or a deletion of the folder it still takes bytes that
    /// no restore would ever find.
    fn still_findable(&self) -> Result<(), StoreError> {
        self.store.present_for_writing(&self.name)?;
        match fs::metadata(&self.path) {
            Ok(meta) if (meta.dev(), meta.ino()) == self.identity => Ok(()),
            Ok(_) => Err(self.lost("another file has its name now")),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.lost("it is gone")),
            Err(error) => Err(self.store.fault(&self.name, error)),
        }
    }

    fn lost(&self, how: &str) -> StoreError {
        StoreError::Away {
            store: self.store.describe(),
            what: format!("`{}` was open and {how}", self.name),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn write_synced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    write(&mut file)?;
    file.sync_all()
}

/// Fails when `to` exists. File systems without such a rename get a hard link, which fails alike.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
