//! Carries a plan out: what is due is deleted first, then marks are put, which a repository that was full has room for by then.
//! Killed at any line it leaves nothing broken, and the next run goes on.

use std::collections::BTreeSet;

use serde::Serialize;

use super::plan::{Plan, Sweep};
use crate::backup::{BackupState, catalogue};
use crate::error::{Error, Result, StoreError};
use crate::references::tombstones::{self, Tombstone};
use crate::{Progress, Repository};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExpiryOutcome {
    /// Objects that got a tombstone.
    #[serde(rename = "buried")]
    pub marked: u64,
    pub deleted: u64,
    /// Objects that the store would not let go: they wait with their tombstone.
    pub locked: u64,
    /// Objects that were due and are left because the store refuses to delete; after the first refusal no other is tried.
    pub refused: u64,
    /// In the store's words.
    pub refused_reason: Option<String>,
}

/// A backup that came since the plan was made may refer to what the plan lets go: then nothing is done, and it is to be made anew.
pub fn execute(
    repository: &Repository,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<ExpiryOutcome> {
    let mut done = ExpiryOutcome::default();
    let goes_on = sweep_all(repository, plan, progress, &mut done)?;
    if !goes_on {
        return Ok(done);
    }
    for planned in &plan.tombstones {
        if progress.cancelled() {
            return Ok(done);
        }
        let tombstone = Tombstone::new(
            plan.now_micros,
            plan.grace_micros,
            &planned.reason,
            planned.objects.clone(),
        );
        tombstones::put(
            repository,
            planned.kind,
            planned.subject.as_deref(),
            &tombstone,
        )?;
        done.marked += planned.objects.len() as u64;
        progress.message(&planned.reason);
    }
    // What the marks of a full repository were written into is made again as soon as there is room.
    if let Err(error) = repository.store().make_reserve() {
        tracing::debug!(%error, "no room was set aside");
    }
    Ok(done)
}

/// All that is due. False when it was cancelled.
fn sweep_all(
    repository: &Repository,
    plan: &Plan,
    progress: &dyn Progress,
    done: &mut ExpiryOutcome,
) -> Result<bool> {
    if !plan.sweeps.is_empty() || !plan.at_once.is_empty() {
        check_nothing_new(repository, plan)?;
    }
    let mut left = plan.sweeps.iter();
    while let Some(sweep) = left.next() {
        if !sweep_one(repository, sweep, progress, done)? {
            return Ok(false);
        }
        if done.refused > 0 {
            done.refused += left.map(|sweep| sweep.objects.len() as u64).sum::<u64>();
            done.refused += plan.at_once.len() as u64;
            return Ok(true);
        }
    }
    for (index, name) in plan.at_once.iter().enumerate() {
        if progress.cancelled() {
            return Ok(false);
        }
        match delete(repository, name) {
            Err(error) if is_refusal(&error) => {
                done.refuse(&error, plan.at_once.len() - index);
                break;
            }
            Err(Error::Store(StoreError::Locked { .. })) => done.locked += 1,
            deleted => done.deleted += deleted?,
        }
        progress.advance(1);
    }
    Ok(true)
}

impl ExpiryOutcome {
    fn refuse(&mut self, error: &Error, objects: usize) {
        self.refused += objects as u64;
        self.refused_reason.get_or_insert_with(|| error.to_string());
    }
}

/// The store deletes nothing for us: a policy, a gateway that answers 403.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::ReadOnly { .. }))
}

fn check_nothing_new(repository: &Repository, plan: &Plan) -> Result<()> {
    let backups = catalogue(repository)?.backups;
    let mut live = backups
        .iter()
        .filter(|backup| backup.state != BackupState::Expiring);
    match live.find(|backup| !plan.seen.contains(&backup.id)) {
        None => super::snapshots::check_nothing_new(repository, plan),
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
    done: &mut ExpiryOutcome,
) -> Result<bool> {
    // What came below it after its tombstone, a proof for instance, goes with it.
    let late = match &sweep.folder {
        None => Vec::new(),
        Some(folder) => repository.store().list(folder)?,
    };
    let known: BTreeSet<&str> = sweep.objects.iter().map(String::as_str).collect();
    let late = late.iter().map(|object| object.name.as_str());
    let late: Vec<&str> = late.filter(|name| !known.contains(name)).collect();
    let names = sweep.objects.iter().map(String::as_str).chain(late);
    let names: Vec<&str> = names.collect();
    for (index, name) in names.iter().enumerate() {
        if progress.cancelled() {
            return Ok(false);
        }
        match delete(repository, name) {
            Err(error) if is_refusal(&error) => {
                done.refuse(&error, names.len() - index);
                return Ok(true);
            }
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
    match delete(repository, &sweep.tombstone) {
        Err(error) if is_refusal(&error) => done.refuse(&error, 1),
        deleted => drop(deleted?),
    }
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
