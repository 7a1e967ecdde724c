//! Where unix sockets live. Their paths have a limit (107 bytes), which a deep data folder can exceed.

use std::{
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use postgres_physical::server::OsUser;

use crate::{error::Error, files::make_folder};

/// What a socket's own name may add to its folder.
const NAME_BYTES_MAX: usize = 24;
const PATH_BYTES_MAX: usize = 107;

/// Whether a socket can have this path.
pub fn fits(socket: &Path) -> bool {
    socket.as_os_str().len() <= PATH_BYTES_MAX
}

/// Makes the folder of a socket through which the engine takes orders. In the temporary folder somebody else may have
/// made it first.
pub fn make_private(folder: &Path) -> Result<(), Error> {
    make_folder(folder, 0o700)?;
    let meta = std::fs::symlink_metadata(folder).map_err(Error::file("cannot look at", folder))?;
    if meta.is_dir() && meta.uid() == OsUser::current()?.uid {
        return Ok(());
    }
    Err(Error::Refused {
        what: "a folder for our socket belongs to somebody else",
        reason: format!(
            "{}. Remove it, or give a shorter --data DIR",
            folder.display()
        ),
    })
}

/// Only for our own account. The caller has the lock that says that no other process listens there. `near`: the folder
/// that is there already, and where the socket is unless its path is too long.
pub fn listen(socket: &Path, near: &Path) -> Result<UnixListener, Error> {
    if let Some(folder) = socket.parent().filter(|folder| *folder != near) {
        make_private(folder)?;
    }
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(Error::file("cannot listen on", socket))?;
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600))
        .map_err(Error::file("cannot protect", socket))?;
    Ok(listener)
}

/// `RUN/NAME`, or a short folder in the temporary folder whose name follows from the data folder's.
pub(crate) fn folder(run: &Path, root: &Path, name: &str) -> PathBuf {
    let near = run.join(name);
    if near.as_os_str().len() + NAME_BYTES_MAX <= PATH_BYTES_MAX {
        return near;
    }
    let bytes = root.as_os_str().as_encoded_bytes();
    // FNV-1a: any stable spread will do, the folder's lock keeps instances apart.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    std::env::temp_dir().join(format!("bre-{hash:016x}-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Instance;

    #[test]
    fn a_deep_folder_gets_a_short_socket() {
        let instance = |root: &Path| Instance::at(root).unwrap();
        let near = instance(Path::new("/srv/bre")).socket_folder("pg");
        assert_eq!(near, Path::new("/srv/bre/run/pg"));
        let deep = instance(&Path::new("/srv").join("x".repeat(120)));
        let socket = deep.socket_folder("pg");
        assert!(socket.as_os_str().len() + NAME_BYTES_MAX <= PATH_BYTES_MAX);
        assert_ne!(socket, deep.socket_folder("redis"));
        assert!(fits(&deep.control_socket()));
    }
}
