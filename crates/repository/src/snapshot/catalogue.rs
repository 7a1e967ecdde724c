//! What snapshots are here; needs no key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::manifest::{SnapshotHeader, VERSION};
use super::verification::{self, Verification};
use super::{manifest_of, place_of};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::pipeline::{ObjectHeader, ObjectKind, read_header};
use crate::references;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    Complete,
    /// It has a tombstone: nothing restores it any more.
    Expiring,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    pub component: String,
    pub id: String,
    pub state: SnapshotState,
    pub parent: Option<String>,
    pub taken_at_micros: i64,
    pub finished_at_micros: i64,
    pub documents: u64,
    pub bytes_source: u64,
    /// Of packs that this snapshot wrote.
    pub bytes_stored: u64,
    /// Bytes of documents that lie in packs of earlier snapshots.
    pub bytes_reused: u64,
    /// The newest verification that passed.
    pub verified_at_micros: Option<i64>,
    /// When the newest one was made, if that one failed.
    pub verification_failed_at_micros: Option<i64>,
}

/// One of a format that this program does not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewerSnapshot {
    pub component: String,
    pub id: String,
    pub version: u64,
}

impl std::fmt::Display for NewerSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "snapshot {} of {} has format version {}, this program reads version {VERSION}: it is kept and not read. \
             Use a newer program",
            self.id, self.component, self.version
        )
    }
}

#[derive(Debug, Default)]
pub struct SnapshotCatalogue {
    /// By component, then by time.
    pub snapshots: Vec<SnapshotSummary>,
    pub newer: Vec<NewerSnapshot>,
    /// Manifests and records that cannot be read; they hide no other.
    pub damaged: Vec<Error>,
}

/// Of a format that this program does not know.
pub(crate) fn is_newer(error: &Error) -> Option<u64> {
    match error {
        Error::Version { found, .. } => Some(*found),
        _ => None,
    }
}

pub fn snapshots(repository: &Repository) -> Result<SnapshotCatalogue> {
    let objects = repository.store().list("snapshots/")?;
    let expiring = references::expiring_snapshots(repository)?;
    let mut all = SnapshotCatalogue::default();
    let manifests = objects
        .iter()
        .filter(|object| object.name.ends_with("/manifest"));
    for object in manifests {
        let Some((component, id)) = place_of(&object.name) else {
            continue;
        };
        let header = read_header(repository.store(), &object.name)
            .and_then(|(header, _)| read_snapshot_header(&object.name, &header));
        match header {
            Ok(header) => all.snapshots.push(summary(header, &expiring)),
            // Expired since the listing.
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_unavailable() => return Err(error),
            Err(error) => match is_newer(&error) {
                Some(version) => all.newer.push(NewerSnapshot {
                    component: component.to_owned(),
                    id: id.to_owned(),
                    version,
                }),
                None => all.damaged.push(error),
            },
        }
    }
    for object in objects
        .iter()
        .filter(|object| object.name.contains("/verified-"))
    {
        note_verification(repository, &object.name, &mut all)?;
    }
    for snapshot in &mut all.snapshots {
        if snapshot.verified_at_micros >= snapshot.verification_failed_at_micros {
            snapshot.verification_failed_at_micros = None;
        }
    }
    all.snapshots.sort_by(|a, b| order(a).cmp(&order(b)));
    Ok(all)
}

fn order(snapshot: &SnapshotSummary) -> (&str, i64, &str) {
    (&snapshot.component, snapshot.taken_at_micros, &snapshot.id)
}

/// One by its component and its id, or the beginning of that; the newest of the component where none is named.
pub fn find_snapshot(
    repository: &Repository,
    component: &str,
    id: Option<&str>,
) -> Result<SnapshotSummary> {
    super::check_component(component)?;
    let all = snapshots(repository)?;
    let here = || {
        let all = all.snapshots.iter();
        all.filter(|it| it.component == component && it.state == SnapshotState::Complete)
    };
    let Some(id) = id else {
        return here().next_back().cloned().ok_or_else(|| {
            Error::Input(format!(
                "there is no snapshot of {component} in {}. bre job list names the job that takes one",
                repository.describe()
            ))
        });
    };
    let newer = |it: &&NewerSnapshot| it.component == component && it.id.starts_with(id);
    if let Some(newer) = all.newer.iter().find(newer) {
        return Err(Error::Input(newer.to_string()));
    }
    let found: Vec<&SnapshotSummary> = here().filter(|it| it.id.starts_with(id)).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::Input(format!(
            "there is no snapshot {id} of {component} in {}. bre snapshot list {component} shows those that are there",
            repository.describe()
        ))),
        several => Err(Error::Input(format!(
            "{} snapshots of {component} begin with {id}. Name one of them in full",
            several.len()
        ))),
    }
}

fn summary(header: SnapshotHeader, expiring: &BTreeSet<(String, String)>) -> SnapshotSummary {
    let place = (header.component, header.snapshot_id);
    let state = match expiring.contains(&place) {
        true => SnapshotState::Expiring,
        false => SnapshotState::Complete,
    };
    SnapshotSummary {
        component: place.0,
        id: place.1,
        state,
        parent: header.parent,
        taken_at_micros: header.taken_at_micros,
        finished_at_micros: header.finished_at_micros,
        documents: header.documents,
        bytes_source: header.bytes_source,
        bytes_stored: header.bytes_stored,
        bytes_reused: header.bytes_reused,
        verified_at_micros: None,
        verification_failed_at_micros: None,
    }
}

/// The clear part of a manifest; [`Error::Version`] for one of a newer format.
pub(crate) fn read_snapshot_header(name: &str, header: &ObjectHeader) -> Result<SnapshotHeader> {
    #[derive(Deserialize)]
    struct SnapshotVersion {
        snapshot_version: u64,
    }
    let damaged = |what: &str| Error::damaged(name, 28, what);
    if header.kind != ObjectKind::Snapshot {
        return Err(Error::damaged(name, 6, "it is no manifest of a snapshot"));
    }
    let versioned: SnapshotVersion = serde_json::from_slice(&header.clear)
        .map_err(|_| damaged("its header cannot be parsed"))?;
    if versioned.snapshot_version != VERSION {
        return Err(Error::Version {
            object: name.to_owned(),
            found: versioned.snapshot_version,
        });
    }
    let said: SnapshotHeader = serde_json::from_slice(&header.clear)
        .map_err(|_| damaged("its header cannot be parsed"))?;
    match manifest_of(&said.component, &said.snapshot_id) == name {
        true => Ok(said),
        false => Err(damaged("it is the manifest of another snapshot")),
    }
}

fn note_verification(
    repository: &Repository,
    name: &str,
    all: &mut SnapshotCatalogue,
) -> Result<()> {
    let bytes = match repository.store().get(name) {
        // Expired since the listing.
        Err(StoreError::NotFound { .. }) => return Ok(()),
        other => other?,
    };
    let record: Verification = match verification::parse(name, &bytes) {
        Ok(record) => record,
        Err(error) => {
            all.damaged.push(error);
            return Ok(());
        }
    };
    let place = place_of(name).unwrap_or_default();
    let mut found = all.snapshots.iter_mut();
    if let Some(snapshot) = found.find(|it| (it.component.as_str(), it.id.as_str()) == place) {
        let of_its_kind = match record.passed {
            true => &mut snapshot.verified_at_micros,
            false => &mut snapshot.verification_failed_at_micros,
        };
        *of_its_kind = (*of_its_kind).max(Some(record.verified_at_micros));
    }
    Ok(())
}
