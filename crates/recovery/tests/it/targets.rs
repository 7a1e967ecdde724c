use super::*;
use recovery::Error;
use recovery::database::{export, named_points, window};

const COUNT: &str = "SELECT count(*) FROM t";

fn insert(connect: &ConnectOptions, rows: u32) {
    value(
        connect,
        &format!(
            "INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, {rows}) n"
        ),
    );
}

fn now_micros(connect: &ConnectOptions) -> i64 {
    value(
        connect,
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    )
    .parse()
    .unwrap()
}

fn position(connect: &ConnectOptions) -> u64 {
    lsn(&value(connect, "SELECT pg_current_wal_insert_lsn()"))
}

pub(super) fn pg_amcheck(world: &World, cluster: &RestoredServer) {
    value(&cluster.connect, "CREATE EXTENSION IF NOT EXISTS amcheck");
    let sockets = match &cluster.connect.addresses[0].host {
        postgres_physical::wire::Host::Unix(folder) => folder.to_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    world.postgres.run(
        "pg_amcheck",
        &[
            "-h",
            &sockets,
            "-U",
            "postgres",
            "--heapallindexed",
            "postgres",
        ],
    );
}

/// One story: a life of a cluster, every kind of target, a second life on a new timeline, and back before it.
#[test]
fn everything_comes_back() {
    let mut world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    value(&source, "CREATE TABLE t (n int, filler text)");
    let space = world.postgres.root().join("space");
    std::fs::create_dir(&space).unwrap();
    world.postgres.os_user().own(&space).unwrap();
    value(
        &source,
        &format!("CREATE TABLESPACE far LOCATION '{}'", space.display()),
    );
    value(
        &source,
        "CREATE TABLE far (n int PRIMARY KEY) TABLESPACE far",
    );
    value(&source, "INSERT INTO far SELECT generate_series(1, 1000)");
    value(
        &source,
        "ALTER SYSTEM SET primary_conninfo = 'host=production'",
    );
    insert(&source, 100);
    let before_backup = now_micros(&source);
    let backup = world.backup(&source);

    let xid = value(
        &source,
        "WITH i AS (INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 2000) n) SELECT pg_current_xact_id()",
    );
    let xid: u32 = xid.parse().unwrap();
    value(&source, "SELECT pg_create_restore_point('before the rest')");
    let (first_lsn, first_time) = (position(&source), now_micros(&source));
    insert(&source, 4000);
    points_and_transactions(&source);
    let second_time = now_micros(&source);
    wait_durable(&streamer, &source);
    // Nothing is committed any more, and the stream says so.
    let idle = world_confirmed_after(&world, second_time + 1_000_000);
    streamer.stop();
    value(
        &source,
        "ALTER SYSTEM SET synchronous_standby_names = 'bre'",
    );
    world
        .postgres
        .stop(postgres_physical::server::StopMode::Kill);
    std::fs::remove_dir_all(world.postgres.data_dir()).unwrap();

    // Everything.
    let latest = world
        .restore_and_replay(Target::latest(), "latest")
        .unwrap();
    assert_eq!((latest.timeline, latest.parent_timeline), (2, 1));
    let cluster = world.start("latest");
    let second_stream = world.stream(cluster.connect.clone());
    assert_eq!(cluster.value(COUNT), "6100");
    assert_eq!(cluster.value("SELECT sum(n) FROM far"), "500500");
    assert_eq!(cluster.value("SHOW primary_conninfo"), "");
    assert_eq!(
        cluster.value("SELECT timeline_id FROM pg_control_checkpoint()"),
        "2"
    );
    insert(&cluster.connect, 1);
    pg_amcheck(&world, &cluster);
    for trace in [
        "recovery.signal",
        "backup_label",
        "backup_label.old",
        "tablespace_map.old",
    ] {
        assert!(!world.folder("latest").join(trace).exists(), "{trace}");
    }

    // A place, a moment, and a moment after the last commit.
    for (name, target, rows) in [
        ("lsn", Target::lsn(first_lsn), "2100"),
        ("time", Target::time(first_time), "2100"),
        ("idle", Target::time(idle), "6100"),
        ("end", Target::lsn(backup.stop_lsn), "100"),
        ("name", Target::name("before the rest"), "2100"),
        ("xid", Target::xid(xid), "2100"),
    ] {
        let recovered = world.restore_and_replay(target, name).unwrap();
        assert!(recovered.timeline > 2, "{name}: {recovered:?}");
        assert_eq!(world.start(name).value(COUNT), rows, "{name}");
    }

    outside_the_window(&world, before_backup, idle);
    unknown_points_and_transactions(&world);
    tablespaces_go_where_told(&world, space.to_str().unwrap());
    exported_copies_verify(&world, &backup.id);
    second_life(&world, &cluster, second_stream, first_time);
}

/// A point that is there twice, a transaction that was prepared, and one with a subtransaction; each on record in a
/// table.
fn points_and_transactions(source: &ConnectOptions) {
    value(source, "SELECT pg_create_restore_point('twice')");
    value(source, "SELECT pg_create_restore_point('twice')");
    value(
        source,
        "CREATE TABLE ends (kind text, xid text, before pg_lsn, after pg_lsn)",
    );
    let mut client = Client::connect(source).unwrap();
    let mut run = |sql: &str| {
        client
            .query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    let note = |kind: &str| {
        format!(
            "INSERT INTO ends VALUES ('{kind}', pg_current_xact_id(), pg_current_wal_insert_lsn())"
        )
    };
    let done = "UPDATE ends SET after = pg_current_wal_insert_lsn() WHERE after IS NULL";
    run("BEGIN");
    run(&note("prepared"));
    run("PREPARE TRANSACTION 'p'");
    run("SELECT pg_switch_wal()");
    run("COMMIT PREPARED 'p'");
    run(done);
    run("BEGIN");
    run("SAVEPOINT s");
    run("CREATE TABLE made_inside ()");
    run(&note("whole"));
    run("INSERT INTO ends SELECT 'part', xmin, before FROM ends WHERE kind = 'whole'");
    run("COMMIT");
    run(done);
}

/// Found in the WAL by the same reader, and refused with what there is.
fn unknown_points_and_transactions(world: &World) {
    let on_first = |target: Target| world.plan(target.on_timeline(1));
    let cluster = world.start("idle");
    let ends =
        cluster.value("SELECT string_agg(concat_ws(' ', xid, before, after), ',') FROM ends");
    let ends: Vec<&str> = ends.split(',').collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    for end in ends {
        let fields: Vec<&str> = end.split(' ').collect();
        let stop = on_first(Target::xid(fields[0].parse().unwrap()))
            .unwrap()
            .stop;
        assert!(
            lsn(fields[1]) < stop.lsn && stop.lsn < lsn(fields[2]) && stop.inclusive,
            "{end}: {stop:?}"
        );
    }
    let points = named_points(&world.repository, &world.private, Some(1), &()).unwrap();
    let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    assert_eq!(names, ["before the rest", "twice", "twice"]);
    let error = on_first(Target::name("twice")).unwrap_err();
    assert!(
        matches!(&error, Error::Ambiguous { found, .. } if points[1..].iter().all(|point| found.contains(&Lsn(point.lsn).to_string()))),
        "{error}"
    );
    let spans = window(&world.repository, &world.private, Some(1)).unwrap();
    for unknown in [Target::name("nobody made it"), Target::xid(4_000_000)] {
        let error = on_first(unknown).unwrap_err();
        let bound = Lsn(spans[0].to_lsn()).to_string();
        assert!(
            matches!(&error, Error::NoSuchPoint { window, .. } if window.contains(&bound)),
            "{error}"
        );
    }
}

fn tablespaces_go_where_told(world: &World, old: &str) {
    let plan = world.plan(Target::latest().on_timeline(1)).unwrap();
    let (to, new) = (world.folder("mapped"), world.folder("mapped.space"));
    let restore_with = |given: &str| {
        let mut options = RestoreOptions::new(world.postgres.os_user().clone());
        options.locations.insert(given.to_owned(), new.clone());
        restore(&world.repository, &world.private, &plan, &to, &options, &())
    };
    let error = restore_with("/nowhere").unwrap_err();
    assert!(
        matches!(&error, Error::NoSuchTablespace { known, .. } if known.contains(old)),
        "{error}"
    );
    assert!(!to.exists() && !new.exists());
    restore_with(old).unwrap();
    let link = std::fs::read_dir(to.join("pg_tblspc"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(std::fs::read_link(link.path()).unwrap(), new);
    assert!(
        std::fs::read_dir(&new).unwrap().count() == 1,
        "its files are there"
    );
}

/// A server time after `micros` that the stream confirmed.
fn world_confirmed_after(world: &World, micros: i64) -> i64 {
    testkit::eventually("the stream confirms an idle moment", || {
        let inventory = repository::wal::wal_inventory(&world.repository).unwrap();
        let confirmed = inventory.timelines[&1]
            .intervals
            .last()
            .unwrap()
            .end_time_micros;
        (confirmed > micros).then_some(confirmed)
    })
}

fn outside_the_window(world: &World, before_backup: i64, idle: i64) {
    let spans = window(&world.repository, &world.private, Some(1)).unwrap();
    assert_eq!(spans.len(), 1);
    let (from, to) = (spans[0].from_micros, spans[0].to_micros);
    assert!(before_backup < from && idle <= to);
    for (at, nearest) in [(before_backup, from), (to + 1, to)] {
        let error = world.plan(Target::time(at).on_timeline(1)).unwrap_err();
        let shown = jiff::Timestamp::from_microsecond(nearest)
            .unwrap()
            .to_string();
        assert!(
            matches!(&error, Error::OutsideWindow { nearest, .. } if nearest.contains(&shown)),
            "{error}"
        );
    }
    let error = world
        .plan(Target::lsn(spans[0].to_lsn() + 1).on_timeline(1))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&Lsn(spans[0].to_lsn()).to_string()),
        "{error}"
    );
}

fn exported_copies_verify(world: &World, id: &str) {
    let to = world.folder("export");
    export(&world.repository, &world.private, id, &to, &()).unwrap();
    let verified = std::process::Command::new(world.postgres.binaries().program("pg_verifybackup"))
        .arg(&to)
        .output();
    let verified = verified.unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let error = export(&world.repository, &world.private, id, &to, &()).unwrap_err();
    assert!(matches!(error, Error::NotEmpty(_)), "{error}");
}

/// The first restored cluster lives on and streams into the same repository; both lives stay reachable.
fn second_life(world: &World, cluster: &RestoredServer, streamer: Streamer, first_time: i64) {
    insert(&cluster.connect, 3000);
    wait_durable(&streamer, &cluster.connect);
    streamer.stop();

    let recovered = world
        .restore_and_replay(Target::latest(), "second")
        .unwrap();
    assert_eq!(recovered.parent_timeline, 2);
    let second = world.start("second");
    assert_eq!(second.value(COUNT), "9101");
    pg_amcheck(world, &second);

    let recovered = world
        .restore_and_replay(Target::time(first_time), "before")
        .unwrap();
    assert_eq!(recovered.parent_timeline, 1);
    assert_eq!(world.start("before").value(COUNT), "2100");
}
