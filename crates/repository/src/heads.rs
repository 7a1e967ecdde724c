//! Signed heads of audit logs. Their bytes belong to the audit log's own format.

use crate::Repository;
use crate::error::{Result, StoreError};
use crate::read_back::ObjectClass;
use crate::store::ObjectInfo;
use crate::transparency::put_same;

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
    put_same(repository, &object(log, epoch, size), bytes)
}

/// All heads of one log, by epoch and size.
pub fn heads(repository: &Repository, log: &str) -> Result<Vec<StoredHead>> {
    let prefix = format!("heads/{log}/");
    let mut heads = Vec::new();
    for object in repository.store().list(&prefix)? {
        // A name that holds no place is not of this format, and hides none of the others.
        let Some(name) = HeadName::parse(&object.name) else {
            continue;
        };
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

/// Which heads there are, and the store's time of each.
pub fn dated_heads(repository: &Repository, log: &str) -> Result<Vec<((u32, u64), i64)>> {
    let objects = repository.store().list(&format!("heads/{log}/"))?;
    let dated = objects.iter().filter_map(|object| {
        let name = HeadName::parse(&object.name)?;
        Some(((name.epoch, name.size), object.modified_micros))
    });
    Ok(dated.collect())
}

/// Lets go of one; one that is gone already is none. What the store keeps locked stays.
pub fn drop_head(repository: &Repository, log: &str, (epoch, size): (u32, u64)) -> Result<()> {
    dropped(repository, &object(log, epoch, size))
}

/// A record beside the heads, by its place: `anchors` and `kept` are named like heads.
pub(crate) fn beside(kind: &str, log: &str, (epoch, size): (u32, u64)) -> String {
    format!("{kind}/{log}/{epoch:08x}-{size:016x}")
}

/// Puts the newest head of another repository, and lets go of older ones of its epoch. One that is there stays.
pub fn put_anchor(
    repository: &Repository,
    log: &str,
    (epoch, size): (u32, u64),
    bytes: &[u8],
) -> Result<()> {
    let name = beside("anchors", log, (epoch, size));
    put_once(repository, &name, bytes)?;
    for (other, older) in named(repository, "anchors", log)? {
        if other == epoch && older < size {
            dropped(repository, &beside("anchors", log, (other, older)))?;
        }
    }
    Ok(())
}

/// The newest anchor of each epoch, oldest first.
pub fn anchors(repository: &Repository, log: &str) -> Result<Vec<StoredHead>> {
    let newest: std::collections::BTreeMap<u32, u64> =
        named(repository, "anchors", log)?.into_iter().collect();
    let mut anchors = Vec::new();
    for (epoch, size) in newest {
        match repository
            .store()
            .get(&beside("anchors", log, (epoch, size)))
        {
            Ok(bytes) => anchors.push(StoredHead {
                log: log.to_owned(),
                epoch,
                size,
                bytes,
            }),
            // A newer one took its place.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(anchors)
}

/// A proof was made with this head: it is never thinned (audit_log.md §5).
pub fn keep_head(repository: &Repository, log: &str, place: (u32, u64)) -> Result<()> {
    put_same(repository, &beside("kept", log, place), b"")
}

/// Heads that are never thinned: a proof names them, or a witness cosigned them.
pub fn kept_heads(repository: &Repository, log: &str) -> Result<Vec<(u32, u64)>> {
    let mut kept = named(repository, "kept", log)?;
    kept.extend(named(repository, "cosigned", log)?);
    Ok(kept)
}

/// Ascending. What is not named as this kind is was put there by somebody else.
fn named(repository: &Repository, kind: &str, log: &str) -> Result<Vec<(u32, u64)>> {
    let prefix = format!("{kind}/{log}/");
    let objects = repository.store().list(&prefix)?;
    let is_ours = |object: &&ObjectInfo| ObjectClass::of(&object.name) != ObjectClass::Foreign;
    let places = objects.iter().filter(is_ours).filter_map(|object| {
        let name = object.name.strip_prefix(&prefix)?.split('.').next()?;
        let (epoch, size) = name.split_once('-')?;
        let epoch = u32::from_str_radix(epoch, 16).ok()?;
        Some((epoch, u64::from_str_radix(size, 16).ok()?))
    });
    Ok(places.collect())
}

/// The range that a record of thinned heads is about, and its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinnedName {
    pub epoch: u32,
    pub from: u64,
    pub to: u64,
    pub object: String,
}

pub fn put_thinned(
    repository: &Repository,
    log: &str,
    epoch: u32,
    (from, to): (u64, u64),
    at_micros: i64,
    bytes: &[u8],
) -> Result<()> {
    let name = format!("thinned/{log}/{epoch:08x}-{from:016x}-{to:016x}.{at_micros:016x}");
    put_once(repository, &name, bytes)
}

pub fn thinned_names(repository: &Repository, log: &str) -> Result<Vec<ThinnedName>> {
    let prefix = format!("thinned/{log}/");
    let objects = repository.store().list(&prefix)?;
    let names = objects.into_iter().filter_map(|object| {
        let range = object.name.strip_prefix(&prefix)?.split('.').next()?;
        let mut parts = range.split('-');
        let mut next = || u64::from_str_radix(parts.next()?, 16).ok();
        let (epoch, from, to) = (next()?, next()?, next()?);
        Some(ThinnedName {
            epoch: u32::try_from(epoch).ok()?,
            from,
            to,
            object: object.name,
        })
    });
    Ok(names.collect())
}

/// `None` when a newer one took its place.
pub fn thinned(repository: &Repository, name: &ThinnedName) -> Result<Option<Vec<u8>>> {
    match repository.store().get(&name.object) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub fn drop_thinned(repository: &Repository, name: &ThinnedName) -> Result<()> {
    dropped(repository, &name.object)
}

pub(crate) fn put_once(repository: &Repository, name: &str, bytes: &[u8]) -> Result<()> {
    match repository.store().put(name, bytes) {
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn dropped(repository: &Repository, name: &str) -> Result<()> {
    match repository.store().delete(name) {
        Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Locked { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
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
