//! PostgreSQL 17 and newer names the pages that changed (`scripts/postgresql-18` installs such a server): every
//! incremental must be what a full backup at the same moment is, page by page, and come up.
//!
//! `SEED=7 ROUNDS=40 cargo nextest run -p recovery named` continues for longer.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use backup::BackupError;
use backup::database::{ChangedPages, SourceChoice};
use postgres_physical::page::RelationFile;
use postgres_physical::server::StopMode;
use repository::{
    Progress,
    backup::{BackupKind, BackupReader, EntryKind},
    store::MemoryStore,
};
use testkit::eventually;

fn world(summarize_wal: &str) -> Option<World> {
    let binaries = testkit::postgres_17_or_newer()?;
    let postgres = TestPostgres::builder()
        .binaries(binaries)
        .set("summarize_wal", summarize_wal);
    Some(World::with(postgres))
}

fn run(connect: &ConnectOptions, script: &str) {
    let mut client = Client::connect(connect).unwrap();
    for sql in script.split(';').map(str::trim) {
        if !sql.is_empty() {
            client
                .value(sql)
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
}

impl World {
    fn incremental(&self, source: SourceChoice, kind: BackupKind) -> BackupOutcome {
        self.try_incremental(source, kind, &()).unwrap()
    }

    fn try_incremental(
        &self,
        source: SourceChoice,
        kind: BackupKind,
        progress: &dyn Progress,
    ) -> backup::Result<BackupOutcome> {
        let cache = self.folder("cache");
        let connect = self.postgres.connect_options();
        let request = DatabaseBackup {
            kind,
            source,
            cache: Some(&cache),
            // Some of these worlds have no stream.
            wal_timeout: Duration::ZERO,
            ..DatabaseBackup::new(
                &connect,
                &self.repository,
                self.private.public(),
                &self.chunk_key,
            )
        };
        backup(&request, progress)
    }

    fn named(&self) -> BackupOutcome {
        let taken = self.incremental(SourceChoice::Protocol, BackupKind::Incremental);
        assert_eq!(taken.changed_pages, ChangedPages::Named, "{taken:?}");
        taken
    }

    fn compared(&self, expected: &str) -> BackupOutcome {
        let taken = self.incremental(SourceChoice::Protocol, BackupKind::Incremental);
        assert_eq!(taken.why_full, None);
        let why = taken.changed_pages.why_not_named().unwrap_or_default();
        assert!(why.contains(expected), "{why:?} instead of {expected:?}");
        taken
    }

    /// Files of relations in a backup.
    fn pages(&self, repository: &Repository, id: &str) -> BTreeMap<String, Vec<u8>> {
        let reader = BackupReader::open(repository, &self.private, id).unwrap();
        let mut files = BTreeMap::new();
        for entry in reader.entries().unwrap() {
            let is_file = matches!(entry.kind, EntryKind::File { .. });
            if is_file && RelationFile::parse(&entry.path).is_some() {
                files.insert(entry.path.clone(), reader.read_file(&entry).unwrap());
            }
        }
        files
    }

    /// The backup against a full one of the same, unchanged cluster.
    fn same_as_full(&self, id: &str) {
        let other = Repository::init(Arc::new(MemoryStore::new())).unwrap();
        let connect = self.postgres.connect_options();
        let request = DatabaseBackup {
            source: SourceChoice::Local,
            wal_timeout: Duration::ZERO,
            ..DatabaseBackup::new(&connect, &other, self.private.public(), &self.chunk_key)
        };
        let full = backup(&request, &()).unwrap();
        let (ours, full) = (
            self.pages(&self.repository, id),
            self.pages(&other, &full.id),
        );
        let names = |files: &BTreeMap<String, Vec<u8>>| {
            let sized = files
                .iter()
                .map(|(path, bytes)| (path.clone(), bytes.len()));
            sized.collect::<Vec<_>>()
        };
        assert_eq!(names(&ours), names(&full));
        for (path, expected) in &full {
            let pages = |bytes: &[u8]| bytes.chunks(8192).map(hash).collect::<Vec<_>>();
            let (found, expected) = (pages(&ours[path]), pages(expected));
            let differ = (0..expected.len()).filter(|at| found[*at] != expected[*at]);
            assert_eq!(differ.collect::<Vec<_>>(), [0; 0], "blocks of {path}");
        }
    }
}

fn hash(page: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    page.hash(&mut hasher);
    hasher.finish()
}

/// Every table of every database by its rows, and by its indexes.
fn contents(connect: &ConnectOptions) -> Vec<String> {
    let mut all = Vec::new();
    let databases =
        "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datallowconn";
    for database in value(connect, databases).split(' ') {
        let connect = connect.clone().with_database(database);
        let tables = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class \
                      WHERE relkind = 'r' AND relpersistence = 'p' AND relnamespace = 'public'::regnamespace";
        for table in value(&connect, tables).split_whitespace() {
            for by in ["enable_indexscan", "enable_seqscan"] {
                let mut client = Client::connect(&connect).unwrap();
                client
                    .query(&format!("SET {by} = off; SET enable_bitmapscan = off"))
                    .unwrap();
                let count = format!(
                    "SELECT count(n) || ' ' || coalesce(sum(n), 0) FROM {table} WHERE n IS NOT NULL"
                );
                let rows = format!(
                    "SELECT md5(string_agg(t::text, ',' ORDER BY n, t::text)) FROM {table} t"
                );
                for sql in [count, rows] {
                    let found = client.value(&sql).unwrap().unwrap_or_default();
                    all.push(format!("{database}.{table} {found}"));
                }
            }
        }
        all.push(format!(
            "{database}: {}",
            value(&connect, "SELECT count(*) FROM pg_class")
        ));
    }
    all
}

/// What only a close look finds: pages' checksums, and visibility maps that say too much.
fn look_closely(world: &World, mut back: RestoredServer, name: &str) {
    let connect = back.connect.clone();
    let databases = value(
        &connect,
        "SELECT string_agg(datname, ' ') FROM pg_database WHERE datallowconn",
    );
    for database in databases.split(' ') {
        let mut client = Client::connect(&connect.clone().with_database(database)).unwrap();
        client.query("VACUUM (DISABLE_PAGE_SKIPPING)").unwrap();
        assert_eq!(client.take_notices(), [], "{database}");
    }
    back._server.stop(StopMode::Fast, TIMEOUT).unwrap();
    let dir = world.folder(name);
    let checksums = world
        .postgres
        .run("pg_controldata", &["-D", dir.to_str().unwrap()]);
    if !checksums.contains("Data page checksum version:           0") {
        world
            .postgres
            .run("pg_checksums", &["--check", "-D", dir.to_str().unwrap()]);
    }
}

/// Numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

const TABLES: u64 = 6;

fn create(table: &str, rows: u64) -> String {
    format!(
        "CREATE TABLE {table} AS SELECT n::bigint, repeat(md5(n::text), 6) AS filler FROM generate_series(1, {rows}) n;
         CREATE INDEX ON {table} (n);"
    )
}

fn number_of(connect: &ConnectOptions, sql: &str) -> u64 {
    value(connect, sql).parse().unwrap()
}

/// Adds rows that fit no page that is there. The table grows by many pages at once, of which the last stay empty: no
/// record of the WAL names them.
fn lengthen(table: &str, from: u64, to: u64) -> String {
    let filler = "y".repeat(190);
    format!("COPY {table} FROM PROGRAM 'seq -f \"%.0f|{filler}\" {from} {to}' (DELIMITER '|')")
}

/// One way in which files change.
fn step(dice: &mut Dice, serial: u64) -> String {
    let (t, k, rows) = (
        format!("t{}", dice.below(TABLES)),
        dice.below(40),
        dice.below(3000),
    );
    match dice.below(17) {
        0 => format!("INSERT INTO {t} SELECT n, 'more' FROM generate_series(1, {rows}) n"),
        1 => format!("UPDATE {t} SET filler = md5(filler) WHERE n % 40 = {k}"),
        2 => format!("VACUUM {t}; DELETE FROM {t} WHERE n % 97 = {k}"),
        3 => format!("DELETE FROM {t} WHERE n > {rows}; VACUUM {t}"),
        4 => format!(
            "DELETE FROM {t} WHERE n > 1500; VACUUM {t}; {}",
            lengthen(&t, 1501, 1501 + rows * 2)
        ),
        5 => format!(
            "TRUNCATE {t}; INSERT INTO {t} SELECT n, 'again' FROM generate_series(1, {rows}) n"
        ),
        6 => format!("DROP TABLE {t}; {}", create(&t, rows)),
        7 => format!("VACUUM FULL {t}"),
        8 => format!("ALTER TABLE {t} SET TABLESPACE space"),
        9 => format!("ALTER TABLE {t} SET TABLESPACE pg_default"),
        10 => format!("REINDEX TABLE {t}"),
        11 => format!("CREATE DATABASE d{serial} TEMPLATE side STRATEGY wal_log"),
        12 => format!("CREATE DATABASE d{serial} TEMPLATE side STRATEGY file_copy"),
        13 => format!(
            "DROP DATABASE IF EXISTS d{}",
            serial.saturating_sub(1 + dice.below(9))
        ),
        14 => format!(
            "ALTER TABLE {t} SET UNLOGGED; ALTER TABLE {t} SET LOGGED; INSERT INTO unlogged SELECT 1"
        ),
        15 => format!(
            "UPDATE {t} SET filler = (SELECT string_agg(md5((i * n)::text), '') FROM generate_series(1, 300) i) WHERE n % 997 = {k}"
        ),
        _ => "SELECT nextval('seq'); CHECKPOINT; VACUUM".to_owned(),
    }
}

/// Cancels once so many bytes were read.
struct Stops(AtomicU64);

impl Progress for Stops {
    fn advance(&self, bytes: u64) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(bytes))
            });
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(otherwise, |text| text.parse().unwrap())
}

/// Anything may happen between two backups.
#[test]
fn each_is_what_a_full_one_would_be() {
    let Some(world) = world("on") else { return };
    let (seed, rounds) = (number("SEED", 1), number("ROUNDS", 4));
    eprintln!("SEED={seed} ROUNDS={rounds}");
    let mut dice = Dice(seed);
    let connect = world.postgres.connect_options();
    let streamer = world.stream(connect.clone());
    let space = world.postgres.root().join("space");
    std::fs::create_dir(&space).unwrap();
    world.postgres.os_user().own(&space).unwrap();
    let mut script = format!(
        "CREATE TABLESPACE space LOCATION '{}'; CREATE SEQUENCE seq; CREATE UNLOGGED TABLE unlogged (n int); CREATE DATABASE side;",
        space.display()
    );
    for table in 0..TABLES {
        script += &create(&format!("t{table}"), 3000);
    }
    run(&connect, &(script + "VACUUM"));
    let side = connect.clone().with_database("side");
    run(&side, &create("inside", 500));
    world.incremental(SourceChoice::Local, BackupKind::Full);
    for round in 0..rounds {
        for _ in 0..1 + dice.below(9) {
            let serial = round * 10 + dice.below(5);
            let script = step(&mut dice, serial);
            eprintln!("{script}");
            let mut client = Client::connect(&connect).unwrap();
            for sql in script.split(';').filter(|sql| !sql.trim().is_empty()) {
                match client.value(sql) {
                    // The same database twice.
                    Err(error) if error.sqlstate() == Some("42P04") => {}
                    other => drop(other.unwrap_or_else(|error| panic!("{sql}: {error}"))),
                }
            }
        }
        if dice.below(2) == 0 {
            let stops = Stops(AtomicU64::new(1 + dice.below(4_000_000)));
            let stopped =
                world.try_incremental(SourceChoice::Protocol, BackupKind::Incremental, &stops);
            assert!(
                matches!(stopped, Err(BackupError::Cancelled)),
                "{stopped:?}"
            );
        }
        settle_catalogues(&connect);
        let taken = world.named();
        assert_eq!(taken.damaged, []);
        world.same_as_full(&taken.id);
        if round + 1 == rounds || round % 10 == 3 {
            let expected = contents(&connect);
            wait_durable(&streamer, &connect);
            let name = format!("back{round}");
            assert_eq!(world.plan(Target::latest()).unwrap().backup.id, taken.id);
            world.restore_and_replay(Target::latest(), &name).unwrap();
            let back = world.start(&name);
            assert_eq!(contents(&back.connect), expected);
            look_closely(&world, back, &name);
        }
    }
}

/// At its end a backup reads catalogues, and their first reader notes in their pages, and in those of their indexes,
/// what counts and what is dead: a page of that kind is in the full backup and not in the named one.
fn settle_catalogues(connect: &ConnectOptions) {
    let listed = postgres_physical::server::databases(&mut Client::connect(connect).unwrap());
    for database in listed.unwrap().iter().filter(|it| it.is_open()) {
        let connect = connect.clone().with_database(&database.name);
        let mut client = Client::connect(&connect).unwrap();
        client
            .query(
                "VACUUM pg_class, pg_attribute, pg_namespace, pg_database, pg_index, pg_type, pg_proc, pg_authid, \
                 pg_auth_members, pg_db_role_setting, pg_tablespace, pg_am, pg_opclass, pg_amop, pg_amproc, \
                 pg_operator, pg_constraint, pg_rewrite, pg_statistic, pg_attrdef, pg_trigger, pg_inherits, \
                 pg_depend, pg_shdepend",
            )
            .unwrap();
        drop(client);
        // A new session reads what each login reads.
        let mut client = Client::connect(&connect).unwrap();
        client
            .query("SELECT count(oid::regclass::text) FROM pg_class")
            .unwrap();
    }
}

/// What the summaries of WAL do not tell; and that hardly anything is read.
#[test]
fn what_the_server_does_not_name() {
    let Some(mut world) = world("on") else { return };
    let connect = world.postgres.connect_options();
    let streamer = world.stream(connect.clone());
    run(
        &connect,
        &format!(
            "{} {} {} VACUUM (FREEZE)",
            create("seen", 20_000),
            create("tail", 20_000),
            create("rotten", 2000)
        ),
    );
    let rotten = value(&connect, "SELECT pg_relation_filepath('rotten')");
    world.postgres.stop(StopMode::Fast);
    let file = world.postgres.data_dir().join(&rotten);
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(b"rot", 5 * 8192 + 4000).unwrap();
    world.postgres.start_again();
    let full = world.incremental(SourceChoice::Protocol, BackupKind::Full);
    assert_eq!(full.damaged.len(), 1);
    assert_eq!(full.changed_pages, ChangedPages::All);

    run(
        &connect,
        "UPDATE seen SET filler = md5(filler) WHERE n % 1000 = 5;
         DELETE FROM tail WHERE n > 9000; VACUUM tail;
         SELECT 1",
    );
    let pages = "SELECT pg_relation_size('tail') / 8192";
    let shortened = number_of(&connect, pages);
    run(&connect, &lengthen("tail", 9001, 12_000));
    let used = "SELECT 1 + max((ctid::text::point)[0]) FROM tail";
    let (used, lengthened) = (number_of(&connect, used), number_of(&connect, pages));
    assert!(
        shortened < used && used < lengthened,
        "{shortened} {used} {lengthened}"
    );
    let first = world.named();
    assert!(first.bytes_read * 4 < full.bytes_read, "{first:?} {full:?}");
    assert_eq!(first.bytes_read.max(full.bytes_source), full.bytes_source);
    assert!(
        first.bytes_source * 10 > full.bytes_source * 5,
        "{first:?} {full:?}"
    );
    // Nothing wrote to it: that it is damaged has to be said all the same.
    assert_eq!(first.damaged, full.damaged);
    world.same_as_full(&first.id);
    let second = world.named();
    assert!(second.bytes_stored < 200_000, "{second:?}");
    world.same_as_full(&second.id);

    run(&connect, "DROP TABLE rotten");
    let third = world.named();
    assert_eq!(third.damaged, []);
    let expected = contents(&connect);
    wait_durable(&streamer, &connect);
    world.restore_and_replay(Target::latest(), "back").unwrap();
    let back = world.start("back");
    assert_eq!(contents(&back.connect), expected);
    look_closely(&world, back, "back");
}

/// The server cannot be asked, or does not know: all pages are read, and the outcome says why.
#[test]
fn otherwise_all_pages_are_compared() {
    let Some(mut world) = world("off") else {
        return;
    };
    let connect = world.postgres.connect_options();
    run(&connect, &create("t", 3000));
    world.incremental(SourceChoice::Protocol, BackupKind::Full);
    let off = world.compared("summarize_wal is off");
    world.same_as_full(&off.id);
    let local = world.incremental(SourceChoice::Local, BackupKind::Incremental);
    assert!(local.changed_pages.why_not_named().is_some());

    world.postgres.stop(StopMode::Fast);
    world.postgres.set("summarize_wal", "on");
    world.postgres.start_again();
    world.incremental(SourceChoice::Protocol, BackupKind::Full);
    world.named();

    // Summaries that are gone, and the WAL that they could be made from again: it stays until it is summarised.
    let before = value(&connect, "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let change = "UPDATE t SET filler = 'changed' WHERE n % 100 = 0; SELECT pg_switch_wal()";
    run(&connect, change);
    eventually("the WAL of that time is gone", || {
        run(&connect, "CHECKPOINT");
        let oldest = "SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";
        (value(&connect, oldest) > before).then_some(())
    });
    world.postgres.stop(StopMode::Fast);
    for summary in std::fs::read_dir(world.postgres.data_dir().join("pg_wal/summaries")).unwrap() {
        std::fs::remove_file(summary.unwrap().path()).unwrap();
    }
    world.postgres.start_again();
    let gone = world.compared("the server refused");
    world.same_as_full(&gone.id);

    for change in ["--disable", "--enable"] {
        world.postgres.stop(StopMode::Fast);
        let folder = world.postgres.data_dir();
        world
            .postgres
            .run("pg_checksums", &[change, "-D", folder.to_str().unwrap()]);
        world.postgres.start_again();
        run(
            &connect,
            "UPDATE t SET filler = 'changed' WHERE n % 100 = 1",
        );
        let changed = world.compared("page checksums were switched");
        world.same_as_full(&changed.id);
        run(
            &connect,
            "UPDATE t SET filler = 'changed' WHERE n % 100 = 2",
        );
        world.named();
    }

    world.postgres.stop(StopMode::Fast);
    std::fs::write(world.postgres.data_dir().join("standby.signal"), "").unwrap();
    world.postgres.start_again();
    run(&connect, "SELECT pg_promote()");
    run(
        &connect,
        "UPDATE t SET filler = 'changed' WHERE n % 100 = 3",
    );
    let promoted = world.compared("on timeline 1, the server is on 2");
    world.same_as_full(&promoted.id);
    run(
        &connect,
        "UPDATE t SET filler = 'changed' WHERE n % 100 = 4",
    );
    let last = world.named();
    world.same_as_full(&last.id);
}
