use super::*;
use crate::commands::screens::{at, readable};

fn preview() -> Preview {
    Preview {
        dry_run: true,
        dir: "/srv/restored".to_owned(),
        backup_id: "20260401T013000Z-0a1b2c3d".to_owned(),
        backup_of: time(at("01:30")),
        timeline: 1,
        target_lsn: "0/5000148".to_owned(),
        wal_bytes: 34_567_890,
        bytes: 1_234_567_890,
        rooms: vec![ShownRoom {
            folder: "/srv".to_owned(),
            needed_bytes: 1_300_000_000,
            free_bytes: 99_000_000_000,
            needed_inodes: 1_312,
            free_inodes: Some(6_000_000),
        }],
        over: None,
        backup_micros: at("01:30"),
    }
}

#[test]
fn into_an_empty_folder() {
    insta::assert_snapshot!("restore_dry_run", readable(preview().text()));
}

#[test]
fn over_what_is_there() {
    let over = Over {
        files_same: 1_200,
        files_changed: 100,
        files_new: 12,
        bytes_changed: 34_567_890,
        bytes_new: 1_234_567,
        bytes_deleted: 7_654_321,
        delete: (0..23).map(|number| format!("base/5/{number}")).collect(),
        move_aside: vec!["pg_wal/000000010000000000000007".to_owned()],
        stays: Vec::new(),
        aside: Some("/srv/restored.aside".to_owned()),
        notes: vec!["the tablespace 16400 lies on another file system".to_owned()],
    };
    let preview = Preview {
        over: Some(over),
        ..preview()
    };
    insta::assert_snapshot!("restore_delta_dry_run", readable(preview.text()));
}

#[test]
fn restore_points() {
    let point = |name: &str, at_micros| NamedPoint {
        name: name.to_owned(),
        at_micros,
        lsn: 0x500_0148,
        timeline: 1,
    };
    let points = [
        point("before_release", at("08:00")),
        point("odd\u{1b}[31m\nname", at("09:00")),
    ];
    let shown: Vec<RestorePointRow<'_>> = points.iter().map(RestorePointRow::from).collect();
    insta::assert_snapshot!("restore_list_points", readable(points_text(&shown)));
}
