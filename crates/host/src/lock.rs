//! The lock that backups and expiry of one instance take in turn.

use std::{fs::File, path::Path};

use repository::FileLock;

use super::files::make_folder;
use crate::error::Error;

pub fn lock(path: &Path) -> Result<FileLock, Error> {
    if let Some(folder) = path.parent() {
        make_folder(folder, 0o700)?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::file("cannot open", path))?;
    match FileLock::try_take(file) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Error::Refused {
            what: "nothing was started",
            reason: "another backup or expiry of this instance runs. Wait for it: bre plan show"
                .to_owned(),
        }),
        Err(error) => Err(Error::file("cannot lock", path)(error)),
    }
}
