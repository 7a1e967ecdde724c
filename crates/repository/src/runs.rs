//! Run records of jobs (`docs/formats/job_runs.md`): what became of each run, for the day on which database and host
//! are lost. Their content belongs to the plan; here they are names and bytes, written once.

use serde::Deserialize;

use crate::Repository;
use crate::error::{Error, Result, StoreError};

const PREFIX: &str = "runs/";
const VERSION: u64 = 1;

/// Puts one of them. Other bytes of the same name are an error.
pub fn put_run(repository: &Repository, name: &str, bytes: &[u8]) -> Result<()> {
    of_runs(name)?;
    crate::transparency::put_same(repository, name, bytes)
}

/// The names below a prefix that begins with `runs/`, ascending.
pub fn run_names(repository: &Repository, prefix: &str) -> Result<Vec<String>> {
    of_runs(prefix)?;
    let objects = repository.store().list(prefix)?;
    Ok(objects.into_iter().map(|object| object.name).collect())
}

pub fn run(repository: &Repository, name: &str) -> Result<Vec<u8>> {
    of_runs(name)?;
    Ok(repository.store().get(name)?)
}

/// Of one that a month holds, or of a month that is older than it is kept. One that is gone is no error.
pub fn drop_run(repository: &Repository, name: &str) -> Result<()> {
    of_runs(name)?;
    match repository.store().delete(name) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Nothing else of a repository is touched through these.
fn of_runs(name: &str) -> Result<()> {
    match name.starts_with(PREFIX) {
        true => Ok(()),
        false => Err(Error::damaged(name, 0, "it is no name of a run record")),
    }
}

#[derive(Deserialize)]
struct RunHeader {
    record_version: u64,
    run_id: String,
}

pub(crate) fn check_run(name: &str, bytes: &[u8]) -> Result<()> {
    let unparsed =
        |error: serde_json::Error| Error::damaged(name, 0, format!("it cannot be parsed: {error}"));
    let record: RunHeader = serde_json::from_slice(bytes).map_err(unparsed)?;
    if record.record_version != VERSION {
        return Err(Error::Version {
            object: name.to_owned(),
            found: record.record_version,
        });
    }
    match name.ends_with(&format!("/{}", record.run_id)) {
        true => Ok(()),
        false => Err(Error::damaged(name, 0, "it is the record of another run")),
    }
}

pub(crate) fn check_month(name: &str, bytes: &[u8]) -> Result<()> {
    let digest = crate::keys::hex(&blake3::hash(bytes).as_bytes()[..16]);
    match name.ends_with(&format!("-{digest}")) {
        true => Ok(()),
        false => Err(Error::damaged(
            name,
            0,
            "its bytes are not those that its name promises",
        )),
    }
}
