//! The catalogue: derived from manifests and the WAL inventory, needs no key.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::BackupKind;
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::manifest::{ManifestHeader, manifest_name};
use crate::pipeline::{ObjectKind, read_header};
use crate::references;
use crate::repository::to_json;
use crate::wal::{Inventory, wal_inventory};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    /// All WAL up to its stop LSN is in the repository.
    Complete,
    /// Not yet.
    Waiting,
    /// It never will be.
    Failed,
    /// It has a tombstone: nothing restores it any more.
    Expiring,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    pub id: String,
    pub kind: BackupKind,
    pub state: BackupState,
    pub parent: Option<String>,
    pub label: String,
    pub system_identifier: u64,
    pub timeline: u32,
    pub start_lsn: u64,
    pub stop_lsn: u64,
    pub pg_version: u32,
    pub wal_segment_bytes: u64,
    pub started_at_micros: i64,
    pub finished_at_micros: i64,
    pub bytes_source: u64,
    /// Of packs that this backup wrote.
    pub bytes_stored: u64,
    /// Bytes of files that lie in packs of earlier backups.
    pub bytes_reused: u64,
    /// And in packs of attempts that never became a backup.
    pub bytes_resumed: u64,
    pub files: u64,
    pub damaged_pages: u64,
    /// The newest proof that passed.
    pub restored_and_proved_at_micros: Option<i64>,
    /// When the newest proof was made, if that one failed.
    pub proof_failed_at_micros: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Catalogue {
    /// By start time.
    pub backups: Vec<BackupSummary>,
    /// Manifests that cannot be read; the others are listed all the same.
    pub damaged: Vec<Error>,
}

/// The record that a backup was restored and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTestRecord {
    pub proved_at_micros: i64,
    pub passed: bool,
    /// The rest of the record: whoever proves says what it checked.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// All backups of the repository with their states.
pub fn catalogue(repository: &Repository) -> Result<Catalogue> {
    // Manifests first: WAL that arrives meanwhile can only complete them.
    let objects = repository.store().list("backups/")?;
    let inventory = wal_inventory(repository)?;
    let expiring = references::expiring(repository)?;
    let mut catalogue = Catalogue::default();
    for object in objects
        .iter()
        .filter(|object| object.name.ends_with("/manifest"))
    {
        let header = read_header(repository.store(), &object.name);
        let summary = header.and_then(|(header, _)| match header.kind {
            ObjectKind::Manifest => read_summary(repository, &object.name, &header.clear),
            _ => Err(Error::damaged(&object.name, 6, "it is no manifest")),
        });
        match summary {
            Ok(mut summary) => {
                summary.state = match expiring.contains(&summary.id) {
                    true => BackupState::Expiring,
                    false => state(&inventory, &summary),
                };
                catalogue.backups.push(summary);
            }
            // Expired since the listing.
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_unavailable() => return Err(error),
            Err(error) => catalogue.damaged.push(error),
        }
    }
    for object in objects
        .iter()
        .filter(|object| object.name.contains("/proof-"))
    {
        note_restore_test(repository, &object.name, &mut catalogue)?;
    }
    catalogue.backups.iter_mut().for_each(forget_mended);
    // Names tell seconds, and two may begin within one.
    catalogue
        .backups
        .sort_by(|a, b| (a.started_at_micros, &a.id).cmp(&(b.started_at_micros, &b.id)));
    Ok(catalogue)
}

fn note_restore_test(repository: &Repository, name: &str, catalogue: &mut Catalogue) -> Result<()> {
    let bytes = match repository.store().get(name) {
        // Expired since the listing.
        Err(StoreError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    let proof: RestoreTestRecord = match serde_json::from_slice(&bytes) {
        Ok(proof) => proof,
        Err(_) => {
            catalogue
                .damaged
                .push(Error::damaged(name, 0, "it cannot be parsed"));
            return Ok(());
        }
    };
    let id = name.split('/').nth(1).unwrap_or_default();
    if let Some(backup) = catalogue.backups.iter_mut().find(|backup| backup.id == id) {
        let of_its_kind = match proof.passed {
            true => &mut backup.restored_and_proved_at_micros,
            false => &mut backup.proof_failed_at_micros,
        };
        *of_its_kind = (*of_its_kind).max(Some(proof.proved_at_micros));
    }
    Ok(())
}

/// A failure that a later proof made good is history.
fn forget_mended(backup: &mut BackupSummary) {
    if backup.restored_and_proved_at_micros >= backup.proof_failed_at_micros {
        backup.proof_failed_at_micros = None;
    }
}

/// The record of one restore test, and which backup it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreTest {
    pub backup_id: String,
    pub object: String,
    pub record: RestoreTestRecord,
}

#[derive(Debug, Default)]
pub struct RestoreTests {
    /// Oldest first.
    pub tests: Vec<RestoreTest>,
    /// Records that cannot be read; they hide no other.
    pub damaged: Vec<Error>,
}

/// Every restore test of which the record is here.
pub fn restore_tests(repository: &Repository) -> Result<RestoreTests> {
    let mut found = RestoreTests::default();
    for object in repository.store().list("backups/")? {
        let mut parts = object.name.split('/').skip(1);
        let (Some(id), Some(file)) = (parts.next(), parts.next()) else {
            continue;
        };
        if !file.starts_with("proof-") {
            continue;
        }
        let bytes = match repository.store().get(&object.name) {
            // Expired since the listing.
            Err(StoreError::NotFound { .. }) => continue,
            other => other?,
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => found.tests.push(RestoreTest {
                backup_id: id.to_owned(),
                object: object.name.clone(),
                record,
            }),
            Err(_) => found
                .damaged
                .push(Error::damaged(&object.name, 0, "it cannot be parsed")),
        }
    }
    found.tests.sort_by(|a, b| {
        (a.record.proved_at_micros, &a.object).cmp(&(b.record.proved_at_micros, &b.object))
    });
    Ok(found)
}

/// Stores the result of a restore proof; says under which name, and the bytes that are there now.
pub fn put_restore_test(
    repository: &Repository,
    backup_id: &str,
    proof: &RestoreTestRecord,
) -> Result<(String, Vec<u8>)> {
    let at = u64::try_from(proof.proved_at_micros).unwrap_or(0);
    let name = format!("backups/{backup_id}/proof-{at:016x}");
    let bytes = to_json(proof);
    repository.store().put(&name, &bytes)?;
    Ok((name, bytes))
}

/// `state` is `Waiting` until the inventory was asked.
pub(crate) fn read_summary(
    repository: &Repository,
    name: &str,
    clear: &[u8],
) -> Result<BackupSummary> {
    let header: ManifestHeader = serde_json::from_slice(clear)
        .map_err(|_| Error::damaged(name, 28, "its header cannot be parsed"))?;
    if manifest_name(&header.backup_id) != name {
        return Err(Error::damaged(
            name,
            28,
            "it is the manifest of another backup",
        ));
    }
    repository.expect_cluster(header.system_identifier, name)?;
    Ok(BackupSummary {
        id: header.backup_id,
        kind: header.kind,
        state: BackupState::Waiting,
        parent: header.parent,
        label: header.label,
        system_identifier: header.system_identifier,
        timeline: header.timeline,
        start_lsn: header.start_lsn,
        stop_lsn: header.stop_lsn,
        pg_version: header.pg_version,
        wal_segment_bytes: header.wal_segment_bytes,
        started_at_micros: header.started_at_micros,
        finished_at_micros: header.finished_at_micros,
        bytes_source: header.bytes_source,
        bytes_stored: header.bytes_stored,
        bytes_reused: header.bytes_reused,
        bytes_resumed: header.bytes_resumed,
        files: header.files,
        damaged_pages: header.damaged_pages,
        restored_and_proved_at_micros: None,
        proof_failed_at_micros: None,
    })
}

fn state(inventory: &Inventory, backup: &BackupSummary) -> BackupState {
    let (from, to) = (backup.start_lsn, backup.stop_lsn);
    if inventory.covers(backup.timeline, from, to) {
        return BackupState::Complete;
    }
    let Some(wal) = inventory.timelines.get(&backup.timeline) else {
        return BackupState::Waiting;
    };
    let recorded = wal
        .holes
        .iter()
        .any(|hole| hole.start < to && from < hole.end);
    let passed_by = wal.end().is_some_and(|end| end > to);
    if recorded || passed_by {
        BackupState::Failed
    } else {
        BackupState::Waiting
    }
}
