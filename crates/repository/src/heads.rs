//! Signed heads of audit logs. Their bytes belong to the audit log's own format.

use crate::Repository;
use crate::error::{Error, Result, StoreError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHead {
    pub log: String,
    pub epoch: u32,
    pub size: u64,
    pub bytes: Vec<u8>,
}

/// Stores a signed head; storing the same bytes again is no error, other bytes for the same size are.
pub fn put_head(
    repository: &Repository,
    log: &str,
    epoch: u32,
    size: u64,
    bytes: &[u8],
) -> Result<()> {
    let name = object(log, epoch, size);
    match repository.store().put(&name, bytes) {
        Err(StoreError::AlreadyExists { .. }) if repository.store().get(&name)? == bytes => Ok(()),
        other => Ok(other?),
    }
}

/// All heads of one log, by epoch and size.
pub fn heads(repository: &Repository, log: &str) -> Result<Vec<StoredHead>> {
    let prefix = format!("heads/{log}/");
    let mut heads = Vec::new();
    for object in repository.store().list(&prefix)? {
        let name = HeadName::parse(&object.name)
            .ok_or_else(|| Error::damaged(&object.name, 0, "its name holds no epoch and size"))?;
        match repository.store().get(&object.name) {
            Ok(bytes) => heads.push(StoredHead {
                log: name.log,
                epoch: name.epoch,
                size: name.size,
                bytes,
            }),
            // Thinned since the listing.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(heads)
}

/// Which heads of a log there are, by epoch and size: from their names alone.
pub fn head_sizes(repository: &Repository, log: &str) -> Result<Vec<(u32, u64)>> {
    let objects = repository.store().list(&format!("heads/{log}/"))?;
    let names = objects
        .iter()
        .filter_map(|object| HeadName::parse(&object.name));
    Ok(names.map(|name| (name.epoch, name.size)).collect())
}

/// One of them; `None` when it was thinned since.
pub fn head(
    repository: &Repository,
    log: &str,
    (epoch, size): (u32, u64),
) -> Result<Option<Vec<u8>>> {
    match repository.store().get(&object(log, epoch, size)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn object(log: &str, epoch: u32, size: u64) -> String {
    format!("heads/{log}/{epoch:08x}-{size:016x}")
}

/// What the name of a head says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeadName {
    pub(crate) log: String,
    pub(crate) epoch: u32,
    pub(crate) size: u64,
}

impl HeadName {
    pub(crate) fn parse(object: &str) -> Option<Self> {
        let (log, rest) = object.strip_prefix("heads/")?.split_once('/')?;
        let (epoch, size) = rest.split_once('-')?;
        Some(Self {
            log: log.to_owned(),
            epoch: u32::from_str_radix(epoch, 16).ok()?,
            size: u64::from_str_radix(size, 16).ok()?,
        })
    }
}
