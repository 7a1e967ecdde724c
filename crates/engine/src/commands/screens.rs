//! What the tests of screens show: one day, one cluster, its backups. Nothing here follows from the day of the run.

use repository::backup::{BackupKind, BackupState, BackupSummary};
use terminal::COLUMNS;

/// The moment at which every screen is looked at.
pub(crate) const NOW: &str = "2026-04-01T10:31:00Z";

pub(crate) fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// A time of that day, such as `01:30`.
pub(crate) fn at(time: &str) -> i64 {
    micros(&format!("{}T{time}:00Z", &NOW[..10]))
}

fn backup(id: &str, kind: BackupKind, started: &str, finished: &str) -> BackupSummary {
    BackupSummary {
        id: id.to_owned(),
        kind,
        state: BackupState::Complete,
        parent: None,
        label: "bre".to_owned(),
        system_identifier: 7_400_000_000_000_000_001,
        timeline: 1,
        start_lsn: 0x300_0028,
        stop_lsn: 0x300_0158,
        pg_version: 170_000,
        wal_segment_bytes: 16 << 20,
        started_at_micros: at(started),
        finished_at_micros: at(finished),
        bytes_source: 1_234_567_890,
        bytes_stored: 234_567_890,
        bytes_reused: 0,
        bytes_resumed: 0,
        files: 1_312,
        damaged_pages: 0,
        restored_and_proved_at_micros: None,
        proof_failed_at_micros: None,
    }
}

/// One of every sort that a list can hold.
pub(crate) fn backups() -> Vec<BackupSummary> {
    let full = BackupSummary {
        restored_and_proved_at_micros: Some(at("01:40")),
        ..backup(
            "20260401T013000Z-0a1b2c3d",
            BackupKind::Full,
            "01:30",
            "01:34",
        )
    };
    let incremental = BackupSummary {
        parent: Some(full.id.clone()),
        bytes_stored: 4_567_890,
        bytes_reused: 1_200_000_000,
        proof_failed_at_micros: Some(at("09:10")),
        damaged_pages: 2,
        ..backup(
            "20260401T090000Z-4e5f6071",
            BackupKind::Incremental,
            "09:00",
            "09:01",
        )
    };
    let waiting = BackupSummary {
        state: BackupState::Waiting,
        parent: Some(incremental.id.clone()),
        ..backup(
            "20260401T100000Z-8293a4b5",
            BackupKind::Incremental,
            "10:00",
            "10:01",
        )
    };
    vec![full, incremental, waiting]
}

/// What every screen is held to: no line is longer than the screen (unless it is one word), and nothing is there for
/// machines or debuggers.
pub(crate) fn readable(text: String) -> String {
    for line in text.lines() {
        let columns = line.chars().count();
        let is_word = line.split_whitespace().count() == 1;
        assert!(columns <= COLUMNS || is_word, "{columns} columns: {line}");
        assert_eq!(line, line.trim_end(), "blanks at the end: {line:?}");
    }
    for mark in ["{\"", "Some(", "None", "\u{1b}", "T10:", ".000000"] {
        assert!(
            !text.contains(mark),
            "{mark:?} is for nobody who reads:\n{text}"
        );
    }
    text
}
