//! A folder with all its content, up to where another file system begins: what is mounted there is not ours, and
//! nothing recursive enters it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::ServerError;

/// Whether another file system (or another part of the same one, as with `mount --bind`) begins at this place. Symbolic
/// links are not followed. What a kernel before 5.8 does not say is judged by the device, which does not tell `mount
/// --bind` of the same disk.
pub fn is_mount_root(path: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(CWD, path, flags, StatxFlags::BASIC_STATS) {
        Ok(found)
            if found
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT) =>
        {
            if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                return Ok(true);
            }
            // A subvolume is no mount of its own: its device tells.
            let is_folder = u32::from(found.stx_mode) & 0o170_000 == 0o040_000;
            Ok(is_folder && is_on_another_device(path)?)
        }
        Err(rustix::io::Errno::NOENT) => Err(ErrorKind::NotFound.into()),
        _ => is_on_another_device(path),
    }
}

fn is_on_another_device(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else {
        return Ok(true);
    };
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    Ok(path.symlink_metadata()?.dev() != fs::metadata(parent)?.dev())
}

/// The first place at or below `top` where another file system begins.
fn mount_within(top: &Path) -> Result<Option<PathBuf>, ServerError> {
    let meta = match top.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(ServerError::io("look at", top))?,
    };
    let root = match is_mount_root(top) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(ServerError::io("look at", top))?,
    };
    if root {
        return Ok(Some(top.to_owned()));
    }
    if !meta.is_dir() {
        return Ok(None);
    }
    for path in names(top)? {
        if let Some(found) = mount_within(&path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn names(folder: &Path) -> Result<Vec<PathBuf>, ServerError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(ServerError::io("list", folder))?,
    };
    entries
        .map(|entry| Ok(entry.map_err(ServerError::io("list", folder))?.path()))
        .collect()
}

/// Removes a file, a link (never what it leads to), or a folder with all that is in it. What is gone already is no
/// error. When something is mounted at or below the place, nothing of it is removed.
pub fn remove_tree(top: &Path) -> Result<(), ServerError> {
    match mount_within(top)? {
        Some(mount) => Err(ServerError::Mounted {
            top: top.to_owned(),
            mount,
        }),
        None => remove(top),
    }
}

/// Looks at each folder again: something may have been mounted meanwhile.
fn remove(path: &Path) -> Result<(), ServerError> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {
            if is_mount_root(path).map_err(ServerError::io("look at", path))? {
                let (top, mount) = (path.to_owned(), path.to_owned());
                return Err(ServerError::Mounted { top, mount });
            }
            for inside in names(path)? {
                remove(&inside)?;
            }
            fs::remove_dir(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ServerError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_goes_with_its_links_and_not_with_what_they_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let (top, other) = (root.path().join("top"), root.path().join("other"));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("mine"), "precious").unwrap();
        fs::write(top.join("a/b/file"), "gone").unwrap();
        std::os::unix::fs::symlink(&other, top.join("a/link")).unwrap();
        assert!(!is_mount_root(&top.join("a")).unwrap());
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(other.join("mine")).unwrap(), "precious");
        remove_tree(&top).unwrap();
    }

    #[test]
    fn a_mount_is_recognised_and_nothing_is_removed() {
        assert!(is_mount_root(Path::new("/")).unwrap());
        let error = remove_tree(Path::new("/proc")).unwrap_err();
        assert!(matches!(error, ServerError::Mounted { .. }), "{error}");
        let missing = is_mount_root(Path::new("/no such place")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
