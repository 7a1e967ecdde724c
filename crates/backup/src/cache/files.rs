//! Files that have to be on disk, and links in place of copies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use redis_physical::RedisError;

use super::CacheError;

type Result<T, E = CacheError> = std::result::Result<T, E>;

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let failed = RedisError::file(what, path);
    |error| CacheError::Redis(failed(error))
}

pub(super) fn readable(place: &str, folder: &Path) -> Result<()> {
    let found = fs::read_dir(folder).map(drop);
    found.map_err(|error| CacheError::FolderNotReadable {
        place: place.to_owned(),
        folder: folder.to_owned(),
        reason: error.to_string(),
    })
}

/// Of this account alone.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(failed("make", path))
}

pub(super) fn write_synced(path: &Path, content: &[u8]) -> Result<()> {
    let written = create(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(failed("write", path))
}

pub(super) fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(failed("sync", path))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The first bytes of an open file, on disk when this returns.
pub(super) fn copy_synced(from: &File, bytes: u64, to: &Path) -> Result<()> {
    let written = create(to).and_then(|mut file| {
        let copied = io::copy(&mut from.take(bytes), &mut file)?;
        if copied < bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter",
            ));
        }
        file.sync_all()
    });
    written.map_err(failed("write", to))
}

/// A second name for a file that is complete; whether one could be made. Elsewhere than on the same disk, and of a
/// file of another account, it cannot. Under the name another file may be by now: then there is none either.
pub(super) fn link(from: &Path, open: &File, to: &Path) -> Result<bool> {
    if fs::hard_link(from, to).is_err() {
        return Ok(false);
    }
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let linked = fs::metadata(to).map_err(failed("read", to))?;
    let wanted = open.metadata().map_err(failed("read", from))?;
    if identity(linked) != identity(wanted) {
        fs::remove_file(to).map_err(failed("delete", to))?;
        return Ok(false);
    }
    open.sync_all().map_err(failed("sync", from))?;
    Ok(true)
}

pub(super) fn available_bytes(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder).map_err(io::Error::from);
    let stat = stat.map_err(failed("look at", folder))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("delete", folder)(error))
        }
        _ => Ok(()),
    }
}
