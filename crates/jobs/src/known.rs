//! What the records of one job say to a driver that starts.

use crate::{
    record::{Outcome, RunRecord},
    records::Records,
    schedule::{Covers, Trigger},
};

/// What records say of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobHistory {
    pub any: bool,
    /// The newest that succeeded, not later than now.
    pub started_micros: Option<i64>,
    pub ended_micros: Option<i64>,
    /// The newest appointment that is accounted for, not later than now.
    pub settled_micros: Option<i64>,
    /// Something succeeded later than now: this clock, or that one, was wrong.
    pub later_micros: Option<i64>,
    covered: Vec<Coverage>,
    /// Of runs that came to no end or failed, ascending.
    open: Vec<Covers>,
    /// The schedule of the newest records, not later than now.
    pub(crate) in_force: Option<InForce>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) schedule: String,
    /// A moment from which on it was.
    pub(crate) from_micros: i64,
    /// The start of the newest run that has it.
    pub(crate) newest_micros: i64,
}

/// Appointments of one schedule that are accounted for, not later than now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Coverage {
    from: i64,
    last: i64,
    /// Of its own schedule all appointments until here.
    until: i64,
    schedule: String,
}

impl Coverage {
    /// Until when appointments of this schedule are accounted for by it.
    fn until(&self, schedule: &str) -> i64 {
        match self.schedule.is_empty() || self.schedule == schedule {
            true => self.until,
            false => self.last,
        }
    }
}

impl JobHistory {
    pub fn of<'a>(records: impl Iterator<Item = &'a RunRecord>, now_micros: i64) -> Self {
        let mut known = Self::default();
        for record in records {
            known.any = true;
            if record.started_at_micros <= now_micros && !record.schedule.is_empty() {
                match &mut known.in_force {
                    Some(in_force) if in_force.schedule == record.schedule => {
                        in_force.newest_micros = record.started_at_micros;
                    }
                    in_force => {
                        // Of what was skipped it may be an older one's appointments.
                        let ran = record.covers.filter(|_| record.outcome != Outcome::Skipped);
                        let from =
                            ran.map_or(record.started_at_micros, |covers| covers.first_micros - 1);
                        *in_force = Some(InForce {
                            schedule: record.schedule.clone(),
                            from_micros: from,
                            newest_micros: record.started_at_micros,
                        });
                    }
                }
            }
            if !record.outcome.settles() {
                let is_past = record.started_at_micros <= now_micros;
                known.open.extend(record.covers.filter(|_| is_past));
                continue;
            }
            if record.started_at_micros > now_micros {
                known.later_micros = known.later_micros.max(Some(record.started_at_micros));
                continue;
            }
            let from = record
                .covers
                .map_or(record.started_at_micros, |covers| covers.first_micros);
            let last = record
                .covers
                .map_or(record.started_at_micros, |covers| covers.last_micros);
            known.covered.push(Coverage {
                from,
                last,
                until: match record.outcome {
                    Outcome::Skipped => last,
                    _ => record.started_at_micros,
                },
                schedule: record.schedule.clone(),
            });
            let settled = match record.outcome {
                Outcome::Succeeded | Outcome::Unsound | Outcome::Partial => {
                    Some(record.started_at_micros)
                }
                _ => record.covers.map(|covers| covers.last_micros),
            };
            known.settled_micros = known
                .settled_micros
                .max(settled.filter(|settled| *settled <= now_micros));
            if record.outcome != Outcome::Skipped {
                known.started_micros = known.started_micros.max(Some(record.started_at_micros));
                known.ended_micros = known.ended_micros.max(record.ended_at_micros);
            }
        }
        known
    }

    /// Appointments between those that are accounted for, until the end of the last of these or the end that is given:
    /// of a time in which no driver knew of them.
    pub(crate) fn gaps(
        &self,
        trigger: &Trigger,
        since: Option<i64>,
        end: Option<i64>,
    ) -> Vec<Covers> {
        let schedule = trigger.to_string();
        let mut covered: Vec<(i64, i64)> = (self.covered.iter())
            .map(|covered| (covered.from, covered.until(&schedule)))
            .collect();
        covered.sort_unstable();
        let mut gaps = Vec::new();
        let Some(mut cursor) = since.or(covered.first().map(|(from, _)| *from)) else {
            return gaps;
        };
        let end = end.map(|end| end.saturating_add(1));
        covered.extend(end.map(|end| (end, end)));
        for (from, until) in covered {
            let from = end.map_or(from, |end| from.min(end));
            if from > cursor
                && let Some((appointments, first_micros)) = trigger.appointments(cursor, from - 1)
                && let Some(last_micros) = trigger.last_appointment(from - 1)
            {
                gaps.push(Covers {
                    appointments,
                    first_micros,
                    last_micros,
                });
            }
            cursor = cursor.max(until);
        }
        gaps
    }

    /// What runs were for that came to no end, up to a moment: nothing will be started for it any more.
    pub(crate) fn left_open(&self, until: i64) -> Vec<Covers> {
        let mut covered: Vec<(i64, i64)> = (self.covered.iter())
            .map(|covered| (covered.from, covered.last))
            .collect();
        let mut left: Vec<Covers> = Vec::new();
        // The newest attempt is for what the earlier ones were for, too.
        for open in self.open.iter().rev() {
            let last = open.last_micros;
            let is_covered = |(from, to): &(i64, i64)| *from <= last && last <= *to;
            if last <= until && !covered.iter().any(is_covered) {
                covered.push((open.first_micros, last));
                left.push(*open);
            }
        }
        left
    }

    #[must_use]
    pub fn from_records(records: &Records, job: &str, now_micros: i64) -> Self {
        records.with(job, |all| Self::of(all, now_micros))
    }
}
