//! What a merge would do, and what it did, for people and machines.

use std::time::Duration;

use postgres_physical::lsn::Lsn;
use recovery::table::{MergeOutcome, Mode, Preview, Sample, TablePreview};
use serde::Serialize;
use serde_json::Value;
use terminal::{self, time};

use operations::scratch::ScratchCluster;

#[derive(Debug, Serialize)]
pub(super) struct TableRestoreReport {
    dry_run: bool,
    mode: &'static str,
    backup_id: String,
    backup_of: String,
    /// Everything before it was replayed.
    replayed_to: String,
    timeline: u32,
    tables: Vec<TableReport>,
    /// Something was merged and committed.
    merged: bool,
    warnings: Vec<String>,
    millis: u64,
}

#[derive(Debug, Serialize)]
struct TableReport {
    table: String,
    dropped: bool,
    key: Vec<String>,
    rows_then: u64,
    rows_now: u64,
    missing: u64,
    different: u64,
    only_now: Option<u64>,
    changed_columns: Vec<ChangedColumn>,
    missing_sample: Vec<Value>,
    different_sample: Vec<Pair>,
    notes: Vec<String>,
    obstacles: Vec<String>,
    done: Option<TableOutcome>,
}

#[derive(Debug, Serialize)]
struct ChangedColumn {
    column: String,
    rows: u64,
}

#[derive(Debug, Serialize)]
struct Pair {
    then: Value,
    now: Value,
}

/// After the merge, inside its transaction: the same comparison.
#[derive(Debug, Serialize)]
struct TableOutcome {
    recreated: bool,
    inserted: u64,
    updated: u64,
    deleted: u64,
    sequences: Vec<String>,
    missing: u64,
    different: u64,
    only_now: Option<u64>,
}

impl TableRestoreReport {
    pub(super) fn new(
        beside: &ScratchCluster,
        preview: &Preview,
        merged: Option<&MergeOutcome>,
        dry_run: bool,
        took: Duration,
    ) -> Self {
        let tables = preview.tables.iter().map(|table| TableReport {
            done: merged.and_then(|merged| done(merged, &table.table)),
            ..TableReport::from(table)
        });
        Self {
            dry_run,
            mode: preview.mode.name(),
            backup_id: beside.plan.backup.id.clone(),
            backup_of: time(beside.plan.backup.started_at_micros),
            replayed_to: Lsn(beside.recovered.switch_lsn).to_string(),
            timeline: beside.recovered.parent_timeline,
            tables: tables.collect(),
            merged: merged.is_some(),
            warnings: merged
                .map(|merged| merged.warnings.clone())
                .unwrap_or_default(),
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn sentences(&self) -> String {
        let mut text = format!(
            "backup {} of {}, replayed to {} on timeline {}\n",
            self.backup_id, self.backup_of, self.replayed_to, self.timeline
        );
        for table in &self.tables {
            text.push_str(&table.sentences(self.mode));
        }
        for warning in &self.warnings {
            text.push_str(&format!("WARNING at the commit: {warning}\n"));
        }
        text.push_str(match (self.merged, self.dry_run) {
            (true, _) => "merged and committed; the same comparison finds nothing left to do\n",
            (false, true) => "nothing was changed (--dry-run)\n",
            (false, false) if self.tables.iter().any(|table| !table.obstacles.is_empty()) => {
                "NOTHING WAS CHANGED: see what is in the way\n"
            }
            (false, false) => "nothing had to be changed\n",
        });
        text
    }
}

fn done(merged: &MergeOutcome, name: &str) -> Option<TableOutcome> {
    let table = merged.tables.iter().find(|table| table.table == name)?;
    Some(TableOutcome {
        recreated: table.recreated,
        inserted: table.inserted,
        updated: table.updated,
        deleted: table.deleted,
        sequences: table.sequences.clone(),
        missing: table.after.missing,
        different: table.after.different,
        only_now: table.after.only_now,
    })
}

fn json(text: Option<&String>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

impl From<&TablePreview> for TableReport {
    fn from(table: &TablePreview) -> Self {
        let changed = table
            .changed_columns
            .iter()
            .map(|(column, rows)| ChangedColumn {
                column: column.clone(),
                rows: *rows,
            });
        let pair = |sample: &Sample| Pair {
            then: json(sample.backup.as_ref()),
            now: json(sample.now.as_ref()),
        };
        Self {
            table: table.table.clone(),
            dropped: table.dropped,
            key: table.key.clone(),
            rows_then: table.counts.rows_then,
            rows_now: table.counts.rows_now,
            missing: table.counts.missing,
            different: table.counts.different,
            only_now: table.counts.only_now,
            changed_columns: changed.collect(),
            missing_sample: table
                .missing
                .iter()
                .map(|it| json(it.backup.as_ref()))
                .collect(),
            different_sample: table.different.iter().map(pair).collect(),
            notes: table.notes.clone(),
            obstacles: table.obstacles.clone(),
            done: None,
        }
    }
}

/// Before anybody is asked.
pub(super) fn describe(preview: &Preview) -> String {
    let tables = preview.tables.iter();
    tables
        .map(|table| TableReport::from(table).sentences(preview.mode.name()))
        .collect()
}

impl TableReport {
    fn sentences(&self, mode: &str) -> String {
        let mut text = format!(
            "{}: {} rows then, {} now\n  missing now        {:>10}  {}\n",
            self.table,
            self.rows_then,
            self.rows_now,
            self.missing,
            will(true, "put back", self.missing)
        );
        for row in &self.missing_sample {
            text.push_str(&format!("      {}\n", columns(row)));
        }
        let changes = mode != Mode::Missing.name();
        text.push_str(&format!(
            "  different          {:>10}  {}\n",
            self.different,
            will(changes, "get their old content", self.different)
        ));
        for column in &self.changed_columns {
            text.push_str(&format!(
                "      {} in {} rows\n",
                column.column, column.rows
            ));
        }
        for pair in &self.different_sample {
            text.push_str(&format!(
                "      then {}\n      now  {}\n",
                columns(&pair.then),
                columns(&pair.now)
            ));
        }
        if let Some(only_now) = self.only_now {
            let deletes = mode == Mode::Exact.name();
            text.push_str(&format!(
                "  written since      {only_now:>10}  {}\n",
                will(deletes, "DELETED", only_now)
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        for obstacle in &self.obstacles {
            text.push_str(&format!("  IN THE WAY: {obstacle}\n"));
        }
        if let Some(done) = &self.done {
            text.push_str(&format!(
                "  done: {} put back, {} changed back, {} deleted{}\n",
                done.inserted,
                done.updated,
                done.deleted,
                if done.recreated {
                    ", the table made again"
                } else {
                    ""
                }
            ));
            for sequence in &done.sequences {
                text.push_str(&format!("  sequence {sequence}\n"));
            }
        }
        text
    }
}

/// A row as a person reads it: `id=7, name='a'`.
fn columns(row: &Value) -> String {
    let value = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("'{}'", terminal::word(text)),
        Value::Array(_) | Value::Object(_) => format!("'{}'", terminal::word(&value.to_string())),
        other => other.to_string(),
    };
    let Some(columns) = row.as_object() else {
        return value(row);
    };
    let columns = columns
        .iter()
        .map(|(name, it)| format!("{}={}", terminal::word(name), value(it)));
    columns.collect::<Vec<_>>().join(", ")
}

fn will(it: bool, what: &str, count: u64) -> String {
    match (it, count) {
        (_, 0) => String::new(),
        (true, _) => format!("-> {what}"),
        (false, _) => "-> stay as they are now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_read_as_columns_and_cannot_begin_a_line_of_its_own() {
        let row = json!({ "id": 7, "name": "a\nb", "gone": null, "more": { "a": [1] } });
        let text = columns(&row);
        for part in ["id=7", r"name='a\nb'", "gone=NULL"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\n'));
    }
}
