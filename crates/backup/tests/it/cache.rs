//! Copies of real caches, Redis and Valkey, while they write.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backup::cache::{
    CacheError, CopyOptions, DISK_RESERVE_BYTES, DOCUMENT, RdbPolicy, RdbSource, check_reach,
    copy_aof, expire_copies,
};
use backup::documents::DocumentSource;
use redis_physical::aof::{AofCopy, copies, truncate};
use redis_physical::{
    Contents, Info, LoadFault, Program, RedisError, RedisSession, RedisSettings, ScratchFiles,
    ScratchRedis, ServerKind,
};
use testkit::{Authority, KeyKind, TestRedis, eventually, valkey_server};

/// More with `SEEDS` (`make slow-cache-copies`).
const COPIES: u64 = 15;
const REWRITE_MAX: Duration = Duration::from_secs(60);

fn programs() -> Vec<Program> {
    let redis = Program::find(ServerKind::Redis).unwrap();
    let valkey = valkey_server().map(|path| Program {
        path,
        kind: ServerKind::Valkey,
    });
    [redis].into_iter().chain(valkey).collect()
}

fn redis() -> Program {
    Program::find(ServerKind::Redis).unwrap()
}

fn settings(redis: &TestRedis) -> RedisSettings {
    RedisSettings::from(format!("redis+unix://{}", redis.socket().display()))
}

fn options<'a>(copies: &'a Path, program: &'a Program) -> CopyOptions<'a> {
    CopyOptions {
        copies,
        disk_reserve_bytes: DISK_RESERVE_BYTES,
        program: Some(program),
    }
}

/// A copy in a server of ours; in a folder of its own, because a server writes.
fn opened(program: &Program, copy: &AofCopy) -> (ScratchRedis, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(&copy.facts.folder);
    copy_files(&copy.aof_folder(), &to);
    let files = ScratchFiles::Aof {
        folder: &copy.facts.folder,
        name: &copy.facts.name,
    };
    (
        ScratchRedis::start(program, folder.path(), files, 16, &|| false).unwrap(),
        folder,
    )
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn session_of(to: &RedisSettings) -> RedisSession {
    eventually("Redis answers", || RedisSession::open(to).ok())
}

/// Ascending numbers behind the last one that is there, until it is told to end.
fn append(
    to: &RedisSettings,
    ended: &AtomicBool,
    told: &Mutex<Vec<(Instant, u64)>>,
) -> Result<(), RedisError> {
    let mut session = session_of(to);
    let last: Option<u64> = session.ask(&["LINDEX", "log", "-1"])?;
    let mut number = last.unwrap_or(0);
    told.lock().unwrap().push((Instant::now(), number));
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        let text = number.to_string();
        session.ask::<u64>(&["RPUSH", "log", &text])?;
        let key = format!("key:{}", number % 5000);
        session.ask::<String>(&["SET", &key, &text, "EX", "300"])?;
        told.lock().unwrap().push((Instant::now(), number));
        // A list that grows for ever makes each rewrite slower.
        if number.is_multiple_of(5000) {
            session.ask::<()>(&["LTRIM", "log", "-5000", "-1"])?;
        }
    }
    Ok(())
}

/// Appends ascending numbers to a list, and knows which were acknowledged when.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(Instant, u64)>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writer {
    /// With one that asks for a rewrite all the time.
    fn start(settings: &RedisSettings) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (told, ended, to) = (
            Arc::clone(&acknowledged),
            Arc::clone(&stop),
            settings.clone(),
        );
        let writes = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // A machine that stands still for longer than a session waits is not what this is about.
                match append(&to, &ended, &told) {
                    Ok(()) | Err(RedisError::Away { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (ended, to) = (Arc::clone(&stop), settings.clone());
        let rewrites = std::thread::spawn(move || {
            let mut session = session_of(&to);
            let idle = |info: &Info| {
                info.is("aof_rewrite_in_progress", "0") && info.is("aof_rewrite_scheduled", "0")
            };
            let cancelled = || ended.load(Ordering::Relaxed);
            while !cancelled() {
                // Asking all the time would take the processor from the rewrite itself.
                let waited = session.persistence_until("a rewrite", REWRITE_MAX, &cancelled, idle);
                let asked = waited.and_then(|_| session.ask::<String>(&["BGREWRITEAOF"]));
                if let Err(RedisError::Away { .. }) = asked {
                    session = session_of(&to);
                }
            }
        });
        Writer {
            stop,
            acknowledged,
            threads: vec![writes, rewrites],
        }
    }

    /// The last number that was acknowledged at that moment.
    fn acknowledged_at(&self, moment: Instant) -> u64 {
        let all = self.acknowledged.lock().unwrap();
        let before = all.partition_point(|(at, _)| *at <= moment);
        before.checked_sub(1).map_or(0, |at| all[at].1)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[test]
fn copies_under_constant_writes_and_rewrites_all_load() {
    let count = std::env::var("SEEDS")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(COPIES);
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let to = settings(&server);
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(&to);
        eventually("some writes", || {
            (writer.acknowledged_at(Instant::now()) > 100).then_some(())
        });
        let mut manifests = std::collections::BTreeSet::new();
        let all_began = Instant::now();
        for seed in 0..count {
            // More than the second that may be lost: nothing that was acknowledged before it began.
            let least = writer.acknowledged_at(Instant::now());
            let copy = loop {
                match copy_aof(&to, options(folder.path(), &program), &()) {
                    Err(CacheError::Redis(RedisError::Away { .. })) => {}
                    copied => break copied.unwrap(),
                }
            };
            let most = writer.acknowledged_at(Instant::now()) + 1;
            manifests.insert(copy.manifest().unwrap().to_string());
            let (loaded, _held) = opened(&program, &copy);
            let log: Vec<u64> = loaded
                .session()
                .unwrap()
                .ask(&["LRANGE", "log", "0", "-1"])
                .unwrap();
            let last = log.last().copied().unwrap_or(0);
            assert!(
                (least..=most).contains(&last),
                "copy {seed}: {last} is not in {least}..={most}"
            );
            let first = log.first().copied().unwrap_or(0);
            assert!(
                log.iter().copied().eq(first..=last),
                "copy {seed} has holes"
            );
            if (seed + 1).is_multiple_of(100) {
                println!(
                    "{:?}: {} copies loaded, {:.0} s",
                    program.kind,
                    seed + 1,
                    all_began.elapsed().as_secs_f64()
                );
            }
            expire_copies(
                folder.path(),
                copy.facts.taken_at_micros,
                Duration::from_secs(10),
            )
            .unwrap();
        }
        assert!(
            manifests.len() as u64 > 1,
            "{:?}: no rewrite ended between copies",
            program.kind
        );
        println!(
            "{:?}: {count} copies all loaded, {} manifests, {:.0} s",
            program.kind,
            manifests.len(),
            all_began.elapsed().as_secs_f64()
        );
        drop(writer);
    }
}

#[test]
fn a_copy_is_complete_and_covers_earlier_ones_of_the_same_files() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let to = settings(&server);
        check_reach(&to).unwrap();
        let root = tempfile::tempdir_in(server.folder()).unwrap();
        let mut session = RedisSession::open(&to).unwrap();
        session.ask::<()>(&["SET", "a", "1"]).unwrap();
        let rewritten = |session: &mut RedisSession| {
            let before = session.persistence().unwrap().number("aof_rewrites");
            session.ask::<String>(&["BGREWRITEAOF"]).unwrap();
            eventually("a rewrite", || {
                let info = session.persistence().unwrap();
                (info.number("aof_rewrites") > before && info.is("aof_rewrite_in_progress", "0"))
                    .then_some(())
            });
        };
        rewritten(&mut session);
        // A server marks the first command of each second.
        next_second(&mut session);
        session.ask::<()>(&["SET", "b", "2", "EX", "1000"]).unwrap();
        session
            .ask::<u64>(&["HSET", "hash", "x", "1", "y", "2"])
            .unwrap();
        session.ask::<u64>(&["ZADD", "ranks", "1.5", "x"]).unwrap();
        session.select(3).unwrap();
        session.ask::<()>(&["SET", "a", "in 3"]).unwrap();
        let first = copy_aof(&to, options(root.path(), &program), &()).unwrap();
        assert_eq!((first.facts.keys, first.facts.bytes_cut), (5, 0));
        assert!(
            first.facts.bytes_linked > 0,
            "on the same disk the base is linked"
        );
        let (loaded, _held) = opened(&program, &first);
        let there = Contents::read(&mut session, &|| false).unwrap();
        let copied = Contents::read(&mut loaded.session().unwrap(), &|| false).unwrap();
        assert_eq!((there.digest(), there.entries.len()), (copied.digest(), 5));
        // The same files, grown: the first is covered. After a rewrite it is not.
        session.ask::<()>(&["SET", "c", "3"]).unwrap();
        let second = copy_aof(&to, options(root.path(), &program), &()).unwrap();
        let now = second.facts.taken_at_micros;
        let hours = Duration::from_secs(3600);
        assert_eq!(expire_copies(root.path(), now, hours).unwrap(), [first.id]);
        rewritten(&mut session);
        session.ask::<()>(&["SET", "d", "4"]).unwrap();
        let third = copy_aof(&to, options(root.path(), &program), &()).unwrap();
        assert_eq!(
            expire_copies(root.path(), now, hours).unwrap(),
            Vec::<String>::new()
        );
        // What is too old goes, the newest never.
        let late = now + 100 * 3_600_000_000;
        assert_eq!(
            expire_copies(root.path(), late, hours).unwrap(),
            [second.id]
        );
        let (left, faults) = copies(root.path()).unwrap();
        assert_eq!((left.as_slice(), faults.len()), ([third].as_slice(), 0));
        // A server that was left over, and a copy that was not finished, are not in the way.
        std::fs::create_dir_all(root.path().join("x.unfinished/appendonlydir")).unwrap();
        copy_aof(&to, options(root.path(), &program), &()).unwrap();
        assert!(!root.path().join("x.unfinished").exists());
    }
}

/// Waits until the server's clock shows a later second, which it then returns.
fn next_second(session: &mut RedisSession) -> i64 {
    let mut seconds = || session.ask::<(i64, i64)>(&["TIME"]).unwrap().0;
    let now = seconds();
    eventually("the next second", || Some(seconds()).filter(|it| *it > now))
}

#[test]
fn a_copy_goes_back_to_a_second_of_its_files_and_no_further() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let to = settings(&server);
        let root = tempfile::tempdir().unwrap();
        let mut session = RedisSession::open(&to).unwrap();
        let first = next_second(&mut session);
        session.ask::<()>(&["SET", "a", "1"]).unwrap();
        let second = next_second(&mut session);
        session.ask::<()>(&["SET", "a", "2"]).unwrap();
        next_second(&mut session);
        session.ask::<()>(&["SET", "a", "3"]).unwrap();
        let copy = copy_aof(&to, options(root.path(), &program), &()).unwrap();
        assert_eq!(copy.facts.first_moment_seconds, Some(first));
        let at = |seconds: i64| {
            let folder = tempfile::tempdir().unwrap();
            let aof = folder.path().join(&copy.facts.folder);
            copy_files(&copy.aof_folder(), &aof);
            truncate(&program, &aof, &copy.manifest_name(), seconds)?;
            let files = ScratchFiles::Aof {
                folder: &copy.facts.folder,
                name: &copy.facts.name,
            };
            let server = ScratchRedis::start(&program, folder.path(), files, 16, &|| false)?;
            server.session()?.ask::<String>(&["GET", "a"])
        };
        assert_eq!(at(first).unwrap(), "1");
        assert_eq!(at(second).unwrap(), "2");
        assert_eq!(at(second + 1000).unwrap(), "3");
        // The server's own tool says that it succeeded.
        let error = at(first - 1).unwrap_err().to_string();
        assert!(error.contains("reaches back to"), "{error}");
        session
            .ask::<()>(&["CONFIG", "SET", "aof-timestamp-enabled", "no"])
            .unwrap();
        let unmarked = TestRedis::durable(&program.path);
        unmarked
            .command("CONFIG SET aof-timestamp-enabled no")
            .unwrap();
        unmarked.command("SET a 1").unwrap();
        let copy = copy_aof(&settings(&unmarked), options(root.path(), &program), &()).unwrap();
        let error =
            truncate(&program, &copy.aof_folder(), &copy.manifest_name(), second).unwrap_err();
        assert!(error.to_string().contains("no time marks"), "{error}");
    }
}

fn refused(to: &RedisSettings, root: &Path, says: &str) -> CacheError {
    let error = copy_aof(to, options(root, &redis()), &()).unwrap_err();
    assert!(error.to_string().contains(says), "{says}: {error}");
    let (left, faults) = copies(root).unwrap();
    assert_eq!(
        (left.len(), faults.len()),
        (0, 0),
        "no copy counts after: {error}"
    );
    let unfinished = std::fs::read_dir(root).map_or(0, Iterator::count);
    assert_eq!(unfinished, 0, "nothing is left of: {error}");
    error
}

#[test]
fn what_cannot_be_copied_says_why_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let server = TestRedis::durable(&redis().path);
    let to = settings(&server);
    server.command("SET a 1").unwrap();
    let aof = server.folder().join("appendonlydir");
    // The disk.
    let program = redis();
    let greedy = CopyOptions {
        disk_reserve_bytes: u64::MAX / 2,
        ..options(root.path(), &program)
    };
    let error = copy_aof(&to, greedy, &()).unwrap_err();
    assert!(matches!(error, CacheError::NoDisk { .. }), "{error}");
    // Another server's folder under the same name.
    let other = TestRedis::durable(&redis().path);
    other
        .command("SET a 1000000000000000000000000000000")
        .unwrap();
    let own = server.folder().join("own");
    std::fs::rename(&aof, &own).unwrap();
    std::os::unix::fs::symlink(other.folder().join("appendonlydir"), &aof).unwrap();
    refused(&to, root.path(), "is not what Redis at");
    std::fs::remove_file(&aof).unwrap();
    // A folder that is not there, as of a server on another host.
    let error = refused(&to, root.path(), "no appendonly.aof.manifest");
    assert!(error.is_unavailable());
    std::fs::rename(&own, &aof).unwrap();
    // A newest file that is damaged in the middle.
    let newest = aof.join("appendonly.aof.1.incr.aof");
    let good = std::fs::read(&newest).unwrap();
    let mut bad = good.clone();
    // The sign of the length of the last word.
    let at = bad.len() - 7;
    assert_eq!(bad[at], b'$');
    bad[at] = 0;
    std::fs::write(&newest, &bad).unwrap();
    refused(&to, root.path(), "is damaged at byte");
    std::fs::write(&newest, &good).unwrap();
    // An older file that is cut, which only a server finds.
    let base = aof.join("appendonly.aof.1.base.rdb");
    let whole = std::fs::read(&base).unwrap();
    let mut bad = whole.clone();
    bad[whole.len() - 3] ^= 1;
    std::fs::write(&base, &bad).unwrap();
    let error = refused(&to, root.path(), "no copy counts that no server loaded");
    assert!(matches!(error, CacheError::NotLoaded(_)), "{error:?}");
    std::fs::write(&base, &whole).unwrap();
    copy_aof(&to, options(root.path(), &redis()), &()).unwrap();
    std::fs::remove_dir_all(root.path()).unwrap();
    // Switched off, and a replica.
    server.command("CONFIG SET appendonly no").unwrap();
    refused(&to, root.path(), "keeps no append-only file");
    server.command("REPLICAOF 127.0.0.1 1").unwrap();
    let error = refused(&to, root.path(), "is a replica of 127.0.0.1:1");
    assert!(error.is_unavailable());
    server.command("REPLICAOF NO ONE").unwrap();
    // Rights.
    server.command("ACL SETUSER default -config").unwrap();
    let error = refused(&to, root.path(), "does not allow CONFIG");
    assert!(error.is_unavailable() && check_reach(&to).is_err());
    // Nothing there.
    let gone = RedisSettings::from("redis+unix:///nowhere/redis.sock".to_owned());
    refused(&gone, root.path(), "does not answer");
}

#[test]
fn files_of_a_later_version_are_told_from_damaged_ones() {
    let Some(valkey) = valkey_server() else {
        return;
    };
    let server = TestRedis::durable(&valkey);
    server.command("SET a 1").unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut session = RedisSession::open(&settings(&server)).unwrap();
    session.ask::<()>(&["SAVE"]).unwrap();
    session.ask::<String>(&["BGREWRITEAOF"]).unwrap();
    eventually("a rewrite", || {
        let info = session.persistence().unwrap();
        (info.number("aof_rewrites") > Some(0) && info.is("aof_rewrite_in_progress", "0"))
            .then_some(())
    });
    // Redis 7.0 reads RDB files up to version 10, Valkey 8 writes 11.
    let error = copy_aof(&settings(&server), options(root.path(), &redis()), &()).unwrap_err();
    let CacheError::NotLoaded(RedisError::Load { fault, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(fault, LoadFault::Version(_)), "{fault:?}");
}

fn rdb(to: &RedisSettings, scratch: PathBuf, program: &Program, policy: RdbPolicy) -> RdbSource {
    RdbSource {
        settings: to.clone(),
        policy,
        scratch,
        program: Some(program.clone()),
    }
}

#[test]
fn an_rdb_file_of_this_moment_is_taken_and_loaded() {
    for program in programs() {
        let server = TestRedis::durable(&program.path);
        let to = settings(&server);
        let root = tempfile::tempdir().unwrap();
        let scratch = root.path().join("scratch");
        let mut session = RedisSession::open(&to).unwrap();
        for number in 0..100 {
            session
                .ask::<()>(&["SET", &format!("k{number}"), "v", "EX", "1000"])
                .unwrap();
        }
        let source = rdb(&to, scratch.clone(), &program, RdbPolicy::Save);
        let (collection, dump) = source.collect(&()).unwrap();
        assert_eq!((dump.keys, dump.keys_expired), (100, 0));
        let document = &collection.documents[DOCUMENT];
        assert_eq!(document.attributes["keys"], "100");
        assert_eq!(document.content.len() as u64, dump.bytes);
        assert!(!scratch.exists(), "nothing of it is left");
        // What is there is new enough; a second key is not in it.
        session.ask::<()>(&["SET", "late", "1"]).unwrap();
        let age_max = Duration::from_secs(600);
        let newest = rdb(
            &to,
            scratch.clone(),
            &program,
            RdbPolicy::Newest { age_max },
        );
        assert_eq!(newest.collect(&()).unwrap().1.keys, 100);
        let age_max = Duration::ZERO;
        next_second(&mut session);
        let newest = rdb(
            &to,
            scratch.clone(),
            &program,
            RdbPolicy::Newest { age_max },
        );
        assert_eq!(newest.collect(&()).unwrap().1.keys, 101);
    }
}

#[test]
fn a_save_that_is_refused_or_fails_says_so() {
    let server = TestRedis::durable(&redis().path);
    let to = settings(&server);
    let root = tempfile::tempdir().unwrap();
    let take = || {
        let source = rdb(&to, root.path().join("scratch"), &redis(), RdbPolicy::Save);
        source.collect(&()).unwrap_err()
    };
    server.command("ACL SETUSER default -bgsave").unwrap();
    let error = take();
    assert!(
        matches!(error, CacheError::BgsaveRefused { .. }),
        "{error:?}"
    );
    server.command("ACL SETUSER default +bgsave").unwrap();
    // A folder in the way of the file: what a full disk does, too.
    std::fs::create_dir_all(server.folder().join("dump.rdb/in-the-way")).unwrap();
    let error = take();
    assert!(
        matches!(error, CacheError::BgsaveFailed { .. }),
        "{error:?}"
    );
    server.command("REPLICAOF 127.0.0.1 1").unwrap();
    let error = take();
    assert!(error.to_string().contains("is a replica"), "{error}");
}

#[test]
fn settings_are_looked_at_applied_and_kept() {
    for program in programs() {
        let mut server = TestRedis::durable(&program.path);
        let to = settings(&server);
        let mut session = RedisSession::open(&to).unwrap();
        session
            .ask::<()>(&["CONFIG", "SET", "appendfsync", "no", "save", "7200 5"])
            .unwrap();
        let unmet = |session: &mut RedisSession| {
            let found = redis_physical::check(session).unwrap();
            let unmet = found.into_iter().filter(|it| !it.is_met);
            unmet.map(|it| it.remedy()).collect::<Vec<_>>()
        };
        let expected = [
            "CONFIG SET save \"3600 1\"",
            "CONFIG SET appendfsync everysec",
            "CONFIG SET auto-aof-rewrite-percentage 100",
        ];
        assert_eq!(unmet(&mut session), expected);
        let found = redis_physical::check(&mut session).unwrap();
        assert_eq!(redis_physical::apply(&mut session, &found).unwrap(), None);
        assert_eq!(unmet(&mut session), Vec::<String>::new());
        // The rule that was there is there still, and all of it after a restart.
        assert_eq!(session.setting("save").unwrap().unwrap(), "3600 1 7200 5");
        server.restart();
        let mut session = RedisSession::open(&to).unwrap();
        assert_eq!(unmet(&mut session), Vec::<String>::new());
    }
    let server = TestRedis::start();
    let mut session = RedisSession::open(&settings(&server)).unwrap();
    let found = redis_physical::check(&mut session).unwrap();
    let not_kept = redis_physical::apply(&mut session, &found).unwrap();
    assert!(not_kept.unwrap().contains("without a config file"));
}

#[test]
fn a_cache_is_copied_over_tls_as_a_user_with_the_rights_that_the_page_names() {
    let authority = Authority::new("authority", KeyKind::EcdsaSha256);
    let server = TestRedis::secured(&authority.server(&["localhost"]), &authority, false);
    server.command("CONFIG SET appendonly yes").unwrap();
    let rights = "+ping +select +info +config|get +bgsave +time";
    server
        .command(&format!("ACL SETUSER bre on >hush resetkeys {rights}"))
        .unwrap();
    server.command("SET a 1").unwrap();
    let root = tempfile::tempdir().unwrap();
    let roots = root.path().join("roots.pem");
    std::fs::write(&roots, authority.certificate()).unwrap();
    let mut to = RedisSettings::from(format!("rediss://bre:hush@localhost:{}/", server.port()));
    to.authorities = Some(roots);
    let copies = root.path().join("copies");
    let copy = copy_aof(&to, options(&copies, &redis()), &()).unwrap();
    assert_eq!(copy.facts.keys, 1);
    let source = rdb(&to, root.path().join("scratch"), &redis(), RdbPolicy::Save);
    assert_eq!(source.collect(&()).unwrap().1.keys, 1);
    // The settings are another right, which a check says.
    let mut session = RedisSession::open(&to).unwrap();
    let found = redis_physical::check(&mut session).unwrap();
    let error = redis_physical::apply(&mut session, &found).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("does not allow CONFIG") && !said.contains("hush"),
        "{said}"
    );
}
