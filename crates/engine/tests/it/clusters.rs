//! Clusters that `bre` protects and does not run: what it says of them while they cannot be reached, while all is well, with a hole, and
//! after it; and a spare of one.

use postgres_physical::{server::sql::Client, wire::ConnectOptions};
use rustix::process::Signal;
use testkit::{TestPostgres, free_port};

use crate::{
    instance::Instance,
    process::{Output, Running, TIMEOUT, within},
};

fn wait_out(stream: &Running, words: &[&str]) {
    let said = within(TIMEOUT, || {
        let out = stream.out();
        words.iter().all(|word| out.contains(word)).then_some(())
    });
    assert!(
        said.is_some(),
        "{words:?} is not said:\n{}\n{}",
        stream.out(),
        stream.err()
    );
}

fn stopped(stream: Running) -> Output {
    stream.signal(Signal::TERM);
    let output = stream.wait();
    output.exits(0);
    output
}

#[test]
fn a_named_cluster_is_told_of_as_an_own_one_unreachable_well_with_a_hole_and_after_it() {
    let postgres = TestPostgres::builder()
        .wal_segment_bytes(1 << 20)
        .set("max_slot_wal_keep_size", "2MB")
        .set("wal_keep_size", 0)
        .set("min_wal_size", "2MB")
        .set("max_wal_size", "4MB")
        .start();
    let instance = Instance::prepared(&[]);
    let data = instance.data();
    std::fs::create_dir_all(&data).unwrap();
    let settings = format!(
        "[clusters.desk]\nurl = \"{}\"\n[clusters.far]\nurl = \"postgres://nobody@127.0.0.1:{}/postgres\"\n",
        postgres.url(),
        free_port()
    );
    std::fs::write(data.join("bre.toml"), settings).unwrap();
    let stream = |name: &str| instance.start_command(&["wal", "stream", "--cluster", name]);
    let desk = |words: &[&str]| instance.bre(&[words, &["--cluster", "desk"]].concat());

    // Why it cannot be reached, at once, and what to do.
    let far = stream("far");
    wait_out(&far, &["\"error\"", "[clusters.far] url", "pg_hba.conf"]);
    stopped(far);

    let running = stream("desk");
    wait_out(&running, &["\"attached\":true"]);
    desk(&["backup", "run"]).exits(0);
    let status = desk(&["status"]).exits(0).parsed();
    assert_eq!(status["stream"]["attached"], true, "{status}");
    assert_eq!(status["backups_complete"], 1, "{status}");
    let all = instance.bre(&["status"]).exits(1).parsed();
    assert_eq!(
        all["alarms"],
        serde_json::json!([]),
        "there is no repository of its own to miss: {all}"
    );
    assert_eq!(all["clusters"]["desk"]["alarms"], serde_json::json!([]));
    let far = all["clusters"]["far"]["alarms"].to_string();
    assert!(far.contains("bre wal stream --cluster far"), "{far}");

    // Nobody streams, and PostgreSQL gives up.
    stopped(running);
    postgres.sql("CREATE TABLE t (text text)");
    let lost = within(TIMEOUT, || {
        postgres.sql("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 5000)");
        postgres.sql("CHECKPOINT");
        let state = postgres.value("SELECT wal_status FROM pg_replication_slots");
        (state == "lost").then_some(())
    });
    assert!(lost.is_some());
    let alarms = desk(&["status"]).exits(1).parsed()["alarms"].to_string();
    assert!(alarms.contains("gave up WAL"), "{alarms}");

    let running = stream("desk");
    let remedy = "bre backup run --cluster desk";
    wait_out(&running, &["\"hole\"", "is missing", remedy]);
    let list = desk(&["backup", "list"]);
    for words in ["ALARM", "is missing", remedy] {
        assert!(list.err.contains(words), "{words}: {list:?}");
    }
    let alarms = desk(&["status"]).exits(1).parsed()["alarms"].to_string();
    assert!(
        alarms.contains("is missing") && alarms.contains(remedy),
        "{alarms}"
    );

    // A restore says what it does not bring back.
    postgres.sql("CREATE TABLE behind_the_hole ()");
    let to = instance.folder.join("restored");
    let to = to.to_str().unwrap();
    let told = within(TIMEOUT, || {
        let look = desk(&["restore", "database", "--dry-run", "--to", to]);
        (look.code == Some(5)).then_some(())
    });
    assert!(
        told.is_some(),
        "{:?}",
        desk(&["restore", "database", "--dry-run", "--to", to])
    );
    let restored = desk(&["restore", "database", "--to", to]);
    let said = restored.exits(5).parsed();
    assert!(
        said["not_restored"][0]
            .as_str()
            .unwrap()
            .contains("is missing"),
        "{said}"
    );
    assert_eq!(said["listen_addresses"], "");
    let now = postgres
        .value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let elsewhere = instance.folder.join("elsewhere");
    let refused = desk(&[
        "restore",
        "database",
        "--time",
        &now,
        "--to",
        elsewhere.to_str().unwrap(),
    ]);
    assert!(
        refused.err.contains("is missing") && !refused.err.contains("later than anything"),
        "{refused:?}"
    );

    // A backup behind the hole makes up for it.
    desk(&["backup", "run"]).exits(0);
    assert!(!desk(&["backup", "list"]).err.contains("ALARM"));
    let healed = within(TIMEOUT, || {
        (desk(&[
            "restore",
            "database",
            "--dry-run",
            "--to",
            &format!("{to}.2"),
        ])
        .code
            == Some(0))
        .then_some(())
    });
    assert!(healed.is_some());

    // A spare of its own.
    assert_ne!(
        desk(&["standby", "status"]).code,
        Some(0),
        "nobody keeps one"
    );
    let standby = instance.start_command(&["standby", "run", "--cluster", "desk"]);
    let follows = within(TIMEOUT, || {
        (desk(&["standby", "status"]).code == Some(0)).then_some(())
    });
    assert!(
        follows.is_some(),
        "{:?}\n{}",
        desk(&["standby", "status"]),
        standby.err()
    );
    assert!(
        !data.join("spare").exists(),
        "the folder of the instance's own"
    );
    let alive = desk(&["standby", "promote", "--yes"]);
    assert!(alive.err.contains("answers"), "{alive:?}");
    stopped(running);
    let promoted = desk(&["standby", "promote", "--yes", "--even-if-alive"]).json();
    let url = promoted["database_url"].as_str().unwrap();
    let mut client = Client::connect(&ConnectOptions::from_url(url).unwrap()).unwrap();
    let rows = client
        .value("SELECT count(*) FROM behind_the_hole")
        .unwrap();
    assert_eq!(
        rows.as_deref(),
        Some("0"),
        "it is the cluster behind the hole"
    );
    drop(client);
    desk(&["standby", "stop"]).exits(0);
    standby.wait().exits(0);
}

#[test]
fn a_named_cluster_has_the_jobs_of_an_own_one() {
    let postgres = TestPostgres::builder().start();
    let instance = Instance::prepared(&[]);
    let data = instance.data();
    std::fs::create_dir_all(&data).unwrap();
    // What follows a backup would run beside what is asked for here.
    let settings = format!(
        "[clusters.desk]\nurl = \"{}\"\n[clusters.desk.jobs.full]\nschedule = \"monthly 1 03:00\"\nkeep_days = 60\n\
         [clusters.desk.jobs.incremental]\nschedule = \"off\"\n[clusters.desk.jobs.proof]\nschedule = \"manual\"\n\
         [clusters.desk.jobs.expire]\nschedule = \"manual\"\n",
        postgres.url()
    );
    std::fs::write(data.join("bre.toml"), settings).unwrap();
    let desk = |words: &[&str]| instance.bre(&[words, &["--cluster", "desk"]].concat());
    let row = |name: &str| {
        let list = desk(&["job", "list"]).json();
        let all = list.as_array().unwrap();
        all.iter().find(|row| row["name"] == name).unwrap().clone()
    };
    let full = row("database.full");
    assert_eq!(
        (&full["state"], &full["schedule"], &full["retention"]),
        (
            &"not running".into(),
            &"monthly 1 03:00 UTC".into(),
            &"60 days".into()
        )
    );

    let running = instance.start_command(&["wal", "stream", "--cluster", "desk"]);
    wait_out(&running, &["\"attached\":true"]);
    let streams = within(TIMEOUT, || {
        (row("wal.stream")["state"] == "running").then_some(())
    });
    assert!(
        streams.is_some(),
        "{}\n{}",
        row("wal.stream"),
        running.err()
    );
    let taken = desk(&["job", "run", "full"]).json();
    assert_eq!(
        (&taken["kind"], &taken["state"]),
        (&"full".into(), &"complete".into())
    );
    let taken = desk(&["backup", "run", "--kind", "incremental"]).json();
    assert_eq!(taken["kind"], "incremental", "{taken}");
    let tested = desk(&["job", "run", "proof"]).json();
    assert_eq!(
        (&tested["backup_id"], &tested["passed"]),
        (&taken["id"], &true.into()),
        "{tested}"
    );
    desk(&["job", "run", "expire"]).json();
    a_clusters_jobs_are_seen_and_paused(&instance, &desk);
    stopped(running);

    // The process that streamed ran them all.
    let drivers = |words: &[&str]| {
        let history = desk(&[&["job", "history"], words].concat()).json();
        let runs = history["runs"].as_array().unwrap().iter();
        let drivers: Vec<String> = runs.map(|run| run["driver"].to_string()).collect();
        drivers
    };
    let all = drivers(&[]);
    assert!(
        all.len() >= 6 && all.iter().all(|it| *it == all[0]),
        "{all:?}"
    );
    let records = data.join("clusters/desk/repository/runs");
    assert!(std::fs::read_dir(records).unwrap().next().is_some());
    // Where no process streams, the one that asks runs it.
    let alone = desk(&["job", "run", "proof"]).json();
    assert_eq!(alone["passed"], true, "{alone}");
    assert_ne!(drivers(&["proof"])[0], all[0]);
}

fn a_clusters_jobs_are_seen_and_paused(instance: &Instance, desk: &dyn Fn(&[&str]) -> Output) {
    let everything = instance.bre(&["job", "list"]).json();
    let everything = everything.as_array().unwrap();
    let of_desk = |row: &&serde_json::Value| row["cluster"] == "desk";
    assert_eq!(everything.iter().filter(of_desk).count(), 5);
    let data = instance.data();
    let shown = ["--data", data.to_str().unwrap(), "plan", "show"];
    let shown = instance.folder.start(&shown).wait();
    assert!(shown.exits(0).out.contains("cluster desk\n"), "{shown:?}");
    let checked = instance.bre(&["plan", "check"]).parsed();
    assert_eq!(checked["clusters"]["desk"][0], "database.full", "{checked}");
    let unknown = desk(&["job", "run", "fool"]);
    assert!(
        unknown.exits(2).err.contains("database.full"),
        "{unknown:?}"
    );
    let unknown = instance.bre(&["job", "list", "--cluster", "disk"]);
    assert!(
        unknown.exits(2).err.contains("it names: desk"),
        "{unknown:?}"
    );

    let until = |attached: bool| {
        let seen = within(TIMEOUT, || {
            let status = desk(&["status"]).parsed();
            let is_told = status["alarms"]
                .to_string()
                .contains("the job wal is paused");
            (status["stream"]["attached"] == attached && is_told != attached).then_some(())
        });
        assert!(seen.is_some(), "{}", desk(&["status"]).parsed());
    };
    desk(&["job", "pause", "wal"]).json();
    until(false);
    desk(&["job", "resume", "wal"]).json();
    until(true);
    // The stream is there a moment before the job's second run is.
    let runs = within(TIMEOUT, || {
        let list = desk(&["job", "list"]).json();
        let mut rows = list.as_array().unwrap().iter();
        let row = rows.find(|row| row["name"] == "wal.stream").unwrap();
        (row["state"] == "running").then_some(())
    });
    assert!(runs.is_some(), "{:?}", desk(&["job", "list"]));
    let status = instance.bre(&["status"]).parsed();
    let jobs = status["clusters"]["desk"]["jobs"].as_array().unwrap();
    let full = serde_json::json!({ "name": "database.full", "state": "waiting" });
    assert!(jobs.contains(&full), "{status}");
}
