//! Targets that other file systems are mounted at and in: what is not ours stays, what cannot work is refused before
//! anything is touched.
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use super::delta::{MountPoint, contents, options};
use super::*;
use postgres_physical::server::{StopMode, is_mount_root};
use recovery::Error;
use recovery::database::{is_occupied, outlook, restore_over, survey};

const ROOMY: u64 = 400 << 20;

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn get(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A new disk for the data folder and one for its WAL, as `mkfs.ext4` leaves them; then what else is mounted there when
/// it is restored over.
#[test]
fn other_file_systems_in_a_target_are_used_or_left_alone_and_never_emptied() {
    let mut world = World::new();
    let (to, spaces) = (world.folder("restored"), world.folder("fast"));
    for folder in [&to, &spaces] {
        std::fs::create_dir(folder).unwrap();
    }
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    let place = world.folder("source space");
    std::fs::create_dir(&place).unwrap();
    world.postgres.os_user().own(&place).unwrap();
    value(
        &source,
        &format!("CREATE TABLESPACE fast LOCATION '{}'", place.display()),
    );
    value(
        &source,
        "CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) n",
    );
    world.backup(&source);
    wait_durable(&streamer, &source);
    streamer.stop();
    world.postgres.stop(StopMode::Kill);
    let Some(_data) = MountPoint::tmpfs(&to, ROOMY) else {
        println!("skipped: this system does not let us mount");
        return;
    };
    let _spaces = MountPoint::tmpfs(&spaces, ROOMY).unwrap();
    let wal = to.join("pg_wal");
    std::fs::create_dir(&wal).unwrap();
    let small = MountPoint::tmpfs(&wal, 1 << 20).unwrap();
    for mount in [&to, &wal, &spaces] {
        put(&mount.join("lost+found/#17"), "what fsck found");
    }
    let plan = world.plan(Target::latest()).unwrap();
    let mut options = options(&world);
    let old = place.to_str().unwrap().to_owned();
    options.locations.insert(old, spaces.clone());
    let (repository, private) = (&world.repository, &world.private);

    // Room is looked at on every device.
    assert!(!is_occupied(&to).unwrap());
    let before = contents(&to);
    let error = outlook(repository, private, &plan, &to, &options).unwrap_err();
    assert!(
        matches!(&error, Error::NoSpace { folder, .. } if *folder == wal),
        "{error}"
    );
    restore(repository, private, &plan, &to, &options, &()).unwrap_err();
    assert_eq!(contents(&to), before, "refused before anything is touched");
    drop(small);
    let few = MountPoint::with_inodes(&wal, ROOMY, 4).unwrap();
    let error = outlook(repository, private, &plan, &to, &options).unwrap_err();
    assert!(
        matches!(&error, Error::NoInodes { folder, .. } if *folder == wal),
        "{error}"
    );
    let error = restore(repository, private, &plan, &to, &options, &()).unwrap_err();
    assert!(matches!(error, Error::NoInodes { .. }), "{error}");
    drop(few);
    let wal_disk = MountPoint::tmpfs(&wal, ROOMY).unwrap();
    put(&wal.join("lost+found/#17"), "what fsck found");

    let seen = outlook(repository, private, &plan, &to, &options).unwrap();
    assert_eq!(seen.rooms.len(), 3, "{seen:?}");
    restore(repository, private, &plan, &to, &options, &()).unwrap();
    world.recover(&plan, &to).unwrap();
    assert!(is_mount_root(&wal).unwrap() && wal.join("archive_status").is_dir());
    assert!(is_mount_root(&spaces).unwrap());
    let kept = || {
        for mount in [&to, &wal, &spaces] {
            assert_eq!(get(&mount.join("lost+found/#17")), "what fsck found");
        }
    };
    kept();

    // The server broke, and somebody else's disks are mounted in its folder.
    let (extra, deep) = (to.join("extra"), to.join("stray/deep"));
    for folder in [&extra, &deep] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let _extra = MountPoint::tmpfs(&extra, 1 << 20).unwrap();
    let _deep = MountPoint::tmpfs(&deep, 1 << 20).unwrap();
    let logs = to.join("log");
    std::fs::create_dir(&logs).unwrap();
    let _logs = MountPoint::tmpfs(&logs, 1 << 20).unwrap();
    put(&extra.join("precious"), "theirs");
    put(&deep.join("precious"), "theirs");
    put(&to.join("stray/junk"), "does not belong");
    put(&logs.join("server.log"), "why it broke");
    std::fs::write(to.join("PG_VERSION"), "spoiled").unwrap();

    let before = contents(&to);
    let error = survey(repository, private, &plan, &to, &options, &()).unwrap_err();
    assert!(matches!(error, Error::AcrossFileSystems { .. }), "{error}");
    assert!(error.to_string().contains("--copy-across"), "{error}");
    assert_eq!(contents(&to), before, "refused before anything is touched");

    options.copy_across = true;
    let found = survey(repository, private, &plan, &to, &options, &()).unwrap();
    assert_eq!(contents(&to), before, "a look changes nothing");
    let foreign: Vec<&Path> = found.foreign.iter().map(|it| it.path.as_path()).collect();
    for path in [
        &extra,
        &deep,
        &to.join("lost+found"),
        &wal.join("lost+found"),
    ] {
        assert!(foreign.contains(&path.as_path()), "{path:?}: {found:?}");
        let said = format!("{} stays as it is", path.display());
        assert!(
            found.notes.iter().any(|note| note.starts_with(&said)),
            "{found:?}"
        );
        assert!(
            found.surplus.iter().all(|it| !it.path.starts_with(path)),
            "{found:?}"
        );
    }
    assert!(
        found
            .surplus
            .iter()
            .any(|it| it.path == to.join("stray/junk"))
    );
    let aside = found.aside.clone().unwrap();
    restore_over(&found, &options, &()).unwrap();
    world.recover(&plan, &to).unwrap();
    assert_eq!(get(&extra.join("precious")), "theirs");
    assert_eq!(get(&deep.join("precious")), "theirs");
    kept();
    assert!(!to.join("stray/junk").exists());
    assert_eq!(get(&aside.join("log/server.log")), "why it broke");
    assert!(is_mount_root(&logs).unwrap() && !logs.join("server.log").exists());
    assert!(std::fs::read_dir(aside.join("pg_wal")).unwrap().count() > 0);
    let restarted = world.start("restored");
    assert_eq!(restarted.value("SELECT count(*) FROM t"), "1000");
    drop((restarted, wal_disk));
}
