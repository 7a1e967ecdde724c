//! Moves aside what is kept of a folder that a restore overwrites: by rename, or, across file systems, by a copy that
//! is on disk before the original is deleted.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::destination::mount_root;
use super::remains::remove;
use super::writing::sync_folder;
use crate::{Error, Result};

/// `across`: renaming cannot do it.
pub(super) fn keep(from: &Path, to: &Path, across: bool) -> Result<()> {
    if let Some(parent) = to.parent() {
        make_private_folder(parent)?;
    }
    if !across {
        return match fs::rename(from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::KeepAside {
                path: from.to_owned(),
                to: to.to_owned(),
                source: error,
            }),
            _ => Ok(()),
        };
    }
    if from.symlink_metadata().is_err() {
        return Ok(());
    }
    copy(from, to)?;
    to.parent().map_or(Ok(()), sync_folder)?;
    if !mount_root(from)? {
        return remove(from);
    }
    // What is mounted stays mounted, and empty.
    for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
        remove(&entry.map_err(Error::io("list", from))?.path())?;
    }
    sync_folder(from)
}

/// Durable when it returns, but for its own name in the folder above.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let meta = from
        .symlink_metadata()
        .map_err(Error::io("look at", from))?;
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(Error::io("read", from))?;
        return match symlink(target, to) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(Error::io("create", to)(error))
            }
            _ => Ok(()),
        };
    }
    if meta.is_dir() {
        make_private_folder(to)?;
        for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
            let path = entry.map_err(Error::io("list", from))?.path();
            copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
        sync_folder(to)?;
    } else if meta.is_file() {
        fs::copy(from, to).map_err(Error::io("copy aside", from))?;
        File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(Error::io("sync", to))?;
    } else {
        return Ok(());
    }
    // As with a rename, it stays whose it was; only root can see to that.
    if rustix::process::geteuid().is_root() {
        chown(to, Some(meta.uid()), Some(meta.gid()))
            .map_err(Error::io("change the owner of", to))?;
    }
    let mode = fs::Permissions::from_mode(meta.permissions().mode() & 0o777);
    fs::set_permissions(to, mode).map_err(Error::io("set the mode of", to))
}

/// WAL holds what the tables hold: not for everybody.
pub(super) fn make_private_folder(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(Error::io("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_before_the_original_goes() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("log"), root.path().join("aside/log"));
        fs::create_dir_all(from.join("old")).unwrap();
        fs::write(from.join("old/server.log"), "why it broke").unwrap();
        symlink("old/server.log", from.join("newest")).unwrap();
        fs::set_permissions(
            from.join("old/server.log"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        keep(&from, &to, true).unwrap();
        assert!(!from.exists());
        let kept = to.join("old/server.log");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "why it broke");
        assert_eq!(kept.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(
            fs::read_link(to.join("newest")).unwrap(),
            Path::new("old/server.log")
        );
        keep(&from, &to, true).unwrap();
    }
}
