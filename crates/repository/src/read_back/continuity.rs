//! No WAL is missing where it is needed, up to the newest that anybody knows of.

use std::collections::BTreeMap;

use serde::Serialize;

use super::evidence::{End, EvidenceSource, Shortfall, against};
use super::{ObjectClass, REMEDY_COPY, Reading, is_of_all, locked};
use crate::backup::{BackupState, BackupSummary};
use crate::error::{Error, Result, StoreError};
use crate::retention::{WalDemand, wal_demand};
use crate::store::ObjectInfo;
use crate::wal::{Inventory, TimelineWal, WalReader, segment_name, tail_prefix, wal_inventory};

/// WAL that is not between what is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub from_lsn: u64,
    pub to_lsn: u64,
    #[serde(flatten)]
    pub cause: GapCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum GapCause {
    /// Nobody put it on record, and the window needs it.
    Lost,
    /// On record.
    KnownHole {
        reason: String,
        /// A complete backup begins behind it.
        is_made_up_for: bool,
    },
    /// Before the window: expiry leaves only what each kept backup needs.
    NotNeeded,
}

/// One timeline's WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineContinuity {
    pub timeline: u32,
    pub from_lsn: u64,
    pub to_lsn: u64,
    /// The last server time that it confirms; 0 when unknown.
    pub until_micros: i64,
    pub gaps: Vec<Gap>,
}

/// A backup that ended so short a while ago may wait for its WAL.
const UNDER_WAY_MICROS: i64 = 15 * 60_000_000;
const REMEDY_BACKUP: &str = "Bring the objects back from a copy of the repository if there is one. Take a full backup now (bre backup run): from its end on every moment can be restored again";

pub(super) fn prove(
    reading: &Reading<'_>,
    objects: &BTreeMap<ObjectClass, Vec<ObjectInfo>>,
) -> Result<(Vec<TimelineContinuity>, Option<Shortfall>)> {
    let looked = look(reading).and_then(|inventory| {
        let options = reading.options;
        let demand = wal_demand(
            reading.repository,
            options.private,
            &options.rules,
            options.now_micros,
        )?;
        Ok((inventory, demand))
    });
    let (inventory, demand) = match looked {
        Ok(looked) => looked,
        Err(error) if is_of_all(&error) => return Err(error),
        Err(error) => {
            let object = error.object().unwrap_or("wal/").to_owned();
            if !is_found(reading, &object) {
                reading.found(ObjectClass::of(&object), &object, &error);
            }
            reading.note(
                ObjectClass::WalSegment,
                "wal/",
                "its continuity could not be looked at because of what was found",
                "Mend that, and verify again",
            );
            return Ok((Vec::new(), None));
        }
    };
    for error in &inventory.damaged {
        let object = error.object().unwrap_or("wal/").to_owned();
        // Neither says anything of the object; each was noted when it was read.
        let is_no_damage = matches!(
            error,
            Error::WrongKey(_) | Error::KeyClosed(_) | Error::Store(StoreError::Cold { .. })
        );
        if !is_no_damage && !is_found(reading, &object) {
            reading.found(ObjectClass::of(&object), &object, error);
        }
    }
    let mut timelines = Vec::new();
    for (timeline, wal) in &inventory.timelines {
        timelines.extend(follow(reading, *timeline, wal, &demand));
    }
    joined(reading, &inventory, &demand);
    backups(reading, &inventory, &demand.backups);
    let newest = newest(reading, objects, &inventory);
    Ok((timelines, newest))
}

fn is_found(reading: &Reading<'_>, object: &str) -> bool {
    let findings = locked(&reading.findings);
    findings.iter().any(|finding| finding.object == object)
}

/// Every open tail opened, where the keys are here.
fn look(reading: &Reading<'_>) -> Result<Inventory> {
    match reading.options.private {
        Some(private) if locked(&reading.closed_keys).is_empty() => {
            WalReader::new(reading.repository, private).inventory()
        }
        _ => wal_inventory(reading.repository),
    }
}

fn follow(
    reading: &Reading<'_>,
    timeline: u32,
    wal: &TimelineWal,
    demand: &WalDemand,
) -> Option<TimelineContinuity> {
    let (first, last) = (wal.intervals.first()?, wal.intervals.last()?);
    let mut gaps = Vec::new();
    for pair in wal.intervals.windows(2) {
        let (from_lsn, to_lsn) = (pair[0].end, pair[1].start);
        let cause = cause(timeline, wal, (from_lsn, to_lsn), demand);
        let name = segment_name(timeline, from_lsn / wal.segment_bytes.max(1), "…");
        let what = format!(
            "WAL of timeline {timeline} from {} to {} is missing",
            show(from_lsn),
            show(to_lsn)
        );
        match &cause {
            GapCause::Lost => {
                let what = format!(
                    "{what}, and nobody put that on record: no moment in it can be restored"
                );
                reading.find(ObjectClass::WalSegment, &name, &what, REMEDY_BACKUP);
            }
            GapCause::KnownHole {
                reason,
                is_made_up_for: false,
            } => {
                let what =
                    format!("{what} for good ({reason}), and no complete backup begins behind it");
                reading.find(ObjectClass::Hole, &name, &what, REMEDY_BACKUP);
            }
            GapCause::KnownHole { reason, .. } => {
                let what =
                    format!("{what} for good ({reason}); a backup behind it makes up for it");
                reading.note(ObjectClass::Hole, &name, &what, "Nothing");
            }
            GapCause::NotNeeded => {
                let what = format!("{what}; it lies before the window, and no backup needs it");
                reading.note(ObjectClass::WalSegment, &name, &what, "Nothing");
            }
        }
        gaps.push(Gap {
            from_lsn,
            to_lsn,
            cause,
        });
    }
    Some(TimelineContinuity {
        timeline,
        from_lsn: first.start,
        to_lsn: last.end,
        until_micros: last.end_time_micros,
        gaps,
    })
}

fn cause(timeline: u32, wal: &TimelineWal, (from, to): (u64, u64), demand: &WalDemand) -> GapCause {
    let on_record = wal
        .holes
        .iter()
        .find(|hole| hole.start <= from && to <= hole.end);
    if let Some(hole) = on_record {
        return GapCause::KnownHole {
            reason: hole.reason.clone(),
            is_made_up_for: hole.is_made_up_for(&demand.backups),
        };
    }
    match demand.floors.get(&timeline) {
        Some(floor) if to > *floor => GapCause::Lost,
        _ => GapCause::NotNeeded,
    }
}

/// Where the newest timeline left each before it, that one's WAL reaches.
fn joined(reading: &Reading<'_>, inventory: &Inventory, demand: &WalDemand) {
    let Some(newest) = inventory.timelines.keys().next_back().copied() else {
        return;
    };
    let switches = match demand.ancestors.get(&newest) {
        Some(Some(switches)) => switches,
        None if newest == 1 => return,
        _ => {
            let name = format!("timelines/{newest:08x}.history");
            if !is_found(reading, &name) {
                let what = "it is missing or cannot be read here: nobody can tell what the newest timeline goes on from";
                match reading.options.private {
                    Some(_) => reading.find(ObjectClass::History, &name, what, REMEDY_COPY),
                    None => reading.note(
                        ObjectClass::History,
                        &name,
                        what,
                        "Verify where the private key is",
                    ),
                }
            }
            return;
        }
    };
    for (timeline, lsn) in switches {
        let Some(floor) = demand.floors.get(timeline) else {
            continue;
        };
        let Some(wal) = inventory.timelines.get(timeline) else {
            continue;
        };
        let end = wal.end().unwrap_or(0);
        if end < *lsn && *floor < *lsn {
            let name = segment_name(*timeline, end / wal.segment_bytes.max(1), "…");
            let what = format!(
                "WAL of timeline {timeline} from {} to {}, where timeline {newest} goes on, is missing",
                show(end),
                show(*lsn)
            );
            reading.find(ObjectClass::WalSegment, &name, &what, REMEDY_BACKUP);
        }
    }
}

/// The WAL without which a backup never becomes consistent.
fn backups(reading: &Reading<'_>, inventory: &Inventory, backups: &[BackupSummary]) {
    for backup in backups {
        let is_here = inventory.covers(backup.timeline, backup.start_lsn, backup.stop_lsn);
        if is_here || backup.state == BackupState::Expiring {
            continue;
        }
        let name = crate::manifest::manifest_name(&backup.id);
        let what = format!(
            "the WAL that it needs (timeline {} from {} to {}) is not all here",
            backup.timeline,
            show(backup.start_lsn),
            show(backup.stop_lsn)
        );
        match backup.state {
            BackupState::Waiting if is_under_way(reading, backup.finished_at_micros) => {
                let remedy = "Wait: it is on its way while the stream runs";
                reading.note(ObjectClass::Manifest, &name, &what, remedy);
            }
            _ => {
                let remedy = "It restores nothing without it. Bring the WAL back from a copy, or take a new backup";
                reading.find(ObjectClass::Manifest, &name, &what, remedy);
            }
        }
    }
}

fn is_under_way(reading: &Reading<'_>, at_micros: i64) -> bool {
    at_micros > reading.options.now_micros - UNDER_WAY_MICROS
}

fn newest(
    reading: &Reading<'_>,
    objects: &BTreeMap<ObjectClass, Vec<ObjectInfo>>,
    inventory: &Inventory,
) -> Option<Shortfall> {
    let mut with_wal = inventory.timelines.iter().filter_map(|(timeline, wal)| {
        let last = wal.intervals.last()?;
        let holds = wal.intervals.iter().any(|it| it.end > it.start);
        holds.then_some((*timeline, last.end, last.end_time_micros))
    });
    let (timeline, lsn, at_micros) = with_wal.next_back().unwrap_or((0, 0, 0));
    let histories = objects.get(&ObjectClass::History).into_iter().flatten();
    let history = format!("timelines/{timeline:08x}.history");
    let began_micros = histories
        .filter(|it| it.name == history)
        .map(|it| it.modified_micros)
        .next()
        .unwrap_or(0);
    let end = End {
        timeline,
        lsn,
        at_micros,
        began_micros,
    };
    let found = against(&locked(&reading.evidence), end)?;
    if found.is_missing {
        let name = match inventory.timelines.get(&timeline) {
            Some(wal) => tail_prefix(timeline, lsn / wal.segment_bytes.max(1)),
            None => "wal/".to_owned(),
        };
        let seconds = match found.missing_seconds {
            Some(seconds) => format!("{seconds} s of it"),
            None => "for a time that nobody can tell".to_owned(),
        };
        let what = format!(
            "the newest WAL is missing, {seconds}: it ends at {} of timeline {timeline}; {} knew of {}",
            show(lsn),
            found.evidence.describe(),
            show(found.evidence.lsn)
        );
        let evidence = &found.evidence;
        match evidence.source == EvidenceSource::Backup && is_under_way(reading, evidence.at_micros)
        {
            true => reading.note(
                ObjectClass::WalTail,
                &name,
                &what,
                "Wait: it is on its way while the stream runs",
            ),
            false => reading.find(ObjectClass::WalTail, &name, &what, REMEDY_BACKUP),
        }
    }
    Some(found)
}

fn show(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}
