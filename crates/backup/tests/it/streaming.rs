use crate::gate::{GatedStore, OpenAtEnd};
use crate::{TIMEOUT, Vault, flushed, wait_durable};
use backup::database::{WalStatus, is_strict, set_strict, slot_status};
use backup::stream::Streamer;
use postgres_physical::lsn::{Lsn, segment_name};
use postgres_physical::server::StopMode;
use repository::store::{FaultyStore, MemoryStore, PosixStore};
use std::sync::Arc;
use std::time::Duration;
use testkit::{TestPostgres, eventually};

const MIB: u64 = 1 << 20;

fn small_segments() -> testkit::Builder {
    TestPostgres::builder().wal_segment_bytes(MIB)
}

/// Every byte of the server's own segment files up to `end` is in the repository.
fn same_bytes(postgres: &TestPostgres, vault: &Vault, timeline: u32, end: Lsn) {
    let wal = vault.wal();
    let inventory = wal.inventory().unwrap();
    assert!(inventory.damaged.is_empty(), "{:?}", inventory.damaged);
    let intervals = &inventory.timelines[&timeline].intervals;
    assert_eq!(intervals.len(), 1, "{intervals:?}");
    assert!(intervals[0].end >= end.0, "{intervals:?} {end}");
    let mut compared = 0;
    for number in intervals[0].start / MIB..=(end.0 - 1) / MIB {
        let path = postgres
            .data_dir()
            .join("pg_wal")
            .join(segment_name(timeline, number, MIB));
        let Ok(theirs) = std::fs::read(path) else {
            continue;
        };
        let (from, to) = (number * MIB, ((number + 1) * MIB).min(end.0));
        let ours = wal.bytes(timeline, from, to).unwrap();
        assert!(
            ours == theirs[..(to - from) as usize],
            "segment {number} differs"
        );
        compared += 1;
    }
    assert!(compared > 0);
}

#[test]
fn wal_arrives_as_the_server_wrote_it_and_goes_on_after_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = small_segments().set("wal_keep_size", "1GB").start();
    let vault = Vault::on(Arc::new(PosixStore::new(folder.path())));
    let streamer = vault.attached_stream(&postgres);
    postgres.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 30000) n");
    let end = flushed(&postgres);
    wait_durable(&streamer, end);
    same_bytes(&postgres, &vault, 1, end);
    let slot = slot_status(&postgres.connect_options(), "bre")
        .unwrap()
        .unwrap();
    assert!(
        slot.active && slot.wal_status == WalStatus::Reserved,
        "{slot:?}"
    );
    eventually("the slot lets go of what is durable", || {
        let slot = slot_status(&postgres.connect_options(), "bre")
            .unwrap()
            .unwrap();
        (slot.restart_lsn? >= end).then_some(())
    });

    // The streamer stops while the server goes on.
    streamer.stop();
    postgres.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 10000) n");
    let streamer = vault.attached_stream(&postgres);
    let end = flushed(&postgres);
    wait_durable(&streamer, end);
    same_bytes(&postgres, &vault, 1, end);

    // The server crashes while the streamer goes on.
    postgres.stop(StopMode::Kill);
    let lost = streamer
        .watch()
        .wait_until(TIMEOUT, |state| !state.attached)
        .unwrap();
    assert!(lost.error.is_some(), "{lost:?}");
    postgres.start_again();
    postgres.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 10000) n");
    let end = flushed(&postgres);
    wait_durable(&streamer, end);
    same_bytes(&postgres, &vault, 1, end);
    let state = streamer.state();
    assert!(
        state.attached
            && state.error.is_none()
            && state.attachments >= 2
            && !state.needs_full_backup,
        "{state:?}"
    );

    // A clean stop of the server waits until the repository has the last of it.
    postgres.stop(StopMode::Fast);
    let control = std::fs::read(postgres.data_dir().join("global/pg_control")).unwrap();
    let control = postgres_physical::pg_control::ControlFile::parse(&control).unwrap();
    assert!(
        vault.wal().inventory().unwrap().timelines[&1]
            .end()
            .unwrap()
            > control.checkpoint.0
    );
}

#[test]
fn an_idle_server_confirms_its_position_again_and_again() {
    let postgres = TestPostgres::start();
    let vault = Vault::new();
    let streamer = vault.attached_stream(&postgres);
    let first = streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.confirmed_at_micros.is_some())
        .unwrap();
    let later = first.confirmed_at_micros.unwrap() + 1_500_000;
    streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.confirmed_at_micros.unwrap() > later)
        .unwrap();
    let (confirmed, timeline) = (streamer.state().confirmed_at_micros.unwrap(), 1);
    // A confirmation is written at most once a second: the next one is behind this one.
    eventually("the repository knows of it", || {
        let inventory = vault.wal().inventory().unwrap();
        let interval = inventory.timelines[&timeline].intervals.last().unwrap();
        (interval.end_time_micros >= confirmed).then_some(())
    });
}

#[test]
fn a_strict_commit_returns_only_when_the_repository_holds_it() {
    let postgres = TestPostgres::start();
    let store = Arc::new(GatedStore::default());
    let vault = Vault::on(store.clone());
    let connect = postgres.connect_options();
    let refused = set_strict(&connect, "bre", true).unwrap_err();
    assert!(refused.to_string().contains("not attached"), "{refused}");
    let streamer = vault.attached_stream(&postgres);
    eventually("the stream has caught up", || {
        set_strict(&connect, "bre", true).ok()
    });
    assert!(is_strict(&connect, "bre").unwrap());
    postgres.sql("CREATE TABLE t (n int)");

    let _open = OpenAtEnd(Arc::clone(&store));
    store.set_closed(true);
    let mut client = postgres.client();
    let commit = std::thread::spawn(move || {
        client
            .query("INSERT INTO t VALUES (1)")
            .map(|_| client.take_notices())
    });
    eventually("the commit waits", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        (postgres.value(waiting) == "1").then_some(())
    });
    assert_eq!(
        postgres.value("SELECT count(*) FROM t"),
        "0",
        "not visible before it is acknowledged"
    );
    // The server keeps being answered while the append is stuck.
    let reply = "SELECT extract(epoch FROM reply_time) FROM pg_stat_replication";
    let before: f64 = postgres.value(reply).parse().unwrap();
    eventually("another answer", || {
        (postgres.value(reply).parse::<f64>().unwrap() > before).then_some(())
    });
    assert!(!commit.is_finished());
    let end = flushed(&postgres);
    assert!(streamer.state().durable_lsn < end.0);

    store.set_closed(false);
    assert_eq!(commit.join().unwrap().unwrap(), [], "no warning");
    assert!(streamer.state().durable_lsn > 0);
    assert!(
        vault.wal().inventory().unwrap().timelines[&1]
            .end()
            .unwrap()
            >= end.0,
        "acknowledged, so it is there"
    );
    set_strict(&connect, "bre", false).unwrap();
    assert!(!is_strict(&connect, "bre").unwrap());
    drop(streamer);
    postgres.sql("INSERT INTO t VALUES (2)");
}

#[test]
fn trouble_in_the_repository_keeps_wal_in_postgresql_and_loses_nothing() {
    let postgres = small_segments().start();
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default()), 7));
    let vault = Vault::on(store.clone());
    let streamer = vault.attached_stream(&postgres);
    for fault in [
        FaultyStore::set_full,
        FaultyStore::set_away,
        FaultyStore::set_read_only,
    ] {
        fault(&store, true);
        postgres.sql(
            "CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t SELECT generate_series(1, 20000)",
        );
        let state = streamer
            .watch()
            .wait_until(TIMEOUT, |state| state.error.is_some())
            .unwrap();
        assert!(
            !state.attached && state.detached_at_micros.is_some(),
            "{state:?}"
        );
        let end = flushed(&postgres);
        assert!(streamer.state().durable_lsn < end.0);
        fault(&store, false);
        wait_durable(&streamer, end);
        streamer
            .watch()
            .wait_until(TIMEOUT, |state| state.attached && state.error.is_none())
            .unwrap();
        same_bytes(&postgres, &vault, 1, end);
    }
    store.set_write_fault_percent(30);
    postgres.sql("INSERT INTO t SELECT generate_series(1, 50000)");
    let end = flushed(&postgres);
    wait_durable(&streamer, end);
    store.set_write_fault_percent(0);
    same_bytes(&postgres, &vault, 1, end);
}

#[test]
fn a_lost_slot_leaves_a_recorded_hole_and_a_new_slot() {
    let postgres = small_segments()
        .set("max_slot_wal_keep_size", "2MB")
        .set("wal_keep_size", 0)
        .set("min_wal_size", "2MB")
        .set("max_wal_size", "4MB")
        .start();
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default()), 7));
    let vault = Vault::on(store.clone());
    let streamer = vault.attached_stream(&postgres);
    let before = flushed(&postgres);
    wait_durable(&streamer, before);
    streamer.stop();
    postgres.sql("CREATE TABLE t (text text)");
    eventually("the slot is lost", || {
        postgres.sql("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 5000)");
        postgres.sql("CHECKPOINT");
        let slot = slot_status(&postgres.connect_options(), "bre")
            .unwrap()
            .unwrap();
        (slot.wal_status == WalStatus::Lost).then_some(())
    });
    let streamer = vault.attached_stream(&postgres);
    assert!(streamer.state().needs_full_backup);
    postgres.sql("INSERT INTO t VALUES ('after')");
    wait_durable(&streamer, flushed(&postgres));
    let inventory = vault.wal().inventory().unwrap();
    let wal = &inventory.timelines[&1];
    assert_eq!((wal.intervals.len(), wal.holes.len()), (2, 1), "{wal:?}");
    assert_eq!(
        (wal.holes[0].start, wal.holes[0].end),
        (wal.intervals[0].end, wal.intervals[1].start)
    );
    assert!(wal.holes[0].start >= before.0);
    let slot = slot_status(&postgres.connect_options(), "bre")
        .unwrap()
        .unwrap();
    assert!(
        slot.active && slot.wal_status == WalStatus::Reserved && slot.limit_bytes == Some(2 * MIB),
        "{slot:?}"
    );
    assert!(slot.fill_percent().is_some());
    streamer.watch().full_backup_taken();
    assert!(!streamer.state().needs_full_backup);
}

/// PostgreSQL's checkpointer waits for a sender that it ended, and a sender whose peer does not read cannot end. Then no WAL
/// is ever removed, whatever the limit says.
#[test]
fn a_repository_that_hangs_is_reported_and_holds_up_no_checkpoint() {
    let postgres = small_segments()
        .set("max_slot_wal_keep_size", "2MB")
        .set("wal_keep_size", 0)
        .set("min_wal_size", "2MB")
        .set("max_wal_size", "4MB")
        .start();
    let store = Arc::new(GatedStore::default());
    let vault = Vault::on(store.clone());
    let mut config = vault.config(&postgres);
    config.buffer_bytes_max = 64 << 10;
    config.append_timeout = Duration::from_millis(200);
    let streamer = Streamer::start(config);
    let watch = streamer.watch();
    watch.wait_until(TIMEOUT, |state| state.attached).unwrap();
    wait_durable(&streamer, flushed(&postgres));

    let _open = OpenAtEnd(Arc::clone(&store));
    store.set_closed(true);
    postgres.sql("CREATE TABLE t (text text)");
    eventually("the slot is given up", || {
        postgres.sql("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 20000)");
        postgres.sql("CHECKPOINT");
        let slot = slot_status(&postgres.connect_options(), "bre").unwrap();
        (slot.unwrap().wal_status == WalStatus::Lost).then_some(())
    });
    let state = watch.wait_until(TIMEOUT, |state| state.error.is_some());
    let state = state.unwrap();
    let error = state.error.as_deref().unwrap_or_default();
    assert!(
        !state.attached && error.contains("has not answered"),
        "{state:?}"
    );

    store.set_closed(false);
    let again = watch.wait_until(TIMEOUT, |state| state.attachments >= 2 && state.attached);
    assert!(again.unwrap().needs_full_backup);
    wait_durable(&streamer, flushed(&postgres));
    let inventory = vault.wal().inventory().unwrap();
    assert_eq!(inventory.timelines[&1].holes.len(), 1, "{inventory:?}");
}

#[test]
fn a_hanging_repository_is_reported_although_the_server_went_first() {
    let mut postgres = TestPostgres::start();
    let store = Arc::new(GatedStore::default());
    let vault = Vault::on(store.clone());
    let mut config = vault.config(&postgres);
    config.append_timeout = Duration::from_secs(2);
    let streamer = Streamer::start(config);
    let watch = streamer.watch();
    watch.wait_until(TIMEOUT, |state| state.attached).unwrap();
    wait_durable(&streamer, flushed(&postgres));

    let _open = OpenAtEnd(Arc::clone(&store));
    store.set_closed(true);
    let before = streamer.state().received_lsn;
    postgres.sql("CREATE TABLE t (text text)");
    watch
        .wait_until(TIMEOUT, |state| state.received_lsn > before)
        .unwrap();
    postgres.stop(StopMode::Immediate);
    let state = watch.wait_until(TIMEOUT, |state| state.error.is_some());
    let error = state.unwrap().error.unwrap_or_default();
    assert!(error.contains("has not answered"), "{error}");
}

#[test]
fn trouble_that_passes_is_forgotten_although_the_server_is_idle() {
    let postgres = TestPostgres::start();
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default()), 7));
    let vault = Vault::on(store.clone());
    let streamer = vault.attached_stream(&postgres);
    let watch = streamer.watch();
    for _ in 0..2 {
        store.set_away(true);
        watch
            .wait_until(TIMEOUT, |state| state.error.is_some() && !state.attached)
            .unwrap();
        store.set_away(false);
        let calm = watch.wait_until(TIMEOUT, |state| state.error.is_none() && state.attached);
        assert!(calm.is_some(), "{:?}", streamer.state());
    }
}

#[test]
fn a_promotion_is_followed_onto_the_new_timeline() {
    let mut postgres = small_segments().set("wal_keep_size", "1GB").start();
    let vault = Vault::new();
    let streamer = vault.attached_stream(&postgres);
    postgres.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n");
    wait_durable(&streamer, flushed(&postgres));
    postgres.stop(StopMode::Fast);
    std::fs::write(postgres.data_dir().join("standby.signal"), "").unwrap();
    postgres.start_again();
    streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.attached && state.attachments >= 2)
        .unwrap();
    postgres.sql("SELECT pg_promote(true, 60)");
    postgres.sql("INSERT INTO t SELECT generate_series(1, 20000)");
    let state = streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.timeline == 2)
        .unwrap();
    assert_eq!(state.timeline, 2);
    let end = flushed(&postgres);
    wait_durable(&streamer, end);
    same_bytes(&postgres, &vault, 2, end);
    let theirs = std::fs::read(postgres.data_dir().join("pg_wal/00000002.history")).unwrap();
    assert_eq!(vault.wal().history(2).unwrap().unwrap(), theirs);
    let switch = postgres_physical::timeline::History::parse(std::str::from_utf8(&theirs).unwrap())
        .unwrap()
        .left_at(1)
        .unwrap();
    let inventory = vault.wal().inventory().unwrap();
    assert_eq!(inventory.timelines[&1].end(), Some(switch.0));
    assert_eq!(
        inventory.timelines[&2].intervals[0].start,
        switch.segment_start(MIB).0
    );
}

#[test]
fn another_cluster_and_a_server_that_was_set_back_are_refused() {
    let mut postgres = TestPostgres::start();
    let vault = Vault::new();
    let streamer = vault.attached_stream(&postgres);
    let other = TestPostgres::start();
    let foreign = vault.stream(&other);
    let state = foreign
        .watch()
        .wait_until(TIMEOUT, |state| state.error.is_some())
        .unwrap();
    assert!(
        state
            .error
            .as_ref()
            .unwrap()
            .contains("belongs to the PostgreSQL cluster"),
        "{state:?}"
    );
    drop(foreign);

    // A copy of the folder from before is put in place.
    postgres.stop(StopMode::Fast);
    streamer.stop();
    let (data, old) = (postgres.data_dir(), postgres.root().join("old"));
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&data)
        .arg(&old)
        .status()
        .unwrap();
    assert!(copied.success());
    postgres.start_again();
    let streamer = vault.attached_stream(&postgres);
    postgres.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n");
    wait_durable(&streamer, flushed(&postgres));
    postgres.stop(StopMode::Fast);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&old, &data).unwrap();
    postgres.start_again();
    let state = streamer
        .watch()
        .wait_until(TIMEOUT, |state| {
            state
                .error
                .as_ref()
                .is_some_and(|error| error.contains("set back"))
        })
        .expect("refused");
    assert!(!state.attached);
    streamer.stop();
}
