use std::path::PathBuf;

use assurance::verification::{Check, Options, Verdict, cluster, passed, passed_strictly};
use audit::{Chain, EpochOpening, Fields, Kind, SigningKey, Stretch, hex};
use postgres_physical::page::{self, PAGE_BYTES};
use postgres_physical::server::StopMode;
use testkit::{TestPostgres, odd};

const NOW: i64 = 1_795_421_730_000_000;

/// The engine's tables, made by its own migrations, with a little in them.
struct World {
    postgres: TestPostgres,
    chain: Chain,
    key: SigningKey,
}

impl World {
    fn new() -> Self {
        let mut world = World {
            postgres: TestPostgres::start(),
            chain: Chain::new(1),
            key: SigningKey::generate().unwrap(),
        };
        world
            .postgres
            .sql("CREATE ROLE bre_service; CREATE ROLE bre_owner");
        for migration in migrations() {
            world
                .postgres
                .sql(&std::fs::read_to_string(migration).unwrap());
        }
        world.open_epoch(&EpochOpening::Created { timeline: 1 });
        let made = Fields::new().with("change", "created").with("key_id", "k1");
        world.append(Kind::KeyChanged, made);
        world.postgres.sql(
            "INSERT INTO stocks (ticker) VALUES ('GME'); \
             INSERT INTO brokers VALUES ('standard', 5, 'FLAT', 25, 'standard', 'act365-1', 'standard-1', true, now()); \
             INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at) \
             VALUES ('k1', sha256('1'), 'standard', 'standard', now(), now())",
        );
        world
    }

    fn open_epoch(&mut self, opening: &EpochOpening<'_>) {
        let sealed = self.chain.open_epoch(NOW, opening, &self.key).unwrap();
        self.record(sealed);
    }

    fn append(&mut self, kind: Kind, fields: Fields) {
        let sealed = self.chain.append(kind, NOW, fields).unwrap();
        self.record(sealed);
    }

    fn record(&self, sealed: audit::SealedEntry) {
        let entry = &sealed.entry;
        self.postgres.sql(&format!(
            "INSERT INTO audit_log (log, epoch, position, kind, recorded_at, canonical, hash) \
             VALUES (1, {}, {}, {}, now(), '\\x{}', '\\x{}')",
            entry.epoch,
            entry.position,
            entry.kind.number(),
            hex::encode(&sealed.bytes),
            hex::encode(sealed.hash.as_bytes()),
        ));
    }

    fn checks(&self, scratch: bool) -> Vec<Check> {
        let options = Options {
            scratch,
            engine_expected: true,
            trusted: std::slice::from_ref(self.key.verifying_key()),
            cancelled: &|| false,
        };
        cluster(&self.postgres.connect_options(), &options)
    }

    /// Exactly these checks fail, and each names what is hurt.
    fn fails(&self, expected: &[(&str, &str)]) {
        let checks = self.checks(true);
        let failed: Vec<&Check> = checks
            .iter()
            .filter(|check| check.verdict != Verdict::Passed)
            .collect();
        let names: Vec<&str> = failed.iter().map(|check| check.name.as_str()).collect();
        let wanted: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, wanted, "{failed:?}");
        for (check, (_, says)) in failed.iter().zip(expected) {
            assert!(
                check.why.as_deref().unwrap().contains(says),
                "{says}: {check:?}"
            );
        }
    }
}

fn migrations() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/migrations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_name().unwrap().to_str().unwrap();
        name[1..].split_once("__").unwrap().0.parse().unwrap()
    };
    files.sort_by_key(number);
    // Those that make the tables which the checks know.
    files.retain(|file| number(file) <= 4);
    files
}

#[test]
fn a_healthy_database_passes_and_what_is_not_looked_at_is_said() {
    let world = World::new();
    let live = world.checks(false);
    let skipped: Vec<&Check> = live
        .iter()
        .filter(|check| check.verdict == Verdict::Skipped)
        .collect();
    let names: Vec<&str> = skipped.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["amcheck_indexes", "amcheck_tables"]);
    assert!(
        skipped[0]
            .why
            .as_deref()
            .unwrap()
            .contains("CREATE EXTENSION amcheck")
    );
    assert!(!passed(&live), "what was skipped has not passed");

    world.fails(&[]);
    let checks = world.checks(false);
    assert!(
        passed_strictly(&checks),
        "the extension is there now: {checks:?}"
    );
    let counts = checks
        .iter()
        .find(|check| check.name == "row_counts")
        .unwrap();
    assert_eq!(counts.detail["rows"]["audit_log"], 2);
    assert_eq!(counts.detail["by_the_audit_log"]["api_keys"], 1);
    let indexes = checks
        .iter()
        .find(|check| check.name == "amcheck_indexes")
        .unwrap();
    assert!(
        indexes.detail["checked"].as_u64().unwrap() > 100,
        "{indexes:?}"
    );
}

#[test]
fn what_is_wrong_is_found_and_named() {
    let world = World::new();
    let sql = |text: &str| world.postgres.sql(text);

    sql(
        "CREATE TABLE numbered (id serial); INSERT INTO numbered SELECT FROM generate_series(1, 9); SELECT setval('numbered_id_seq', 5)",
    );
    world.fails(&[("sequences", "numbered_id_seq is at 5")]);
    sql("DROP TABLE numbered");

    sql("SET session_replication_role = replica; \
         INSERT INTO quarantine VALUES ('019aa000-0000-7000-8000-000000000000', 1, 'test', 'x')");
    world.fails(&[(
        "referential_integrity",
        "1 rows of postgres.public.quarantine refer to nothing in public.feed_batches",
    )]);
    sql("DELETE FROM quarantine");

    sql(
        "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at) \
         VALUES ('k2', sha256('2'), 'standard', 'standard', now(), now())",
    );
    world.fails(&[("row_counts", "api_keys: 2 rows, the audit log says 1")]);
    sql("DELETE FROM api_keys WHERE key_id = 'k2'");

    sql("ALTER TABLE audit_log DISABLE TRIGGER ALL; DELETE FROM audit_log WHERE position = 1");
    world.fails(&[(
        "row_counts",
        "audit log 1 has 1 entries, its last position is 2",
    )]);
}

/// What followed from entries that the log signs for as lost is not covered; everything else still is.
#[test]
fn what_a_known_loss_took_with_it_is_no_fault_and_hides_no_other() {
    let mut world = World::new();
    world.postgres.sql(
        "ALTER TABLE quotes DISABLE TRIGGER ALL; DO $$ DECLARE name text; BEGIN \
         FOR name IN SELECT attname FROM pg_attribute WHERE attrelid = 'quotes'::regclass AND attnum > 0 \
             AND attnotnull \
             AND NOT attisdropped AND attname <> 'quote_id' \
         LOOP EXECUTE format('ALTER TABLE quotes ALTER COLUMN %I DROP NOT NULL', name); END LOOP; END $$",
    );
    let quotes = |from: u64, to: u64| {
        format!(
            "INSERT INTO quotes (quote_id, log, epoch, position) \
             SELECT gen_random_uuid(), 1, 1, n FROM generate_series({from}, {to}) AS n"
        )
    };
    // Entries 3 to 5 are quotes, entry 6 makes a key; all of 2 to 6 goes.
    for _ in 3..=5 {
        world.append(Kind::Quote, Fields::new());
    }
    let made = Fields::new().with("change", "created").with("key_id", "k2");
    world.append(Kind::KeyChanged, made);
    world.postgres.sql(&quotes(3, 5));
    world.postgres.sql(
        "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at) \
         VALUES ('k2', sha256('2'), 'standard', 'standard', now(), now())",
    );
    world.fails(&[]);
    world
        .postgres
        .sql("ALTER TABLE audit_log DISABLE TRIGGER ALL; DELETE FROM audit_log WHERE position BETWEEN 2 AND 6");
    world.fails(&[
        (
            "row_counts",
            "quotes: 3 rows, the audit log says 0; api_keys: 2 rows, the audit log says 0",
        ),
        ("orphan_rows", "3 rows of quotes have no audit entry"),
    ]);

    let stretch = Stretch { from: 2, to: 6 };
    let head = world.chain.head(NOW, 1).unwrap();
    let reopened = |missing: &[Stretch], chain: &mut Chain, key: &SigningKey| {
        let opening = EpochOpening::Reopened {
            timeline: 1,
            known_heads: std::slice::from_ref(&head),
            known_lost: Some(0),
            why: "a table was emptied",
            actor: "ops",
            missing_heads: &[],
            missing_entries: missing,
        };
        chain.open_epoch(NOW + 1, &opening, key).unwrap()
    };
    // What another key signed excuses nothing.
    let stranger = SigningKey::generate().unwrap();
    let sealed = reopened(&[stretch], &mut world.chain.clone(), &stranger);
    world.record(sealed);
    world.fails(&[
        ("row_counts", "the audit log says 0"),
        ("orphan_rows", "3 rows of quotes have no audit entry"),
    ]);
    world
        .postgres
        .sql("DELETE FROM audit_log WHERE position = 7");

    let sealed = reopened(&[stretch], &mut world.chain, &world.key);
    world.record(sealed);
    // Where nothing was stated again the log cannot say which keys there are.
    let counts = |world: &World| {
        let checks = world.checks(true);
        checks
            .into_iter()
            .find(|check| check.name == "row_counts")
            .unwrap()
    };
    world.fails(&[]);
    assert_eq!(
        counts(&world).detail["by_the_audit_log"]["api_keys"],
        serde_json::Value::Null
    );
    let stated = Fields::new()
        .with("name", "tables")
        .with("baseline", "all")
        .with("rows.api_keys", r#"[{"key_id":"k1"},{"key_id":"k2"}]"#)
        .with("before.feed_batches", format!("0 0 {}", "0".repeat(64)));
    world.append(Kind::ConfigurationChanged, stated);
    world.fails(&[]);
    let check = counts(&world);
    assert_eq!(check.detail["not_covered"]["quotes"], 3, "{check:?}");
    assert_eq!(check.detail["by_the_audit_log"]["api_keys"], 2, "{check:?}");

    // Elsewhere everything is still found.
    let sql = |text: &str| world.postgres.sql(text);
    sql(&quotes(9, 9));
    world.fails(&[
        ("row_counts", "quotes: 1 rows, the audit log says 0"),
        ("orphan_rows", "1 rows of quotes have no audit entry"),
    ]);
    sql("DELETE FROM quotes WHERE position = 9; DELETE FROM api_keys WHERE key_id = 'k2'");
    world.fails(&[("row_counts", "api_keys: 1 rows, the audit log says 2")]);
    sql(
        "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at) \
         VALUES ('k2', sha256('2'), 'standard', 'standard', now(), now()); DELETE FROM audit_log WHERE position = 1",
    );
    world.fails(&[(
        "row_counts",
        "audit log 1 has 2 entries, its last position is 8, and 5 are known to be lost",
    )]);
}

#[test]
fn damage_on_disk_is_found_and_named() {
    let mut world = World::new();
    // An index whose order is no longer what its operators say.
    world.postgres.sql(
        "CREATE FUNCTION key(n integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT n'; \
         CREATE TABLE bent (n integer); INSERT INTO bent SELECT generate_series(1, 1000); CREATE INDEX bent_key ON bent (key(n)); \
         CREATE TABLE torn AS SELECT n, repeat('x', 100) AS text FROM generate_series(1, 1000) AS n; CHECKPOINT",
    );
    world.fails(&[]);
    world.postgres.sql("CREATE OR REPLACE FUNCTION key(n integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT -n'");
    world.fails(&[("amcheck_indexes", "postgres.public.bent_key")]);
    world.postgres.sql("DROP TABLE bent");

    // A row of a table that points outside its page, under a checksum that is right.
    let file = world
        .postgres
        .data_dir()
        .join(world.postgres.value("SELECT pg_relation_filepath('torn')"));
    world.postgres.stop(StopMode::Fast);
    let mut bytes = std::fs::read(&file).unwrap();
    let block = 3;
    let page = &mut bytes[block * PAGE_BYTES..(block + 1) * PAGE_BYTES];
    page[24..28].copy_from_slice(&(8000_u32 | 1 << 15 | 4000 << 17).to_le_bytes());
    let whole: &[u8; PAGE_BYTES] = (&*page).try_into().unwrap();
    let checksum = page::checksum(whole, u32::try_from(block).unwrap());
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    world.postgres.start_again();
    world.fails(&[("amcheck_tables", "postgres.public.torn: block 3, row 1")]);
}

/// A cluster of somebody else, in an ordinary state of work.
#[test]
fn work_that_is_not_finished_and_what_does_not_apply_here_are_no_faults() {
    let postgres = TestPostgres::start();
    // Names that an engine's tables have as well.
    postgres.sql("CREATE EXTENSION amcheck; CREATE TABLE stocks (n integer); CREATE TABLE brokers (n integer); CREATE TABLE parent (id integer PRIMARY KEY)");
    odd::unfinished_indexes(&postgres);
    odd::closed(&postgres, "closed");
    odd::half_dropped(&postgres, "half dropped");
    let options = |scratch| Options {
        scratch,
        engine_expected: false,
        trusted: &[],
        cancelled: &|| false,
    };
    let checks = cluster(&postgres.connect_options(), &options(false));
    assert!(passed(&checks) && !passed_strictly(&checks), "{checks:#?}");
    let named = |checks: &[Check], name: &str| {
        let check = checks.iter().find(|check| check.name == name);
        check.cloned().unwrap()
    };
    assert!(
        named(&checks, "row_counts").not_applicable && named(&checks, "orphan_rows").not_applicable
    );

    let databases = named(&checks, "databases");
    assert_eq!(
        databases.detail["looked_at"],
        serde_json::json!(["postgres", "template1"])
    );
    let [closed, half] = &databases.warnings[..] else {
        panic!("{databases:?}");
    };
    assert!(closed.ends_with("ALTER DATABASE \"closed\" ALLOW_CONNECTIONS true"));
    assert!(half.ends_with("DROP DATABASE \"half dropped\""));

    let indexes = named(&checks, "invalid_indexes");
    let says = |name: &str, says: &str| {
        let found = indexes.warnings.iter().find(|it| it.contains(name));
        assert!(
            found.is_some_and(|it| it.contains(says)),
            "{name}: {indexes:?}"
        );
    };
    assert_eq!(indexes.warnings.len(), 4, "{indexes:?}");
    says(
        "failed_build",
        "REINDEX INDEX CONCURRENTLY unfinished.failed_build",
    );
    says(
        "leftover_ccnew",
        ": DROP INDEX CONCURRENTLY unfinished.leftover_ccnew",
    );
    says(
        "leftover_ccold",
        ": DROP INDEX CONCURRENTLY unfinished.leftover_ccold",
    );
    says("parent_only", "missing: unfinished.part_two");
    postgres.sql("CREATE INDEX part_two_id ON unfinished.part_two (id); ALTER INDEX unfinished.parent_only ATTACH PARTITION unfinished.part_two_id");

    // Only a copy may be opened; a key that nothing guards is damage.
    postgres
        .sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'parent_pkey'::regclass");
    let checks = cluster(&postgres.connect_options(), &options(true));
    let indexes = named(&checks, "invalid_indexes");
    assert_eq!(
        (indexes.verdict, indexes.warnings.len()),
        (Verdict::Failed, 3)
    );
    let why = indexes.why.unwrap();
    assert!(
        why.contains("constraint parent_pkey") && why.ends_with("REINDEX INDEX public.parent_pkey"),
        "{why}"
    );
}

#[test]
fn a_database_that_cannot_be_entered_costs_no_other_and_keys_have_their_own_operators() {
    let postgres = TestPostgres::start();
    postgres.sql("CREATE EXTENSION amcheck");
    odd::database(&postgres, "with=sign");
    odd::database(&postgres, "broken");
    postgres.sql("ALTER DATABASE broken SET local_preload_libraries = 'nowhere'");
    odd::settings_of_an_application(&postgres, "postgres");
    // `=` of a type that is in a schema which is not searched means something else.
    odd::client_of(&postgres, "with=sign")
        .query(
            "CREATE EXTENSION amcheck; CREATE EXTENSION citext; CREATE TABLE p (name citext PRIMARY KEY); \
             CREATE TABLE c (name citext REFERENCES p); INSERT INTO p VALUES ('GME'); INSERT INTO c VALUES ('gme')",
        )
        .unwrap();
    let options = Options {
        scratch: false,
        engine_expected: false,
        trusted: &[],
        cancelled: &|| false,
    };
    let checks = cluster(&postgres.connect_options(), &options);
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.verdict != Verdict::Passed && !check.not_applicable)
        .collect();
    let [databases] = &failed[..] else {
        panic!("{failed:#?}");
    };
    assert!(
        databases
            .why
            .as_deref()
            .unwrap()
            .contains("database \"broken\": it cannot be entered")
    );
}
