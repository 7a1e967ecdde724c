#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicI64, Ordering};

use postgres_physical::server::{InitOptions, StopMode, initdb};
use recovery::database::{restore_over, survey};
use recovery::{Error, Progress};

/// Counts down with every sign of life; what happens at nought is the test's affair.
struct Countdown<F: Fn() -> bool + Sync + Send> {
    left: AtomicI64,
    at_nought: F,
}

impl<F: Fn() -> bool + Sync + Send> Countdown<F> {
    fn new(signs: i64, at_nought: F) -> Self {
        Self {
            left: AtomicI64::new(signs),
            at_nought,
        }
    }

    fn sign(&self) -> bool {
        self.left.fetch_sub(1, Ordering::Relaxed) <= 0 && (self.at_nought)()
    }
}

impl<F: Fn() -> bool + Sync + Send> Progress for Countdown<F> {
    fn advance(&self, _bytes: u64) {
        self.sign();
    }
    fn message(&self, _text: &str) {
        self.sign();
    }
    fn cancelled(&self) -> bool {
        self.sign()
    }
}

pub(super) fn options(world: &World) -> RestoreOptions {
    RestoreOptions::new(world.postgres.os_user().clone())
}

/// A survey, and then the restore over the folder.
fn over(world: &World, plan: &Plan, dir: &Path, progress: &dyn Progress) -> recovery::Result<()> {
    let options = options(world);
    let found = survey(&world.repository, &world.private, plan, dir, &options, &())?;
    restore_over(&found, &options, progress).map(|_| ())
}

fn sysid_of_another_cluster(world: &World) -> PathBuf {
    let dir = world.folder("stranger");
    let init = InitOptions {
        no_sync: true,
        ..InitOptions::default()
    };
    initdb(
        world.postgres.binaries(),
        world.postgres.os_user(),
        &dir,
        &init,
    )
    .unwrap();
    dir
}

/// Every path with its bytes.
pub(super) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            found.extend(contents(&path));
        } else if meta.is_file() {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// One story: a server is lost, its folder spoiled in every way, and mended in place: after refusals, after cancelled
/// attempts, after attempts that were killed at any step.
#[test]
fn a_broken_folder_is_mended_in_place() {
    let mut world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    value(
        &source,
        "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 30000) n",
    );
    value(
        &source,
        "CREATE TABLE later_dropped AS SELECT generate_series(1, 1000) n",
    );
    let file = |name: &str| {
        let path = value(&source, &format!("SELECT pg_relation_filepath('{name}')"));
        world.postgres.data_dir().join(path)
    };
    let (table, dropped) = (file("t"), file("later_dropped"));
    world.backup(&source);
    value(&source, "DELETE FROM t WHERE n % 100 = 0");
    wait_durable(&streamer, &source);
    let dir = world.postgres.data_dir();
    let plan = world.plan(Target::latest()).unwrap();

    let error = over(&world, &plan, &dir, &()).unwrap_err();
    assert!(matches!(error, Error::ServerRuns { .. }), "{error}");
    streamer.stop();
    world.postgres.stop(StopMode::Kill);

    let stranger = sysid_of_another_cluster(&world);
    let before = contents(&stranger);
    let error = over(&world, &plan, &stranger, &()).unwrap_err();
    assert!(matches!(error, Error::OtherCluster { .. }), "{error}");
    let nothing = world.folder("no cluster");
    std::fs::create_dir(&nothing).unwrap();
    std::fs::write(nothing.join("mine"), "precious").unwrap();
    let error = over(&world, &plan, &nothing, &()).unwrap_err();
    assert!(matches!(error, Error::NoDataFolder(_)), "{error}");
    assert_eq!(std::fs::read(nothing.join("mine")).unwrap(), b"precious");
    assert_eq!(contents(&stranger), before);

    let outside = spoil_everything(&world, &dir, &table, &dropped);
    let before = contents(&dir);
    let found = survey(
        &world.repository,
        &world.private,
        &plan,
        &dir,
        &options(&world),
        &(),
    )
    .unwrap();
    assert_eq!(contents(&dir), before, "a look changes nothing");
    assert!(
        found.files_changed >= 2 && found.files_new >= 2,
        "{found:?}"
    );
    assert!(found.files_same > 500, "{found:?}");
    let surplus = |name: &str| found.surplus.iter().find(|it| it.path == dir.join(name));
    assert!(
        !surplus("stray").unwrap().kept && !surplus("PG_VERSION").unwrap().kept,
        "{found:?}"
    );
    assert!(surplus("log").unwrap().kept, "{found:?}");
    let aside = found.aside.clone().unwrap();
    drop(found);

    let plain = restore(
        &world.repository,
        &world.private,
        &plan,
        &dir,
        &options(&world),
        &(),
    );
    assert!(matches!(plain.unwrap_err(), Error::NotEmpty(_)));
    for signs in [1, 6, 12] {
        let error = over(&world, &plan, &dir, &Countdown::new(signs, || true)).unwrap_err();
        assert!(
            matches!(&error, Error::Cancelled(folder) if *folder == dir),
            "{error}"
        );
        assert!(
            !dir.join("global/pg_control").exists(),
            "it could be started"
        );
        let plain = restore(
            &world.repository,
            &world.private,
            &plan,
            &dir,
            &options(&world),
            &(),
        );
        assert!(matches!(plain.unwrap_err(), Error::HalfRestored(_)));
    }
    let log = std::fs::read_to_string(aside.join("log/server.log")).unwrap();
    assert_eq!(log, "why it broke", "the log of the disaster is kept");
    assert!(std::fs::read_dir(aside.join("pg_wal")).unwrap().count() > 0);

    killed_at_any_step(&world, &dir);
    over(&world, &plan, &dir, &()).unwrap();
    world.recover(&plan, &dir).unwrap();
    assert!(!dir.join("bre_half_restored").exists() && !dir.join("stray").exists());
    assert_eq!(
        std::fs::read_to_string(&outside).unwrap(),
        "15\n",
        "links lead nowhere"
    );
    world.postgres.start_again();
    assert_eq!(value(&source, "SELECT count(*) FROM t"), "29700");
    assert_eq!(value(&source, "SELECT count(*) FROM later_dropped"), "1000");
    value(&source, "CREATE EXTENSION amcheck");
    let checked = "SELECT count(*) FROM verify_heapam('t')";
    assert_eq!(value(&source, checked), "0");
}

/// Returns the file that a link in the folder leads to.
fn spoil_everything(world: &World, dir: &Path, table: &Path, dropped: &Path) -> PathBuf {
    let mut bytes = std::fs::read(table).unwrap();
    for page in [3, 300, 700, 900, 1300, 1301, 1800, 2100] {
        bytes[page * 8192 + 100..page * 8192 + 8000].fill(0xAA);
    }
    std::fs::write(table, bytes).unwrap();
    std::fs::remove_file(dropped).unwrap();
    let catalogue = std::fs::read_dir(dir.join("base/1")).unwrap();
    let largest = catalogue
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(largest)
        .unwrap()
        .set_len(8192)
        .unwrap();
    std::fs::write(dir.join("stray"), "does not belong").unwrap();
    std::fs::create_dir(dir.join("log")).unwrap();
    std::fs::write(dir.join("log/server.log"), "why it broke").unwrap();
    // What a careless copy leaves: a link where a file was, and a second name of a file elsewhere.
    let outside = world.folder("outside");
    std::fs::rename(dir.join("PG_VERSION"), &outside).unwrap();
    symlink(&outside, dir.join("PG_VERSION")).unwrap();
    std::fs::hard_link(dir.join("postgresql.conf"), world.folder("second name")).unwrap();
    outside
}

/// Another process restores and replays, and kills itself at its nth sign of life. The server that it leaves behind is
/// no hindrance.
fn killed_at_any_step(world: &World, dir: &Path) {
    let keys = world.folder("recipient.key");
    world.private.store(&keys).unwrap();
    let program = std::env::current_exe().unwrap();
    for signs in [1, 5, 9, i64::MAX] {
        let mut child = std::process::Command::new(&program);
        child
            .args(["--ignored", "--exact", "delta::delta_child"])
            .env("DELTA_REPOSITORY", world.folder("repository"))
            .env("DELTA_KEY", &keys)
            .env("DELTA_TO", dir)
            .env("DELTA_FETCH", world.folder("fetch"))
            .env("DELTA_LOG", world.folder("child.log"))
            .env("DELTA_SIGNS", signs.to_string());
        let output = child.output().unwrap();
        use std::os::unix::process::ExitStatusExt;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            output.status.signal(),
            Some(9),
            "{signs}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(dir.join("bre_half_restored").exists(), "{signs}");
    }
}

/// Not a test: a restore that is killed. After so many signs of life, at the latest while it replays.
#[test]
#[ignore = "run by another test as a process of its own"]
fn delta_child() {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).unwrap();
    let die = || -> bool {
        let us = rustix::process::getpid();
        rustix::process::kill_process(us, rustix::process::Signal::KILL).unwrap();
        true
    };
    let signs = std::env::var("DELTA_SIGNS").unwrap().parse().unwrap();
    let progress = Countdown::new(signs, die);
    let store: Arc<dyn Store> = Arc::new(PosixStore::new(variable("DELTA_REPOSITORY")));
    let repository = Repository::open(store).unwrap();
    let private = RecipientPrivate::load(&variable("DELTA_KEY")).unwrap();
    let user = postgres_physical::server::OsUser::for_server().unwrap();
    let binaries = postgres_physical::server::Binaries::find(None).unwrap();
    let options = RestoreOptions::new(user.clone());
    let to = variable("DELTA_TO");
    let plan = plan(&repository, &private, Target::latest()).unwrap();
    let found = survey(&repository, &private, &plan, &to, &options, &()).unwrap();
    restore_over(&found, &options, &progress).unwrap();
    let fetch = fetch_command(&variable("DELTA_FETCH"));
    let request = Recover {
        repository: &repository,
        private: &private,
        plan: &plan,
        dir: &to,
        binaries: &binaries,
        user: &user,
        fetch: &fetch,
        log: &variable("DELTA_LOG"),
    };
    // Dies when the server runs already.
    let progress = Countdown::new(if signs == i64::MAX { 30 } else { 0 }, die);
    let _ = recover(&request, &progress);
}

/// The disk fills up while files are written: that is said, and once there is room the restore continues.
#[test]
fn a_full_disk_is_said_and_the_restore_goes_on_when_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let mut world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    let backup = world.backup(&source);
    streamer.stop();
    world.postgres.stop(StopMode::Kill);
    let disk = world.folder("disk");
    std::fs::create_dir(&disk).unwrap();
    let size = backup.bytes_source + (60 << 20);
    let Some(_mounted) = MountPoint::tmpfs(&disk, size) else {
        println!("skipped: this system does not let us mount");
        return;
    };
    let (to, filler) = (disk.join("restored"), disk.join("filler"));
    let fill = || {
        if !filler.exists() {
            let mut file = std::fs::File::create(&filler).unwrap();
            while std::io::Write::write_all(&mut file, &[1; 1 << 20]).is_ok() {}
        }
        false
    };
    let plan = world.plan(Target::latest()).unwrap();
    let full = Countdown::new(100, fill);
    let error = restore(
        &world.repository,
        &world.private,
        &plan,
        &to,
        &options(&world),
        &full,
    )
    .unwrap_err();
    let said = error.to_string();
    assert!(
        matches!(error, Error::Incomplete { .. }) && said.contains("No space left"),
        "{said}"
    );
    assert!(!to.join("global/pg_control").exists());
    let error = over(&world, &plan, &to, &()).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    std::fs::remove_file(&filler).unwrap();
    over(&world, &plan, &to, &()).unwrap();
    assert!(to.join("global/pg_control").exists());
}

/// Unmounted when dropped.
pub(super) struct MountPoint(PathBuf);

impl MountPoint {
    pub(super) fn tmpfs(at: &Path, bytes: u64) -> Option<Self> {
        Self::mount(at, &format!("size={bytes},mode=0755"))
    }

    /// For so many files and folders, its own root among them.
    pub(super) fn with_inodes(at: &Path, bytes: u64, inodes: u64) -> Option<Self> {
        Self::mount(at, &format!("size={bytes},nr_inodes={inodes},mode=0755"))
    }

    fn mount(at: &Path, options: &str) -> Option<Self> {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
