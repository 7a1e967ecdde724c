//! Which WAL stays: what the window needs from its base on, what pins kept backups, and what is young.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Action, Plan, Subject, lock_text};
use super::rules::{Rules, span_text};
use super::stretches::Stretch;
use super::survey::{Survey, WalObject};
use crate::Repository;
use crate::backup::BackupSummary;
use crate::error::Result;
use crate::keys::RecipientPrivate;
use crate::references::tombstones::Kind;
use crate::store::ObjectInfo;
use crate::timelines::Switch;
use crate::wal::Hole;

/// Segments of a timeline, both ends included.
#[derive(Debug, Clone)]
struct Range {
    timeline: u32,
    from: u64,
    to: u64,
    reason: String,
}

#[derive(Debug)]
pub(super) struct WalNeeds {
    window: Vec<Range>,
    pins: Vec<Range>,
    /// From which backups the window starts, and why they stay.
    bases: BTreeMap<String, String>,
    /// A timeline of which nobody can tell here where it came from: what lies on it and before it stays.
    unknown: Option<u32>,
    young_from_micros: i64,
    /// By timeline and number. A segment is as old as the newest of its objects, and the newest one of a timeline is
    /// being written: the stream seals a segment from all of its tails.
    young: BTreeSet<(u32, u64)>,
    /// Per timeline, where the WAL of the window begins.
    floors: BTreeMap<u32, u64>,
    window_from_micros: Option<i64>,
}

/// What WAL must be here, for whoever looks whether it is.
pub(crate) struct WalDemand {
    /// Per timeline, from where on the window needs all of it.
    pub(crate) floors: BTreeMap<u32, u64>,
    /// Of each timeline that is not the first, oldest first: which was left, and where; `None` where nobody can tell here.
    pub(crate) ancestors: BTreeMap<u32, Option<Vec<(u32, u64)>>>,
    /// Without those that expire.
    pub(crate) backups: Vec<BackupSummary>,
}

pub(crate) fn wal_demand(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    rules: &Rules,
    now_micros: i64,
) -> Result<WalDemand> {
    let survey = Survey::read(repository, private)?;
    let needs = WalNeeds::new(&survey, now_micros - rules.wal_micros, rules);
    let pairs = |switches: &Vec<Switch>| switches.iter().map(|it| (it.timeline, it.lsn)).collect();
    Ok(WalDemand {
        floors: needs.floors,
        ancestors: survey
            .ancestors
            .iter()
            .map(|(timeline, switches)| (*timeline, switches.as_ref().map(pairs)))
            .collect(),
        backups: survey.backups,
    })
}

impl WalNeeds {
    pub(super) fn new(survey: &Survey, from_micros: i64, rules: &Rules) -> Self {
        let mut needs = Self {
            window: Vec::new(),
            pins: Vec::new(),
            bases: BTreeMap::new(),
            unknown: None,
            young_from_micros: from_micros,
            young: young_segments(survey, from_micros),
            floors: BTreeMap::new(),
            window_from_micros: None,
        };
        let with_wal = survey.inventory.timelines.iter();
        let with_wal = with_wal.filter(|(_, wal)| wal.intervals.iter().any(|i| i.end > i.start));
        let timelines: Vec<u32> = with_wal.map(|(timeline, _)| *timeline).collect();
        for timeline in &timelines {
            let Some(stretches) = survey.stretches_of(*timeline) else {
                needs.unknown = needs.unknown.max(Some(*timeline));
                continue;
            };
            let newest = Some(timeline) == timelines.last();
            for (number, stretch) in stretches.iter().enumerate() {
                let is_present = newest && number + 1 == stretches.len();
                let in_window = stretch.end_micros == 0 || stretch.end_micros >= from_micros;
                if is_present || in_window {
                    needs.take_stretch(survey, stretch, from_micros, rules, is_present);
                }
            }
        }
        needs
    }

    fn take_stretch(
        &mut self,
        survey: &Survey,
        stretch: &Stretch,
        from_micros: i64,
        rules: &Rules,
        is_present: bool,
    ) {
        let Some((first, base)) = stretch.base(&survey.backups, from_micros) else {
            return;
        };
        if is_present {
            self.window_from_micros = Some(base.finished_at_micros.max(from_micros));
        }
        let window = span_text(rules.wal_micros);
        let reason = format!(
            "the window of {window} on timeline {} starts from it",
            stretch.timeline()
        );
        self.bases.entry(base.id.clone()).or_insert(reason);
        for (number, link) in stretch.links.iter().enumerate().skip(first) {
            let start = if number == first {
                base.start_lsn
            } else {
                link.entered
            };
            let floor = self.floors.entry(link.timeline).or_insert(start);
            *floor = start.min(*floor);
            self.window.push(Range {
                timeline: link.timeline,
                from: segment(survey, link.timeline, base, start),
                to: segment(survey, link.timeline, base, link.to),
                reason: format!("the window of {window} is replayed from backup {}", base.id),
            });
        }
    }

    pub(super) fn bases(&self) -> &BTreeMap<String, String> {
        &self.bases
    }

    pub(super) fn window_from_micros(&self) -> Option<i64> {
        self.window_from_micros
    }

    /// WAL without which a kept backup never becomes consistent lives as long as the backup.
    pub(super) fn pinned_by(mut self, survey: &Survey, kept: &BTreeSet<String>) -> Self {
        let backups = survey.backups.iter();
        for backup in backups.filter(|backup| kept.contains(&backup.id)) {
            self.pins.push(Range {
                timeline: backup.timeline,
                from: segment(survey, backup.timeline, backup, backup.start_lsn),
                to: segment(survey, backup.timeline, backup, backup.stop_lsn),
                reason: format!("pinned by backup {} until it is consistent", backup.id),
            });
        }
        self
    }

    /// Why an object stays; `None` when nothing needs it.
    pub(super) fn reason(&self, object: &WalObject) -> Option<&str> {
        self.need(object).or_else(|| {
            let is_young = self.young.contains(&(object.timeline, object.segment));
            is_young.then_some(YOUNG)
        })
    }

    fn need(&self, object: &WalObject) -> Option<&str> {
        if self
            .unknown
            .is_some_and(|timeline| object.timeline <= timeline)
        {
            return Some(UNKNOWN);
        }
        let holds = |range: &&Range| {
            range.timeline == object.timeline && (range.from..=range.to).contains(&object.segment)
        };
        let mut ranges = self.window.iter().chain(&self.pins);
        ranges.find(holds).map(|range| range.reason.as_str())
    }

    /// Before all WAL of the window on its timeline, and long known.
    pub(super) fn is_past(&self, hole: &Hole) -> bool {
        let floor = self.floors.get(&hole.timeline).copied();
        let pinned = self.pins.iter().any(|pin| pin.timeline == hole.timeline);
        let passed = match floor {
            Some(floor) => hole.end <= floor,
            None => !pinned && self.unknown.is_none(),
        };
        passed && hole.recorded_at_micros < self.young_from_micros
    }

    pub(super) fn plan(&self, survey: &Survey, rules: &Rules, plan: &mut Plan) {
        let named = survey.named(Kind::Wal);
        let mut runs: Vec<(Action, String, Vec<&WalObject>)> = Vec::new();
        for object in &survey.wal {
            if named.contains(object.info.name.as_str()) {
                continue;
            }
            let (action, reason) = match self.reason(object) {
                Some(YOUNG) => (
                    Action::Keep,
                    format!("younger than {}", span_text(rules.wal_micros)),
                ),
                Some(reason) => (Action::Keep, reason.to_owned()),
                None if survey.lock_of(&object.info.name).is_some() => {
                    let lock = survey.lock_of(&object.info.name).map(lock_text);
                    (Action::Keep, lock.unwrap_or_default())
                }
                None if rules.wal_at_once => (Action::Sweep, NOBODY.to_owned()),
                None => (Action::Expire, NOBODY.to_owned()),
            };
            match runs.last_mut() {
                Some((last, why, objects))
                    if (*last, &*why) == (action, &reason)
                        && objects
                            .last()
                            .is_some_and(|o| o.timeline == object.timeline) =>
                {
                    objects.push(object);
                }
                _ => runs.push((action, reason, vec![object])),
            }
        }
        let mut expired = Vec::new();
        for (action, reason, objects) in runs {
            let (first, last) = (objects[0], objects[objects.len() - 1]);
            let which = format!(
                "timeline {} segments {:X} to {:X}",
                first.timeline, first.segment, last.segment
            );
            let infos: Vec<&ObjectInfo> = objects.iter().map(|object| &object.info).collect();
            plan.decide((Subject::Wal, &which), action, reason, &infos);
            let names = infos.iter().map(|info| info.name.clone());
            match action {
                Action::Expire => expired.extend(names),
                Action::Sweep => plan.at_once.extend(names),
                Action::Keep | Action::Wait => {}
            }
        }
        plan.mark(Kind::Wal, NOBODY, expired);
    }
}

const YOUNG: &str = "young";
const NOBODY: &str = "no kept backup and no moment of the window needs it";
const UNKNOWN: &str =
    "a timeline's history cannot be read here: expire once where the private key is";

fn young_segments(survey: &Survey, from_micros: i64) -> BTreeSet<(u32, u64)> {
    let mut young = BTreeSet::new();
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for object in &survey.wal {
        if object.info.modified_micros >= from_micros {
            young.insert((object.timeline, object.segment));
        }
        let last = newest.entry(object.timeline).or_default();
        *last = object.segment.max(*last);
    }
    young.extend(newest);
    young
}

fn segment(survey: &Survey, timeline: u32, backup: &BackupSummary, lsn: u64) -> u64 {
    let wal = survey.inventory.timelines.get(&timeline);
    let known = wal.map(|wal| wal.segment_bytes).filter(|bytes| *bytes > 0);
    lsn / known.unwrap_or(backup.wal_segment_bytes).max(1)
}
