//! Odd clusters, as they are met in the field: names of every sort, databases that nobody can enter, settings that are links or lie
//! elsewhere, what other tools left behind, unfinished indexes, settings of roles that are made for applications.
//!
//! Each builder takes a running [`TestPostgres`] and makes it odder; all of them together are [`make_odd`].

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use postgres_physical::server::sql::{Client, quote_identifier, quote_literal};

use crate::TestPostgres;

/// Names that a parser of connection strings, a shell, SQL, a path, a pattern or a terminal takes for something else. The first one, taken
/// for a connection string, leads to another database, which is here as well.
pub const NAMES: [&str; 16] = [
    "dbname=UPPER",
    "UPPER",
    "upper",
    "a=b",
    "it's",
    "two \"quotes\"",
    r"back\slash'",
    "-d",
    "--help",
    "$(id)`id`;",
    "new\nline\tand tab",
    "é ü ß",
    "50%41",
    "../up",
    "*.?",
    "{0}",
];

/// In `database`, as superuser.
pub fn client_of(postgres: &TestPostgres, database: &str) -> Client {
    let options = postgres.connect_options().with_database(database);
    Client::connect(&options).unwrap_or_else(|error| panic!("{database:?}: {error}"))
}

/// A database of each name, with one table that says which it is: `whose`, one row, the name.
pub fn databases_of_every_name(postgres: &TestPostgres, names: &[&str]) {
    for name in names {
        database(postgres, name);
    }
}

/// An empty one is copied in a moment; it holds the table `whose`.
pub fn database(postgres: &TestPostgres, name: &str) {
    let quoted = quote_identifier(name);
    postgres.sql(&format!(
        "CREATE DATABASE {quoted} TEMPLATE template0 STRATEGY file_copy"
    ));
    let sql = format!(
        "CREATE TABLE whose (name text PRIMARY KEY); INSERT INTO whose VALUES ({0}); COMMENT ON TABLE whose IS {0}",
        quote_literal(name)
    );
    client_of(postgres, name).query(&sql).expect("the table");
}

/// A DROP DATABASE that was interrupted: nobody can connect any more, and the database is listed still.
pub fn half_dropped(postgres: &TestPostgres, name: &str) {
    database(postgres, name);
    postgres.sql(&format!(
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = {}",
        quote_literal(name)
    ));
}

/// `ALLOW_CONNECTIONS false`
pub fn closed(postgres: &TestPostgres, name: &str) {
    database(postgres, name);
    close(postgres, name);
}

pub fn close(postgres: &TestPostgres, name: &str) {
    postgres.sql(&format!(
        "ALTER DATABASE {} ALLOW_CONNECTIONS false",
        quote_identifier(name)
    ));
}

/// Settings of the superuser that suit an application and nobody else.
pub fn settings_of_an_application(postgres: &TestPostgres, role: &str) {
    let role = quote_identifier(role);
    let settings = [
        ("statement_timeout", "'5s'"),
        ("lock_timeout", "'5s'"),
        ("idle_session_timeout", "'5s'"),
        ("quote_all_identifiers", "on"),
        ("standard_conforming_strings", "off"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-3"),
        ("IntervalStyle", "iso_8601"),
        ("DateStyle", "'German'"),
        ("default_transaction_isolation", "serializable"),
    ];
    let statements =
        settings.map(|(name, value)| format!("ALTER ROLE {role} SET {name} = {value};"));
    postgres.sql(&statements.concat());
}

/// Indexes in every unfinished state that is ordinary, in the schema `unfinished` of the database `postgres`:
/// `failed_build` (CREATE INDEX CONCURRENTLY that found a duplicate), `leftover_ccnew` and `leftover_ccold` (REINDEX CONCURRENTLY), and
/// `parent_only` (ON ONLY a partitioned table whose second partition has no index yet).
pub fn unfinished_indexes(postgres: &TestPostgres) {
    let mut client = postgres.client();
    let mut run = |sql: &str| client.query(sql);
    let made = run(
        "CREATE SCHEMA unfinished; CREATE TABLE unfinished.twice (id integer, note text); INSERT INTO unfinished.twice VALUES (1, 'a'), (1, 'b'); \
         CREATE TABLE unfinished.parts (id integer) PARTITION BY LIST (id); CREATE TABLE unfinished.part_one PARTITION OF unfinished.parts FOR VALUES IN (1); \
         CREATE TABLE unfinished.part_two PARTITION OF unfinished.parts FOR VALUES IN (2); CREATE INDEX parent_only ON ONLY unfinished.parts (id); \
         CREATE INDEX part_one_id ON unfinished.part_one (id); ALTER INDEX unfinished.parent_only ATTACH PARTITION unfinished.part_one_id",
    );
    made.expect("tables and indexes");
    for name in ["failed_build", "leftover_ccnew", "leftover_ccold"] {
        let failed = run(&format!(
            "CREATE UNIQUE INDEX CONCURRENTLY {name} ON unfinished.twice (id)"
        ));
        assert!(failed.is_err(), "{name} must find the duplicate");
    }
}

/// A tablespace in a folder beside the data folder, with a table `spread.NAME` in it.
pub fn tablespace(postgres: &TestPostgres, name: &str) -> PathBuf {
    let folder = postgres.root().join(format!("space-{}", name.len()));
    std::fs::create_dir(&folder).expect("a folder");
    own(postgres, &folder);
    let quoted = quote_identifier(name);
    let location = quote_literal(folder.to_str().expect("UTF-8"));
    postgres.sql(&format!("CREATE TABLESPACE {quoted} LOCATION {location}"));
    postgres.sql(&format!(
        "CREATE SCHEMA IF NOT EXISTS spread; CREATE TABLE spread.{quoted} TABLESPACE {quoted} AS SELECT n FROM generate_series(1, 100) AS n"
    ));
    folder
}

/// `postgresql.conf` and `pg_hba.conf` become links into a folder beside the data folder; the path of that folder.
pub fn linked_settings(postgres: &TestPostgres) -> PathBuf {
    let elsewhere = postgres.root().join("etc");
    std::fs::create_dir(&elsewhere).expect("a folder");
    own(postgres, &elsewhere);
    for name in ["postgresql.conf", "pg_hba.conf"] {
        let (inside, outside) = (postgres.data_dir().join(name), elsewhere.join(name));
        std::fs::rename(&inside, &outside).expect("a move");
        symlink(&outside, &inside).expect("a link");
    }
    elsewhere
}

/// What a restore by another tool left in a file that `postgresql.conf` includes, and a file of that tool.
pub fn leftovers_of_another_tool(postgres: &TestPostgres, settings: &str) {
    let data = postgres.data_dir();
    let folder = data.join("conf.d");
    std::fs::create_dir(&folder).expect("a folder");
    own(postgres, &folder);
    let file = folder.join("90-restore.conf");
    std::fs::write(&file, settings).expect("settings");
    own(postgres, &file);
    let main = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&main).expect("postgresql.conf");
    std::fs::write(&main, format!("{text}\ninclude_dir 'conf.d'\n")).expect("postgresql.conf");
    let label = data.join("backup_label.old");
    std::fs::write(&label, "START WAL LOCATION: 0/2000028\n").expect("a label");
    own(postgres, &label);
}

/// A transaction that waits for its second phase; it holds a lock on `waiting`.
pub fn prepared_transaction(postgres: &TestPostgres, id: &str) {
    let mut client = postgres.client();
    let sql = format!(
        "BEGIN; CREATE TABLE waiting (n integer); PREPARE TRANSACTION {}",
        quote_literal(id)
    );
    client.query(&sql).expect("max_prepared_transactions");
}

/// A large object of so many bytes, and a row that is moved out of line.
pub fn large_objects(postgres: &TestPostgres, bytes: u32) {
    postgres.sql(&format!(
        "SELECT lo_from_bytea(0, decode(repeat('ab', {bytes}), 'hex')); CREATE TABLE large AS SELECT repeat(md5(n::text), 5000) AS text FROM generate_series(1, 3) AS n"
    ));
}

/// Mode 0750 throughout, as `initdb --allow-group-access` makes it. Takes effect at the next start.
pub fn group_access(postgres: &TestPostgres) {
    fn open(path: &Path) {
        let meta = std::fs::symlink_metadata(path).expect("a file of the cluster");
        if meta.is_symlink() {
            return;
        }
        let mode = if meta.is_dir() { 0o750 } else { 0o640 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).expect("a folder of the cluster") {
                open(&entry.expect("an entry").path());
            }
        }
    }
    open(&postgres.data_dir());
}

/// Everything at once that a server goes on running with.
pub fn make_odd(postgres: &TestPostgres) {
    databases_of_every_name(postgres, &NAMES);
    half_dropped(postgres, "half dropped");
    closed(postgres, "closed");
    unfinished_indexes(postgres);
    tablespace(postgres, "space's \"name\"");
    large_objects(postgres, 300_000);
}

fn own(postgres: &TestPostgres, path: &Path) {
    postgres.os_user().own(path).expect("its owner");
}
