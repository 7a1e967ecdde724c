//! Incremental backups of a real cluster that does everything a database may do to its files, restored from the last
//! one alone.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use backup::database::SourceChoice;
use postgres_physical::server::StopMode;
use repository::backup::BackupKind;

const TABLES: [&str; 11] = [
    "scattered",
    "shortened",
    "emptied",
    "recreated",
    "rewritten",
    "moved",
    "far",
    "toasted",
    "hinted",
    "fresh",
    "busy",
];

fn run(connect: &ConnectOptions, script: &str) {
    let mut client = Client::connect(connect).unwrap();
    for sql in script
        .split(';')
        .map(str::trim)
        .filter(|sql| !sql.is_empty())
    {
        client
            .value(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

fn contents(connect: &ConnectOptions, table: &str) -> String {
    let sql = format!(
        "SELECT count(*) || md5(string_agg(t::text, ',' ORDER BY n, t::text)) FROM {table} t"
    );
    value(connect, &sql)
}

impl World {
    fn take(
        &self,
        connect: &ConnectOptions,
        kind: BackupKind,
        source: SourceChoice,
    ) -> BackupOutcome {
        let cache = self.folder("cache");
        let request = DatabaseBackup {
            label: "test",
            kind,
            source,
            cache: Some(&cache),
            wal_timeout: TIMEOUT,
            ..DatabaseBackup::new(
                connect,
                &self.repository,
                self.private.public(),
                &self.chunk_key,
            )
        };
        backup(&request, &()).unwrap()
    }
}

fn fill(connect: &ConnectOptions, space: &Path) {
    let filled = |name: &str, rest: &str| {
        format!(
            "CREATE TABLE {name} {rest} AS SELECT n, repeat(md5(n::text), 5) AS filler FROM generate_series(1, 8000) n;"
        )
    };
    let mut script = format!("CREATE TABLESPACE space LOCATION '{}';", space.display());
    for table in &TABLES[..6] {
        script += &filled(table, "");
    }
    script += &filled("far", "TABLESPACE space");
    script += &filled("hinted", "");
    script += &filled("busy", "");
    script += "CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 20000) n;
        CREATE TABLE toasted AS SELECT n, (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 300) i) AS filler
            FROM generate_series(1, 60) n;
        CREATE INDEX ON scattered (n); CREATE INDEX ON scattered (filler); CREATE INDEX ON far (n); CREATE INDEX ON busy (n);
        CREATE DATABASE side; CHECKPOINT";
    run(connect, &script);
}

/// After the full backup: every way in which files change.
fn change(connect: &ConnectOptions, space: &Path) {
    run(
        connect,
        "UPDATE scattered SET filler = md5(filler) WHERE n % 100 = 7;
        DELETE FROM shortened WHERE n > 2000; VACUUM shortened;
        TRUNCATE emptied; INSERT INTO emptied SELECT n, 'again' FROM generate_series(1, 700) n;
        DROP TABLE recreated; CREATE TABLE recreated AS SELECT n, 'other' AS filler FROM generate_series(1, 300) n;
        DELETE FROM rewritten WHERE n % 3 = 0; VACUUM FULL rewritten;
        ALTER TABLE moved SET TABLESPACE space;
        UPDATE far SET filler = 'far' WHERE n < 50; CREATE INDEX ON far (filler);
        UPDATE toasted SET filler = filler || 'x' WHERE n % 2 = 0;
        SELECT count(*) FROM hinted; VACUUM hinted;
        INSERT INTO unlogged SELECT generate_series(1, 30000);
        CREATE TABLE fresh AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n;
        INSERT INTO shortened SELECT n, 'after' FROM generate_series(1, 6000) n;
        DROP DATABASE side; CREATE DATABASE second; CREATE ROLE somebody; CHECKPOINT",
    );
    assert!(space.read_dir().unwrap().next().is_some());
}

/// Writes pages while the backup reads them, until told to stop.
fn disturb(connect: &ConnectOptions, stop: &AtomicBool) -> u64 {
    let mut client = Client::connect(connect).unwrap();
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let sql = format!(
            "UPDATE busy SET filler = md5(filler) WHERE n % 400 = {}",
            rounds % 400
        );
        client.value(&sql).unwrap();
        client.value("CHECKPOINT").unwrap();
        rounds += 1;
    }
    rounds
}

fn story(source: SourceChoice, checksums: bool) {
    let mut world = World::new();
    if !checksums {
        world.postgres.stop(StopMode::Fast);
        let folder = world.postgres.data_dir();
        world.postgres.run(
            "pg_checksums",
            &["--disable", "-D", folder.to_str().unwrap()],
        );
        world.postgres.start_again();
    }
    let connect = world.postgres.connect_options();
    let streamer = world.stream(connect.clone());
    let space = world.postgres.root().join("space");
    std::fs::create_dir(&space).unwrap();
    world.postgres.os_user().own(&space).unwrap();
    fill(&connect, &space);
    let full = world.take(&connect, BackupKind::Full, source);
    assert_eq!((full.kind, full.bytes_reused), (BackupKind::Full, 0));

    change(&connect, &space);
    let stop = AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let busy = scope.spawn(|| disturb(&connect, &stop));
        let first = world.take(&connect, BackupKind::Incremental, source);
        assert_eq!(
            (first.kind, &first.why_full),
            (BackupKind::Incremental, &None)
        );
        assert_eq!(first.parent.as_ref(), Some(&full.id));
        // Without its summaries of WAL (15 and 16 have none) no server is believed.
        assert!(first.changed_pages.why_not_named().is_some(), "{first:?}");
        assert!(first.bytes_read > first.bytes_source / 2, "{first:?}");
        let last = world.take(&connect, BackupKind::Incremental, source);
        assert_eq!(last.parent, Some(first.id));
        stop.store(true, Ordering::Relaxed);
        assert!(busy.join().unwrap() > 0);
        last
    });
    assert_eq!(last.damaged, []);
    assert!(
        last.bytes_stored * 5 < full.bytes_stored,
        "{last:?} {full:?}"
    );
    assert!(last.bytes_reused * 10 > last.bytes_source * 8, "{last:?}");

    // It stands alone: nobody reads the manifests of those before.
    for manifest in world.store.list("backups/").unwrap() {
        if !manifest.name.contains(&last.id) {
            world.store.delete(&manifest.name).unwrap();
        }
    }
    value(&connect, "INSERT INTO fresh VALUES (0, 'after the backup')");
    wait_durable(&streamer, &connect);
    let expected = TABLES.map(|table| contents(&connect, table));
    let plan = world.plan(Target::latest()).unwrap();
    assert_eq!(plan.backup.id, last.id);
    world.restore_and_replay(Target::latest(), "back").unwrap();
    let back = world.start("back");
    for (table, expected) in TABLES.iter().zip(expected) {
        assert_eq!(contents(&back.connect, table), expected, "{table}");
    }
    assert_eq!(back.value("SELECT count(*) FROM unlogged"), "0");
    let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    assert_eq!(back.value(databases), "postgres second template0 template1");
    targets::pg_amcheck(&world, &back);
}

#[test]
fn a_database_that_changed_in_every_way_comes_back_from_its_last_incremental() {
    story(SourceChoice::Protocol, true);
}

#[test]
fn without_checksums_and_from_the_files() {
    story(SourceChoice::Local, false);
}

/// An incremental after nothing: only what a backup itself changes.
#[test]
fn nothing_changed() {
    let world = World::new();
    let connect = world.postgres.connect_options();
    let _streamer = world.stream(connect.clone());
    run(
        &connect,
        "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n; VACUUM FREEZE; CHECKPOINT",
    );
    for source in [SourceChoice::Protocol, SourceChoice::Local] {
        world.take(&connect, BackupKind::Full, source);
        let outcome = world.take(&connect, BackupKind::Incremental, source);
        assert!(outcome.bytes_stored < 100_000, "{outcome:?}");
    }
}
