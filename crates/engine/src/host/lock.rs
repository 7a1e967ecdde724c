//! The lock that backups and expiry of one instance take in turn.

use std::{fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};

use super::instance::make_folder;
use crate::error::Error;

/// Goes with the process that holds it, however that ends.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    if let Some(folder) = path.parent() {
        make_folder(folder, 0o700)?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::file("cannot open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Refused {
            what: "nothing was started",
            reason: "another backup or expiry of this instance runs. Wait for it: bre plan show"
                .to_owned(),
        }),
        Err(error) => Err(Error::file("cannot lock", path)(error.into())),
    }
}
