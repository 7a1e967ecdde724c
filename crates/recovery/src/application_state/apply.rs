//! A plan carried out, and read back.

use control_plane::git::Files;
use control_plane::kubernetes::{Kubectl, merge_patch};
use serde_json::Value;

use super::StateError;
use super::plan::{StateAction, StatePlan, StateStep, plan, rank};
use crate::Progress;

/// So many objects go to the cluster at once.
const BATCH: usize = 100;

/// What becomes of fields that another field manager holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    /// The cluster refuses, and says who holds them.
    Refuse,
    /// They are taken over.
    Force,
}

/// By server-side apply in the plan's order; then what the backup does not have is taken out of the objects, and all of
/// it is read back. Interrupted anywhere it is planned and applied again. What is returned is the second plan: empty.
pub fn apply(
    backup: &Files,
    first: &StatePlan,
    conflicts: Conflicts,
    kubectl: &Kubectl,
    progress: &dyn Progress,
) -> Result<StatePlan, StateError> {
    let cancelled = || progress.cancelled();
    let force = conflicts == Conflicts::Force;
    let changes: Vec<&StateStep> = first.changes().collect();
    // No batch has objects of two ranks: the later need the earlier.
    for group in changes.chunk_by(|one, next| rank(&one.wanted) == rank(&next.wanted)) {
        for batch in group.chunks(BATCH) {
            progress.message(&format!("applying {} and what is like it", batch[0].object));
            let objects: Vec<&Value> = batch.iter().map(|step| &step.wanted.value).collect();
            let applied = kubectl.apply(&objects, force, &cancelled);
            applied.map_err(StateError::Apply)?;
        }
    }
    // Server-side apply leaves fields alone that others added.
    let second = plan(backup, None, kubectl, progress)?;
    for step in second
        .changes()
        .filter(|step| step.action == StateAction::Change)
    {
        let live = step.live.as_ref();
        let patch = live.and_then(|live| merge_patch(&live.value, &step.wanted.value));
        if let Some(patch) = patch {
            progress.message(&format!(
                "taking out of {} what the backup does not have",
                step.object
            ));
            let patched = kubectl.patch(&step.wanted, &patch, &cancelled);
            patched.map_err(StateError::Apply)?;
        }
    }
    let last = match second.is_empty() {
        true => second,
        false => plan(backup, None, kubectl, progress)?,
    };
    let different: Vec<String> = last.changes().map(different).collect();
    match different.is_empty() {
        true => Ok(last),
        false => Err(StateError::NotTheSame(different)),
    }
}

fn different(step: &StateStep) -> String {
    match step.fields.is_empty() {
        true => format!("{} (missing)", step.object),
        false => format!("{} ({})", step.object, step.fields.join(", ")),
    }
}
