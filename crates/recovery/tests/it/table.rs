//! One table back into a database that runs, from the moment before a mistake, while others go on writing.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use recovery::table::{Dump, MergeOutcome, Mode, Preview, Request, TableError, TablePreview, Work};
use testkit::eventually;

const LIFE: &str = "
    CREATE TABLE clients (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, client integer NOT NULL REFERENCES clients ON DELETE CASCADE,
        price numeric(20,4), doubled numeric GENERATED ALWAYS AS (price * 2) STORED, tags text[], note json, seen timestamptz DEFAULT now());
    CREATE TABLE told (id integer);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.told VALUES (NEW.id); RETURN NEW; END';
    CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell();
    CREATE TABLE plain (a text, b integer);
    CREATE TABLE lonely (id serial PRIMARY KEY, mail text UNIQUE, CHECK (id > 0));
    CREATE INDEX lonely_upper ON lonely (upper(mail));
    CREATE VIEW shown AS SELECT mail FROM lonely;
    CREATE TABLE bent (id integer PRIMARY KEY, gone text, kept integer, other varchar(5));
    CREATE UNLOGGED TABLE quick (id integer PRIMARY KEY);
    INSERT INTO clients SELECT n, 'client ' || n FROM generate_series(1, 20) n;
    INSERT INTO orders (client, price, tags, note) SELECT 1 + n % 20, n / 7.0, ARRAY['a', NULL, E'b\\t\"\\\\'], '{\"n\": 1}' FROM generate_series(1, 3000) n;
    INSERT INTO plain VALUES ('twice', 1), ('twice', 1), (NULL, NULL), ('once', 2);
    INSERT INTO lonely (mail) SELECT 'm' || n FROM generate_series(1, 50) n;
    INSERT INTO bent SELECT n, 'x', n, 'y' FROM generate_series(1, 10) n";

/// What was there at the moment, started, beside what runs.
struct TwoServers<'a> {
    world: &'a World,
    backup: RestoredServer,
}

impl TwoServers<'_> {
    fn request(&self, tables: &str, mode: Mode) -> Request<'_> {
        Request {
            backup: self.backup.connect.clone(),
            now: self.world.postgres.connect_options(),
            tables: tables
                .split(',')
                .map(|name| name.parse().unwrap())
                .collect(),
            mode,
            only: None,
            fire_triggers: false,
            notify: vec!["heard"],
            dump: Dump {
                binaries: self.world.postgres.binaries(),
                user: self.world.postgres.os_user(),
            },
        }
    }

    fn work(&self, request: Request<'_>) -> Result<(Preview, MergeOutcome), TableError> {
        let mut work = Work::open(request)?;
        work.stage(&())?;
        let preview = work.preview(&())?;
        let merged = work.merge(&preview, &())?;
        Ok((preview, merged))
    }

    fn restore(&self, tables: &str, mode: Mode) -> Result<(Preview, MergeOutcome), TableError> {
        self.work(self.request(tables, mode))
    }

    /// Refused in these words, and the tables are as they were.
    fn refuses(&self, tables: &str, mode: Mode, words: &[&str]) {
        let error = self.restore(tables, mode).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
}

fn figures(preview: &TablePreview) -> (u64, u64, Option<u64>) {
    let counts = preview.counts;
    (counts.missing, counts.different, counts.only_now)
}

/// Ends the writer also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Inserts orders until it is told to stop; how many.
fn write_on(connect: &ConnectOptions, stop: &AtomicBool) -> u64 {
    let mut client = Client::connect(connect).unwrap();
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        client
            .query(
                "INSERT INTO orders (client, price) VALUES (1 + floor(random() * 20)::integer, 1)",
            )
            .unwrap();
        written += 1;
    }
    written
}

#[test]
fn an_emptied_table_comes_back_under_load_and_every_other_case_is_handled_or_refused() {
    let world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    value(&source, LIFE);
    world.backup(&source);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let writer = scope.spawn(|| write_on(&source, &stop));
        let told = || {
            value(&source, "SELECT count(*) FROM told")
                .parse::<u64>()
                .unwrap()
        };
        testkit::eventually("the writer writes", || (told() > 3010).then_some(()));
        // The mistake, and the place in the WAL just before it.
        let before = value(
            &source,
            "BEGIN; LOCK TABLE orders; CREATE TEMP TABLE place AS SELECT pg_current_wal_insert_lsn() AS lsn, (SELECT \
             count(*) FROM orders) AS rows; DELETE FROM orders; COMMIT; SELECT lsn || ' ' || rows FROM place",
        );
        let (place, rows) = before.split_once(' ').unwrap();
        let rows: u64 = rows.parse().unwrap();
        wait_durable(&streamer, &source);
        world
            .restore_and_replay(Target::lsn(lsn(place)), "then")
            .unwrap();
        let beside = TwoServers {
            world: &world,
            backup: world.start("then"),
        };
        assert_eq!(
            beside.backup.value("SELECT count(*) FROM orders"),
            rows.to_string()
        );
        let emptied = told();
        testkit::eventually("it writes on", || (told() > emptied + 10).then_some(()));
        let (preview, merged) = beside.restore("orders", Mode::Missing).unwrap();
        let shown = &preview.tables[0];
        assert_eq!((shown.counts.missing, shown.counts.different), (rows, 0));
        assert!(shown.counts.only_now > Some(10), "{shown:?}");
        assert!(
            shown.missing[0]
                .backup
                .as_ref()
                .unwrap()
                .contains("\"price\":"),
            "{shown:?}"
        );
        let notes = shown.notes.join("\n");
        assert!(
            notes.contains("triggers do not fire") && notes.contains("written since and stay"),
            "{notes}"
        );
        assert_eq!(merged.tables[0].inserted, rows);
        assert_eq!(merged.tables[0].after.missing, 0);
        let merged_at = told();
        testkit::eventually("the writer goes on", || (told() > merged_at).then_some(()));
        stop.store(true, Ordering::Relaxed);
        // Every order that was ever acknowledged is there once, whoever wrote it; its trigger fired once, by its
        // writer.
        let written = writer.join().unwrap() + 3000;
        assert_eq!(
            value(&source, "SELECT count(*) FROM orders"),
            written.to_string()
        );
        assert_eq!(told(), written);
        let enabled = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'tell'";
        assert_eq!(value(&source, enabled), "O");
        let same =
            "SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o WHERE id <= 3000";
        assert_eq!(value(&source, same), beside.backup.value(same));
        // Again: nothing to do.
        let (again, merged) = beside.restore("orders", Mode::Missing).unwrap();
        assert!(
            again.is_done() && merged.tables[0].inserted == 0,
            "{again:?}"
        );
        every_other_case(&beside, &source);
    });
}

fn every_other_case(beside: &TwoServers<'_>, source: &ConnectOptions) {
    modes(beside, source);
    parents_and_children(beside, source);
    a_dropped_table(beside, source);
    changed_shapes(beside, source);
    // Whole rows, each as often as it was there.
    value(
        source,
        "DELETE FROM plain; INSERT INTO plain VALUES ('twice', 1), ('new', 9)",
    );
    let (preview, _) = beside.restore("plain", Mode::Missing).unwrap();
    assert_eq!(figures(&preview.tables[0]), (3, 0, Some(1)));
    assert_eq!(
        value(
            source,
            "SELECT string_agg(coalesce(a, '-'), ' ' ORDER BY a) FROM plain"
        ),
        "new once twice twice -"
    );
    beside.refuses("plain", Mode::Exact, &["no primary key", "public.plain"]);
    beside.refuses("quick", Mode::Missing, &["unlogged"]);
    beside.refuses("shown", Mode::Missing, &["view"]);
    beside.refuses(
        "nobody",
        Mode::Missing,
        &["public.nobody", "another moment"],
    );
    beside.refuses(
        "pg_catalog.pg_class",
        Mode::Missing,
        &["part of the system"],
    );
}

fn modes(beside: &TwoServers<'_>, source: &ConnectOptions) {
    // Nobody refers to it with CASCADE, nothing fires.
    value(
        source,
        "DELETE FROM bent WHERE id <= 3; UPDATE bent SET kept = -1 WHERE id IN (4, 5); INSERT INTO bent VALUES (99, 'z', 99, 'new')",
    );
    let (preview, merged) = beside.restore("bent", Mode::Missing).unwrap();
    assert_eq!(figures(&preview.tables[0]), (3, 2, Some(1)));
    assert_eq!(preview.tables[0].changed_columns, [("kept".to_owned(), 2)]);
    assert_eq!(merged.tables[0].after.different, 2, "kept as they are");
    // A few rows only.
    let mut request = beside.request("bent", Mode::Changed);
    request.only = Some("id = 4".to_owned());
    let (_, merged) = beside.work(request).unwrap();
    assert_eq!(merged.tables[0].updated, 1);
    assert_eq!(
        value(
            source,
            "SELECT string_agg(kept::text, ' ' ORDER BY id) FROM bent WHERE id IN (4, 5, 99)"
        ),
        "4 -1 99"
    );
    // What changes between the question and the answer is asked again.
    let mut work = Work::open(beside.request("bent", Mode::Exact)).unwrap();
    work.stage(&()).unwrap();
    let preview = work.preview(&()).unwrap();
    value(source, "INSERT INTO bent VALUES (100, 'z', 100, 'new')");
    let error = work.merge(&preview, &()).unwrap_err();
    assert!(matches!(error, TableError::NotAgreed { .. }), "{error}");
    let preview = work.preview(&()).unwrap();
    let merged = work.merge(&preview, &()).unwrap();
    assert_eq!((merged.tables[0].updated, merged.tables[0].deleted), (1, 2));
    let all = "SELECT string_agg(b::text, '|' ORDER BY id) FROM bent b";
    assert_eq!(value(source, all), beside.backup.value(all));
}

fn parents_and_children(beside: &TwoServers<'_>, source: &ConnectOptions) {
    value(source, "DELETE FROM clients WHERE id = 7");
    beside.refuses(
        "orders",
        Mode::Missing,
        &["refer by orders_client_fkey", "public.clients"],
    );
    let (preview, _) = beside.restore("clients", Mode::Missing).unwrap();
    assert!(
        preview.tables[0]
            .notes
            .join(" ")
            .contains("public.orders refers to it"),
        "{preview:?}"
    );
    value(source, "DELETE FROM clients WHERE id = 7");
    // Named in the wrong order: the parent goes first all the same.
    let (_, merged) = beside.restore("orders,clients", Mode::Missing).unwrap();
    let names: Vec<&str> = merged
        .tables
        .iter()
        .map(|table| table.table.as_str())
        .collect();
    assert_eq!(names, ["public.clients", "public.orders"]);
    assert!(merged.tables[1].inserted >= 150, "{merged:?}");
    let same = "SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o WHERE id <= 3000";
    assert_eq!(value(source, same), beside.backup.value(same));
}

fn a_dropped_table(beside: &TwoServers<'_>, source: &ConnectOptions) {
    value(
        source,
        "INSERT INTO lonely VALUES (77, 'newer'); UPDATE lonely SET mail = 'm3' WHERE mail = 'newer' AND false",
    );
    value(
        source,
        "DELETE FROM lonely WHERE id = 3; UPDATE lonely SET mail = 'm3' WHERE id = 77",
    );
    beside.refuses(
        "lonely",
        Mode::Missing,
        &["1 rows cannot come back", "lonely_mail_key"],
    );
    value(source, "DROP TABLE lonely CASCADE");
    let (preview, merged) = beside.restore("lonely", Mode::Missing).unwrap();
    let notes = preview.tables[0].notes.join("\n");
    assert!(
        preview.tables[0].dropped && notes.contains("the view public.shown"),
        "{notes}"
    );
    assert_eq!(
        (merged.tables[0].recreated, merged.tables[0].inserted),
        (true, 50)
    );
    assert_eq!(
        value(
            source,
            "INSERT INTO lonely (mail) VALUES ('next') RETURNING id"
        ),
        "51",
        "its sequence was moved on"
    );
    let indexes = "SELECT string_agg(indexdef, ';' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'lonely'";
    assert_eq!(value(source, indexes), beside.backup.value(indexes));
}

fn changed_shapes(beside: &TwoServers<'_>, source: &ConnectOptions) {
    value(
        source,
        "ALTER TABLE bent DROP COLUMN gone; ALTER TABLE bent ALTER COLUMN kept TYPE bigint; ALTER TABLE bent ADD COLUMN later text; \
         DELETE FROM bent WHERE id = 1",
    );
    let (preview, _) = beside.restore("bent", Mode::Missing).unwrap();
    let notes = preview.tables[0].notes.join("\n");
    for word in [
        "gone was dropped since",
        "kept was integer then and is bigint",
        "later was added since",
    ] {
        assert!(notes.contains(word), "{notes}");
    }
    assert_eq!(
        value(source, "SELECT b::text FROM bent b WHERE id = 1"),
        "(1,1,y,)"
    );
    value(
        source,
        "ALTER TABLE bent ADD COLUMN must integer; UPDATE bent SET must = 0; ALTER TABLE bent ALTER COLUMN must SET NOT NULL",
    );
    beside.refuses("bent", Mode::Missing, &["columns must", "SET DEFAULT"]);
    // A value that does not fit any more: refused by PostgreSQL, told, and nothing is left behind.
    value(
        source,
        "ALTER TABLE bent DROP COLUMN must; ALTER TABLE bent ALTER COLUMN other TYPE integer USING 0",
    );
    beside.refuses("bent", Mode::Missing, &["copying public.bent", "integer"]);
}

/// Flagged by another thread, as by a signal.
#[derive(Default)]
struct Flag(AtomicBool);

impl recovery::Progress for Flag {
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Two databases of one server stand for then and now: what is compared does not care.
#[test]
fn whole_rows_are_compared_by_hashing_and_whoever_waits_for_it_can_leave() {
    let world = World::new();
    let source = world.postgres.connect_options();
    let backup = source.clone().with_database("moment");
    value(&source, "CREATE DATABASE moment");
    let fill = "CREATE TABLE plain (a text, b integer, c numeric, d json, e character(3)); \
        INSERT INTO plain SELECT 'client ' || n % 10, n, n / 7.0, '{\"n\": 1}', 'x' FROM generate_series(1, 20000) n; \
        INSERT INTO plain VALUES ('twice', 1, 1.0, NULL, ''), ('twice', 1, 1.0, NULL, ''), (NULL, NULL, NULL, NULL, NULL), ('', NULL, 1.00, NULL, NULL)";
    value(&backup, fill);
    value(&source, fill);
    // Four rows, one of a pair, and one that differs in what equality does not see.
    value(
        &source,
        "DELETE FROM plain WHERE b IN (5, 500, 5000, 15000) OR ctid = (SELECT min(ctid) FROM plain WHERE a = 'twice'); \
         UPDATE plain SET c = 1.0 WHERE a = ''",
    );
    let request = || Request {
        backup: backup.clone(),
        now: source.clone(),
        tables: vec!["plain".parse().unwrap()],
        mode: Mode::Missing,
        only: None,
        fire_triggers: false,
        notify: Vec::new(),
        dump: Dump {
            binaries: world.postgres.binaries(),
            user: world.postgres.os_user(),
        },
    };
    let mut work = Work::open(request()).unwrap();
    work.stage(&()).unwrap();

    // Somebody holds the table, and whoever waits gives up: nothing stays behind on the server.
    let mut holder = Client::connect(&source).unwrap();
    holder
        .query("BEGIN; LOCK TABLE plain IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let flag = Flag::default();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bre-table' AND state = 'active'";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("it waits", || {
                (value(&source, waiting) == "1").then_some(())
            });
            flag.0.store(true, Ordering::Relaxed);
        });
        let error = work.preview(&flag).unwrap_err();
        assert!(matches!(error, TableError::Interrupted), "{error}");
    });
    eventually("nothing runs", || {
        (value(&source, waiting) == "0").then_some(())
    });
    holder.query("ROLLBACK").unwrap();
    drop(work);

    let mut work = Work::open(request()).unwrap();
    work.stage(&()).unwrap();
    let preview = work.preview(&()).unwrap();
    assert_eq!(figures(&preview.tables[0]), (6, 0, Some(1)));
    assert_eq!(preview.tables[0].missing.len(), 3);
    let error = work
        .merge(&preview, &Flag(AtomicBool::new(true)))
        .unwrap_err();
    assert!(matches!(error, TableError::Interrupted), "{error}");
    let merged = work.merge(&preview, &()).unwrap();
    assert_eq!(
        (merged.tables[0].inserted, merged.tables[0].after.missing),
        (6, 0)
    );
    let all = "SELECT md5(string_agg(t, '|' ORDER BY t COLLATE \"C\")) FROM (SELECT p::text AS t FROM plain p WHERE a <> '' OR a IS NULL) x";
    assert_eq!(value(&source, all), value(&backup, all));
}
