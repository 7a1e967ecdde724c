//! `bre restore` and `bre backup export`: plain folders that PostgreSQL itself starts, checks and accepts.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use postgres_physical::server::{Binaries, OsUser, Server, StartOptions, StopMode, sql::Client};
use postgres_physical::wire::ConnectOptions;
use serde_json::Value;

use crate::{
    instance::{Instance, texts},
    process::{TIMEOUT, within},
};

/// Plain PostgreSQL on a restored folder: no setting of ours but where its socket is.
pub(crate) struct Plain {
    server: Server,
    options: ConnectOptions,
    binaries: Binaries,
    user: OsUser,
}

impl Plain {
    fn start(dir: &Path) -> Self {
        let (binaries, user) = (Binaries::find(None).unwrap(), OsUser::for_server().unwrap());
        let sockets = dir.with_extension("sockets");
        std::fs::create_dir_all(&sockets).unwrap();
        user.own(&sockets).unwrap();
        let log = dir.with_extension("log");
        let options = StartOptions::new(&sockets, 5432, log);
        let server = Server::start(&binaries, &user, dir, &options).unwrap();
        Self {
            server,
            options: ConnectOptions::unix(&sockets, 5432, "postgres", "bre"),
            binaries,
            user,
        }
    }

    fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        let mut client = Client::connect(&self.options).unwrap();
        texts(
            client
                .query(sql)
                .unwrap_or_else(|error| panic!("{sql}: {error}")),
        )
    }

    /// Every relation and every index of every database, by PostgreSQL's own checker.
    fn passes_amcheck(&self, folder: &Path) {
        let mut command = self.user.command(&self.binaries.program("pg_amcheck"));
        let output = command
            .args([
                "--all",
                "--install-missing",
                "--heapallindexed",
                "--username",
                "postgres",
                "--host",
            ])
            .arg(folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{}{said}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.server.stop(StopMode::Fast, Duration::from_secs(30));
    }
}

/// One row a quote, in order.
pub(crate) const QUOTES: &str =
    "SELECT position, quote_id, total_fee FROM quotes ORDER BY position";

impl Instance {
    fn restore(&self, name: &str, target: &[&str]) -> PathBuf {
        let to = self.folder.join(name);
        let arguments = [
            &["restore", "database", "--to", to.to_str().unwrap()],
            target,
        ]
        .concat();
        let restored = self.bre(&arguments).json();
        assert_eq!(restored["dir"], to.to_str().unwrap(), "{restored}");
        to
    }

    /// Restores there, starts plain PostgreSQL on it, has it checked, and compares the quotes.
    pub(crate) fn restores(&self, name: &str, target: &[&str], quotes: &[Vec<String>]) -> Plain {
        let dir = self.restore(name, target);
        for trace in [
            "backup_label",
            "recovery.signal",
            "standby.signal",
            "postmaster.pid",
        ] {
            assert!(!dir.join(trace).exists(), "{trace} is left in {name}");
        }
        let plain = Plain::start(&dir);
        assert_eq!(plain.sql(QUOTES), quotes, "{name}");
        assert_eq!(plain.sql("SELECT pg_is_in_recovery()"), [["f"]]);
        assert_eq!(
            plain.sql("SHOW synchronous_standby_names"),
            [[""]],
            "a commit would wait for ever"
        );
        plain.sql("CREATE TABLE it_can_be_written AS SELECT 1 AS one");
        plain
    }

    /// The server's clock, between two quotes.
    fn moment(&self) -> String {
        self.value("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    }
}

/// In strict mode every quote that was answered is in the repository: what a restore must hold is known exactly.
#[test]
fn a_restore_holds_exactly_what_was_there_at_its_end_at_a_moment_and_at_a_position() {
    let instance = Instance::with(&["--strict"]);
    instance.quote("GME");
    let first = instance.sql(QUOTES);
    let moment = instance.moment();
    instance.value("SELECT pg_create_restore_point('after one')");
    instance.value("SELECT pg_create_restore_point(E'red\\x1b[31m\\nnext')");
    instance.quote("AAPL");
    let second = instance.sql(QUOTES);
    let lsn = instance.value("SELECT pg_current_wal_insert_lsn()");
    instance.quote("GME");
    let third = instance.sql(QUOTES);
    assert_eq!((first.len(), second.len(), third.len()), (1, 2, 3));

    let latest = instance.restores("latest", &["--latest"], &third);
    latest.passes_amcheck(&instance.folder.join("latest.sockets"));
    drop(latest);
    drop(instance.restores("by_lsn", &["--lsn", &lsn], &second));
    drop(instance.restores("by_time", &["--time", &moment], &first));
    named_points_are_shown_and_restored(&instance, &first);
    mended_in_place(&instance, &third);

    let refused = |name: &str, target: &[&str]| {
        let to = instance.folder.join(name);
        let output = instance.bre(
            &[
                &["restore", "database", "--to", to.to_str().unwrap()],
                target,
            ]
            .concat(),
        );
        output.refused(&[]);
        let left = std::fs::read_dir(&to).map_or(0, Iterator::count);
        assert!(left <= 2, "{name}: {left}");
        output
    };
    // Names the nearest moment that can be had, which is of the year of this very test: of the one in which it began, or ends.
    let year = |moment: &str| format!("nearest is {}", &moment[..4]);
    let years = [year(&moment), year(&instance.moment())];
    // any day: long before any clock, and long after.
    for outside in ["2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z"] {
        let told = refused("outside", &["--time", outside]);
        told.refused(&[outside]);
        assert!(years.iter().any(|year| told.err.contains(year)), "{told:?}");
    }

    refused("outside", &["--lsn", "F/0"]).refused(&["F/0", "The nearest is 0/"]);
    refused("outside", &["--time", "10:31"]).refused(&["10:31", "offset"]);
    assert!(
        !instance.folder.join("outside").exists(),
        "nothing is half restored"
    );

    let full = instance.folder.join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "mine").unwrap();
    refused("full", &["--latest"]).refused(&[full.to_str().unwrap(), "not empty"]);
    assert_eq!(std::fs::read_to_string(full.join("mine")).unwrap(), "mine");
}

fn named_points_are_shown_and_restored(instance: &Instance, first: &[Vec<String>]) {
    let points = instance
        .bre(&["restore", "database", "--list-points"])
        .json();
    assert_eq!(points[0]["name"], "after one", "{points}");
    // A terminal obeys no name, and a name begins no line.
    assert_eq!(points[1]["name"], "red\u{1b}[31m\nnext", "{points}");
    let data = instance.data();
    let lines = [
        "--data",
        data.to_str().unwrap(),
        "restore",
        "database",
        "--list-points",
    ];
    let lines = instance.folder.run(&lines).exits(0).out.clone();
    assert!(
        lines.contains(r"red\u001b[31m\nnext") && !lines.contains('\u{1b}'),
        "{lines}"
    );
    drop(instance.restores("by_name", &["--name", "after one"], first));
    let nowhere = instance.folder.join("nowhere");
    let to = nowhere.to_str().unwrap();
    for (option, value) in [("--name", "after two"), ("--xid", "4000000000")] {
        let refused = instance.bre(&["restore", "database", "--to", to, option, value]);
        refused.refused(&[value, " to "]);
    }
    assert!(!nowhere.exists());
    let status = instance.bre(&["status"]).parsed();
    let window = &status["window"][0];
    assert_eq!(
        (&window["timeline"], &window["from_timeline"]),
        (&1.into(), &1.into()),
        "{status}"
    );
}

/// The folder that was restored to the end, spoiled, and restored again: what differs is written, nothing else; never the engine's own.
fn mended_in_place(instance: &Instance, third: &[Vec<String>]) {
    let own = instance.data().join("postgres");
    let over = |dir: &Path, more: &[&str]| {
        instance.bre(
            &[
                &[
                    "restore",
                    "database",
                    "--delta",
                    "--to",
                    dir.to_str().unwrap(),
                ],
                more,
            ]
            .concat(),
        )
    };
    over(&own, &["--yes"]).refused(&["a server", "runs on"]);
    let dir = instance.folder.join("latest");
    let version = dir.join("PG_VERSION");
    std::fs::write(&version, "??").unwrap();
    std::fs::write(dir.join("stray"), "stray").unwrap();
    let looked = over(&dir, &["--dry-run"]).json();
    let surplus = looked["over"]["delete"].as_array().unwrap();
    assert!(
        surplus
            .iter()
            .any(|path| path == dir.join("stray").to_str().unwrap()),
        "{looked}"
    );
    over(&dir, &[])
        .refused(&["nothing was changed", "--yes"])
        .exits(3);
    assert_eq!(std::fs::read_to_string(&version).unwrap(), "??");
    let restored = over(&dir, &["--yes"]).json();
    let (written, whole) = (
        restored["bytes_written"].as_u64().unwrap(),
        restored["bytes"].as_u64().unwrap(),
    );
    assert!(written < whole / 2, "{restored}");
    assert!(!dir.join("stray").exists());
    let plain = Plain::start(&dir);
    assert_eq!(plain.sql(QUOTES), third);
}

#[test]
fn an_exported_backup_is_accepted_by_pg_verifybackup_and_one_changed_byte_is_not() {
    let instance = Instance::start();
    let id = instance.backup();
    let dir = instance.folder.join("exported");
    instance
        .bre(&["backup", "export", &id, dir.to_str().unwrap()])
        .exits(0);
    let binaries = Binaries::find(None).unwrap();
    let verify = || {
        let mut command = std::process::Command::new(binaries.program("pg_verifybackup"));
        command
            .arg(&dir)
            .env("PATH", binaries.dir())
            .output()
            .unwrap()
    };
    let accepted = verify();
    assert!(accepted.status.success(), "{accepted:?}");
    // So that its word means something.
    let changed = dir.join("PG_VERSION");
    std::fs::write(&changed, "14\n").unwrap();
    assert!(!verify().status.success());
}

/// Nothing but the repository and the keys is left; the engine itself brings the rest back.
#[test]
fn an_engine_started_on_repository_and_keys_alone_serves_every_acknowledged_quote() {
    let mut instance = Instance::with(&["--strict"]);
    instance.quote("GME");
    let quoted = instance.quote("AAPL");
    let before = instance.sql(QUOTES);
    instance.kill();
    crate::process::kill_all_on(&instance.data());
    for entry in std::fs::read_dir(instance.data()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !["repository", "keys"].contains(&name) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
    instance.up();
    assert_eq!(instance.sql(QUOTES), before);
    let served = within(TIMEOUT, || (instance.locate().status == 200).then_some(()));
    assert!(served.is_some(), "{}", instance.locate().text);
    let report = instance.audit_is_sound();
    let epochs = report["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 2, "{report}");
    let located = instance.locate();
    assert_eq!(located.body["audit"]["epoch"], 2, "{}", located.text);
    assert_ne!(quoted["audit"]["epoch"], Value::Null);
    // This engine did not live through it, so it cannot know what was granted last: it says so until somebody has looked.
    let alarms = instance.bre(&["status"]).exits(1).parsed()["alarms"].to_string();
    assert!(
        alarms.contains("recovery_unsettled") && alarms.contains("bre locate reopen"),
        "{alarms}"
    );
    instance.bre(&["locate", "reopen"]).refused(&["--yes"]);
    instance.bre(&["locate", "reopen", "--yes"]).exits(0);
    // A backup of the new timeline follows by itself.
    let protected = within(TIMEOUT, || {
        let status = instance.bre(&["status"]);
        (status.code == Some(0) && status.parsed()["backups_complete"] == 2).then_some(())
    });
    assert!(protected.is_some(), "{:?}", instance.bre(&["status"]));
}

#[test]
fn damage_in_the_repository_stops_a_restore_and_is_named() {
    let mut instance = Instance::start();
    instance.quote("GME");
    instance.wait_caught_up();
    instance.stop_cleanly();
    let restore = |name: &str| {
        let to = instance.folder.join(name);
        instance.bre(&[
            "restore",
            "database",
            "--to",
            to.to_str().unwrap(),
            "--latest",
        ])
    };
    let verify = || instance.bre(&["verify", "repository"]);
    let sound = verify();
    let report = sound.exits(0).parsed();
    assert_eq!(report["verdict"], "sound", "{report}");
    assert!(
        !report["classes"].to_string().contains("foreign"),
        "{report}"
    );
    assert_eq!(report["newest"]["is_missing"], false, "{report}");
    // A host that only writes says what it could not open, and calls nothing damaged.
    let writing = instance.folder.join("writing");
    std::fs::create_dir(&writing).unwrap();
    for name in [
        "recipient.pub",
        "chunk_id.key",
        "audit_signing.pub",
        "repository.id",
    ] {
        std::fs::copy(instance.data().join("keys").join(name), writing.join(name)).unwrap();
    }
    let closed = instance.bre(&[
        "verify",
        "repository",
        "--keys-dir",
        writing.to_str().unwrap(),
    ]);
    let report = closed.exits(5).parsed();
    assert_eq!(report["verdict"], "sound_as_far_as_opened", "{report}");
    assert!(report["not_opened"].as_u64().unwrap() > 0, "{report}");
    let found = |output: crate::process::Output, object: &str, says: &str| {
        let report = output.exits(1).parsed();
        let findings = report["findings"].as_array().unwrap();
        let named = findings.iter().any(|it| {
            it["object"].as_str().unwrap().contains(object)
                && it["what"].as_str().unwrap().contains(says)
        });
        assert!(named, "{object}: {report}");
    };
    let packs = instance.repository().join("packs");
    let pack = std::fs::read_dir(&packs)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let object = format!("packs/{}", pack.file_name().unwrap().to_str().unwrap());
    let whole = std::fs::read(&pack).unwrap();

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&pack, flipped).unwrap();
    restore("flipped").refused(&[&object, "damaged"]);
    found(verify(), &object, "damaged");
    assert!(
        !instance.folder.join("flipped/global/pg_control").exists(),
        "it could be started"
    );
    std::fs::remove_file(&pack).unwrap();
    let missing = restore("missing");
    missing.refused(&[&object, "is missing"]);
    assert_eq!(
        missing.err.matches("is missing").count(),
        1,
        "{}",
        missing.err
    );
    std::fs::write(&pack, &whole).unwrap();
    std::fs::set_permissions(&pack, PermissionsExt::from_mode(0o600)).unwrap();

    // A whole segment cut short: what lies behind it is out of reach, and that is said.
    let wal = instance.repository().join("wal/00000001");
    let entries = std::fs::read_dir(&wal).unwrap();
    let segment = entries.map(|entry| entry.unwrap().path()).max().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() / 2]).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    restore("cut").refused(&[&name]);
    std::fs::write(&segment, bytes).unwrap();

    // The end of the WAL is gone, and only the signed head knows that there was more.
    let tails = instance.repository().join("tail/00000001");
    let kept = instance.folder.join("kept");
    std::fs::rename(&tails, &kept).unwrap();
    let cut = restore("cut_tail");
    cut.exits(5);
    assert!(cut.err.contains("the newest WAL is gone"), "{}", cut.err);
    assert!(cut.err.contains("signed head"), "{}", cut.err);
    let report = cut.parsed();
    assert!(report["missing_seconds"].as_u64() > Some(0), "{report}");
    found(verify(), "tail/", "the newest WAL is missing");
    std::fs::rename(&kept, &tails).unwrap();
    let whole = restore("whole");
    whole.exits(0);
    assert!(!whole.err.contains("WARNING"), "{}", whole.err);
}
