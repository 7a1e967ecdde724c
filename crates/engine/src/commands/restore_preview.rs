//! What a restore will do, before it does it, and the restore points there are.

use std::path::Path;

use postgres_physical::lsn::Lsn;
use recovery::database::{NamedPoint, Plan, Room, Survey};
use serde::Serialize;

use crate::terminal::{self, time};

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

    fn sentences(&self) -> String {
        let mut text = format!(
            "backup {} of {}, {}, then {} of WAL to {} on timeline {}\n",
            self.backup_id,
            self.backup_of,
            indicatif::HumanBytes(self.bytes),
            indicatif::HumanBytes(self.wal_bytes),
            self.target_lsn,
            self.timeline
        );
        match &self.over {
            None => text.push_str(&format!("into the empty folder {}\n", self.dir)),
            Some(over) => over.describe(&self.dir, &mut text),
        }
        for room in &self.rooms {
            text.push_str(&format!(
                "room in {}: {} needed, {} free",
                room.folder,
                indicatif::HumanBytes(room.needed_bytes),
                indicatif::HumanBytes(room.free_bytes)
            ));
            if let Some(free) = room.free_inodes {
                text.push_str(&format!(
                    "; {} inodes needed, {} free",
                    indicatif::HumanCount(room.needed_inodes),
                    indicatif::HumanCount(free)
                ));
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn question(&self) -> String {
        let sentences = self.sentences();
        format!(
            "{sentences}What was committed in that folder after the target is gone from it afterwards."
        )
    }
}

impl Over {
    fn describe(&self, dir: &str, text: &mut String) {
        text.push_str(&format!(
            "over {dir}: {} files are the same; {} differ (up to {} to write), {} are missing ({})\n",
            self.files_same,
            self.files_changed,
            indicatif::HumanBytes(self.bytes_changed),
            self.files_new,
            indicatif::HumanBytes(self.bytes_new)
        ));
        if !self.delete.is_empty() {
            text.push_str(&format!(
                "{} files and folders do not belong to the backup and are deleted ({}):\n",
                self.delete.len(),
                indicatif::HumanBytes(self.bytes_deleted)
            ));
            for path in self.delete.iter().take(LISTED_MAX) {
                text.push_str(&format!("  {path}\n"));
            }
            if self.delete.len() > LISTED_MAX {
                let more = self.delete.len() - LISTED_MAX;
                text.push_str(&format!("  and {more} more; --dry-run --json lists them\n"));
            }
        }
        if let Some(aside) = &self.aside {
            text.push_str(&format!(
                "{} files of WAL and logs are moved to {aside}\n",
                self.move_aside.len()
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
    }
}

pub(crate) fn show(json: bool, preview: &Preview) {
    terminal::result(json, preview, || {
        format!("{}Nothing was changed.", preview.sentences())
    });
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a str,
    time: String,
    lsn: String,
    timeline: u32,
}

pub(crate) fn show_points(json: bool, points: &[NamedPoint]) {
    let shown: Vec<Shown<'_>> = points
        .iter()
        .map(|point| Shown {
            name: &point.name,
            time: time(point.at_micros),
            lsn: Lsn(point.lsn).to_string(),
            timeline: point.timeline,
        })
        .collect();
    terminal::result(json, &shown, || {
        if shown.is_empty() {
            return "there is no restore point in the WAL that can be restored; SELECT pg_create_restore_point('NAME') makes one"
                .to_owned();
        }
        let line = |point: &Shown<'_>| {
            format!(
                "{}  {}  timeline {}  {}\n",
                point.time,
                point.lsn,
                point.timeline,
                terminal::word(point.name)
            )
        };
        shown.iter().map(line).collect()
    });
}
