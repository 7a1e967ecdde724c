use super::*;
use recovery::Error;
use repository::{backup::BackupState, wal::WalWriter};

/// A world with one complete backup and some WAL after it, its server gone.
fn lost() -> World {
    let mut world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    let backup = world.backup(&source);
    assert_eq!(backup.state, BackupState::Complete);
    value(
        &source,
        "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 6000) n",
    );
    wait_durable(&streamer, &source);
    streamer.stop();
    world
        .postgres
        .stop(postgres_physical::server::StopMode::Kill);
    world
}

fn options(world: &World) -> RestoreOptions {
    RestoreOptions::new(world.postgres.os_user().clone())
}

fn objects(world: &World, prefix: &str) -> Vec<PathBuf> {
    let found = world.store.list(prefix).unwrap();
    found
        .iter()
        .map(|object| world.folder("repository").join(&object.name))
        .collect()
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_folder_with_anything_in_it_is_refused_and_untouched() {
    let world = lost();
    let plan = world.plan(Target::latest()).unwrap();
    let to = world.folder("taken");
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("mine"), "precious").unwrap();
    let error = restore(
        &world.repository,
        &world.private,
        &plan,
        &to,
        &options(&world),
        &(),
    )
    .unwrap_err();
    assert!(
        matches!(&error, Error::NotEmpty(folder) if *folder == to),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
    assert_eq!(
        std::fs::read_to_string(to.join("mine")).unwrap(),
        "precious"
    );
}

/// A missing pack is found before the first byte; a damaged one leaves a folder that does not start, and says so.
#[test]
fn damage_is_named_and_nothing_startable_is_left() {
    let world = lost();
    let plan = world.plan(Target::latest()).unwrap();
    let packs = objects(&world, "packs/");
    let kept = std::fs::read(&packs[0]).unwrap();
    let name = packs[0]
        .strip_prefix(world.folder("repository"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();

    std::fs::remove_file(&packs[0]).unwrap();
    let to = world.folder("missing");
    let error = restore(
        &world.repository,
        &world.private,
        &plan,
        &to,
        &options(&world),
        &(),
    )
    .unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert!(error.is_of_backup(), "{error:?}");
    assert!(!to.exists());

    std::fs::write(&packs[0], kept).unwrap();
    packs.iter().for_each(|pack| spoil(pack));
    let to = world.folder("damaged");
    let error = restore(
        &world.repository,
        &world.private,
        &plan,
        &to,
        &options(&world),
        &(),
    )
    .unwrap_err();
    assert!(matches!(&error, Error::Incomplete { .. }), "{error}");
    assert!(error.is_of_backup(), "{error:?}");
    assert!(
        error.to_string().contains("`packs/") && error.to_string().contains("delete it"),
        "{error}"
    );
    assert!(!to.join("global/pg_control").exists());
}

/// PostgreSQL itself says that a copy is not whole, or nothing does before a database is entered.
#[test]
fn a_copy_without_its_files_is_the_fault_of_its_backup() {
    let world = lost();
    let plan = world.plan(Target::latest()).unwrap();
    let restored = |name: &str| {
        let to = world.folder(name);
        let options = options(&world);
        restore(&world.repository, &world.private, &plan, &to, &options, &()).unwrap();
        to
    };
    let to = restored("PG_VERSION");
    std::fs::remove_file(to.join("PG_VERSION")).unwrap();
    let error = world.recover(&plan, &to).unwrap_err();
    assert!(error.is_of_backup(), "{error:?}");
    let to = restored("database");
    let of_postgres = std::fs::read_dir(to.join("base")).unwrap().flatten();
    // The newest oid of a fresh cluster is `postgres`.
    let newest = of_postgres.max_by_key(|entry| {
        let oid: Option<u32> = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        oid.unwrap_or_default()
    });
    std::fs::remove_file(newest.unwrap().path().join("PG_VERSION")).unwrap();
    let recovered = world.recover(&plan, &to).unwrap();
    assert_eq!(recovered.incomplete, ["postgres"], "{:?}", recovered.notes);
    assert!(
        recovered.notes.concat().contains("PG_VERSION"),
        "{:?}",
        recovered.notes
    );
    // One that others may read as well is no fault of the backup.
    let to = restored("ownership");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&to, mode).unwrap();
    let error = world.recover(&plan, &to).unwrap_err();
    assert!(!error.is_of_backup(), "{error:?}");
}

/// PostgreSQL must never take a damaged segment for the end of WAL.
#[test]
fn damaged_wal_ends_recovery_with_its_name() {
    let world = lost();
    let plan = world.plan(Target::latest()).unwrap();
    let to = world.folder("restored");
    restore(
        &world.repository,
        &world.private,
        &plan,
        &to,
        &options(&world),
        &(),
    )
    .unwrap();
    let segments = objects(&world, "wal/");
    let last = segments.last().unwrap();
    spoil(last);
    let error = world.recover(&plan, &to).unwrap_err();
    let name = last
        .strip_prefix(world.folder("repository"))
        .unwrap()
        .to_str()
        .unwrap();
    assert!(
        matches!(&error, Error::Recovery { .. }) && error.to_string().contains(name),
        "{error}"
    );
    assert!(
        !error.is_of_backup(),
        "WAL is the same for all backups: {error:?}"
    );
    // Mended, the same folder can continue from where it was.
    spoil(last);
    let recovered = world.recover(&plan, &to).unwrap();
    assert_eq!(
        recovered.timeline, 2,
        "the number of the failed attempt was given back"
    );
    assert_eq!(
        world.start("restored").value("SELECT count(*) FROM t"),
        "6000"
    );
}

/// "Latest" is not known when the newest WAL cannot be read; a place before it still is.
#[test]
fn a_damaged_tail_is_no_silent_loss() {
    let world = lost();
    let whole = world.plan(Target::latest()).unwrap();
    let tails = objects(&world, "tail/");
    let tail = tails.last().unwrap();
    let mut bytes = std::fs::read(tail).unwrap();
    // Inside the first frame; good ones follow.
    bytes[84 + 40] ^= 1;
    std::fs::write(tail, bytes).unwrap();
    let error = world.plan(Target::latest()).unwrap_err();
    let name = tail
        .strip_prefix(world.folder("repository"))
        .unwrap()
        .to_str()
        .unwrap();
    assert!(
        matches!(&error, Error::DamagedWal { .. }) && error.to_string().contains(name),
        "{error}"
    );
    let before = world.plan(Target::lsn(whole.backup.stop_lsn)).unwrap();
    assert_eq!(before.backup.id, whole.backup.id);
}

#[test]
fn a_wrong_key_is_named_before_anything_is_written() {
    let world = lost();
    let stranger = RecipientPrivate::generate().unwrap();
    let error = plan(&world.repository, &stranger, Target::latest()).unwrap_err();
    assert!(
        error.to_string().contains(&world.private.public().id()),
        "{error}"
    );
}

#[test]
fn an_empty_repository_has_nothing_to_restore() {
    let store: Arc<dyn Store> = Arc::new(repository::store::MemoryStore::new());
    let repository = Repository::init(store).unwrap();
    let error = plan(
        &repository,
        &RecipientPrivate::generate().unwrap(),
        Target::latest(),
    )
    .unwrap_err();
    assert!(matches!(error, Error::NothingToRestore(_)), "{error}");
}

#[test]
fn a_fetch_without_a_server_is_trouble_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("RECOVERYXLOG");
    let outcome = wal_fetch(&dir.path().join("nobody"), "000000010000000000000001", &to);
    assert!(matches!(outcome, FetchOutcome::Trouble(_)) && outcome.exit_code() > 125);
    assert!(!to.exists());
}

/// A server whose files were removed under it streams the zeros of a segment that it makes again, and continues behind
/// them. What comes before them comes back, and the way there is named instead of one that fails again and again.
#[test]
fn bytes_that_are_no_wal_end_what_can_be_restored_and_are_named() {
    let mut world = World::new();
    let source = world.postgres.connect_options();
    let streamer = world.stream(source.clone());
    assert_eq!(world.backup(&source).state, BackupState::Complete);
    value(&source, "CREATE TABLE t AS SELECT 1 AS n");
    wait_durable(&streamer, &source);
    let held = streamer.state();
    streamer.stop();
    value(
        &source,
        "INSERT INTO t SELECT 2 FROM generate_series(1, 30000)",
    );
    let end = lsn(&value(&source, "SELECT pg_current_wal_flush_lsn()"));
    let data = world.postgres.data_dir().join("pg_wal");
    world
        .postgres
        .stop(postgres_physical::server::StopMode::Kill);

    // As it would have come from such a server: one page of zeros, and sound WAL behind it.
    let (system, start) = (
        held.system_identifier.unwrap(),
        held.durable_lsn / SEGMENT * SEGMENT,
    );
    let public = world.private.public();
    let mut writer =
        WalWriter::new(&world.repository, public, system, 1, SEGMENT, "w", start).unwrap();
    let zeros = held.durable_lsn.next_multiple_of(8192) + 8192;
    for segment in start / SEGMENT..=end / SEGMENT {
        let from = segment * SEGMENT;
        let name = postgres_physical::lsn::segment_name(1, segment, SEGMENT);
        let mut bytes = std::fs::read(data.join(name)).unwrap();
        bytes.truncate(usize::try_from((end - from).min(SEGMENT)).unwrap());
        if (from..from + SEGMENT).contains(&zeros) {
            let at = usize::try_from(zeros - from).unwrap();
            bytes[at..at + 8192].fill(0);
        }
        writer
            .append(from, &bytes, held.confirmed_at_micros.unwrap())
            .unwrap();
    }
    writer.finish().unwrap();

    let error = world
        .restore_and_replay(Target::latest(), "latest")
        .unwrap_err();
    let Error::BrokenWal {
        timeline,
        last_record,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!((held.durable_lsn..zeros).contains(last_record), "{error}");
    assert!(error.to_string().contains("--lsn"), "{error}");
    let whole = Target::lsn(*last_record).on_timeline(*timeline);
    world.restore_and_replay(whole, "whole").unwrap();
    let restored = world.start("whole");
    assert_eq!(restored.value("SELECT count(*) FROM t WHERE n = 1"), "1");
}
