//! Caches that come back: into servers that run, with their append-only file on, and into folders of stopped ones.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup::cache::{CopyOptions, DISK_RESERVE_BYTES, DOCUMENT, RdbPolicy, RdbSource, copy_aof};
use backup::documents::DocumentSource;
use recovery::cache::{
    CachePlan, CacheRestoreError, CacheRestoreReport, KeyAction, LoadedCache, StoppedCache, apply,
    copy_for, plan,
};
use redis_physical::{Contents, Program, RedisSession, RedisSettings, ServerKind};
use testkit::{TestRedis, eventually, valkey_server};

fn programs() -> Vec<Program> {
    let redis = Program::find(ServerKind::Redis).unwrap();
    let valkey = valkey_server().map(|path| Program {
        path,
        kind: ServerKind::Valkey,
    });
    [redis].into_iter().chain(valkey).collect()
}

fn settings(redis: &TestRedis) -> RedisSettings {
    RedisSettings::from(format!("redis+unix://{}", redis.socket().display()))
}

fn session(redis: &TestRedis) -> RedisSession {
    RedisSession::open(&settings(redis)).unwrap()
}

fn run(session: &mut RedisSession, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        session.ask::<redis_physical::Answer>(&words).unwrap();
    }
}

/// A backup of what a server holds now.
fn rdb(server: &TestRedis, program: &Program) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let source = RdbSource {
        settings: settings(server),
        policy: RdbPolicy::Save,
        scratch: scratch.path().join("scratch"),
        program: Some(program.clone()),
    };
    let (collection, _) = source.collect(&()).unwrap();
    collection.documents[DOCUMENT].content.to_vec()
}

fn loaded(program: &Program, content: &[u8], scratch: &Path) -> LoadedCache {
    LoadedCache::from_rdb(program, content, &scratch.join("scratch"), &|| false).unwrap()
}

fn restored(loaded: &LoadedCache, cache: &mut RedisSession) -> (CachePlan, CacheRestoreReport) {
    let plan = plan(loaded, cache, &|| false).unwrap();
    let restored = apply(loaded, &plan, cache, &|| false).unwrap();
    (plan, restored)
}

fn digest(session: &mut RedisSession) -> (String, usize) {
    let contents = Contents::read(session, &|| false).unwrap();
    (contents.digest(), contents.entries.len())
}

const ALL_TYPES: [&str; 9] = [
    "SET text 1 EX 1000",
    "SET for-ever 2",
    "RPUSH list a b c",
    "SADD set x y z 1 2 3",
    "HSET hash b 1 a 2",
    "ZADD ranks 1.5 x 2 y",
    "EXPIRE ranks 2000",
    "XADD stream 5-1 field value",
    "SET later 3 EX 1000",
];

/// The guide's recipe lays dump.rdb into place and starts: with `appendonly yes` that loses all of it.
#[test]
fn a_restored_rdb_file_survives_a_crash_with_the_append_only_file_on() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let mut before = session(&server);
        run(&mut before, &ALL_TYPES);
        before.select(2).unwrap();
        run(&mut before, &["SET text in-2 EX 1000"]);
        let content = rdb(&server, &program);
        let wanted = digest(&mut before);
        assert_eq!(wanted.1, 9);

        let mut other = TestRedis::durable(&program.path);
        let scratch = tempfile::tempdir().unwrap();
        let loaded = loaded(&program, &content, scratch.path());
        let mut cache = session(&other);
        let (plan, result) = restored(&loaded, &mut cache);
        assert_eq!(
            (
                plan.count(KeyAction::Create),
                result.written,
                result.has_aof
            ),
            (9, 9, true)
        );
        assert_eq!(
            (digest(&mut cache).0, result.digest),
            (wanted.0.clone(), wanted.0.clone())
        );
        // A second plan is empty.
        let again = recovery::cache::plan(&loaded, &mut cache, &|| false).unwrap();
        assert!(again.is_empty(), "{again:?}");
        other.restart();
        assert_eq!(digest(&mut session(&other)), wanted);
        loaded.end().unwrap();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_newer_in_the_cache_stays_and_what_expired_does_not_come_back() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let mut cache = session(&server);
        run(
            &mut cache,
            &[
                "SET newer old EX 300",
                "SET older old EX 900",
                "SET gone old EX 300",
                "SET undated old",
                "SET short old PX 1500",
            ],
        );
        let scratch = tempfile::tempdir().unwrap();
        let content = rdb(&server, &program);
        let loaded = loaded(&program, &content, scratch.path());
        run(
            &mut cache,
            &[
                "SET newer new EX 600",
                "SET older new EX 600",
                "DEL gone",
                "SET undated new",
                "SET alone new",
            ],
        );
        eventually("a key expired", || {
            cache
                .ask::<Option<String>>(&["GET", "short"])
                .unwrap()
                .is_none()
                .then_some(())
        });
        let (plan, result) = restored(&loaded, &mut cache);
        let action = |name: &str| {
            let found = plan
                .keys
                .iter()
                .find(|(key, _)| key.name == name.as_bytes());
            found.map(|(_, action)| *action)
        };
        assert_eq!(action("newer"), Some(KeyAction::Keep));
        assert_eq!(action("older"), Some(KeyAction::Replace));
        assert_eq!(action("gone"), Some(KeyAction::Create));
        assert_eq!(action("undated"), Some(KeyAction::Keep));
        assert_ne!(action("short"), Some(KeyAction::Create));
        assert_eq!((result.written, result.kept), (2, 0));
        let mut get = |name: &str| cache.ask::<Option<String>>(&["GET", name]).unwrap();
        let there = ["newer", "older", "gone", "undated", "alone", "short"]
            .map(|name| get(name).unwrap_or_default());
        assert_eq!(there, ["new", "old", "old", "new", "new", ""]);
    }
}

#[test]
fn a_restore_beside_a_running_writer_never_goes_back_in_time() {
    const KEYS: u64 = 50;
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let scratch = tempfile::tempdir().unwrap();
        let mut cache = session(&server);
        for key in 0..KEYS {
            run(&mut cache, &[&format!("SET market:{key} 1000 EX 300")]);
        }
        let content = rdb(&server, &program);
        run(&mut cache, &["FLUSHALL"]);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, to) = (Arc::clone(&stop), settings(&server));
        // Versions above those of the backup.
        let writer = std::thread::spawn(move || {
            let mut session = RedisSession::open(&to).unwrap();
            let mut version = 2000u64;
            while !ended.load(Ordering::Relaxed) {
                version += 1;
                run(
                    &mut session,
                    &[&format!("SET market:{} {version} EX 300", version % KEYS)],
                );
            }
            version
        });
        let (ended, to) = (Arc::clone(&stop), settings(&server));
        let reader = std::thread::spawn(move || {
            let mut session = RedisSession::open(&to).unwrap();
            let mut seen = [0u64; KEYS as usize];
            let mut reads = 0;
            while !ended.load(Ordering::Relaxed) {
                for (key, seen) in seen.iter_mut().enumerate() {
                    let there: Option<u64> =
                        session.ask(&["GET", &format!("market:{key}")]).unwrap();
                    let there = there.unwrap_or(*seen);
                    assert!(
                        there >= *seen,
                        "market:{key} went from {seen} back to {there}"
                    );
                    *seen = there;
                    reads += 1;
                }
            }
            reads
        });
        let loaded = loaded(&program, &content, scratch.path());
        for _ in 0..20 {
            restored(&loaded, &mut cache);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 2000);
        assert!(reader.join().unwrap() > KEYS);
        for key in 0..KEYS {
            let there: Option<u64> = cache.ask(&["GET", &format!("market:{key}")]).unwrap();
            assert!(
                there.is_none_or(|it| it >= 1000),
                "market:{key} is {there:?}"
            );
        }
    }
}

#[test]
fn a_cache_comes_back_as_it_was_in_a_second_between_two_copies() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let copies = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut cache = session(&server);
        let next_second = |session: &mut RedisSession| {
            let mut seconds = || session.ask::<(i64, i64)>(&["TIME"]).unwrap().0;
            let now = seconds();
            eventually("the next second", || Some(seconds()).filter(|it| *it > now))
        };
        let first = next_second(&mut cache);
        run(&mut cache, &["SET market good EX 1000", "SET b 1 EX 1000"]);
        next_second(&mut cache);
        run(&mut cache, &["SET market bad EX 500", "DEL b"]);
        let options = CopyOptions {
            copies: copies.path(),
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            program: Some(&program),
        };
        let copy = copy_aof(&settings(&server), options, &()).unwrap();
        let found = copy_for(copies.path(), Some(first)).unwrap();
        assert_eq!(found.id, copy.id);
        let at = scratch.path().join("scratch");
        let loaded = LoadedCache::from_aof(&program, &found, Some(first), &at, &|| false).unwrap();
        let (_, result) = restored(&loaded, &mut cache);
        assert_eq!(result.written, 2);
        assert_eq!(cache.ask::<String>(&["GET", "market"]).unwrap(), "good");
        loaded.end().unwrap();
        // The copy is as it was.
        let loaded = LoadedCache::from_aof(&program, &found, None, &at, &|| false).unwrap();
        assert_eq!(loaded.contents.entries.len(), 1);
        let says = |at: Option<i64>, folder: &Path, says: &str| {
            let error = copy_for(folder, at).unwrap_err();
            assert!(
                error.is_refusal() && error.to_string().contains(says),
                "{error}"
            );
        };
        says(Some(first - 100), copies.path(), "begins after it");
        says(Some(first + 1000), copies.path(), "taken before it");
        let empty = tempfile::tempdir().unwrap();
        says(None, empty.path(), "there is none");
    }
}

#[test]
fn a_stopped_cache_gets_its_append_only_file_and_one_that_is_damaged_is_set_aside() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let scratch = tempfile::tempdir().unwrap();
        run(
            &mut session(&server),
            &["SET a backup EX 1000", "SET b backup EX 500"],
        );
        let content = rdb(&server, &program);
        let loaded = loaded(&program, &content, scratch.path());
        let mut stopped = TestRedis::durable(&program.path);
        run(
            &mut session(&stopped),
            &["SET b newer EX 1000", "SET c own"],
        );
        let folder = stopped.folder().to_owned();
        let error = StoppedCache::open(&program, &folder, 7, &|| false).unwrap_err();
        assert!(
            matches!(error, CacheRestoreError::InUse { .. }),
            "{error:?}"
        );
        stopped.kill();
        let restore = || {
            let cache = StoppedCache::open(&program, &folder, 7, &|| false).unwrap();
            let (_, result) = restored(&loaded, &mut cache.session().unwrap());
            let aside = cache.set_aside.as_ref().map(|(path, _)| path.clone());
            cache.close().unwrap();
            (result.written, aside)
        };
        // What is newer there stays there.
        assert_eq!(restore(), (1, None));
        stopped.restart();
        let get = |server: &TestRedis, name: &str| {
            session(server)
                .ask::<Option<String>>(&["GET", name])
                .unwrap()
        };
        let three =
            |server: &TestRedis| ["a", "b", "c"].map(|name| get(server, name).unwrap_or_default());
        assert_eq!(three(&stopped), ["backup", "newer", "own"]);
        stopped.kill();
        let aof = folder.join("appendonlydir");
        for entry in std::fs::read_dir(&aof).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with(".base.rdb") {
                std::fs::write(path, "REDIS0010 and nothing else").unwrap();
            }
        }
        assert_eq!(restore(), (2, Some(folder.join("appendonlydir.before-7"))));
        stopped.restart();
        assert_eq!(three(&stopped), ["backup", "backup", ""]);
        // No append-only file at all, and an RDB file that the usual start ignores.
        stopped.kill();
        std::fs::remove_dir_all(&aof).unwrap();
        std::fs::write(folder.join("dump.rdb"), &content).unwrap();
        assert_eq!(restore(), (2, None));
        stopped.restart();
        assert_eq!(three(&stopped), ["backup", "backup", ""]);
    }
}

#[test]
fn what_does_not_load_changes_nothing() {
    let program = Program::find(ServerKind::Redis).unwrap();
    let server = TestRedis::durable(&program.path);
    let scratch = tempfile::tempdir().unwrap();
    run(&mut session(&server), &["SET a 1 EX 1000"]);
    let content = rdb(&server, &program);
    let check = |content: &[u8]| {
        let at = scratch.path().join("scratch");
        let error = LoadedCache::from_rdb(&program, content, &at, &|| false).unwrap_err();
        assert!(
            error.to_string().contains("Take an earlier copy"),
            "{error}"
        );
    };
    check(b"");
    check(b"no RDB file");
    check(&content[..content.len() / 2]);
    let mut bad = content.clone();
    let at = bad.len() - 4;
    bad[at] ^= 0xFF;
    check(&bad);
    // A cache that is full keeps what it has, and says so.
    let loaded = loaded(&program, &content, scratch.path());
    let full = TestRedis::durable(&program.path);
    let mut cache = session(&full);
    run(&mut cache, &["SET own 1", "CONFIG SET maxmemory 1"]);
    let plan = plan(&loaded, &mut cache, &|| false).unwrap();
    let error = apply(&loaded, &plan, &mut cache, &|| false).unwrap_err();
    assert!(
        error.to_string().contains("refuses SET or RESTORE"),
        "{error}"
    );
    assert_eq!(cache.ask::<String>(&["GET", "own"]).unwrap(), "1");
}
