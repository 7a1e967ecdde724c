//! Carries a plan out: tombstones first, then sweeps. Killed at any line it leaves nothing broken, and the next run goes on.

use std::collections::BTreeSet;

use serde::Serialize;

use super::plan::{Plan, Sweep};
use super::tombstones::{self, Tombstone};
use crate::backup::{BackupState, catalogue};
use crate::error::{Error, Result, StoreError};
use crate::{Progress, Repository};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Objects that got a tombstone.
    pub buried: u64,
    pub deleted: u64,
    /// Objects that the store would not let go: they wait with their tombstone.
    pub locked: u64,
    /// Signed heads that were thinned.
    pub heads: u64,
}

/// A backup that came since the plan was made may refer to what the plan lets go: then nothing is done, and it is to be made anew.
pub fn execute(repository: &Repository, plan: &Plan, progress: &dyn Progress) -> Result<Expired> {
    let mut done = Expired::default();
    for burial in &plan.tombstones {
        if progress.cancelled() {
            return Ok(done);
        }
        let tombstone = Tombstone::new(
            plan.now_micros,
            plan.grace_micros,
            &burial.reason,
            burial.objects.clone(),
        );
        tombstones::put(
            repository,
            burial.kind,
            burial.backup_id.as_deref(),
            &tombstone,
        )?;
        done.buried += burial.objects.len() as u64;
        progress.message(&burial.reason);
    }
    if !plan.sweeps.is_empty() {
        check_nothing_new(repository, plan)?;
    }
    for sweep in &plan.sweeps {
        if !sweep_one(repository, sweep, progress, &mut done)? {
            return Ok(done);
        }
    }
    for head in &plan.heads {
        if progress.cancelled() {
            return Ok(done);
        }
        done.heads += delete(repository, head)?;
    }
    Ok(done)
}

fn check_nothing_new(repository: &Repository, plan: &Plan) -> Result<()> {
    let backups = catalogue(repository)?.backups;
    let mut live = backups
        .iter()
        .filter(|backup| backup.state != BackupState::Expiring);
    match live.find(|backup| !plan.seen.contains(&backup.id)) {
        None => Ok(()),
        Some(backup) => Err(Error::PlanIsOld {
            backup: backup.id.clone(),
        }),
    }
}

/// False when it was cancelled. The tombstone goes last: until then the next run knows what is left.
fn sweep_one(
    repository: &Repository,
    sweep: &Sweep,
    progress: &dyn Progress,
    done: &mut Expired,
) -> Result<bool> {
    // What came below the backup after its tombstone, a proof for instance, goes with it.
    let late = match &sweep.backup_id {
        None => Vec::new(),
        Some(id) => repository.store().list(&format!("backups/{id}/"))?,
    };
    let known: BTreeSet<&str> = sweep.objects.iter().map(String::as_str).collect();
    let late = late.iter().map(|object| object.name.as_str());
    let late: Vec<&str> = late.filter(|name| !known.contains(name)).collect();
    for name in sweep.objects.iter().map(String::as_str).chain(late) {
        if progress.cancelled() {
            return Ok(false);
        }
        match delete(repository, name) {
            Err(Error::Store(StoreError::Locked { object, lock })) => {
                // Behind our back since it was decided. What is left of it stays marked, and goes when the lock has.
                progress.message(&format!("{object} is {lock}"));
                done.locked += 1;
                return Ok(true);
            }
            deleted => done.deleted += deleted?,
        }
        progress.advance(1);
    }
    delete(repository, &sweep.tombstone)?;
    Ok(true)
}

/// Gone already is as good: somebody else's expiry, or our own before it was killed.
fn delete(repository: &Repository, name: &str) -> Result<u64> {
    match repository.store().delete(name) {
        Ok(()) => Ok(1),
        Err(StoreError::NotFound { .. }) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
