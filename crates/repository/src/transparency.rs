//! What of the audit log outsiders may see, and is written once: tiles, first checkpoints, cosigned checkpoints, statements about signing
//! keys. Names by `docs/formats/audit_transparency.md` §1; the bytes belong to the audit log.

use crate::Repository;
use crate::error::{Result, StoreError};
use crate::heads::{beside, put_once};

/// Puts an object of these, whose bytes follow from its name: one that is there is no error when it is the same.
pub(crate) fn put_same(repository: &Repository, name: &str, bytes: &[u8]) -> Result<()> {
    match repository.store().put(name, bytes) {
        Err(StoreError::AlreadyExists { .. }) if repository.store().get(name)? == bytes => Ok(()),
        other => Ok(other?),
    }
}

fn found(repository: &Repository, name: &str) -> Result<Option<Vec<u8>>> {
    match repository.store().get(name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn tile_name(log: &str, began: u32, level: u8, index: u64) -> String {
    format!("tlog/{log}/{began:08x}/{level:02x}-{index:016x}")
}

/// A full tile of the origin that an epoch began. Other bytes of the same tile are an error.
pub fn put_tile(
    repository: &Repository,
    log: &str,
    began: u32,
    (level, index): (u8, u64),
    bytes: &[u8],
) -> Result<()> {
    put_same(repository, &tile_name(log, began, level, index), bytes)
}

pub fn tile(
    repository: &Repository,
    log: &str,
    began: u32,
    (level, index): (u8, u64),
) -> Result<Option<Vec<u8>>> {
    found(repository, &tile_name(log, began, level, index))
}

/// The first checkpoint of an origin; the first that was put stands.
pub fn put_first_checkpoint(
    repository: &Repository,
    log: &str,
    began: u32,
    bytes: &[u8],
) -> Result<()> {
    match repository
        .store()
        .put(&format!("origins/{log}/{began:08x}"), bytes)
    {
        Err(StoreError::AlreadyExists { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// The epochs that began an origin of which a checkpoint was published, ascending.
pub fn published_origins(repository: &Repository, log: &str) -> Result<Vec<u32>> {
    let prefix = format!("origins/{log}/");
    let objects = repository.store().list(&prefix)?;
    let mut began: Vec<u32> = objects
        .iter()
        .filter_map(|object| u32::from_str_radix(object.name.strip_prefix(&prefix)?, 16).ok())
        .collect();
    began.sort_unstable();
    Ok(began)
}

/// A head's checkpoint with the signature of one witness; the first that was put stands.
pub fn put_cosigned(
    repository: &Repository,
    log: &str,
    place: (u32, u64),
    witness: &str,
    bytes: &[u8],
) -> Result<()> {
    let head = beside("cosigned", log, place);
    put_once(repository, &format!("{head}.{witness}"), bytes)
}

/// What was said of signing keys, named by its digest.
pub fn put_key_statement(
    repository: &Repository,
    log: &str,
    digest: &str,
    bytes: &[u8],
) -> Result<()> {
    put_same(repository, &format!("signing-keys/{log}/{digest}"), bytes)
}

/// All of it, in no order that means something.
pub fn key_statements(repository: &Repository, log: &str) -> Result<Vec<Vec<u8>>> {
    let objects = repository.store().list(&format!("signing-keys/{log}/"))?;
    let read = |name: &str| Ok(repository.store().get(name)?);
    objects.iter().map(|object| read(&object.name)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::heads::{keep_head, kept_heads};
    use crate::store::MemoryStore;

    #[test]
    fn what_was_written_once_stands_and_is_found() {
        let repository = Repository::init(Arc::new(MemoryStore::default())).unwrap();
        let tile_of = |index| tile(&repository, "1", 7, (0, index)).unwrap();
        assert_eq!(tile_of(3), None);
        put_tile(&repository, "1", 7, (0, 3), b"hashes").unwrap();
        put_tile(&repository, "1", 7, (0, 3), b"hashes").unwrap();
        assert!(put_tile(&repository, "1", 7, (0, 3), b"others").is_err());
        assert_eq!(tile_of(3).unwrap(), b"hashes");
        assert!(published_origins(&repository, "1").unwrap().is_empty());
        for note in [b"one", b"two"] {
            put_first_checkpoint(&repository, "1", 7, note).unwrap();
            put_cosigned(&repository, "1", (2, 300), "0a0b0c0d", note).unwrap();
        }
        put_cosigned(&repository, "1", (2, 300), "01020304", b"three").unwrap();
        put_cosigned(&repository, "2", (2, 301), "01020304", b"three").unwrap();
        assert_eq!(published_origins(&repository, "1").unwrap(), [7]);
        // A name without a witness is not of this format.
        let unnamed = "cosigned/1/00000002-000000000000012d";
        repository.store().put(unnamed, b"x").unwrap();
        assert_eq!(kept_heads(&repository, "1").unwrap(), [(2, 300), (2, 300)]);
        for _ in 0..2 {
            keep_head(&repository, "1", (2, 300)).unwrap();
        }
        let kept = repository.store().list("kept/").unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].name, "kept/1/00000002-000000000000012c");
        put_key_statement(&repository, "1", "ab", b"said").unwrap();
        assert_eq!(key_statements(&repository, "1").unwrap(), [b"said"]);
    }
}
