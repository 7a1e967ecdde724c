//! Snapshots as expiry sees them: what is here, and what of it stays.

use std::collections::{BTreeMap, BTreeSet};

use super::holds;
use super::plan::{Action, Plan, PlannedTombstone, Subject, day, lock_text, manifest_first};
use super::rules::{FOREVER_MICROS, Rules, span_text};
use super::survey::Survey;
use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::{KeyRing, RecipientPrivate};
use crate::pipeline::{BoxKind, ObjectKind, open_single};
use crate::read_back::ObjectClass;
use crate::references::pack_list;
use crate::references::tombstones::{Kind, StoredTombstone};
use crate::snapshot::{
    SnapshotState, SnapshotSummary, folder_of, manifest_of, parse_body, place_of, prefix_of,
    snapshots,
};
use crate::store::ObjectInfo;

/// Component and id.
pub(super) type SnapshotKey = (String, String);

/// What is here of snapshots.
#[derive(Debug, Default)]
pub(super) struct SnapshotSurvey {
    /// Without a tombstone.
    pub(super) snapshots: Vec<SnapshotSummary>,
    /// Of a newer format, or with a manifest that cannot be read; and why they stay.
    pub(super) not_understood: BTreeMap<SnapshotKey, String>,
    /// What each of them refers to; `None` where that cannot be told here.
    pub(crate) references: BTreeMap<SnapshotKey, Option<BTreeSet<String>>>,
    pub(super) below: BTreeMap<SnapshotKey, Vec<ObjectInfo>>,
    /// Left by writers that were killed.
    pub(super) leftovers: Vec<ObjectInfo>,
}

impl SnapshotSurvey {
    /// `tombstones` were read before.
    pub(super) fn read(
        repository: &Repository,
        private: Option<&RecipientPrivate>,
        tombstones: &[StoredTombstone],
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let objects = repository.store().list("snapshots/")?;
        let all = snapshots(repository)?;
        let mut survey = Self::default();
        for newer in all.newer {
            warnings.push(newer.to_string());
            let place = (newer.component, newer.id);
            let reason = format!(
                "of format version {}, which is not read here",
                newer.version
            );
            survey.not_understood.insert(place, reason);
        }
        for error in &all.damaged {
            warnings.push(error.to_string());
            let manifest = error.object().filter(|name| name.ends_with("/manifest"));
            if let Some((component, id)) = manifest.and_then(place_of) {
                let reason =
                    "its manifest cannot be read, so it is not known what it is".to_owned();
                let place = (component.to_owned(), id.to_owned());
                survey.not_understood.insert(place, reason);
            }
        }
        let (expiring, live): (Vec<_>, Vec<_>) = all
            .snapshots
            .into_iter()
            .partition(|snapshot| snapshot.state == SnapshotState::Expiring);
        survey.snapshots = live;
        let live = survey.snapshots.iter().map(place_of_summary);
        let referring: Vec<SnapshotKey> =
            live.chain(survey.not_understood.keys().cloned()).collect();
        for place in referring {
            let packs = packs_of_snapshot(repository, private, &place.0, &place.1)?;
            survey.references.insert(place, packs);
        }
        let expiring: BTreeSet<SnapshotKey> = expiring.iter().map(place_of_summary).collect();
        let marked: BTreeSet<(&str, &str)> = tombstones
            .iter()
            .filter_map(StoredTombstone::snapshot)
            .collect();
        for object in objects {
            let Some((component, id)) = place_of(&object.name) else {
                continue;
            };
            let place = (component.to_owned(), id.to_owned());
            let has_manifest = survey.references.contains_key(&place) || expiring.contains(&place);
            // What else a newer engine puts there is not deleted here.
            let is_ours = matches!(
                ObjectClass::of(&object.name),
                ObjectClass::SnapshotPackList | ObjectClass::SnapshotVerification
            );
            if !has_manifest && !marked.contains(&(component, id)) && is_ours {
                survey.leftovers.push(object.clone());
            }
            survey.below.entry(place).or_default().push(object);
        }
        Ok(survey)
    }

    pub(super) fn newest_micros(&self) -> Option<i64> {
        self.snapshots.iter().map(|it| it.finished_at_micros).max()
    }

    fn below(&self, place: &SnapshotKey) -> Vec<&ObjectInfo> {
        self.below.get(place).into_iter().flatten().collect()
    }
}

fn place_of_summary(snapshot: &SnapshotSummary) -> SnapshotKey {
    (snapshot.component.clone(), snapshot.id.clone())
}

/// For people, and for decisions: `component/id`.
fn text_of((component, id): &SnapshotKey) -> String {
    format!("{component}/{id}")
}

/// From its list; from the sealed manifest where there is none and the key is here.
pub(crate) fn packs_of_snapshot(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    component: &str,
    id: &str,
) -> Result<Option<BTreeSet<String>>> {
    let folder = folder_of(component, id);
    if let Some(packs) = pack_list::listed_below(repository, &folder)? {
        return Ok(Some(packs));
    }
    let Some(private) = private else {
        return Ok(None);
    };
    match sealed(repository, private, component, id) {
        Ok(packs) => Ok(Some(packs)),
        Err(error) if error.is_unavailable() => Err(error),
        Err(_) => Ok(None),
    }
}

fn sealed(
    repository: &Repository,
    private: &RecipientPrivate,
    component: &str,
    id: &str,
) -> Result<BTreeSet<String>> {
    let name = manifest_of(component, id);
    let bytes = repository.store().get(&name)?;
    let kinds = (ObjectKind::Snapshot, BoxKind::Snapshot);
    let (header, opened) = open_single(&KeyRing::new(repository, private), &name, &bytes, kinds)?;
    crate::snapshot::read_snapshot_header(&name, &header)?;
    let body = parse_body(&name, &zeroize::Zeroizing::new(opened.raw))?;
    Ok(body.packs.iter().map(|pack| pack.id.clone()).collect())
}

/// What stays by the rules alone, and why. Of each component the newest and the newest verified one, at any age; those
/// that are young; and the newest that is not, because it was in force when the limit began.
pub(crate) fn kept_snapshots(
    rules: &Rules,
    now: i64,
    all: &[SnapshotSummary],
) -> BTreeMap<SnapshotKey, String> {
    let mut components: BTreeMap<&str, Vec<&SnapshotSummary>> = BTreeMap::new();
    for snapshot in all {
        components
            .entry(&snapshot.component)
            .or_default()
            .push(snapshot);
    }
    let mut kept = BTreeMap::new();
    for (component, mut snapshots) in components {
        let limit_micros = rules.snapshot_limit_micros(component);
        let (from, limit) = (now - limit_micros, span_text(limit_micros));
        snapshots.sort_by_key(|it| (it.taken_at_micros, it.id.clone()));
        let mut keep = |snapshot: Option<&&SnapshotSummary>, reason: String| {
            if let Some(snapshot) = snapshot {
                kept.entry(place_of_summary(snapshot)).or_insert(reason);
            }
        };
        keep(snapshots.last(), format!("newest snapshot of {component}"));
        let mut verified = snapshots
            .iter()
            .filter(|it| it.verified_at_micros.is_some());
        keep(
            verified.next_back(),
            format!("newest verified snapshot of {component}"),
        );
        for young in snapshots.iter().filter(|it| it.taken_at_micros >= from) {
            let reason = match limit_micros {
                FOREVER_MICROS => "kept without an end".to_owned(),
                _ => format!("younger than {limit}"),
            };
            keep(Some(young), reason);
        }
        let mut older = snapshots.iter().filter(|it| it.taken_at_micros < from);
        keep(
            older.next_back(),
            format!("in force when the {limit} began"),
        );
    }
    kept
}

/// Returns those that stay.
pub(super) fn plan_snapshots(
    survey: &Survey,
    now: i64,
    rules: &Rules,
    plan: &mut Plan,
) -> BTreeSet<SnapshotKey> {
    let here = &survey.snapshots;
    let mut kept: BTreeSet<SnapshotKey> = here.not_understood.keys().cloned().collect();
    for (place, reason) in &here.not_understood {
        let about = text_of(place);
        let objects = here.below(place);
        plan.decide((Subject::Snapshot, &about), Action::Keep, reason, &objects);
    }
    let by_rule = kept_snapshots(rules, now, &here.snapshots);
    for snapshot in &here.snapshots {
        let place = place_of_summary(snapshot);
        let (about, objects) = (text_of(&place), here.below(&place));
        let about = (Subject::Snapshot, about.as_str());
        if let Some(reason) = refused(survey, &place).or_else(|| by_rule.get(&place).cloned()) {
            plan.decide(about, Action::Keep, reason, &objects);
            kept.insert(place);
            continue;
        }
        let reason = format!(
            "superseded for more than {}",
            span_text(rules.snapshot_limit_micros(&place.0))
        );
        plan.decide(about, Action::Expire, &reason, &objects);
        plan.tombstones.push(PlannedTombstone {
            kind: Kind::Snapshot,
            subject: Some(format!("{}.{}", place.0, place.1)),
            reason,
            objects: manifest_first(&objects),
        });
    }
    kept
}

/// Why one stays in spite of the rules.
fn refused(survey: &Survey, (component, id): &SnapshotKey) -> Option<String> {
    if let Some(since) = survey.held.get(id) {
        return Some(format!("on legal hold since {}", day(*since)));
    }
    survey.lock_of(&manifest_of(component, id)).map(lock_text)
}

/// One that came since the plan was made may refer to what the plan deletes.
pub(super) fn check_nothing_new(repository: &Repository, plan: &Plan) -> Result<()> {
    let expiring = crate::references::expiring_snapshots(repository)?;
    for object in repository.store().list("snapshots/")? {
        let place = place_of(&object.name).filter(|_| object.name.ends_with("/manifest"));
        let Some((component, id)) = place else {
            continue;
        };
        let place = (component.to_owned(), id.to_owned());
        if !plan.seen_snapshots.contains(&place) && !expiring.contains(&place) {
            let backup = text_of(&place);
            return Err(Error::PlanIsOld { backup });
        }
    }
    Ok(())
}

/// What a hold on a snapshot covers: its manifest, and the packs that it refers to. `None`: there is no snapshot of
/// this id.
pub(super) fn held_objects(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    id: &str,
) -> Result<Option<holds::HeldObjects>> {
    let all = snapshots(repository)?;
    let Some(snapshot) = all.snapshots.iter().find(|snapshot| snapshot.id == id) else {
        return Ok(None);
    };
    let component = &snapshot.component;
    let packs =
        packs_of_snapshot(repository, private, component, id)?.ok_or_else(|| Error::Missing {
            object: format!("{}packs-…", prefix_of(component, id)),
            needed_by: "the hold".to_owned(),
            remedy: "Do it where the private key is: the manifest says it too",
        })?;
    let mut names: BTreeSet<String> = packs.iter().map(|pack| format!("packs/{pack}")).collect();
    names.insert(manifest_of(component, id));
    Ok(Some(holds::HeldObjects {
        is_expiring: snapshot.state == SnapshotState::Expiring,
        names,
    }))
}
