//! The fact of a restore, which travels inside a restored data folder until the audit log's new epoch is on record.

use host::files::write_whole;
use postgres_physical::server::OsUser;
use services::RecoveryFact;
use std::path::Path;

use crate::error::Error;

const FACT_FILE: &str = "bre_recovery.json";

/// Leaves the fact of a restore in the restored folder, for whoever starts an engine on it.
/// It belongs to PostgreSQL's account like everything there: a base backup must be able to read it.
pub fn write_fact(dir: &Path, user: &OsUser, fact: &RecoveryFact) -> Result<(), Error> {
    let path = dir.join(FACT_FILE);
    let text = serde_json::to_vec(fact)
        .map_err(|error| Error::file("cannot write", &path)(error.into()))?;
    write_whole(&path, &text, 0o600)?;
    Ok(user.own(&path)?)
}

/// The fact of a restore whose epoch is not on record yet.
pub fn read_fact(dir: &Path) -> Result<Option<RecoveryFact>, Error> {
    let path = dir.join(FACT_FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::file("cannot understand", &path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("cannot read", &path)(error)),
    }
}

/// The epoch is on record: the fact has done its work.
pub fn forget_fact(dir: &Path) -> Result<(), Error> {
    let path = dir.join(FACT_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("cannot remove", &path)(error))
        }
        _ => Ok(()),
    }
}
