//! What can be restored, as `bre status` shows it: a set of intervals per timeline, with the holes between them.

use postgres_physical::lsn::Lsn;
use recovery::database::{Gap, Span, windows};
use repository::{Repository, backup::BackupSummary, keys::RecipientPrivate, wal::Inventory};
use serde::Serialize;
use terminal::{moment, moment_from, time};

use crate::error::Error;

#[derive(Debug, Serialize)]
pub(crate) struct Window {
    /// Name this one to restore along it.
    pub(super) timeline: u32,
    /// Where the first backup in this stretch is consistent; it may lie on an ancestor of the timeline.
    pub(super) from_timeline: u32,
    pub(super) from_lsn: String,
    pub(super) from_time: String,
    pub(super) to_lsn: String,
    /// The last moment at which the server confirmed that the repository had everything.
    pub(super) to_time: Option<String>,
    /// The same two for people.
    #[serde(skip)]
    pub(super) from_micros: i64,
    #[serde(skip)]
    pub(super) to_micros: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Hole {
    pub(super) timeline: u32,
    pub(super) from_lsn: String,
    pub(super) to_lsn: String,
    pub(super) reason: String,
}

#[derive(Debug, Default)]
pub(crate) struct Windows {
    pub(crate) window: Vec<Window>,
    pub(crate) holes: Vec<Hole>,
    pub(crate) alarms: Vec<String>,
}

/// Exact, over all timelines. Opens the newest WAL and the histories, which takes the private key.
pub(crate) fn proven(
    repository: &Repository,
    private: &RecipientPrivate,
) -> Result<Windows, Error> {
    let found = windows(repository, private)?;
    let spans = found.timelines.iter();
    let spans = spans.flat_map(|it| it.spans.iter().map(|span| Window::of(it.timeline, span)));
    Ok(Windows {
        window: spans.collect(),
        holes: found.gaps.iter().map(Hole::from).collect(),
        alarms: found
            .unreachable
            .iter()
            .map(|(timeline, why)| format!("WAL of timeline {timeline} cannot be restored: {why}"))
            .collect(),
    })
}

/// From names and clear headers, on a host that cannot read: each timeline by itself.
pub(crate) fn claimed(inventory: &Inventory, complete: &[&BackupSummary]) -> Windows {
    let mut windows = Windows::default();
    for (timeline, wal) in &inventory.timelines {
        for interval in &wal.intervals {
            let reaches = |stop: u64| (interval.start..=interval.end).contains(&stop);
            let first = complete
                .iter()
                .find(|backup| backup.timeline == *timeline && reaches(backup.stop_lsn));
            let Some(first) = first else { continue };
            windows.window.push(Window {
                timeline: *timeline,
                from_timeline: *timeline,
                from_lsn: Lsn(first.stop_lsn).to_string(),
                from_time: time(first.finished_at_micros),
                to_lsn: Lsn(interval.end).to_string(),
                to_time: known(interval.end_time_micros).map(time),
                from_micros: first.finished_at_micros,
                to_micros: known(interval.end_time_micros),
            });
        }
        windows.holes.extend(wal.holes.iter().map(|hole| Hole {
            timeline: *timeline,
            from_lsn: Lsn(hole.start).to_string(),
            to_lsn: Lsn(hole.end).to_string(),
            reason: hole.reason.clone(),
        }));
    }
    windows
}

fn known(micros: i64) -> Option<i64> {
    Some(micros).filter(|micros| *micros > 0)
}

impl Window {
    fn of(timeline: u32, span: &Span) -> Self {
        Self {
            timeline,
            from_timeline: span.links.first().map_or(timeline, |link| link.timeline),
            from_lsn: Lsn(span.from_lsn()).to_string(),
            from_time: time(span.from_micros),
            to_lsn: Lsn(span.to_lsn()).to_string(),
            to_time: known(span.to_micros).map(time),
            from_micros: span.from_micros,
            to_micros: known(span.to_micros),
        }
    }

    /// Both ends as they can be asked for: the first second rounded up, the last one down.
    pub(super) fn words(&self) -> String {
        let begun = if self.from_timeline == self.timeline {
            String::new()
        } else {
            format!(" on timeline {}", self.from_timeline)
        };
        let end = self
            .to_micros
            .map_or_else(|| "the end of the WAL".to_owned(), moment);
        format!(
            "timeline {}: {} (LSN {}{begun}) to {end} (LSN {})",
            self.timeline,
            moment_from(self.from_micros),
            self.from_lsn,
            self.to_lsn
        )
    }
}

impl From<&Gap> for Hole {
    fn from(gap: &Gap) -> Self {
        let unknown = "no WAL here: it has expired, or its objects are missing";
        Self {
            timeline: gap.timeline,
            from_lsn: Lsn(gap.from).to_string(),
            to_lsn: Lsn(gap.to).to_string(),
            reason: gap.reason.clone().unwrap_or_else(|| unknown.to_owned()),
        }
    }
}

impl Hole {
    pub(super) fn words(&self) -> String {
        format!(
            "timeline {}: LSN {} to {}: {}",
            self.timeline, self.from_lsn, self.to_lsn, self.reason
        )
    }
}
