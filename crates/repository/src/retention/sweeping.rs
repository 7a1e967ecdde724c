//! Tombstones whose grace is over: what they name and nothing needs is deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Action, Plan, Subject, Sweep, data_key_of, lock_text};
use super::rules::Rules;
use super::survey::{Survey, WalObject};
use super::wal_plan::WalNeeds;
use crate::references::tombstones::{Kind, StoredTombstone};
use crate::store::ObjectInfo;

pub(super) fn plan(
    survey: &Survey,
    wal: &WalNeeds,
    referred: Option<&BTreeSet<String>>,
    rules: &Rules,
    plan: &mut Plan,
) {
    let here = objects_here(survey);
    let segments: BTreeMap<&str, &WalObject> = survey
        .wal
        .iter()
        .map(|object| (object.info.name.as_str(), object))
        .collect();
    for kind in Kind::SWEPT_IN_THIS_ORDER {
        for found in survey.tombstones.iter().filter(|found| found.kind == kind) {
            let is_needed = |name: &str| match kind {
                Kind::Backup | Kind::Snapshot => false,
                // Where nobody can tell what is referred to, nothing goes.
                Kind::Packs => referred.is_none_or(|packs| packs.contains(name)),
                Kind::Wal => segments.get(name).is_some_and(|o| wal.reason(o).is_some()),
                Kind::Rest => is_key_needed(survey, name),
            };
            let is_due = found.tombstone.sweep_after_micros <= plan.now_micros
                || (rules.wal_at_once && kind == Kind::Wal);
            one(survey, found, is_due, &here, is_needed, plan);
        }
    }
}

fn one(
    survey: &Survey,
    found: &StoredTombstone,
    is_due: bool,
    here: &BTreeMap<&str, &ObjectInfo>,
    is_needed: impl Fn(&str) -> bool,
    plan: &mut Plan,
) {
    let about = (Subject::Tombstone, found.name.as_str());
    let named = found.tombstone.objects.iter();
    let objects: Vec<&ObjectInfo> = named
        .filter_map(|name| here.get(name.as_str()).copied())
        .collect();
    if !is_due {
        let reason = format!("{}; its grace is not over", found.tombstone.reason);
        return plan.decide(about, Action::Wait, reason, &objects);
    }
    // Its manifest is what the tombstone stands against: while one of them stays, so does the other.
    let mut locks = objects.iter().filter_map(|o| survey.lock_of(&o.name));
    if matches!(found.kind, Kind::Backup | Kind::Snapshot)
        && let Some(lock) = locks.next()
    {
        return plan.decide(about, Action::Wait, lock_text(lock), &objects);
    }
    let (locked, objects): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| survey.lock_of(&object.name).is_some());
    if let Some(lock) = locked.iter().find_map(|o| survey.lock_of(&o.name)) {
        plan.decide(about, Action::Keep, lock_text(lock), &locked);
    }
    let (needed, swept): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| is_needed(&o.name));
    if !needed.is_empty() {
        plan.decide(about, Action::Keep, "needed again", &needed);
    }
    plan.decide(about, Action::Sweep, &found.tombstone.reason, &swept);
    plan.sweeps.push(Sweep {
        tombstone: found.name.clone(),
        folder: found.folder(),
        objects: swept.iter().map(|object| object.name.clone()).collect(),
    });
}

fn objects_here(survey: &Survey) -> BTreeMap<&str, &ObjectInfo> {
    let below = survey.below_backups.values().flatten();
    let snapshots = survey.snapshots.below.values().flatten();
    let holes = survey.holes.iter().map(|(object, _)| object);
    let wal = survey.wal.iter().map(|object| &object.info);
    below
        .chain(snapshots)
        .chain(&survey.packs)
        .chain(&survey.wraps)
        .chain(&survey.leftovers)
        .chain(holes)
        .chain(wal)
        .map(|object| (object.name.as_str(), object))
        .collect()
}

fn is_key_needed(survey: &Survey, name: &str) -> bool {
    let Some(data_key) = data_key_of(name) else {
        return false;
    };
    let in_use = survey.keys_in_use.as_ref();
    in_use.is_none_or(|keys| keys.contains(data_key))
}
