//! Stretches of WAL along which a restore can replay without a gap, over timelines. The shape of `recovery`'s window, but also
//! where no backup is.

use super::survey::Survey;
use crate::backup::{BackupState, BackupSummary};
use crate::timelines::Switch;

/// The part of a stretch that lies on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) timeline: u32,
    /// Where its WAL begins: on a child, before the switch.
    pub(super) wal_from: u64,
    /// Where the way enters the timeline; 0 on the first.
    pub(super) entered: u64,
    pub(super) to: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) links: Vec<Link>,
    /// 0 when unknown.
    pub(super) end_micros: i64,
}

impl Stretch {
    pub(super) fn timeline(&self) -> u32 {
        self.links.last().map_or(0, |link| link.timeline)
    }

    /// The complete backups that it can be replayed from, each with the number of its link.
    fn bases<'a>(
        &'a self,
        backups: &'a [BackupSummary],
    ) -> impl Iterator<Item = (usize, &'a BackupSummary)> {
        let complete = backups
            .iter()
            .filter(|backup| backup.state == BackupState::Complete);
        complete.filter_map(|backup| {
            let holds = |link: &Link| {
                link.timeline == backup.timeline
                    && link.wal_from <= backup.start_lsn
                    && backup.stop_lsn <= link.to
            };
            Some((self.links.iter().position(holds)?, backup))
        })
    }

    /// The backup from which every moment after `from_micros` can be reached: the newest that was finished by then, or the oldest.
    pub(super) fn base<'a>(
        &'a self,
        backups: &'a [BackupSummary],
        from_micros: i64,
    ) -> Option<(usize, &'a BackupSummary)> {
        let key =
            |(_, backup): &(usize, &BackupSummary)| (backup.finished_at_micros, backup.start_lsn);
        let before = self
            .bases(backups)
            .filter(|(_, backup)| backup.finished_at_micros <= from_micros)
            .max_by_key(key);
        before.or_else(|| self.bases(backups).min_by_key(key))
    }
}

impl Survey {
    /// The way to a timeline, oldest first: where each was entered and left. `None` when its history is not readable here.
    fn way_to(&self, timeline: u32) -> Option<Vec<(u32, u64, u64)>> {
        let none = Vec::new();
        let switches: &Vec<Switch> = match self.ancestors.get(&timeline) {
            Some(known) => known.as_ref()?,
            None => &none,
        };
        let mut way = Vec::new();
        let mut entered = 0;
        for switch in switches {
            way.push((switch.timeline, entered, switch.lsn));
            entered = switch.lsn;
        }
        way.push((timeline, entered, u64::MAX));
        Some(way)
    }

    /// Those that end on this timeline; `None` when nobody can tell here how it came about.
    pub(super) fn stretches_of(&self, timeline: u32) -> Option<Vec<Stretch>> {
        let (mut ended, mut carried) = (Vec::new(), None);
        for (on, entered, left) in self.way_to(timeline)? {
            carried = self.follow(on, (entered, left), carried, &mut ended);
        }
        ended.extend(carried);
        ended.retain(|stretch| stretch.timeline() == timeline);
        Some(ended)
    }

    /// Adds what ends on this timeline to `ended`, and returns the stretch that reaches the point where it was left.
    fn follow(
        &self,
        timeline: u32,
        (entered, left): (u64, u64),
        mut carried: Option<Stretch>,
        ended: &mut Vec<Stretch>,
    ) -> Option<Stretch> {
        let mut goes_on = None;
        let wal = self.inventory.timelines.get(&timeline);
        for interval in wal.into_iter().flat_map(|wal| &wal.intervals) {
            let to = interval.end.min(left);
            if to < entered || interval.start > left {
                continue;
            }
            let joins = interval.start <= entered && entered <= to;
            let mut stretch = carried.take_if(|_| joins).unwrap_or(Stretch {
                links: Vec::new(),
                end_micros: 0,
            });
            stretch.links.push(Link {
                timeline,
                wal_from: interval.start,
                entered,
                to,
            });
            stretch.end_micros = interval.end_time_micros;
            if to == left {
                goes_on = Some(stretch);
            } else {
                ended.push(stretch);
            }
        }
        ended.extend(carried);
        goes_on
    }
}
