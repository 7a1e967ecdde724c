use postgres_physical::lsn::{Lsn, segment_name};
use postgres_physical::replication::{
    BackupItem, BackupOptions, Connection, Event, SQLSTATE_DUPLICATE, SQLSTATE_WAL_REMOVED,
};
use postgres_physical::server::StopMode;
use postgres_physical::timeline::History;
use std::time::Duration;
use testkit::TestPostgres;

const TIMEOUT: Duration = Duration::from_secs(30);

fn connect(postgres: &TestPostgres) -> Connection {
    Connection::connect(&postgres.connect_options()).unwrap()
}

#[test]
fn identity_settings_and_slots() {
    let postgres = TestPostgres::builder().wal_segment_bytes(1 << 20).start();
    let mut connection = connect(&postgres);
    let identity = connection.identify_system().unwrap();
    let expected = postgres.value("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(
        (identity.system_identifier.to_string(), identity.timeline),
        (expected, 1)
    );
    assert_eq!(connection.wal_segment_bytes().unwrap(), 1 << 20);
    assert!(
        connection
            .server_version()
            .unwrap()
            .starts_with(&postgres.binaries().major().to_string())
    );

    assert_eq!(connection.read_slot("bre").unwrap(), None);
    connection.create_physical_slot("bre").unwrap();
    let again = connection.create_physical_slot("bre").unwrap_err();
    assert_eq!(again.sqlstate(), Some(SQLSTATE_DUPLICATE), "{again}");
    let slot = connection.read_slot("bre").unwrap().unwrap();
    assert!(slot.restart_lsn.unwrap() <= identity.lsn);
    connection.drop_slot("bre", false).unwrap();
    assert_eq!(connection.read_slot("bre").unwrap(), None);
}

/// Reads WAL until `end`, confirming nothing.
fn receive(postgres: &TestPostgres, start: Lsn, end: Lsn) -> Vec<u8> {
    let mut stream = connect(postgres).start_streaming(None, start, 1).unwrap();
    let mut bytes = Vec::new();
    while start.0 + (bytes.len() as u64) < end.0 {
        match stream.next_event(TIMEOUT).unwrap().expect("WAL in time") {
            Event::Wal {
                start: at,
                data,
                server_end,
                sent_at_micros,
            } => {
                assert_eq!(at.0, start.0 + bytes.len() as u64);
                assert!(server_end.0 >= at.0 + data.len() as u64);
                assert!(sent_at_micros > 1_700_000_000_000_000);
                bytes.extend_from_slice(&data);
            }
            Event::KeepAlive { .. } => {}
            Event::EndOfTimeline(end) => panic!("{end:?}"),
        }
    }
    let mut connection = stream.finish().unwrap();
    connection.identify_system().unwrap();
    bytes
}

#[test]
fn streamed_bytes_are_the_servers_own() {
    let postgres = TestPostgres::builder().wal_segment_bytes(1 << 20).start();
    let start: Lsn = postgres
        .value("SELECT pg_current_wal_flush_lsn()")
        .parse()
        .unwrap();
    let start = start.segment_start(1 << 20);
    postgres.sql("CREATE TABLE t AS SELECT n, repeat('x', 200) FROM generate_series(1, 20000) n");
    let end: Lsn = postgres
        .value("SELECT pg_current_wal_flush_lsn()")
        .parse()
        .unwrap();
    let bytes = receive(&postgres, start, end);
    assert!(bytes.len() > 3 << 20);
    for (index, chunk) in bytes.chunks(1 << 20).enumerate() {
        let name = segment_name(1, start.segment_number(1 << 20) + index as u64, 1 << 20);
        let file = std::fs::read(postgres.data_dir().join("pg_wal").join(&name)).unwrap();
        assert!(file.starts_with(chunk), "{name}");
    }
}

#[test]
fn confirmations_from_another_thread_release_a_synchronous_commit() {
    let postgres = TestPostgres::start();
    connect(&postgres).create_physical_slot("bre").unwrap();
    let start: Lsn = postgres
        .value("SELECT pg_current_wal_flush_lsn()")
        .parse()
        .unwrap();
    let connection =
        Connection::connect(&postgres.connect_options().with_application_name("sync")).unwrap();
    let mut stream = connection
        .start_streaming(Some("bre"), start.segment_start(16 << 20), 1)
        .unwrap();
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'sync'");
    postgres.sql("SELECT pg_reload_conf()");
    testkit::eventually("setting is on", || {
        (postgres.value("SHOW synchronous_standby_names") == "sync").then_some(())
    });
    // The checkpointer is who makes commits wait; after this it has read the setting.
    postgres.sql("CHECKPOINT");
    let client = postgres.client();
    let commit = std::thread::spawn(move || {
        let mut client = client;
        client.query("CREATE TABLE t (n int)").map(drop)
    });
    testkit::eventually("the commit waits for us", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        (postgres.value(waiting) == "1").then_some(())
    });
    assert!(!commit.is_finished());
    let sender = stream.status_sender();
    let mut received = Lsn(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            testkit::eventually("commit returned", || {
                match stream.next_event(Duration::from_millis(50)).unwrap() {
                    Some(Event::Wal { start, data, .. }) => {
                        received = Lsn(start.0 + data.len() as u64)
                    }
                    Some(Event::KeepAlive { server_end, .. }) => {
                        received = received.max(server_end)
                    }
                    _ => {}
                }
                let sender = sender.clone();
                std::thread::spawn(move || sender.send(received, received, false))
                    .join()
                    .unwrap()
                    .unwrap();
                commit.is_finished().then_some(())
            });
        });
    });
    commit.join().unwrap().unwrap();
    // A receiver that waits is woken by a disconnect.
    let sender = stream.status_sender();
    let waiter = std::thread::spawn(move || {
        loop {
            match stream.next_event(TIMEOUT) {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    });
    sender.disconnect();
    assert!(waiter.join().unwrap().is_err());
}

#[test]
fn removed_wal_is_an_error_with_its_state() {
    let postgres = TestPostgres::builder()
        .wal_segment_bytes(1 << 20)
        .set("wal_keep_size", 0)
        .start();
    for _ in 0..4 {
        postgres.sql("SELECT pg_switch_wal(), txid_current()");
    }
    postgres.sql("CHECKPOINT");
    let mut stream = connect(&postgres)
        .start_streaming(None, Lsn(1 << 20), 1)
        .unwrap();
    let error = loop {
        match stream.next_event(TIMEOUT) {
            Ok(event) => assert!(event.is_some(), "neither WAL nor an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some(SQLSTATE_WAL_REMOVED), "{error}");
    assert!(
        error.to_string().contains("has already been removed"),
        "{error}"
    );
}

#[test]
fn a_promotion_is_followed_to_the_next_timeline() {
    let mut postgres = TestPostgres::start();
    let start: Lsn = postgres
        .value("SELECT pg_current_wal_flush_lsn()")
        .parse()
        .unwrap();
    // A standby of nobody: it opens read-only and is promoted while we stream from it.
    postgres.stop(StopMode::Fast);
    std::fs::write(postgres.data_dir().join("standby.signal"), "").unwrap();
    postgres.start_again();
    let mut stream = connect(&postgres)
        .start_streaming(None, start.segment_start(16 << 20), 1)
        .unwrap();
    let mut received = Lsn(0);
    let mut promoted = false;
    let end = loop {
        match stream
            .next_event(TIMEOUT)
            .unwrap()
            .expect("an event in time")
        {
            Event::Wal { start, data, .. } => received = Lsn(start.0 + data.len() as u64),
            Event::KeepAlive { .. } => {}
            Event::EndOfTimeline(end) => break end,
        }
        if !promoted {
            postgres.sql("SELECT pg_promote(false)");
            promoted = true;
        }
    };
    assert_eq!((end.next_timeline, end.switch), (2, received));
    let mut connection = stream.into_connection().unwrap();
    let history = History::parse(&connection.timeline_history(2).unwrap()).unwrap();
    assert_eq!(history.left_at(1), Some(end.switch));
    let mut next = connection
        .start_streaming(None, end.switch.segment_start(16 << 20), 2)
        .unwrap();
    assert!(matches!(
        next.next_event(TIMEOUT).unwrap(),
        Some(Event::Wal { .. } | Event::KeepAlive { .. })
    ));
}

#[test]
fn a_base_backup_names_its_wal_and_its_archives() {
    let postgres = TestPostgres::start();
    let location = postgres.root().join("space");
    std::fs::create_dir(&location).unwrap();
    postgres.os_user().own(&location).unwrap();
    postgres.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        location.display()
    ));
    postgres.sql("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 1000) AS n");
    let mut backup = connect(&postgres)
        .base_backup(&BackupOptions::new("it's a test"))
        .unwrap();
    assert_eq!(backup.tablespaces().len(), 2);
    assert!(backup.bytes_expected() > 10 << 20);
    let (mut archives, mut bytes, mut manifest, mut in_manifest, mut progress) =
        (Vec::new(), 0, Vec::new(), false, 0);
    while let Some(item) = backup.next_item().unwrap() {
        match item {
            BackupItem::Archive { name, location } => archives.push((name, location)),
            BackupItem::Manifest => in_manifest = true,
            BackupItem::Data(data) if in_manifest => manifest.extend_from_slice(&data),
            BackupItem::Data(data) => bytes += data.len() as u64,
            BackupItem::Progress(done) => progress = done,
        }
    }
    archives.sort();
    assert_eq!(archives.len(), 2, "{archives:?}");
    assert_eq!(archives[0].1.as_deref(), location.to_str());
    assert_eq!(archives[1], ("base.tar".into(), None));
    let stop = backup.stop().unwrap();
    assert!(stop.lsn > backup.start().lsn && stop.timeline == 1 && backup.start().timeline == 1);
    assert!(bytes > 10 << 20 && progress > 0);
    let text = String::from_utf8(manifest).unwrap();
    assert!(
        text.contains("\"PostgreSQL-Backup-Manifest-Version\"")
            && text.contains(&stop.lsn.to_string())
    );
}
