//! The decision, and nothing but the decision: from what is here, the clocks and the rules to what goes and why.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::clock::Clock;
use super::rules::{Rules, span_text};
use super::snapshots::SnapshotKey;
use super::survey::Survey;
use super::wal_plan::WalNeeds;
use crate::Repository;
use crate::backup::{BackupKind, BackupState, BackupSummary};
use crate::error::{Error, Result};
use crate::keys::RecipientPrivate;
use crate::manifest::manifest_name;
use crate::references::tombstones::Kind;
use crate::store::{Lock, LockPolicy, ObjectInfo};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Backup,
    /// `which` is component/id.
    Snapshot,
    Wal,
    Packs,
    Wraps,
    Holes,
    Leftovers,
    Tombstone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Keep,
    /// Gets a tombstone now; readers leave it alone from then on.
    Expire,
    /// Its tombstone's grace is over: is deleted now.
    Sweep,
    /// Has a tombstone, and its grace is not over.
    Wait,
}

/// One thing, or several alike, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub subject: Subject,
    /// A backup's id, a stretch of WAL, a tombstone's name; empty for things without one.
    pub which: String,
    pub action: Action,
    pub reason: String,
    pub objects: u64,
    pub bytes: u64,
}

/// To be carried out by [`super::execute`].
#[derive(Debug, Default)]
pub struct Plan {
    pub decisions: Vec<Decision>,
    pub warnings: Vec<String>,
    /// The oldest moment of the newest timeline's present that is promised: from here on every moment can be restored.
    pub window_from_micros: Option<i64>,
    pub(crate) tombstones: Vec<PlannedTombstone>,
    pub(crate) sweeps: Vec<Sweep>,
    /// WAL that is deleted without a mark.
    pub(crate) at_once: Vec<String>,
    pub(super) now_micros: i64,
    pub(super) grace_micros: i64,
    /// Backups that were there when it was decided.
    pub(super) seen: BTreeSet<String>,
    pub(super) seen_snapshots: BTreeSet<SnapshotKey>,
}

/// What gets a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedTombstone {
    pub(super) kind: Kind,
    /// The second part of its name, of a backup or a snapshot.
    pub(super) subject: Option<String>,
    pub(super) reason: String,
    pub(crate) objects: Vec<String>,
}

/// What a tombstone's grace being over deletes; the tombstone last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(super) tombstone: String,
    /// All that is below it is deleted too.
    pub(super) folder: Option<String>,
    pub(crate) objects: Vec<String>,
}

impl Plan {
    #[must_use]
    pub fn changes_anything(&self) -> bool {
        !self.tombstones.is_empty() || !self.sweeps.is_empty() || !self.at_once.is_empty()
    }

    /// Names of data that it lets go; locks cover nothing else.
    pub(super) fn goes(&self) -> impl Iterator<Item = &str> {
        let marked = self.tombstones.iter().flat_map(|planned| &planned.objects);
        let swept = self.sweeps.iter().flat_map(|sweep| &sweep.objects);
        let names = marked.chain(swept).chain(&self.at_once);
        let names = names.map(String::as_str);
        names.filter(|name| LockPolicy::covers(name))
    }

    pub(super) fn decide(
        &mut self,
        (subject, which): (Subject, &str),
        action: Action,
        reason: impl Into<String>,
        objects: &[&ObjectInfo],
    ) {
        self.decisions.push(Decision {
            subject,
            which: which.to_owned(),
            action,
            reason: reason.into(),
            objects: objects.len() as u64,
            bytes: objects.iter().map(|object| object.size).sum(),
        });
    }

    pub(super) fn mark(&mut self, kind: Kind, reason: &str, objects: Vec<String>) {
        for part in objects.chunks(crate::references::tombstones::OBJECTS_MAX) {
            self.tombstones.push(PlannedTombstone {
                kind,
                subject: None,
                reason: reason.to_owned(),
                objects: part.to_vec(),
            });
        }
    }
}

/// Reads, asks the store what it would refuse to let go, and decides. `clock` is asked after all that is here was
/// listed: a manifest that another job puts meanwhile is never newer than a right clock.
pub fn decide<E: From<Error>>(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    rules: &Rules,
    clock: impl FnOnce() -> Result<Clock, E>,
) -> Result<Plan, E> {
    let mut survey = Survey::read(repository, private)?;
    let clock = clock()?;
    let first = plan(&survey, &clock, rules)?;
    // With locks more stays than without: nothing new goes, so that once is enough.
    Ok(match survey.read_locks(repository, &first)? {
        true => plan(&survey, &clock, rules)?,
        false => first,
    })
}

/// Refuses a clock that cannot be right; otherwise decides about everything.
pub fn plan(survey: &Survey, clock: &Clock, rules: &Rules) -> Result<Plan> {
    clock.check(survey)?;
    let now = clock.now_micros;
    let mut plan = Plan {
        warnings: survey.warnings.clone(),
        now_micros: now,
        grace_micros: rules.grace_micros,
        seen: survey.references.keys().cloned().collect(),
        seen_snapshots: survey.snapshots.references.keys().cloned().collect(),
        ..Plan::default()
    };
    let window_from = survey.until_micros(now) - rules.wal_micros;
    let needs = WalNeeds::new(survey, window_from, rules);
    let kept = plan_backups(survey, &needs, now, rules, &mut plan);
    let kept_snapshots = super::snapshots::plan_snapshots(survey, now, rules, &mut plan);
    let wal = needs.pinned_by(survey, &kept);
    wal.plan(survey, rules, &mut plan);
    let referred = plan_packs(survey, (&kept, &kept_snapshots), now, rules, &mut plan);
    plan_wraps(survey, now, rules, &mut plan);
    plan_rest(survey, &wal, now, rules, &mut plan);
    super::sweeping::plan(survey, &wal, referred.as_ref(), rules, &mut plan);
    plan.window_from_micros = wal.window_from_micros();
    Ok(plan)
}

/// Returns the ids that stay.
fn plan_backups(
    survey: &Survey,
    needs: &WalNeeds,
    now: i64,
    rules: &Rules,
    plan: &mut Plan,
) -> BTreeSet<String> {
    let mut protected = needs.bases().clone();
    if let Some((id, reason)) = newest(survey) {
        protected.insert(id, reason.to_owned());
    }
    let mut kept = survey.unreadable.clone();
    for id in &survey.unreadable {
        let reason = "its manifest cannot be read, so nobody knows what it is";
        plan.decide(
            (Subject::Backup, id),
            Action::Keep,
            reason,
            &below(survey, id),
        );
    }
    for backup in &survey.backups {
        let objects = below(survey, &backup.id);
        let (kind, age_max) = match backup.kind {
            BackupKind::Full => ("full", rules.full_micros),
            BackupKind::Incremental => ("incremental", rules.incremental_micros),
        };
        let limit = span_text(age_max);
        let is_young = backup.finished_at_micros >= now - age_max;
        let about = (Subject::Backup, backup.id.as_str());
        if let Some(reason) = refused(survey, &backup.id) {
            plan.decide(about, Action::Keep, reason, &objects);
            kept.insert(backup.id.clone());
            continue;
        }
        match protected.get(&backup.id) {
            Some(reason) => plan.decide(about, Action::Keep, reason, &objects),
            None if is_young => {
                let reason = format!("{kind} younger than {limit}{}", remark(backup));
                plan.decide(about, Action::Keep, reason, &objects);
            }
            None => {
                let reason = format!("{kind} older than {limit}{}", remark(backup));
                plan.decide(about, Action::Expire, &reason, &objects);
                plan.tombstones.push(PlannedTombstone {
                    kind: Kind::Backup,
                    subject: Some(backup.id.clone()),
                    reason,
                    objects: manifest_first(&objects),
                });
                continue;
            }
        }
        kept.insert(backup.id.clone());
    }
    kept
}

/// Why a backup stays whatever the rules say.
fn refused(survey: &Survey, id: &str) -> Option<String> {
    if let Some(since) = survey.held.get(id) {
        return Some(format!("on legal hold since {}", day(*since)));
    }
    survey.lock_of(&manifest_name(id)).map(lock_text)
}

/// To the day, so that what was written together is one line.
pub(super) fn lock_text(lock: &Lock) -> String {
    match (lock.until_micros, lock.hold) {
        (Some(until), false) => format!("locked until {}", day(until)),
        (Some(until), true) => {
            format!("on the store's legal hold, and locked until {}", day(until))
        }
        (None, _) => "on the store's legal hold".to_owned(),
    }
}

pub(super) fn day(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// The one that is kept whatever its age.
fn newest(survey: &Survey) -> Option<(String, &'static str)> {
    let complete = || {
        let backups = survey.backups.iter();
        backups.filter(|backup| backup.state == BackupState::Complete)
    };
    let at = |backup: &&BackupSummary| (backup.finished_at_micros, backup.start_lsn);
    let proven = complete().filter(|backup| backup.restored_and_proved_at_micros.is_some());
    match proven.max_by_key(at) {
        Some(backup) => Some((backup.id.clone(), "newest proven backup")),
        None => complete().max_by_key(at).map(|backup| {
            (
                backup.id.clone(),
                "newest complete backup, and none is proven",
            )
        }),
    }
}

fn remark(backup: &BackupSummary) -> &'static str {
    match backup.state {
        BackupState::Complete | BackupState::Expiring => "",
        BackupState::Waiting => "; its WAL has not arrived",
        BackupState::Failed => "; its WAL never arrived",
    }
}

fn below<'a>(survey: &'a Survey, id: &str) -> Vec<&'a ObjectInfo> {
    survey.below_backups.get(id).into_iter().flatten().collect()
}

/// So that a backup is gone, not broken, after its first deletion.
pub(super) fn manifest_first(objects: &[&ObjectInfo]) -> Vec<String> {
    let mut names: Vec<String> = objects.iter().map(|object| object.name.clone()).collect();
    names.sort_by_key(|name| !name.ends_with("/manifest"));
    names
}

/// Returns the ids that kept backups and snapshots refer to, where that is known.
fn plan_packs(
    survey: &Survey,
    (backups, snapshots): (&BTreeSet<String>, &BTreeSet<SnapshotKey>),
    now: i64,
    rules: &Rules,
    plan: &mut Plan,
) -> Option<BTreeSet<String>> {
    let mut referred = BTreeSet::new();
    let of_backups = backups.iter().map(|id| {
        let packs = survey.references.get(id).and_then(Option::as_ref);
        (format!("backup {id}"), packs)
    });
    let of_snapshots = snapshots.iter().map(|place| {
        let packs = survey.snapshots.references.get(place);
        let what = format!("snapshot {}/{}", place.0, place.1);
        (what, packs.and_then(Option::as_ref))
    });
    for (what, packs) in of_backups.chain(of_snapshots) {
        let Some(packs) = packs else {
            let reason = format!(
                "nobody can tell here what {what} refers to: expire once where the private key is"
            );
            let all: Vec<&ObjectInfo> = survey.packs.iter().collect();
            plan.decide((Subject::Packs, ""), Action::Keep, reason, &all);
            return None;
        };
        referred.extend(packs.iter().map(|pack| format!("packs/{pack}")));
    }
    let named = survey.named(Kind::Packs);
    let mut groups: BTreeMap<u8, Vec<&ObjectInfo>> = BTreeMap::new();
    for pack in &survey.packs {
        let group = match pack {
            pack if referred.contains(&pack.name) => 0,
            pack if named.contains(pack.name.as_str()) => continue,
            pack if pack.modified_micros > now - rules.grace_micros => 1,
            pack if survey.lock_of(&pack.name).is_some() => 2,
            _ => 3,
        };
        groups.entry(group).or_default().push(pack);
    }
    let about = (Subject::Packs, "");
    let (refer, none) = match snapshots.is_empty() {
        true => (
            "kept backups refer to them",
            "no kept backup refers to them",
        ),
        false => (
            "kept backups and snapshots refer to them",
            "no kept backup or snapshot refers to them",
        ),
    };
    for (group, packs) in groups {
        match group {
            0 => plan.decide(about, Action::Keep, refer, &packs),
            1 => {
                let reason = "younger than the grace: a backup that runs may refer to them";
                plan.decide(about, Action::Keep, reason, &packs);
            }
            2 => {
                let locks = packs.iter().filter_map(|pack| survey.lock_of(&pack.name));
                let last = locks.max_by_key(|lock| (lock.hold, lock.until_micros));
                let last = last.map(lock_text).unwrap_or_default();
                let reason = format!("{none}; the last is {last}");
                plan.decide(about, Action::Keep, reason, &packs);
            }
            _ => {
                plan.decide(about, Action::Expire, none, &packs);
                plan.mark(Kind::Packs, none, names(&packs));
            }
        }
    }
    Some(referred)
}

fn names(objects: &[&ObjectInfo]) -> Vec<String> {
    objects.iter().map(|object| object.name.clone()).collect()
}

/// A writer makes its wrap before its first object, so an unused one may only be early: it is left alone for as long as WAL is kept.
fn plan_wraps(survey: &Survey, now: i64, rules: &Rules, plan: &mut Plan) {
    let about = (Subject::Wraps, "");
    let Some(in_use) = &survey.keys_in_use else {
        let reason = "an object that cannot be read may need any of them";
        let all: Vec<&ObjectInfo> = survey.wraps.iter().collect();
        return plan.decide(about, Action::Keep, reason, &all);
    };
    let named = survey.named(Kind::Rest);
    let old = now - rules.wal_micros.max(7 * super::rules::DAY_MICROS) - rules.grace_micros;
    let unused: Vec<&ObjectInfo> = survey
        .wraps
        .iter()
        .filter(|wrap| wrap.modified_micros < old && !named.contains(wrap.name.as_str()))
        .filter(|wrap| data_key_of(&wrap.name).is_some_and(|id| !in_use.contains(id)))
        .collect();
    if !unused.is_empty() {
        let reason = "nothing is left that their data keys sealed";
        plan.decide(about, Action::Expire, reason, &unused);
        plan.mark(Kind::Rest, reason, names(&unused));
    }
}

pub(super) fn data_key_of(wrap: &str) -> Option<&str> {
    wrap.strip_prefix("wraps/")?.split('/').next()
}

fn plan_rest(survey: &Survey, wal: &WalNeeds, now: i64, rules: &Rules, plan: &mut Plan) {
    let named = survey.named(Kind::Rest);
    let is_new = |object: &ObjectInfo| !named.contains(object.name.as_str());
    let holes: Vec<&ObjectInfo> = survey
        .holes
        .iter()
        .filter(|(object, hole)| is_new(object) && wal.is_past(hole))
        .map(|(object, _)| object)
        .collect();
    if !holes.is_empty() {
        let reason = "they lie before all WAL of the window";
        plan.decide((Subject::Holes, ""), Action::Expire, reason, &holes);
        plan.mark(Kind::Rest, reason, names(&holes));
    }
    let leftovers: Vec<&ObjectInfo> = survey
        .leftovers
        .iter()
        .chain(&survey.snapshots.leftovers)
        .filter(|object| is_new(object) && object.modified_micros < now - rules.grace_micros)
        .collect();
    if !leftovers.is_empty() {
        let reason = "left by writers that were killed";
        plan.decide((Subject::Leftovers, ""), Action::Expire, reason, &leftovers);
        plan.mark(Kind::Rest, reason, names(&leftovers));
    }
}
