//! The local source: the same bytes as the protocol source, and what only it can meet.

use crate::full::{take_from, unpack};
use crate::{TIMEOUT, Vault};
use backup::database::{BackupOutcome, DatabaseBackup, SourceChoice, backup};
use backup::{BackupError, Progress};
use postgres_physical::server::{Server, StartOptions, StopMode};
use postgres_physical::wire::ConnectOptions;
use repository::backup::{BackupReader, Entry, EntryKind};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::TestPostgres;

fn take(vault: &Vault, postgres: &TestPostgres) -> BackupOutcome {
    take_from(SourceChoice::Local, vault, postgres, &(), false).unwrap()
}

fn reader(vault: &Vault, id: &str) -> BackupReader {
    BackupReader::open(&vault.repository, &vault.private, id).unwrap()
}

fn entries(vault: &Vault, id: &str) -> BTreeMap<String, Entry> {
    let entries = reader(vault, id).entries().unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.path.clone(), entry))
        .collect()
}

/// Writes the WAL of a backup into an unpacked copy of it.
fn add_wal(vault: &Vault, outcome: &BackupOutcome, copy: &Path) {
    let segment_bytes = 16 << 20;
    for number in outcome.start_lsn / segment_bytes..=(outcome.stop_lsn - 1) / segment_bytes {
        let name = postgres_physical::lsn::segment_name(1, number, segment_bytes);
        let bytes = vault.wal().segment(1, number).unwrap().unwrap();
        std::fs::write(copy.join("pg_wal").join(name), bytes).unwrap();
    }
}

/// Everything that PostgreSQL leaves out of a base backup, and what it keeps; beside another tool's backup that stays open all
/// the time.
#[test]
fn an_idle_cluster_gives_the_same_bytes_as_through_the_protocol() {
    let postgres = TestPostgres::start();
    let space = postgres.root().join("space");
    std::fs::create_dir(&space).unwrap();
    postgres.os_user().own(&space).unwrap();
    postgres.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ));
    postgres.sql("CREATE TABLE s TABLESPACE space AS SELECT n FROM generate_series(1, 1000) n");
    postgres.sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 30) AS x FROM generate_series(1, 20000) n");
    postgres.sql("CREATE UNLOGGED TABLE u AS SELECT n FROM generate_series(1, 1000) n");
    postgres.sql(
        "CREATE UNLOGGED TABLE us TABLESPACE space AS SELECT n FROM generate_series(1, 1000) n",
    );
    postgres.sql("VACUUM");
    // And the first who logs in after it makes a file in the database's folder.
    for database in ["postgres", "template1"] {
        let connect = postgres.connect_options().with_database(database);
        let mut client = postgres_physical::server::sql::Client::connect(&connect).unwrap();
        client.query("SELECT count(*) FROM pg_class").unwrap();
    }
    let mut with_temporary = postgres.client();
    with_temporary
        .query("CREATE TEMPORARY TABLE hidden AS SELECT n FROM generate_series(1, 1000) n")
        .unwrap();
    let data = postgres.data_dir();
    for left_out in [
        "base/pgsql_tmp/pgsql_tmp1.0",
        "global/pg_internal.init.77",
        "pg_stat_tmp/x",
        "backup_label.tmp",
        "current_logfiles",
    ] {
        let path = data.join(left_out);
        let folder = path.parent().unwrap();
        std::fs::create_dir_all(folder).unwrap();
        postgres.os_user().own(folder).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    // A backup reads the catalogue, and the first who reads a row notes in its page that it counts.
    postgres.sql("VACUUM");
    let mut other_tool = postgres.client();
    other_tool
        .query("SELECT pg_backup_start('other', true)")
        .unwrap();

    let vault = Vault::new();
    let _stream = vault.attached_stream(&postgres);
    let protocol = take_from(SourceChoice::Protocol, &vault, &postgres, &(), true).unwrap();
    let local = take_from(SourceChoice::Local, &vault, &postgres, &(), true).unwrap();
    let (by_protocol, by_files) = (entries(&vault, &protocol.id), entries(&vault, &local.id));
    let names = |entries: &BTreeMap<String, Entry>| entries.keys().cloned().collect::<Vec<_>>();
    assert!(names(&by_files) == names(&by_protocol));
    let differing = |same: &dyn Fn(&Entry, &Entry) -> bool| -> Vec<String> {
        let mut paths = names(&by_files);
        paths.retain(|path| !same(&by_files[path], &by_protocol[path]));
        paths
    };
    assert_eq!(
        differing(&|a, b| (a.mode, &a.kind) == (b.mode, &b.kind)),
        ["backup_label", "backup_manifest", "global/pg_control"]
    );
    // Every checkpoint makes some anew.
    let touched = |path: &String| {
        ["base/", "global/", "pg_tblspc/", "pg_xact/"]
            .iter()
            .any(|data| path.starts_with(data))
    };
    let mut younger = differing(&|a, b| a.mtime_micros == b.mtime_micros);
    younger.retain(touched);
    // The second checkpoint may fall into the second of the first.
    younger.retain(|path| path != "global/pg_control");
    assert_eq!(younger, [""; 0]);
    let facts = reader(&vault, &local.id).facts().clone();
    assert_eq!(facts["source"], "local");
    let without_source = |id: &str| {
        let mut facts = reader(&vault, id).facts().clone();
        facts.remove("source");
        facts
    };
    assert_eq!(without_source(&local.id), without_source(&protocol.id));

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    unpack(&vault, &local.id, &copy);
    add_wal(&vault, &local, &copy);
    let verified = std::process::Command::new(postgres.binaries().program("pg_verifybackup"))
        .arg(&copy)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let label = std::fs::read_to_string(copy.join("backup_label")).unwrap();
    assert!(label.contains("LABEL: test\n"), "{label}");
    let other = other_tool
        .query("SELECT labelfile FROM pg_backup_stop(false)")
        .unwrap();
    assert!(other.first().unwrap().contains("LABEL: other\n"));
}

/// Files grow, shrink, appear and vanish while they are read; WAL makes one moment of it.
#[test]
fn a_busy_cluster_is_consistent_after_its_wal() {
    let postgres = TestPostgres::builder()
        .set("full_page_writes", "off")
        .start();
    postgres.sql("CREATE TABLE account AS SELECT n AS id, 100 AS balance, repeat('x', 500) AS filler FROM generate_series(1, 30000) n");
    postgres.sql("ALTER TABLE account ADD PRIMARY KEY (id)");
    let vault = Vault::new();
    let _stream = vault.attached_stream(&postgres);
    let busy = AtomicBool::new(true);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = postgres.client();
            let mut round = 0;
            while busy.load(Ordering::Relaxed) {
                round += 1;
                for sql in [
                    format!(
                        "BEGIN; UPDATE account SET balance = balance - 1 WHERE id % 100 = {0} % 100; \
                         UPDATE account SET balance = balance + 1 WHERE id % 100 = ({0} + 7) % 100; COMMIT",
                        round
                    ),
                    format!("CREATE TABLE come_{round} AS SELECT n FROM generate_series(1, 3000) n"),
                    format!("DROP TABLE IF EXISTS come_{}", round.max(3) - 2),
                    "CHECKPOINT".to_owned(),
                ] {
                    client.query(&sql).unwrap();
                }
            }
        });
        scope.spawn(|| {
            let mut client = postgres.client();
            client.query("CREATE TABLE tide (n int, f text)").unwrap();
            while busy.load(Ordering::Relaxed) {
                for sql in [
                    "INSERT INTO tide SELECT n, repeat('y', 800) FROM generate_series(1, 8000) n",
                    "DELETE FROM tide WHERE n > 100",
                    "VACUUM tide, account",
                    "TRUNCATE tide",
                ] {
                    client.query(sql).unwrap();
                }
            }
        });
        let connect = postgres.connect_options();
        let request = DatabaseBackup {
            source: SourceChoice::Local,
            // Slow enough that all of the above happens meanwhile.
            bytes_per_second_max: Some(15 << 20),
            threads: 3,
            wal_timeout: TIMEOUT,
            ..DatabaseBackup::new(&connect, &vault.repository, &vault.public, &vault.chunk_key)
        };
        let outcome = backup(&request, &());
        busy.store(false, Ordering::Relaxed);
        outcome.unwrap()
    });
    assert_eq!(outcome.damaged, []);

    let copy = postgres.root().join("copy");
    std::fs::create_dir(&copy).unwrap();
    unpack(&vault, &outcome.id, &copy);
    add_wal(&vault, &outcome, &copy);
    start_copy(&postgres, &copy, |client| {
        let mut value = |sql: &str| client.query(sql).unwrap().first().unwrap().to_owned();
        assert_eq!(
            value("SELECT count(*) || ' ' || sum(balance) FROM account"),
            "30000 3000000"
        );
        value(
            "CREATE EXTENSION amcheck; \
             SELECT bt_index_check(oid, true) FROM pg_class WHERE relname = 'account_pkey'",
        );
        assert_eq!(value("SELECT count(*) FROM verify_heapam('account')"), "0");
    });
}

/// Runs PostgreSQL on an unpacked backup.
fn start_copy(
    postgres: &TestPostgres,
    copy: &Path,
    look: impl Fn(&mut postgres_physical::server::sql::Client),
) {
    use std::os::unix::fs::PermissionsExt;
    postgres.os_user().own_tree(copy).unwrap();
    std::fs::set_permissions(copy, std::fs::Permissions::from_mode(0o700)).unwrap();
    let sockets = postgres.root().join("run");
    std::fs::create_dir(&sockets).unwrap();
    postgres.os_user().own(&sockets).unwrap();
    let options = StartOptions::new(&sockets, 5432, postgres.root().join("copy.log"));
    let mut server =
        Server::start(postgres.binaries(), postgres.os_user(), copy, &options).unwrap();
    let connect = ConnectOptions::unix(&sockets, 5432, "postgres", "postgres");
    look(&mut postgres_physical::server::sql::Client::connect(&connect).unwrap());
    server.stop(StopMode::Fast, TIMEOUT).unwrap();
}

#[test]
fn a_lost_session_fails_the_backup_by_name() {
    /// Ends the session once files are being copied.
    struct Terminate<'a>(&'a TestPostgres, AtomicBool);
    impl Progress for Terminate<'_> {
        fn advance(&self, _: u64) {
            if !self.1.swap(true, Ordering::Relaxed) {
                let ended = self.0.value(
                    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity \
                     WHERE application_name = 'bre-backup' AND backend_type = 'client backend'",
                );
                assert_eq!(ended, "t");
            }
        }
    }
    let postgres = TestPostgres::start();
    let vault = Vault::new();
    let progress = Terminate(&postgres, AtomicBool::new(false));
    let error = take_from(SourceChoice::Local, &vault, &postgres, &progress, false).unwrap_err();
    assert!(matches!(error, BackupError::SessionLost(_)), "{error}");
    assert_eq!(vault.repository.store().list("backups/").unwrap(), []);
}

#[test]
fn without_rights_it_says_which_grants_are_missing_and_auto_takes_the_protocol() {
    let postgres = TestPostgres::start();
    postgres.sql("CREATE ROLE plain LOGIN REPLICATION");
    let vault = Vault::new();
    let connect = postgres.connect_options().with_user("plain");
    let request = |source| DatabaseBackup {
        source,
        wal_timeout: std::time::Duration::ZERO,
        ..DatabaseBackup::new(&connect, &vault.repository, &vault.public, &vault.chunk_key)
    };
    let source_of = |id: &str| reader(&vault, id).facts()["source"].clone();
    let error = backup(&request(SourceChoice::Local), &())
        .unwrap_err()
        .to_string();
    let grant = "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO \"plain\"; \
                 GRANT pg_read_all_settings TO \"plain\"";
    assert!(error.contains(grant), "{error}");
    let protocol = backup(&request(SourceChoice::Auto), &()).unwrap();
    assert_eq!(source_of(&protocol.id), "protocol");
    postgres.sql(grant);
    let local = backup(&request(SourceChoice::Auto), &()).unwrap();
    assert_eq!(source_of(&local.id), "local");
    let names = |id: &str| entries(&vault, id).into_keys().collect::<Vec<_>>();
    assert!(names(&local.id) == names(&protocol.id));
}

#[test]
fn a_cluster_that_pg_upgrade_made_is_refused() {
    let (before, after) = (TestPostgres::start(), TestPostgres::start());
    let vault = Vault::new();
    take(&vault, &before);
    for source in crate::full::SOURCES {
        let error = take_from(source, &vault, &after, &(), false).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(
                error,
                BackupError::Repository(repository::Error::ForeignCluster { .. })
            ),
            "{text}"
        );
        assert!(text.contains("repository of its own"), "{text}");
    }
}

#[test]
fn what_is_no_file_is_named() {
    let postgres = TestPostgres::start();
    let data = postgres.data_dir();
    let _socket = std::os::unix::net::UnixListener::bind(data.join("door")).unwrap();
    std::os::unix::fs::symlink("/nowhere", data.join("log")).unwrap();
    let vault = Vault::new();
    let outcome = take(&vault, &postgres);
    assert_eq!(reader(&vault, &outcome.id).facts()["skipped"], "door, log");
    let elsewhere = postgres.root().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, data.join("base/99999")).unwrap();
    let error = take_from(SourceChoice::Local, &vault, &postgres, &(), false).unwrap_err();
    assert!(
        error.to_string().contains("base/99999 is a symbolic link"),
        "{error}"
    );
}

/// As Debian does it.
#[test]
fn settings_outside_the_data_folder_are_in_the_backup() {
    let etc = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        etc.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let write = |name: &str, text: &str| {
        let path = etc.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "main/hosts.conf",
        "local all all trust\nlocal replication all trust\n",
    );
    write("main/pg_ident.conf", "");
    write("main/start.conf", "auto\n");
    write("main/conf.d/10.conf", "work_mem = '5MB'\n");
    write("main/conf.d/no", "work_mem = '6MB'\n");
    write("shared.conf", "maintenance_work_mem = '33MB'\n");
    let main = etc.path().join("main");
    write(
        "main/postgresql.conf",
        &format!(
            "hba_file = '{0}/hosts.conf'\nident_file = '{0}/pg_ident.conf'\ninclude_dir = 'conf.d'\ninclude '../shared.conf'\n",
            main.display()
        ),
    );
    let postgres = TestPostgres::builder()
        .set("config_file", main.join("postgresql.conf").display())
        .start();
    assert_eq!(postgres.value("SHOW maintenance_work_mem"), "33MB");
    let vault = Vault::new();
    let outcome = take(&vault, &postgres);
    let all = entries(&vault, &outcome.id);
    let shared = format!("other{}/shared.conf", etc.path().display());
    let kept: Vec<_> = all
        .values()
        .filter(|entry| matches!(entry.kind, EntryKind::File { .. }))
        .filter_map(|entry| entry.path.strip_prefix("bre_configuration/"))
        .collect();
    assert_eq!(
        kept,
        [
            "conf.d/10.conf",
            shared.as_str(),
            "pg_hba.conf",
            "pg_ident.conf",
            "postgresql.conf",
            "start.conf",
        ]
    );
    let reader = reader(&vault, &outcome.id);
    let shared = &all[&format!("bre_configuration/{shared}")];
    assert_eq!(
        reader.read_file(shared).unwrap(),
        b"maintenance_work_mem = '33MB'\n"
    );
    assert_eq!(
        reader.facts()["configuration.config_file"],
        main.join("postgresql.conf").display().to_string()
    );
}
