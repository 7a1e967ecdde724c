//! Odd clusters come back as they were. CI runs the short form; the others are `make slow-odd-clusters`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use backup::database::{BackupOutcome, DatabaseBackup, SourceChoice, backup};
use postgres_physical::server::StopMode;
use postgres_physical::wire::ConnectOptions;
use recovery::database::Target;
use testkit::{TestPostgres, odd};

use crate::{TIMEOUT, World, value, wait_durable};

fn take(world: &World, connect: &ConnectOptions, source: SourceChoice) -> BackupOutcome {
    let request = DatabaseBackup {
        source,
        wal_timeout: TIMEOUT,
        ..DatabaseBackup::new(
            connect,
            &world.repository,
            world.private.public(),
            &world.chunk_key,
        )
    };
    backup(&request, &()).unwrap()
}

const ASKED: [&str; 6] = [
    "SELECT string_agg(format('%s %s %s', datname, datallowconn, datconnlimit), ',' ORDER BY datname) FROM pg_database",
    "SELECT string_agg(format('%s %s %s', c.relname, i.indisvalid, i.indisready), ',' ORDER BY c.relname) FROM pg_index AS i \
     JOIN pg_class AS c ON c.oid = i.indexrelid WHERE NOT i.indisvalid",
    "SELECT string_agg(spcname, ',' ORDER BY spcname) FROM pg_tablespace",
    "SELECT string_agg(gid, ',') FROM pg_prepared_xacts",
    "SELECT sum(hashtext(text)) FROM large",
    "SELECT sum(length(data)) FROM pg_largeobject",
];

fn answers(connect: &ConnectOptions, names: &[&str]) -> Vec<String> {
    let mut answers: Vec<String> = ASKED.iter().map(|sql| value(connect, sql)).collect();
    for name in names {
        let connect = connect.clone().with_database(name);
        answers.push(value(&connect, "SELECT name FROM whose"));
    }
    answers
}

/// Backed up from `source` and restored to the end of its WAL.
fn comes_back(world: &World, source: SourceChoice, names: &[&str], to: &str) {
    let connect = world.postgres.connect_options();
    let streamer = world.stream(connect.clone());
    take(world, &connect, source);
    let before = answers(&connect, names);
    wait_durable(&streamer, &connect);
    drop(streamer);
    world.restore_and_replay(Target::latest(), to).unwrap();
    let restarted = world.start(to);
    assert_eq!(answers(&restarted.connect, names), before);
}

fn make_odd(postgres: &TestPostgres, names: &[&str]) {
    odd::databases_of_every_name(postgres, names);
    odd::half_dropped(postgres, "half dropped");
    odd::closed(postgres, "closed");
    odd::unfinished_indexes(postgres);
    odd::tablespace(postgres, "space's \"name\"");
    odd::large_objects(postgres, 300_000);
    odd::prepared_transaction(postgres, "it's waiting");
    postgres.sql("ALTER SYSTEM SET max_prepared_transactions = 2");
}

#[test]
fn an_odd_cluster_comes_back_as_it_was() {
    let world = World::new();
    let names = &odd::NAMES[..2];
    make_odd(&world.postgres, names);
    odd::settings_of_an_application(&world.postgres, "postgres");
    comes_back(&world, SourceChoice::Local, names, "restored");
}

#[test]
#[ignore = "minutes: make slow-odd-clusters"]
fn clusters_of_every_make_come_back_from_either_source() {
    let wal = tempfile::tempdir().unwrap();
    std::fs::set_permissions(wal.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let wal = format!("--waldir={}", wal.path().join("wal").display());
    let makes: [(&str, &[&str]); 4] = [
        (
            "pg_wal is a link",
            &["--data-checksums", "--locale=C", "--encoding=UTF8", &wal],
        ),
        ("no checksums", &["--locale=C", "--encoding=UTF8"]),
        (
            "ICU",
            &[
                "--data-checksums",
                "--locale=C.UTF-8",
                "--encoding=UTF8",
                "--locale-provider=icu",
                "--icu-locale=de",
            ],
        ),
        (
            "LATIN1",
            &[
                "--data-checksums",
                "--locale=C",
                "--encoding=LATIN1",
                "--allow-group-access",
            ],
        ),
    ];
    for (make, arguments) in makes {
        eprintln!("{make}");
        let world = World::with(TestPostgres::builder().initdb(arguments));
        let names = match make {
            // Its names are bytes of another encoding; those of ASCII are the same everywhere.
            "LATIN1" => &odd::NAMES[..8],
            _ => &odd::NAMES[..],
        };
        make_odd(&world.postgres, names);
        for (source, to) in [
            (SourceChoice::Local, "local"),
            (SourceChoice::Protocol, "protocol"),
        ] {
            comes_back(&world, source, names, to);
        }
    }
}

/// Nothing is written on its primary: the WAL that its backup needs ends where it ends.
#[test]
#[ignore = "minutes: make slow-odd-clusters"]
fn an_idle_standby_is_a_source() {
    let world = World::new();
    world
        .postgres
        .sql("CREATE TABLE kept AS SELECT 7 AS n; CHECKPOINT");
    let (primary, root) = (&world.postgres, world.postgres.root());
    let (data, sockets) = (root.join("standby"), root.join("standby.run"));
    let socket = primary.socket_dir().to_str().unwrap();
    primary.run(
        "pg_basebackup",
        &[
            "-h",
            socket,
            "-U",
            "postgres",
            "-D",
            data.to_str().unwrap(),
            "-R",
            "-c",
            "fast",
        ],
    );
    std::fs::create_dir(&sockets).unwrap();
    primary.os_user().own(&sockets).unwrap();
    let options =
        postgres_physical::server::StartOptions::new(&sockets, 5432, root.join("standby.log"))
            .set("fsync", "off")
            .set("max_prepared_transactions", 2)
            .set("max_wal_senders", 8);
    let mut standby = postgres_physical::server::Server::start(
        primary.binaries(),
        primary.os_user(),
        &data,
        &options,
    )
    .unwrap();
    let connect = ConnectOptions::unix(&sockets, 5432, "postgres", "postgres");
    for (source, to) in [
        (SourceChoice::Protocol, "protocol"),
        (SourceChoice::Local, "local"),
    ] {
        let streamer = world.stream(connect.clone());
        let outcome = take(&world, &connect, source);
        eprintln!("{source:?}: {:?}", outcome.state);
        assert_eq!(outcome.state, repository::backup::BackupState::Complete);
        drop(streamer);
        world.restore_and_replay(Target::latest(), to).unwrap();
        assert_eq!(world.start(to).value("SELECT n FROM kept"), "7");
    }
    standby.stop(StopMode::Fast, TIMEOUT).unwrap();
}

/// Of a disk of its own, as large installations have it.
#[test]
#[ignore = "mounts: make slow-odd-clusters"]
fn a_cluster_whose_wal_is_a_mount_comes_back() {
    let mut world = World::new();
    odd::databases_of_every_name(&world.postgres, &odd::NAMES[..2]);
    odd::large_objects(&world.postgres, 1000);
    world.postgres.stop(StopMode::Fast);
    let (inside, disk) = (
        world.postgres.data_dir().join("pg_wal"),
        world.postgres.root().join("disk"),
    );
    std::fs::rename(&inside, &disk).unwrap();
    std::fs::create_dir(&inside).unwrap();
    let mounted = Command::new("mount")
        .arg("--bind")
        .args([&disk, &inside])
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nothing can be mounted here; run it as root");
        return;
    }
    world.postgres.start_again();
    for (source, to) in [
        (SourceChoice::Local, "local"),
        (SourceChoice::Protocol, "protocol"),
    ] {
        comes_back(&world, source, &odd::NAMES[..2], to);
    }
    world.postgres.stop(StopMode::Fast);
    let unmounted = Command::new("umount").arg(&inside).status().unwrap();
    assert!(unmounted.success());
}
