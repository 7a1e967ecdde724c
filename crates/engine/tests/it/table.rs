//! `bre restore table` on a whole engine: emptied by mistake while it works, back with a preview, on the record; the
//! record itself refused.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use postgres_physical::server::sql::Client;
use rustix::{
    process::Signal,
    pty::{OpenptFlags, openpt, ptsname, unlockpt},
};
use serde_json::Value;

use testkit::TestPostgres;

use crate::{
    instance::Instance,
    process::{TIMEOUT, processes_on, within},
};

const POSITION: &str = "SELECT pg_current_wal_insert_lsn()";

#[test]
fn a_table_emptied_by_mistake_is_back_and_the_engine_goes_on() {
    let mut instance = Instance::start();
    instance.quote("GME");
    instance.bre(&["backup", "run"]).json();
    instance.sql("CREATE TABLE orders (id integer PRIMARY KEY, price numeric(20,4)); INSERT INTO orders SELECT n, n / 7.0 FROM generate_series(1, 1000) n");
    let rates = instance.value("SELECT count(*) FROM base_rates");
    let place = instance.value(POSITION);
    // The mistakes: a table of somebody's own, and the rates that the engine prices from.
    instance.sql("DELETE FROM orders; INSERT INTO orders VALUES (5000, 1)");
    instance.sql("DELETE FROM base_rates");
    // It answers on: by what it holds in memory, or, as soon as it has seen the change, that no rate is known.
    let meanwhile = instance.locate().status;
    assert!([200, 404].contains(&meanwhile), "{meanwhile}");
    instance.wait_caught_up();
    let restore = |more: &[&str]| {
        let all = [
            "restore",
            "table",
            "--table",
            "orders,base_rates",
            "--lsn",
            &place,
        ];
        instance.bre(&[&all, more].concat())
    };
    restore(&[]).refused(&[
        "orders: 1000 rows then, 1 now",
        "--yes",
        "id=1, price=0.1429",
    ]);
    whoever_leaves_takes_everything_along(&instance, &place);
    let shown = restore(&["--dry-run"]).json();
    assert_eq!(
        (&shown["merged"], &shown["tables"][0]["missing"]),
        (&false.into(), &1000.into()),
        "{shown}"
    );
    let done = restore(&["--yes"]).json();
    assert_eq!(done["merged"], true, "{done}");
    for table in done["tables"].as_array().unwrap() {
        assert_eq!(
            (&table["done"]["missing"], &table["notes"].is_array()),
            (&0.into(), &true),
            "{done}"
        );
    }
    assert_eq!(instance.value("SELECT count(*) FROM orders"), "1001");
    assert_eq!(instance.value("SELECT count(*) FROM base_rates"), rates);
    // Nothing stays: no server, no folder, no timeline.
    assert!(!instance.data().join("beside/scratch").exists());
    let timelines = std::fs::read_dir(instance.repository().join("timelines"));
    assert_eq!(timelines.map_or(0, Iterator::count), 0);
    // It is on the record, and the engine prices on.
    let canonical = "SELECT encode(canonical, 'escape') FROM audit_log WHERE kind = 8 ORDER BY position DESC LIMIT 1";
    let entry = instance.value(canonical);
    assert!(
        entry.contains("public.orders") && entry.contains("inserted"),
        "{entry}"
    );
    let priced = within(std::time::Duration::from_secs(30), || {
        (instance.locate().status == 200).then_some(())
    });
    assert!(priced.is_some());
    let again = restore(&["--yes"]).json();
    assert_eq!(again["merged"], false, "{again}");
    // The record is not for mending by hand.
    for table in ["audit_log", "public.quotes"] {
        let refused = instance.bre(&["restore", "table", "--table", table, "--yes"]);
        refused.refused(&["append-only", "bre verify audit"]);
    }
    instance.audit_is_sound();
    the_schema_goes_to_git(&instance);
    a_damaged_page_comes_back(&mut instance);
    instance.stop_cleanly();
}

/// At the question the terminal is closed; while it waits for a table that somebody holds comes SIGTERM.
fn whoever_leaves_takes_everything_along(instance: &Instance, place: &str) {
    let scratch = instance.data().join("beside/scratch");
    let nothing_stays = || {
        assert!(!scratch.exists());
        let left = processes_on(&scratch.join("data"));
        assert!(left.is_empty(), "{left:?}");
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bre-table'";
        let gone = within(TIMEOUT, || (instance.value(busy) == "0").then_some(()));
        assert!(gone.is_some(), "a query is still there");
    };
    let all = ["restore", "table", "--table", "orders", "--lsn", place];
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    // A session of its own, whose terminal this is.
    let mut command = Command::new("setsid");
    let mut child = command
        .args(["--ctty", env!("CARGO_BIN_EXE_bre"), "--data"])
        .arg(instance.data())
        .args(all)
        .stdin(side.try_clone().unwrap())
        .stdout(Stdio::null())
        .stderr(side)
        .spawn()
        .unwrap();
    drop(command);
    let mut screen = std::fs::File::from(terminal);
    let (mut shown, mut piece) = (String::new(), [0; 4096]);
    while !shown.contains("Type yes to go on") {
        let read = screen.read(&mut piece).unwrap_or(0);
        assert!(read > 0, "it ended early: {shown}");
        shown.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(scratch.exists());
    drop(screen);
    let ended = within(TIMEOUT, || child.try_wait().unwrap());
    assert!(ended.is_some_and(|status| !status.success()), "{shown}");
    nothing_stays();

    let mut holder = Client::connect(&instance.options()).unwrap();
    holder
        .query("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let waiting = instance.start_command(&all);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bre-table' AND wait_event_type = 'Lock'";
    let seen = within(TIMEOUT, || (instance.value(waits) == "1").then_some(()));
    assert!(seen.is_some());
    waiting.signal(Signal::TERM);
    waiting
        .wait()
        .refused(&["interrupted; nothing was changed"]);
    nothing_stays();
    holder.query("ROLLBACK").unwrap();
}

fn a_damaged_page_comes_back(instance: &mut Instance) {
    instance.sql("UPDATE orders SET price = price + 1");
    let before = instance.value("SELECT sum(price) FROM orders");
    let path = instance.value("SELECT pg_relation_filepath('orders')");
    instance.stop_cleanly();
    let file = instance.data().join("postgres").join(path);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[2 * 8192 + 5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    instance.up();
    let found = instance.bre(&["verify", "cluster"]).exits(1).parsed();
    let page = &found["damaged"][0];
    assert_eq!(
        (&page["database"], &page["relation"], &page["block"]),
        (&"bre".into(), &"public.orders".into(), &2.into()),
        "{found}"
    );
    instance
        .bre(&["restore", "pages"])
        .refused(&["public.orders, block 2", "--yes"]);
    let repaired = instance.bre(&["restore", "pages", "--yes"]).json();
    assert_eq!(repaired["sound"], true, "{repaired}");
    assert!(
        repaired["damaged"][0]["outcome"]
            .as_str()
            .unwrap()
            .starts_with("brought back"),
        "{repaired}"
    );
    assert_eq!(instance.value("SELECT sum(price) FROM orders"), before);
    assert_eq!(instance.bre(&["verify", "cluster"]).json()["sound"], true);
    assert_eq!(instance.locate().status, 200);
}

fn the_schema_goes_to_git(instance: &Instance) {
    let first = instance.bre(&["schema", "backup"]).json();
    assert!(first["commit"].is_string(), "{first}");
    let sql = std::fs::read_to_string(instance.data().join("schema/databases/bre.sql")).unwrap();
    assert!(sql.contains("CREATE TABLE public.audit_log"), "{sql}");
    assert_eq!(
        instance.bre(&["job", "run", "schema"]).json()["commit"],
        Value::Null
    );
    let to = instance.folder.join("elsewhere");
    let to = to.to_str().unwrap();
    instance.sql("CREATE TABLE more (id integer)");
    instance.bre(&["schema", "backup", "--to", to]).json();
    let second = instance.bre(&["schema", "backup"]).json();
    assert_eq!(
        second["changes"],
        serde_json::json!(["table public.more added in bre"])
    );
    let url = "https://bob:s3cret@git.example/x.git";
    let refused = instance.bre(&["schema", "backup", "--to", url]);
    assert!(!refused.err.contains("s3cret"), "{refused:?}");
    refused.refused(&["password", "schema_to"]);
}

#[test]
fn a_cluster_that_is_only_protected_gets_its_table_back_too() {
    let postgres = TestPostgres::start();
    let instance = Instance::prepared(&[]);
    std::fs::create_dir(instance.data()).unwrap();
    let settings = format!("[clusters.desk]\nurl = \"{}\"\n", postgres.url());
    std::fs::write(instance.data().join("bre.toml"), settings).unwrap();
    let mut stream = instance.start_command(&["wal", "stream", "--cluster", "desk"]);
    let attached = "SELECT count(*) FROM pg_replication_slots WHERE active";
    let attached = within(TIMEOUT, || (postgres.value(attached) == "1").then_some(()));
    assert!(attached.is_some(), "{}", stream.err());
    postgres.sql("CREATE DATABASE sales");
    let sales = || {
        let connect = postgres.connect_options().with_database("sales");
        postgres_physical::server::sql::Client::connect(&connect).unwrap()
    };
    sales()
        .query("CREATE SCHEMA desk; CREATE TABLE desk.lines (id integer PRIMARY KEY); INSERT INTO desk.lines SELECT generate_series(1, 100)")
        .unwrap();
    instance.bre(&["backup", "run", "--cluster", "desk"]).json();
    let place = postgres.value("SELECT pg_create_restore_point('good')");
    sales()
        .query("DROP SCHEMA desk CASCADE; CREATE SCHEMA desk")
        .unwrap();
    postgres.sql("SELECT pg_switch_wal()");
    let lines = ["--cluster", "desk", "--database", "sales"];
    let restore = [
        &[
            "restore",
            "table",
            "--yes",
            "--table",
            "desk.lines",
            "--lsn",
            &place,
        ],
        &lines[..],
    ]
    .concat();
    // The stream may still be on its way.
    let restored = within(TIMEOUT, || {
        let restored = instance.bre(&restore);
        (restored.code == Some(0)).then(|| restored.parsed())
    });
    let table = &restored.unwrap()["tables"][0];
    assert_eq!(
        (&table["dropped"], &table["done"]["inserted"]),
        (&true.into(), &100.into()),
        "{table}"
    );
    assert_eq!(
        sales()
            .value("SELECT count(*) FROM desk.lines")
            .unwrap()
            .as_deref(),
        Some("100")
    );
    let schema = instance
        .bre(&["schema", "backup", "--cluster", "desk"])
        .json();
    assert_eq!(
        schema["databases"],
        serde_json::json!(["postgres", "sales", "template1"])
    );
    assert_eq!(
        instance
            .bre(&["verify", "cluster", "--cluster", "desk"])
            .json()["sound"],
        true
    );
    stream.kill();
}
