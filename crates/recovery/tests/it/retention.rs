use repository::retention::{Action, Clock, Rules, Survey, execute, plan as decide};
use repository::{backup::catalogue, wal::wal_inventory};

use super::*;
use recovery::Error;

fn insert(connect: &ConnectOptions) {
    let sql = "INSERT INTO t SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 6000) n";
    value(connect, sql);
}

fn now_micros(connect: &ConnectOptions) -> i64 {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    value(connect, sql).parse().unwrap()
}

/// A moment, and how many rows there were.
fn mark(connect: &ConnectOptions) -> (i64, String) {
    let rows = value(connect, "SELECT count(*) FROM t");
    let at = now_micros(connect);
    // So that the next commit is later than the mark.
    while now_micros(connect) <= at {}
    (at, rows)
}

/// Finished segments are whole objects: what is sealed late would count as young.
fn wait_sealed(world: &World) {
    testkit::eventually("segments are sealed", || {
        let tails = world.repository.store().list("tail/").unwrap();
        (tails.len() <= 1).then_some(())
    });
}

/// The stream says once a second how far the server is, also when nothing is written.
fn wait_confirmed(world: &World, micros: i64) {
    let confirmed = || {
        let inventory = wal_inventory(&world.repository).unwrap();
        let last = *inventory.timelines[&1].intervals.last().unwrap();
        last.end_time_micros
    };
    testkit::eventually("the stream confirms", || {
        (confirmed() >= micros).then_some(())
    });
}

/// Backups A, B, C with moments between them; a window that begins just after B. A and its WAL go; every moment from
/// then on still comes back, out of B or C, without the key having been near the expiry.
#[test]
fn what_expiry_leaves_restores_to_any_moment_of_the_window() {
    let world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    value(&source, "CREATE TABLE t (n int, filler text)");
    let mut marks = Vec::new();
    let mut backups = Vec::new();
    for _ in 0..3 {
        backups.push(world.backup(&source).id);
        for _ in 0..2 {
            insert(&source);
            marks.push(mark(&source));
        }
        wait_durable(&streamer, &source);
        wait_sealed(&world);
    }
    wait_confirmed(&world, marks[5].0);
    streamer.stop();

    let inventory = wal_inventory(&world.repository).unwrap();
    let list = catalogue(&world.repository).unwrap().backups;
    let finished = |n: usize| list[n].finished_at_micros;
    let confirmed = inventory.timelines[&1]
        .intervals
        .last()
        .unwrap()
        .end_time_micros;
    let rules = Rules {
        full_micros: 1,
        wal_micros: confirmed.max(finished(2)) - finished(1) - 1,
        grace_micros: 0,
        ..Rules::default()
    };
    let before = world.repository.store().list("wal/").unwrap().len();
    for round in 0..2 {
        let survey = Survey::read(&world.repository, None).unwrap();
        let clock = Clock::read(&world.repository, Some(now_micros(&source))).unwrap();
        let decided = decide(&survey, &clock, &rules).unwrap();
        let expired = |d: &&repository::retention::Decision| {
            d.action == Action::Expire && backups.contains(&d.which)
        };
        let gone: Vec<&str> = decided
            .decisions
            .iter()
            .filter(expired)
            .map(|d| d.which.as_str())
            .collect();
        assert_eq!(
            gone,
            if round == 0 {
                vec![backups[0].as_str()]
            } else {
                vec![]
            }
        );
        execute(&world.repository, &decided, &()).unwrap();
    }
    let left: Vec<String> = catalogue(&world.repository)
        .unwrap()
        .backups
        .into_iter()
        .map(|b| b.id)
        .collect();
    assert_eq!(left, backups[1..]);
    assert!(world.repository.store().list("wal/").unwrap().len() + 3 < before);

    let refused = world.plan(Target::time(marks[0].0)).unwrap_err();
    assert!(matches!(refused, Error::OutsideWindow { .. }), "{refused}");
    // Two moments of the window, by lot; the one before C only B can reach.
    let lot = usize::try_from(now_micros(&source) % 2).unwrap();
    for (n, (at, rows)) in [&marks[2 + lot], &marks[4 + lot]].into_iter().enumerate() {
        let name = format!("back{n}");
        let recovered = world.restore_and_replay(Target::time(*at), &name);
        recovered.unwrap_or_else(|error| panic!("lot {lot}, moment {n}: {error}"));
        let cluster = world.start(&name);
        assert_eq!(&cluster.value("SELECT count(*) FROM t"), rows, "lot {lot}");
    }
}
