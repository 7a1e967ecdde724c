//! Which packs a backup refers to, readable without a key: a host that cannot read must be able to expire.

use std::collections::BTreeSet;

use super::tombstones::packs_marked_for_deletion;
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{KeyRing, RecipientPrivate, from_hex, hex};
use crate::manifest::{ManifestBody, manifest_name};
use crate::pack::pack_name;
use crate::pipeline::{BoxKind, ObjectKind, open_single};

const MAGIC: &[u8; 4] = b"BREL";
const VERSION: u16 = 1;
const HEADER: usize = 8;
const ID: usize = 16;

/// Below the folder of a backup or of a snapshot.
fn prefix(folder: &str) -> String {
    format!("{folder}/packs-")
}

fn folder_of_backup(id: &str) -> String {
    format!("backups/{id}")
}

/// To be called just before a manifest is put: every pack that it refers to, in whichever backup it was written, is here and
/// stays; and the list of them is on record for expiry.
pub fn record_references(repository: &Repository, backup_id: &str, packs: &[String]) -> Result<()> {
    record_references_below(repository, &folder_of_backup(backup_id), packs)
}

/// The same for a backup or a snapshot that has its manifest in this folder.
pub(crate) fn record_references_below(
    repository: &Repository,
    folder: &str,
    packs: &[String],
) -> Result<()> {
    check_present(repository, packs)?;
    // Before anything says that the backup exists: none refers to what may be deleted earlier than it itself.
    let names: Vec<String> = packs.iter().map(|id| pack_name(id)).collect();
    repository.store().keep_longer(&names)?;
    let bytes = encode(packs)?;
    let name = name(folder, &bytes);
    match repository.store().put(&name, &bytes) {
        // The name holds the hash of the bytes: it is the same list.
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Fails when a pack is gone, or so near its sweep that it may be gone before the manifest is there.
pub fn check_present(repository: &Repository, packs: &[String]) -> Result<()> {
    let listed = repository.store().list("packs/")?;
    let here: BTreeSet<&str> = listed
        .iter()
        .filter_map(|object| object.name.strip_prefix("packs/"))
        .collect();
    let marked = packs_marked_for_deletion(repository)?;
    let lost = packs
        .iter()
        .find(|id| !here.contains(id.as_str()) || marked.contains(*id));
    match lost {
        None => Ok(()),
        Some(id) => Err(Error::Missing {
            object: pack_name(id),
            needed_by: "what is being taken".to_owned(),
            remedy: "It expired meanwhile. Take it again; nothing else is harmed",
        }),
    }
}

/// Mirror of [`record_references`]: the union of all lists of this backup; `None` when there is none, or one that is damaged.
pub(crate) fn listed(repository: &Repository, backup_id: &str) -> Result<Option<BTreeSet<String>>> {
    listed_below(repository, &folder_of_backup(backup_id))
}

/// Mirror of [`record_references_below`].
pub(crate) fn listed_below(
    repository: &Repository,
    folder: &str,
) -> Result<Option<BTreeSet<String>>> {
    let mut packs = None;
    for object in repository.store().list(&prefix(folder))? {
        let bytes = repository.store().get(&object.name)?;
        let Some(more) = read_list_below(folder, &object.name, &bytes) else {
            return Ok(None);
        };
        packs.get_or_insert_with(BTreeSet::new).extend(more);
    }
    Ok(packs)
}

/// The packs of one list; `None` when it is damaged or not what its name promises.
pub(crate) fn read_list(backup_id: &str, object: &str, bytes: &[u8]) -> Option<Vec<String>> {
    read_list_below(&folder_of_backup(backup_id), object, bytes)
}

pub(crate) fn read_list_below(folder: &str, object: &str, bytes: &[u8]) -> Option<Vec<String>> {
    (name(folder, bytes) == object)
        .then(|| decode(bytes))
        .flatten()
}

/// From the manifest itself, for backups that were written before there were lists.
pub(crate) fn sealed(
    repository: &Repository,
    private: &RecipientPrivate,
    backup_id: &str,
) -> Result<BTreeSet<String>> {
    let name = manifest_name(backup_id);
    let bytes = repository.store().get(&name)?;
    let kinds = (ObjectKind::Manifest, BoxKind::Manifest);
    let (_, opened) = open_single(&KeyRing::new(repository, private), &name, &bytes, kinds)?;
    let raw = zeroize::Zeroizing::new(opened.raw);
    let body: ManifestBody = serde_json::from_slice(&raw)
        .map_err(|_| Error::damaged(&name, 0, "its body cannot be parsed"))?;
    Ok(body.packs.iter().map(|pack| pack.id.clone()).collect())
}

fn name(folder: &str, bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes);
    format!("{}{}", prefix(folder), hex(&hash.as_bytes()[..16]))
}

fn encode(packs: &[String]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER + packs.len() * ID);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 2]);
    for pack in packs {
        let id = from_hex(pack).filter(|id| id.len() == ID);
        bytes.extend(id.ok_or_else(|| Error::Input(format!("`{pack}` is no pack id")))?);
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Vec<String>> {
    let (header, ids) = bytes.split_at_checked(HEADER)?;
    if &header[..4] != MAGIC || header[4..6] != VERSION.to_be_bytes() || ids.len() % ID != 0 {
        return None;
    }
    Some(ids.chunks_exact(ID).map(hex).collect())
}
