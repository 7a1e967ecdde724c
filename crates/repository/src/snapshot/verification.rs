//! That somebody with the private key read all of a snapshot back (snapshots.md §3).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reader::SnapshotReader;
use super::{manifest_of, prefix_of};
use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::RecipientPrivate;
use crate::repository::to_json;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub verified_at_micros: i64,
    pub passed: bool,
    /// The rest of the record: the writer decides what it says.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// Reads every document. `Err`: the repository or the key's provider cannot be asked; what is damaged is a verdict.
pub fn verify(
    repository: &Repository,
    private: &RecipientPrivate,
    component: &str,
    id: &str,
    now_micros: i64,
) -> Result<Verification> {
    let outcome = SnapshotReader::open(repository, private, component, id)
        .and_then(|reader| reader.read_all(&mut |_, _| Ok(())));
    let mut record = Verification {
        verified_at_micros: now_micros,
        passed: outcome.is_ok(),
        details: Map::new(),
    };
    match outcome {
        Ok(read) => {
            let details = &mut record.details;
            details.insert("documents".to_owned(), read.documents.into());
            details.insert("bytes".to_owned(), read.bytes.into());
        }
        Err(error) if error.is_damage() => {
            // The record is not sealed: it names objects, no document.
            let object = error.object().unwrap_or("an object");
            let why = format!("`{object}` is damaged or missing");
            record.details.insert("why".to_owned(), why.into());
        }
        Err(error) => return Err(error),
    }
    Ok(record)
}

/// Puts the record beside the snapshot. Its time is moved where another one has it already.
pub fn put_verification(
    repository: &Repository,
    component: &str,
    id: &str,
    record: &Verification,
) -> Result<()> {
    repository.store().size(&manifest_of(component, id))?;
    let at = u64::try_from(record.verified_at_micros).unwrap_or(0);
    let name = format!("{}verified-{at:016x}", prefix_of(component, id));
    match repository.store().put(&name, &to_json(record)) {
        Err(crate::StoreError::AlreadyExists { .. }) => {
            let mut later = record.clone();
            later.verified_at_micros += 1;
            put_verification(repository, component, id, &later)
        }
        other => Ok(other?),
    }
}

/// A record, which says the time of its name.
pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Verification> {
    let bad = |what: &str| Error::damaged(name, 0, what);
    let record: Verification =
        serde_json::from_slice(bytes).map_err(|_| bad("it cannot be parsed"))?;
    let at = name.rsplit("/verified-").next().unwrap_or_default();
    match i64::from_str_radix(at, 16).ok() == Some(record.verified_at_micros) {
        true => Ok(record),
        false => Err(bad("it says another time than its name")),
    }
}
