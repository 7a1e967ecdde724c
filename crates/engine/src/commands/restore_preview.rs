//! What a restore will do, before it does it, and the restore points there are.

use std::path::Path;

use postgres_physical::lsn::Lsn;
use recovery::database::{NamedPoint, Plan, Room, Survey};
use serde::Serialize;
use terminal::{self, KeyValue, Table, count, moment, size, time};

/// A question lists at most so many paths; `--dry-run --json` lists all.
const LISTED_MAX: usize = 20;

#[derive(Debug, Serialize)]
pub(crate) struct Preview {
    dry_run: bool,
    dir: String,
    backup_id: String,
    backup_of: String,
    timeline: u32,
    target_lsn: String,
    wal_bytes: u64,
    bytes: u64,
    rooms: Vec<ShownRoom>,
    over: Option<Over>,
    #[serde(skip)]
    backup_micros: i64,
}

/// Of one file system.
#[derive(Debug, Serialize)]
struct ShownRoom {
    folder: String,
    needed_bytes: u64,
    free_bytes: u64,
    needed_inodes: u64,
    /// Absent where the file system makes them as they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_inodes: Option<u64>,
}

impl From<&Room> for ShownRoom {
    fn from(room: &Room) -> Self {
        Self {
            folder: room.folder.display().to_string(),
            needed_bytes: room.needed,
            free_bytes: room.free,
            needed_inodes: room.inodes_needed,
            free_inodes: room.inodes_free,
        }
    }
}

#[derive(Debug, Serialize)]
struct Over {
    files_same: u64,
    files_changed: u64,
    files_new: u64,
    bytes_changed: u64,
    bytes_new: u64,
    bytes_deleted: u64,
    delete: Vec<String>,
    move_aside: Vec<String>,
    /// What is not ours: other file systems, and what file systems keep for themselves.
    stays: Vec<String>,
    aside: Option<String>,
    notes: Vec<String>,
}

impl Preview {
    pub(crate) fn fresh(plan: &Plan, to: &Path, rooms: &[Room]) -> Self {
        Self {
            dry_run: true,
            dir: to.display().to_string(),
            backup_id: plan.backup.id.clone(),
            backup_of: time(plan.backup.started_at_micros),
            timeline: plan.timeline,
            target_lsn: Lsn(plan.stop.lsn).to_string(),
            wal_bytes: plan.wal_bytes,
            bytes: plan.backup.bytes_source,
            rooms: rooms.iter().map(ShownRoom::from).collect(),
            over: None,
            backup_micros: plan.backup.started_at_micros,
        }
    }

    pub(crate) fn over(plan: &Plan, survey: &Survey) -> Self {
        // What is made anew under the same name counts as written, not as deleted; kept is kept.
        let paths = |kept: bool| {
            let chosen = survey.surplus.iter().filter(move |it| it.kept == kept);
            chosen.map(|it| it.path.display().to_string()).collect()
        };
        let deleted = survey.surplus.iter().filter(|it| !it.kept);
        let over = Over {
            files_same: survey.files_same,
            files_changed: survey.files_changed,
            files_new: survey.files_new,
            bytes_changed: survey.bytes_changed,
            bytes_new: survey.bytes_new,
            bytes_deleted: deleted.map(|it| it.bytes).sum(),
            delete: paths(false),
            move_aside: paths(true),
            stays: survey
                .foreign
                .iter()
                .map(|it| it.path.display().to_string())
                .collect(),
            aside: survey.aside.as_ref().map(|it| it.display().to_string()),
            notes: survey.notes.clone(),
        };
        Self {
            over: Some(over),
            ..Self::fresh(plan, &survey.folder, &survey.rooms)
        }
    }

    fn text(&self) -> String {
        let mut facts = KeyValue::new();
        facts
            .row(
                "backup",
                format!("{}, {}", self.backup_id, size(self.bytes)),
            )
            .row("taken", moment(self.backup_micros))
            .row("then", format!("{} of WAL", size(self.wal_bytes)))
            .row(
                "up to",
                format!("LSN {} on timeline {}", self.target_lsn, self.timeline),
            );
        match &self.over {
            None => {
                facts.row("into", format!("{} (empty or absent)", self.dir));
            }
            Some(over) => over.describe(&self.dir, &mut facts),
        }
        for room in &self.rooms {
            let (needed, free) = (size(room.needed_bytes), size(room.free_bytes));
            let inodes = room.free_inodes.map(|free| {
                let needed = count(room.needed_inodes, "inode");
                format!("; {needed} needed, {} free", indicatif::HumanCount(free))
            });
            facts.row(
                &format!("room in {}", room.folder),
                format!("{needed} needed, {free} free{}", inodes.unwrap_or_default()),
            );
        }
        facts.text()
    }

    pub(crate) fn question(&self) -> String {
        let text = self.text();
        format!(
            "{text}What was committed in that folder after the target is gone from it afterwards."
        )
    }
}

impl Over {
    fn describe(&self, dir: &str, facts: &mut KeyValue) {
        facts
            .row("over", dir)
            .row("same", count(self.files_same, "file"))
            .row(
                "different",
                format!(
                    "{}, up to {} to write",
                    count(self.files_changed, "file"),
                    size(self.bytes_changed)
                ),
            )
            .row(
                "missing there",
                format!(
                    "{}, {} to write",
                    count(self.files_new, "file"),
                    size(self.bytes_new)
                ),
            );
        if !self.delete.is_empty() {
            let deleted = count(self.delete.len() as u64, "path");
            facts
                .row(
                    "DELETED",
                    format!(
                        "{deleted} that do not belong to the backup, {}:",
                        size(self.bytes_deleted)
                    ),
                )
                .rows("", self.delete.iter().take(LISTED_MAX));
            if self.delete.len() > LISTED_MAX {
                let more = self.delete.len() - LISTED_MAX;
                facts.row("", format!("and {more} more; --dry-run --json lists them"));
            }
        }
        if let Some(aside) = &self.aside {
            let moved = count(self.move_aside.len() as u64, "file");
            facts.row(
                "moved aside",
                format!("{moved} of WAL and logs, to {aside}"),
            );
        }
        facts.rows("stays", &self.stays).rows("note", &self.notes);
    }
}

pub(crate) fn show(json: bool, preview: &Preview) {
    terminal::result(json, preview, || {
        format!("{}\nNothing was changed: a dry run.", preview.text())
    });
}

#[derive(Debug, Serialize)]
struct RestorePointRow<'a> {
    name: &'a str,
    time: String,
    lsn: String,
    timeline: u32,
}

pub(crate) fn show_points(json: bool, points: &[NamedPoint]) {
    let shown: Vec<RestorePointRow<'_>> = points.iter().map(RestorePointRow::from).collect();
    terminal::result(json, &shown, || points_text(&shown));
}

impl<'a> From<&'a NamedPoint> for RestorePointRow<'a> {
    fn from(point: &'a NamedPoint) -> Self {
        Self {
            name: &point.name,
            time: time(point.at_micros),
            lsn: Lsn(point.lsn).to_string(),
            timeline: point.timeline,
        }
    }
}

fn points_text(shown: &[RestorePointRow<'_>]) -> String {
    if shown.is_empty() {
        return "there is no restore point in the WAL that can be restored; SELECT \
                pg_create_restore_point('NAME') makes one"
            .to_owned();
    }
    let mut table = Table::new(&["time", "LSN", ">timeline", "name"]);
    for point in shown {
        table.row([
            point.time.clone(),
            point.lsn.clone(),
            point.timeline.to_string(),
            point.name.to_owned(),
        ]);
    }
    table.text()
}

#[cfg(test)]
#[path = "screens/restore_preview.rs"]
mod screens;
