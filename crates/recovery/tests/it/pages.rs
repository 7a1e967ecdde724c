//! Bytes flipped on disk under a running PostgreSQL with checksums: found by name, restored, and nothing else
//! touched.

use std::os::unix::fs::FileExt;

use super::*;
use backup::database::{LivePage, verify_live};
use postgres_physical::page::Fork;
use postgres_physical::server::StopMode;
use recovery::database::plan_sound;
use recovery::pages::{DamagedPage, PageOutcome, Remedy, TableLocks, remedy};

const PAGE: u64 = 8192;

impl World {
    /// One bit, in the middle of a page of the relation's file.
    fn flip(&self, relation: &str, suffix: &str, block: u64) {
        let path = self
            .postgres
            .value(&format!("SELECT pg_relation_filepath('{relation}')"));
        let path = self.postgres.data_dir().join(path + suffix);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        let at = block * PAGE + 4321;
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }

    fn damaged(&self) -> Vec<DamagedPage> {
        let found = verify_live(&self.postgres.connect_options(), &()).unwrap();
        assert!(found.pages > 100, "{found:?}");
        found.damaged.into_iter().map(damaged).collect()
    }

    /// Locks, settles, restores to that place, writes.
    fn repair(&self, streamer: &Streamer, pages: &[DamagedPage], name: &str) -> Vec<PageOutcome> {
        let source = self.postgres.connect_options();
        let pages: Vec<&DamagedPage> = pages.iter().collect();
        let mut held = TableLocks::lock(&source, &self.postgres.data_dir(), &pages).unwrap();
        let place = held.settle(&pages).unwrap();
        wait_durable(streamer, &source);
        let plan = plan_sound(&self.repository, &self.private, Target::lsn(place.0), &()).unwrap();
        let to = self.folder(name);
        let options = RestoreOptions::new(self.postgres.os_user().clone());
        restore(&self.repository, &self.private, &plan, &to, &options, &()).unwrap();
        self.recover(&plan, &to).unwrap();
        let put = pages.iter().map(|page| match remedy(page) {
            Remedy::Page => held.put(page, &to).unwrap(),
            Remedy::Empty => held.empty(page).unwrap(),
            other => panic!("{other:?}"),
        });
        let put = put.collect();
        held.release().unwrap();
        put
    }
}

fn damaged(page: LivePage) -> DamagedPage {
    DamagedPage {
        path: page.path,
        fork: page.fork,
        block: page.block,
        database: page.owner.database,
        relation: page.owner.relation,
        oid: page.owner.oid,
        kind: page.owner.kind,
        table: page.owner.table,
        unknown_because: page.owner.unknown_because,
    }
}

#[test]
fn damaged_pages_are_found_by_name_and_come_back() {
    let mut world = World::new();
    let source = world.postgres.connect_options();
    // Only checkpoints that the test asks for write pages: what it damages stays damaged until it is looked at.
    for setting in ["bgwriter_lru_maxpages = 0", "checkpoint_timeout = '1h'"] {
        value(&source, &format!("ALTER SYSTEM SET {setting}"));
    }
    value(&source, "SELECT pg_reload_conf()");
    let streamer = world.stream(source.clone());
    value(
        &source,
        "CREATE TABLE orders (id integer PRIMARY KEY, text text); \
         INSERT INTO orders SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 4000) n; \
         CREATE TABLE long (id integer, text text); ALTER TABLE long ALTER text SET STORAGE EXTERNAL; \
         INSERT INTO long SELECT n, repeat(md5(n::text), 500) FROM generate_series(1, 20) n",
    );
    value(&source, "VACUUM orders");
    world.backup(&source);
    // After the backup, so that the page is in no backup as it is now: WAL has to bring it up to date.
    value(
        &source,
        "UPDATE orders SET text = 'changed' WHERE id % 10 = 0; DELETE FROM orders WHERE id % 100 = 1; UPDATE long SET text = text || 'x'",
    );
    value(&source, "VACUUM orders");
    value(&source, "CHECKPOINT");
    let contents = |world: &World| {
        world.postgres.sql("SELECT (SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o), (SELECT md5(string_agg(l::text, '|' ORDER BY id)) FROM long l)")
    };
    let before = contents(&world);
    let toast = world
        .postgres
        .value("SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'long'");
    assert_eq!(world.damaged(), []);

    // The server is stopped meanwhile, so that it has nothing of them in memory.
    let forks = [
        ("orders", "", 7),
        ("orders", "", 8),
        ("orders", "_fsm", 2),
        ("orders", "_vm", 0),
        (&*toast, "", 3),
        ("orders_pkey", "", 4),
    ];
    let paths: Vec<_> = forks
        .iter()
        .map(|(relation, suffix, block)| {
            let path = world
                .postgres
                .value(&format!("SELECT pg_relation_filepath('{relation}')"));
            (world.postgres.data_dir().join(path + suffix), *block)
        })
        .collect();
    world.postgres.stop(StopMode::Fast);
    for (path, block) in &paths {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, block * PAGE + 4321).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], block * PAGE + 4321)
            .unwrap();
    }
    world.postgres.start_again();
    streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.attached)
        .unwrap();
    let error = world
        .postgres
        .client()
        .query("SELECT count(text) FROM orders")
        .unwrap_err();
    assert!(error.to_string().contains("invalid page"), "{error}");

    let mut pages = world.damaged();
    pages.sort_by_key(|page| (page.kind.clone(), page.path.clone(), page.block));
    let found: Vec<(&str, Fork, u32)> = pages
        .iter()
        .map(|page| (page.relation.as_deref().unwrap(), page.fork, page.block))
        .collect();
    let expected = [
        ("public.orders_pkey", Fork::Main, 4),
        ("public.orders", Fork::Main, 7),
        ("public.orders", Fork::Main, 8),
        ("public.orders", Fork::FreeSpace, 2),
        ("public.orders", Fork::Visibility, 0),
        (&*toast, Fork::Main, 3),
    ];
    assert_eq!(found, expected);
    assert!(
        pages
            .iter()
            .all(|page| page.database.as_deref() == Some("postgres")),
        "{pages:?}"
    );
    assert_eq!(pages[5].table.as_deref(), Some("public.long"));
    // A backup that has the damage is not taken from.
    let tainted = world.backup(&source);
    assert!(tainted.damaged.len() >= 5, "{tainted:?}");
    let index = pages.remove(0);
    let put = world.repair(&streamer, &pages, "first");
    assert_eq!(put, vec![PageOutcome::Written; 5]);
    let Remedy::Statement(statement) = remedy(&index) else {
        panic!()
    };
    value(&source, &statement);
    value(&source, "VACUUM (DISABLE_PAGE_SKIPPING) orders");
    assert_eq!(contents(&world), before);
    assert_eq!(world.damaged(), []);

    // The server still has the page in memory, changed: it writes it itself, and there is nothing to repair.
    value(
        &source,
        "UPDATE orders SET text = text || '!' WHERE id = 4000",
    );
    let block = value(
        &source,
        "SELECT (ctid::text::point)[0]::integer FROM orders WHERE id = 4000",
    )
    .parse()
    .unwrap();
    let changed = contents(&world);
    let size: u64 = value(&source, "SELECT pg_relation_size('orders')")
        .parse()
        .unwrap();
    assert!(size > block * PAGE);
    value(&source, "CHECKPOINT");
    value(
        &source,
        "UPDATE orders SET text = text WHERE id = 4000 AND false; DELETE FROM orders WHERE id = 3999",
    );
    world.flip("orders", "", block);
    let pages = world.damaged();
    assert_eq!(pages.len(), 1, "{pages:?}");
    let put = world.repair(&streamer, &pages, "second");
    // Held in memory, written by the checkpoint when it was dirty, restored when it was not: good either way.
    assert!(
        [PageOutcome::GoodAlready, PageOutcome::Written].contains(&put[0]),
        "{put:?}"
    );
    value(
        &source,
        "INSERT INTO orders VALUES (3999, repeat(md5('3999'), 10))",
    );
    assert_eq!(contents(&world), changed);
    assert_eq!(world.damaged(), []);

    // In memory and not changed since the last checkpoint.
    value(&source, "SELECT count(text) FROM orders");
    value(&source, "CHECKPOINT");
    world.flip("orders", "", 7);
    let put = world.repair(&streamer, &world.damaged(), "third");
    assert_eq!(put, [PageOutcome::Written]);
    assert_eq!(contents(&world), changed);
    drop(streamer);
    world.postgres.stop(StopMode::Fast);
    let data = world.postgres.data_dir();
    let checked = world
        .postgres
        .run("pg_checksums", &["--check", "-D", data.to_str().unwrap()]);
    assert!(checked.contains("Bad checksums:  0"), "{checked}");
    world.postgres.start_again();
    assert_eq!(contents(&world), changed);
    value(&source, "CREATE EXTENSION amcheck");
    let sockets = world.postgres.socket_dir().to_str().unwrap().to_owned();
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
