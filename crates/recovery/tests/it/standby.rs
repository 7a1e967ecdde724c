//! A warm standby: it follows a primary through the repository alone, is promoted, and gives way to nothing but the
//! truth.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use postgres_physical::server::{Leftover, StopMode};
use recovery::standby::{
    Conditions, Phase, PromotionReport, Settings, Standby, StandbyError, Status, Watch,
    take_promoted,
};
use testkit::eventually;

use super::*;

const SUM: &str = "SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM t";

const AT_ONCE: Conditions = Conditions {
    even_if_alive: true,
    quiet: Duration::ZERO,
};

type Step = Box<dyn FnOnce(&mut Standby) + Send>;

/// A standby that is turned by a thread of its own, as its process does.
struct RunningStandby {
    orders: Option<Sender<Step>>,
    thread: Option<JoinHandle<()>>,
    watch: Watch,
    connect: ConnectOptions,
    folder: PathBuf,
}

impl RunningStandby {
    fn settings(world: &World, name: &str, private: &RecipientPrivate) -> Settings {
        let folder = world.folder(name);
        let sockets = folder.join("run");
        std::fs::create_dir_all(&sockets).unwrap();
        world.postgres.os_user().own(&sockets).unwrap();
        Settings {
            repository: world.repository.clone(),
            private: private.clone(),
            folder,
            sockets,
            binaries: world.postgres.binaries().clone(),
            user: world.postgres.os_user().clone(),
            server: vec![("shared_buffers".into(), "16MB".into())],
        }
    }

    fn start(world: &World, name: &str) -> Self {
        let settings = Self::settings(world, name, &world.private);
        let connect = ConnectOptions::unix(&settings.sockets, 5432, "postgres", "postgres");
        let folder = settings.folder.clone();
        let mut standby = Standby::open(settings).unwrap();
        let watch = standby.watch();
        let (orders, taken) = channel::<Step>();
        let thread = std::thread::spawn(move || {
            loop {
                match taken.recv_timeout(Duration::from_millis(20)) {
                    Ok(order) => order(&mut standby),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Err(_) => break,
                }
                let _ = standby.turn(&());
            }
            standby.stop().unwrap();
        });
        Self {
            orders: Some(orders),
            thread: Some(thread),
            watch,
            connect,
            folder,
        }
    }

    fn ask<T: Send + 'static>(&self, what: impl FnOnce(&mut Standby) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let order: Step = Box::new(move |standby| drop(answer.send(what(standby))));
        self.orders.as_ref().unwrap().send(order).unwrap();
        answered.recv().unwrap()
    }

    fn promote(&self, conditions: Conditions) -> Result<PromotionReport, StandbyError> {
        self.ask(move |standby| standby.promote(conditions, &|_| Ok(())))
    }

    fn reaches(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            let status = self.watch.status();
            condition(&status).then_some(status)
        })
    }

    fn follows_to(&self, lsn: u64) -> Status {
        let at = |status: &Status| {
            status
                .replayed_lsn
                .parse::<Lsn>()
                .is_ok_and(|it| it.0 >= lsn)
        };
        self.reaches(&format!("the spare at {}", Lsn(lsn)), |status| {
            status.healthy && at(status)
        })
    }

    fn value(&self, sql: &str) -> String {
        value(&self.connect, sql)
    }

    fn data(&self) -> PathBuf {
        let id = self.watch.status().restore_id.unwrap();
        self.folder.join(format!("data-{id}"))
    }
}

impl Drop for RunningStandby {
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn insert(connect: &ConnectOptions, rows: u32) {
    let sql = format!(
        "INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, {rows}) n"
    );
    value(connect, &sql);
}

fn flushed(connect: &ConnectOptions) -> u64 {
    lsn(&value(connect, "SELECT pg_current_wal_flush_lsn()"))
}

/// A primary with a table, a complete backup and a stream.
fn primary() -> (World, Streamer) {
    let world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    value(&source, "CREATE TABLE t (n int, filler text)");
    insert(&source, 100);
    world.backup(&source);
    (world, streamer)
}

/// One story: followed, stopped and resumed, refused while the primary streams, promoted when it is gone; a second
/// spare follows the promoted one over the change of timeline, and is promoted in its turn.
#[test]
fn a_spare_follows_is_promoted_and_followed_by_another() {
    let (mut world, streamer) = primary();
    let source = world.postgres.connect_options();
    let first = RunningStandby::start(&world, "first");
    let second = RunningStandby::start(&world, "second");
    insert(&source, 4000);
    wait_durable(&streamer, &source);
    let status = first.follows_to(flushed(&source));
    assert_eq!(status.phase, Phase::Following);
    assert!(status.wal_objects > 2, "{status:?}");
    assert_eq!(first.value(SUM), value(&source, SUM));
    // The newest bytes lie in an open tail, and are replayed without a segment being filled.
    insert(&source, 1);
    wait_durable(&streamer, &source);
    first.follows_to(flushed(&source));
    assert_eq!(first.value(SUM), value(&source, SUM));
    assert_eq!(first.value("SHOW transaction_read_only"), "on");

    // More connections than the standby was started with: it starts again by itself.
    value(&source, "ALTER SYSTEM SET max_connections = 150");
    world.postgres.stop(StopMode::Fast);
    world.postgres.start_again();
    insert(&source, 10);
    // A standby that was stopped continues from its folder; it is not restored again.
    let since = first.watch.status().since;
    drop(first);
    insert(&source, 3000);
    wait_durable(&streamer, &source);
    let first = RunningStandby::start(&world, "first");
    let resumed = first.follows_to(flushed(&source));
    assert_eq!((resumed.since, resumed.restored_anew), (since, None));

    // Its server dies: it is started again, and nothing is restored for that.
    Leftover::detect(&first.data()).unwrap().kill().unwrap();
    insert(&source, 10);
    wait_durable(&streamer, &source);
    let again = first.follows_to(flushed(&source));
    assert_eq!(again.restored_anew, None);

    refused_while_the_primary_streams(&first, &source);
    wait_durable(&streamer, &source);
    let expected = value(&source, SUM);
    streamer.stop();
    world.postgres.stop(StopMode::Kill);

    let promoted = first.promote(Conditions::default()).unwrap();
    assert_eq!((promoted.timeline, promoted.parent_timeline), (2, 1));
    assert_eq!(first.value(SUM), expected);
    insert(&first.connect, 7);
    assert_eq!(first.watch.status().phase, Phase::Promoted);
    let names = std::fs::read_dir(promoted.folder.join("pg_wal")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name == "00000003.history"));
    assert!(!promoted.folder.join("standby.signal").exists());
    assert!(!promoted.folder.join("recovery.signal").exists());

    // What it writes is streamed, and the second spare goes along.
    let streamer = world.stream(first.connect.clone());
    wait_durable(&streamer, &first.connect);
    let status = second.follows_to(flushed(&first.connect));
    assert_eq!(status.timeline, 2, "{status:?}");
    assert_eq!(status.restored_anew, None, "{status:?}");
    assert_eq!(
        second.value("SELECT count(*) FROM t"),
        first.value("SELECT count(*) FROM t")
    );

    // The folder is handed over once its server has ended, and to nothing that is there.
    streamer.stop();
    let taken = first.folder.join("run");
    let place = world.folder("primary");
    let (to, refused) = (
        place.clone(),
        first.ask(move |standby| standby.hand_over(&taken)),
    );
    assert!(
        matches!(refused, Err(StandbyError::Taken(_))),
        "{refused:?}"
    );
    drop(first);
    let moved = take_promoted(&world.folder("first"), &to).unwrap().unwrap();
    assert_eq!(moved.folder, place);
    assert_eq!(take_promoted(&world.folder("first"), &to).unwrap(), None);
    let again = world.start("primary");
    let rows = again.value(SUM);

    let promoted = second.promote(AT_ONCE).unwrap();
    assert_eq!((promoted.timeline, promoted.parent_timeline), (3, 2));
    assert_eq!(second.value(SUM), rows);
    insert(&second.connect, 1);
    drop(again);
}

fn refused_while_the_primary_streams(standby: &RunningStandby, source: &ConnectOptions) {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                insert(source, 1);
            }
        });
        // A busy machine's stream may be silent for a while.
        let refused = standby.promote(Conditions {
            even_if_alive: false,
            quiet: TIMEOUT,
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, StandbyError::StillStreams { .. })
                && refused.to_string().contains("--even-if-alive"),
            "{refused}"
        );
    });
    // Nothing happened to it.
    assert_eq!(standby.value("SELECT pg_is_in_recovery()::text"), "true");
}

/// WAL that is gone stops the standby where it is. It says so, cannot be promoted, and is restored again as soon as a
/// backup leads on.
#[test]
fn a_hole_is_told_and_bridged_by_the_next_backup() {
    let (world, streamer) = primary();
    let source = world.postgres.connect_options();
    let standby = RunningStandby::start(&world, "spare");
    wait_durable(&streamer, &source);
    standby.follows_to(flushed(&source));
    // Stopped while WAL expires.
    drop(standby);
    let gone = flushed(&source) / SEGMENT + 1;
    insert(&source, 12_000);
    wait_durable(&streamer, &source);
    eventually("the segment is sealed", || {
        let prefix = format!("wal/00000001/{gone:016x}");
        let found = world.store.list(&prefix).unwrap();
        found
            .first()
            .map(|object| world.store.delete(&object.name).unwrap())
    });
    let standby = RunningStandby::start(&world, "spare");
    let status = standby.reaches("the hole is seen", |status| status.phase == Phase::Lost);
    let missing = Lsn(gone * SEGMENT).to_string();
    assert!(status.trouble.unwrap().contains(&missing));
    let refused = standby.promote(AT_ONCE).unwrap_err().to_string();
    assert!(refused.contains(&missing), "{refused}");

    world.backup(&source);
    wait_durable(&streamer, &source);
    let status = standby.follows_to(flushed(&source));
    assert!(status.restored_anew.unwrap().contains(&missing));
    assert_eq!(standby.value(SUM), value(&source, SUM));
    streamer.stop();
}

/// What could not be noted was never promoted: the folder is thrown away, its number stays taken, and the next
/// promotion gets another.
#[test]
fn a_promotion_that_did_not_come_to_its_end_is_thrown_away() {
    let (mut world, streamer) = primary();
    let source = world.postgres.connect_options();
    let standby = RunningStandby::start(&world, "spare");
    wait_durable(&streamer, &source);
    standby.follows_to(flushed(&source));
    let expected = value(&source, SUM);
    streamer.stop();
    world.postgres.stop(StopMode::Kill);
    let before = standby.data();
    let refused = standby.ask(|standby| {
        standby.promote(AT_ONCE, &|_| Err(std::io::Error::other("the disk is full")))
    });
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("the disk is full")
    );
    let status = standby.reaches("another restore", |status| {
        status.healthy && status.restored_anew.is_some()
    });
    assert!(status.restored_anew.unwrap().contains("the disk is full"));
    assert!(!before.exists());
    // Promoted by somebody who claims nothing; between two turns: one would stop the server before it answers.
    let connect = standby.connect.clone();
    standby.ask(move |_| drop(value(&connect, "SELECT pg_promote(false)")));
    let astray = |status: &Status| {
        let why = status.restored_anew.as_deref().unwrap_or_default();
        status.healthy && why.contains("somebody promoted it")
    };
    standby.reaches("another restore", astray);
    let promoted = standby.promote(Conditions::default()).unwrap();
    assert_eq!((promoted.timeline, promoted.parent_timeline), (3, 1));
    assert_eq!(standby.value(SUM), expected);
}

#[test]
fn a_spare_with_a_wrong_key_or_beside_another_is_refused() {
    let (world, streamer) = primary();
    let stranger = RecipientPrivate::generate().unwrap();
    let settings = RunningStandby::settings(&world, "spare", &stranger);
    let mut standby = Standby::open(settings.clone()).unwrap();
    let error = standby.turn(&()).unwrap_err();
    assert!(
        error.to_string().contains(&world.private.public().id()),
        "{error}"
    );
    let refused = standby.promote(AT_ONCE, &|_| Ok(())).unwrap_err();
    assert!(
        matches!(refused, StandbyError::NotFollowing { .. }),
        "{refused}"
    );
    assert!(matches!(
        Standby::open(settings),
        Err(StandbyError::Busy(_))
    ));
    streamer.stop();
}

/// A server whose socket was deleted takes no connections: it is started again, with nothing restored for that, before
/// and after a promotion. What its databases lack on this machine is told before it matters.
#[test]
fn an_unreachable_standby_is_started_again_and_warns_of_what_its_databases_lack_here() {
    let (mut world, streamer) = primary();
    let source = world.postgres.connect_options();
    value(
        &source,
        "CREATE DATABASE ordered TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'",
    );
    value(
        &source,
        "UPDATE pg_database SET datcollversion = '0.1' WHERE datname = 'ordered'",
    );
    wait_durable(&streamer, &source);
    let standby = RunningStandby::start(&world, "standby");
    let told = |status: &Status| {
        let warning = status.warnings.first();
        warning.is_some_and(|it| it.contains("database ordered") && it.contains("version 0.1"))
    };
    let status = standby.reaches("another version of the collation is told", told);
    assert!(status.healthy, "{status:?}");
    let is_back = |expected: &str| {
        std::fs::remove_dir_all(standby.folder.join("run")).unwrap();
        eventually("it takes connections again", || {
            let mut client = Client::connect(&standby.connect).ok()?;
            (client.value(SUM).ok()?.as_deref() == Some(expected)).then_some(())
        });
    };
    let expected = value(&source, SUM);
    is_back(&expected);
    let again = standby.follows_to(flushed(&source));
    let before = (status.since, status.restored_anew);
    assert_eq!((again.since, again.restored_anew), before);

    streamer.stop();
    world.postgres.stop(StopMode::Kill);
    standby.promote(AT_ONCE).unwrap();
    is_back(&expected);
    assert_eq!(standby.watch.status().phase, Phase::Promoted);
}

/// Somebody has dropped the database `postgres`: PostgreSQL does not need it.
#[test]
fn a_cluster_without_the_database_postgres_has_a_standby() {
    let world = World::new();
    let source = world.postgres.connect_options();
    value(&source, "CREATE DATABASE app");
    let app = source.with_database("app");
    value(&app, "DROP DATABASE postgres WITH (FORCE)");
    let streamer = world.stream(app.clone());
    world.backup(&app);
    wait_durable(&streamer, &app);
    let standby = RunningStandby::start(&world, "standby");
    let status = standby.follows_to(flushed(&app));
    assert_eq!((status.healthy, status.trouble), (true, None));
    streamer.stop();
}

/// A standby that this machine cannot run: it says why, keeps what it restored, and tries later and later.
#[test]
fn a_standby_that_cannot_run_here_says_why_and_restores_nothing_again() {
    let world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    world.backup(&source);
    wait_durable(&streamer, &source);
    let mut settings = RunningStandby::settings(&world, "spare", &world.private);
    let missing = ("shared_preload_libraries".into(), "no_such_library".into());
    settings.server.push(missing);
    let folder = settings.folder.clone();
    let mut standby = Standby::open(settings).unwrap();
    let data = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_data = |path: &PathBuf| path.to_str().unwrap().contains("/data-");
        paths.filter(is_data).collect()
    };
    let said = |standby: &Standby| standby.watch().status().trouble.unwrap_or_default();
    eventually("it says why", || {
        let _ = standby.turn(&());
        said(&standby).contains("no_such_library").then_some(())
    });
    let first = data();
    assert_eq!(first.len(), 1);
    // It is started again after a while, and what was restored is still there.
    let log = || std::fs::read_to_string(folder.join("postgres.log")).unwrap_or_default();
    eventually("a second start", || {
        let _ = standby.turn(&());
        (log().matches("could not access file").count() >= 2).then_some(())
    });
    assert_eq!(data(), first, "it was restored again");
    assert!(
        said(&standby).contains("apt-cache search"),
        "{}",
        said(&standby)
    );
    assert!(!standby.watch().status().healthy);
    standby.stop().unwrap();
    streamer.stop();
}
