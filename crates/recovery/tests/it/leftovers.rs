//! A source with settings that have no business in a copy, or ask for what this machine has not.

use super::delta::options;
use super::*;
use recovery::Error;
use recovery::database::{restore_over, survey};
use std::os::unix::fs::MetadataExt;

const MISSING: &str = "no_such_library";

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o777
}

#[test]
fn leftovers_of_another_recovery_have_no_effect_and_what_is_missing_here_is_named() {
    // Whatever a shell leaves behind.
    rustix::process::umask(rustix::fs::Mode::empty());
    let world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    let data = world.postgres.data_dir();
    let user = world.postgres.os_user();
    let ran = world.folder("ran");
    std::fs::create_dir(data.join("conf.d")).unwrap();
    let leftovers = data.join("conf.d/90-restore.conf");
    // any day: before everything that is there.
    std::fs::write(
        &leftovers,
        format!(
            "recovery_target_time = '2020-01-01 00:00:00+00'\nrecovery_end_command = 'touch {}'\nrecovery_min_apply_delay = '1h'\n\
             restore_command = 'false'\nshared_preload_libraries = '{MISSING}'\n",
            ran.display()
        ),
    )
    .unwrap();
    std::fs::OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.conf"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"include_dir 'conf.d'\n"))
        .unwrap();
    // As initdb --allow-group-access has it.
    for name in ["", "global", "conf.d"] {
        std::fs::set_permissions(data.join(name), PermissionsExt::from_mode(0o750)).unwrap();
    }
    user.own(&data.join("conf.d")).unwrap();
    user.own(&leftovers).unwrap();
    let space = world.folder("space");
    std::fs::create_dir(&space).unwrap();
    user.own(&space).unwrap();
    value(
        &source,
        &format!("CREATE TABLESPACE other LOCATION '{}'", space.display()),
    );
    value(&source, "CREATE DATABASE odd");
    value(
        &source,
        "UPDATE pg_database SET datcollate = 'xx_XX.utf8' WHERE datname = 'odd'",
    );
    value(&source, "CREATE TABLE t TABLESPACE other AS SELECT 1 AS n");
    value(
        &source,
        "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'open'",
    );
    world.backup(&source);
    wait_durable(&streamer, &source);

    let (to, mut options) = (world.folder("restored"), options(&world));
    let plan = world.plan(Target::latest()).unwrap();
    let restored = restore(&world.repository, &world.private, &plan, &to, &options, &()).unwrap();
    let said = restored.omissions.sentences;
    for name in [
        "recovery_target_time",
        "recovery_end_command",
        "recovery_min_apply_delay",
        "restore_command",
    ] {
        let expected = format!("{name} in conf.d/90-restore.conf");
        assert!(said.iter().any(|it| it.starts_with(&expected)), "{said:?}");
    }
    // The source's mode, never wider.
    assert_eq!((mode(&to), mode(&to.join("base"))), (0o750, 0o700));
    let spaces = world.folder("restored.tablespaces");
    let below: Vec<PathBuf> = std::fs::read_dir(&spaces)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(
        (mode(&spaces), mode(&below[0]), below.len()),
        (0o750, 0o750, 1)
    );

    // A library that is not here: its name, and a way on.
    let error = world.recover(&plan, &to).unwrap_err();
    let words = error.to_string();
    assert!(matches!(error, Error::Absent { .. }), "{words}");
    assert!(
        words.contains(MISSING) && words.contains("--set shared_preload_libraries"),
        "{words}"
    );
    let none = ("shared_preload_libraries".to_owned(), String::new());
    options.set = vec![none];
    let found = survey(&world.repository, &world.private, &plan, &to, &options, &()).unwrap();
    restore_over(&found, &options, &()).unwrap();
    let recovered = world.recover(&plan, &to).unwrap();
    assert!(!ran.exists(), "a foreign command ran");
    let notes = &recovered.notes;
    assert!(
        notes
            .iter()
            .any(|it| it.starts_with("max_prepared_transactions = 2 ")),
        "{notes:?}"
    );
    let locale =
        |it: &&String| it.contains("database odd") && it.contains("localedef -i xx_XX -f UTF-8");
    assert!(notes.iter().find(locale).is_some(), "{notes:?}");

    // It starts by itself, with the open transaction.
    let copy = world.start("restored");
    assert_eq!(copy.value("SELECT gid FROM pg_prepared_xacts"), "open");
    assert_eq!(copy.value("SELECT count(*) FROM t"), "1");
    assert_eq!(copy.value("SHOW recovery_end_command"), "");
    drop(copy);
    streamer.stop();
}
