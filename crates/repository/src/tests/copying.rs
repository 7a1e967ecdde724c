//! A second repository: complete, resumable, by its own rules.

use super::*;
use crate::retention::Rules;

const RULES: Rules = Rules {
    full_micros: i64::MAX / 4,
    incremental_micros: i64::MAX / 4,
    wal_micros: i64::MAX / 4,
    schema_micros: 1,
    snapshot_micros: i64::MAX / 4,
    cache_micros: i64::MAX / 4,
    secrets_micros: i64::MAX / 4,
    grace_micros: 1,
    wal_at_once: false,
};

fn options() -> CopyOptions<'static> {
    CopyOptions {
        backup: None,
        rules: RULES,
        private: None,
        now_micros: 0,
    }
}

/// What the other holds opens with the same key and is the same.
fn check(world: &World, other: &World, id: &str, to: u64) {
    let backup = BackupReader::open(&other.repository, &world.private, id).unwrap();
    let entries = backup.entries().unwrap();
    let file = entries.iter().find(|e| e.path.ends_with("1259")).unwrap();
    assert_eq!(
        backup.read_file(file).unwrap(),
        noise(3 * (1 << 20) + 8192, 1)
    );
    let reader = WalReader::new(&other.repository, &world.private);
    assert_eq!(reader.bytes(1, SEGMENT, to).unwrap(), wal(SEGMENT, to));
    let backups = catalogue(&other.repository).unwrap().backups;
    assert_eq!(backups[0].state, BackupState::Complete);
}

/// On a source that appends the newest tail grows: it stays behind, and so does a head that may stand for it.
#[test]
fn a_copy_restores_and_lags_by_the_open_tail_alone() {
    let (world, other) = (World::new(), World::new());
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 3 * SEGMENT + 100), 1)
        .unwrap();
    let id = world.backup("b1").unwrap();
    let done = copy(&world.repository, &other.repository, &options(), &()).unwrap();
    assert_eq!(done.backups, 1);
    assert_eq!(
        (done.wal_end_lsn, done.wal_end_lsn_source),
        (3 * SEGMENT, 3 * SEGMENT + 100)
    );
    check(&world, &other, &id, 3 * SEGMENT);

    // Half a minute later a new tail is begun; the one before it is copied.
    writer
        .append(
            3 * SEGMENT + 100,
            &wal(3 * SEGMENT + 100, 3 * SEGMENT + 200),
            40_000_001,
        )
        .unwrap();
    let done = copy(&world.repository, &other.repository, &options(), &()).unwrap();
    assert_eq!((done.backups, done.wal_end_lsn), (0, 3 * SEGMENT + 100));
    check(&world, &other, &id, 3 * SEGMENT + 100);

    // The segment is whole: it stands for its tails there too.
    writer
        .append(
            3 * SEGMENT + 200,
            &wal(3 * SEGMENT + 200, 4 * SEGMENT),
            41_000_000,
        )
        .unwrap();
    writer.finish().unwrap();
    let done = copy(&world.repository, &other.repository, &options(), &()).unwrap();
    assert_eq!((done.superseded, done.wal_end_lsn), (1, 4 * SEGMENT));
    assert!(other.names("tail/").is_empty());
    let again = copy(&world.repository, &other.repository, &options(), &()).unwrap();
    assert_eq!((again.objects, again.bytes), (0, 0));
}

/// Stopped at each of its writes in turn: no backup before it is whole, and the next run goes on.
#[test]
fn a_copy_that_is_stopped_at_any_write_goes_on() {
    let world = World::new();
    world.faults.set_without_appender(true);
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT + 100), 1)
        .unwrap();
    let id = world.backup("b1").unwrap();
    let other = World::new();
    let mut stops = 0;
    loop {
        other.faults.crash_at_write(Some(stops % 3));
        let stopped = copy(&world.repository, &other.repository, &options(), &());
        other.faults.crash_at_write(None);
        if stopped.is_ok() {
            break;
        }
        stops += 1;
        for backup in catalogue(&other.repository).unwrap().backups {
            check(&world, &other, &backup.id, 2 * SEGMENT + 100);
        }
    }
    assert!(stops > 4, "{stops}");
    check(&world, &other, &id, 2 * SEGMENT + 100);
}

#[test]
fn damage_is_not_spread_and_another_clusters_repository_is_refused() {
    let (world, other) = (World::new(), World::new());
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT), 1)
        .unwrap();
    writer.finish().unwrap();
    world.backup("b1").unwrap();
    let pack = world.names("packs/").remove(0);
    world.memory.tamper(&pack, |bytes| bytes[5] ^= 1);
    let error = copy(&world.repository, &other.repository, &options(), &()).unwrap_err();
    assert!(error.to_string().contains(&pack), "{error}");
    assert!(other.names("backups/").is_empty());
    assert!(copy(&world.repository, &world.repository, &options(), &()).is_err());

    let foreign = World::new();
    foreign.repository.bind_cluster(1, "another").unwrap();
    let error = copy(&world.repository, &foreign.repository, &options(), &()).unwrap_err();
    assert!(matches!(error, Error::ForeignCluster { .. }), "{error}");
}
