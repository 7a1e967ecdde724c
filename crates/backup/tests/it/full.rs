use crate::{TIMEOUT, Vault, wait_durable};
use backup::database::{BackupOutcome, DatabaseBackup, SourceChoice, backup};
use backup::{BackupError, Progress};
use postgres_physical::lsn::Lsn;
use postgres_physical::page::PAGE_BYTES;
use postgres_physical::server::StopMode;
use repository::{
    backup::{BackupReader, BackupState, EntryKind, catalogue},
    store::PosixStore,
};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::TestPostgres;

/// What a backup promises holds for both.
pub(crate) const SOURCES: [SourceChoice; 2] = [SourceChoice::Protocol, SourceChoice::Local];

#[derive(Default)]
struct Counter {
    total: AtomicU64,
    done: AtomicU64,
    cancel_after: Option<u64>,
}

impl Progress for Counter {
    fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }
    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.cancel_after
            .is_some_and(|limit| self.done.load(Ordering::Relaxed) > limit)
    }
}

fn take(
    vault: &Vault,
    postgres: &TestPostgres,
    progress: &dyn Progress,
    wait: bool,
) -> Result<BackupOutcome, BackupError> {
    take_from(SourceChoice::Protocol, vault, postgres, progress, wait)
}

pub(crate) fn take_from(
    source: SourceChoice,
    vault: &Vault,
    postgres: &TestPostgres,
    progress: &dyn Progress,
    wait: bool,
) -> Result<BackupOutcome, BackupError> {
    let connect = postgres.connect_options();
    let request = DatabaseBackup {
        label: "test",
        source,
        wal_timeout: if wait {
            TIMEOUT
        } else {
            std::time::Duration::ZERO
        },
        ..DatabaseBackup::new(&connect, &vault.repository, &vault.public, &vault.chunk_key)
    };
    backup(&request, progress)
}

/// The files of a backup, written below `to`.
pub(crate) fn unpack(vault: &Vault, id: &str, to: &Path) {
    let reader = BackupReader::open(&vault.repository, &vault.private, id).unwrap();
    for entry in reader.entries().unwrap() {
        let path = to.join(&entry.path);
        match &entry.kind {
            EntryKind::Directory => std::fs::create_dir_all(path).unwrap(),
            EntryKind::File { .. } => {
                std::fs::write(path, reader.read_file(&entry).unwrap()).unwrap()
            }
            EntryKind::Symlink { .. } => {}
        }
    }
}

#[test]
fn a_backup_and_its_wal_are_all_that_pg_verifybackup_wants() {
    let postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    let space = postgres.root().join("space");
    std::fs::create_dir(&space).unwrap();
    postgres.os_user().own(&space).unwrap();
    postgres.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ));
    postgres.sql("CREATE TABLE s TABLESPACE space AS SELECT n FROM generate_series(1, 1000) n");
    let vault = Vault::new();
    let early = take(&vault, &postgres, &(), false).unwrap();
    assert_eq!(early.state, BackupState::Waiting);

    let streamer = vault.attached_stream(&postgres);
    let progress = Counter::default();
    let outcome = take(&vault, &postgres, &progress, true).unwrap();
    assert_eq!(
        (outcome.state, outcome.damaged.len(), outcome.timeline),
        (BackupState::Complete, 0, 1)
    );
    assert!(outcome.stop_lsn > outcome.start_lsn && outcome.bytes_source > 20 << 20);
    let (total, done) = (
        progress.total.load(Ordering::Relaxed),
        progress.done.load(Ordering::Relaxed),
    );
    assert!(
        total > 20 << 20 && done >= outcome.bytes_source,
        "{total} {done} {outcome:?}"
    );
    let wal = vault
        .wal()
        .bytes(1, outcome.start_lsn, outcome.stop_lsn)
        .unwrap();
    assert_eq!(wal.len() as u64, outcome.stop_lsn - outcome.start_lsn);

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    unpack(&vault, &outcome.id, &copy);
    let segment_bytes = 16 << 20;
    for number in outcome.start_lsn / segment_bytes..=(outcome.stop_lsn - 1) / segment_bytes {
        let name = postgres_physical::lsn::segment_name(1, number, segment_bytes);
        let bytes = vault.wal().segment(1, number).unwrap().unwrap();
        std::fs::write(copy.join("pg_wal").join(name), bytes).unwrap();
    }
    let verified = std::process::Command::new(postgres.binaries().program("pg_verifybackup"))
        .arg(&copy)
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let table = postgres.value("SELECT pg_relation_filepath('s')");
    assert!(
        table.starts_with("pg_tblspc/") && copy.join(&table).is_file(),
        "{table}"
    );
    let reader = BackupReader::open(&vault.repository, &vault.private, &outcome.id).unwrap();
    let oid = table.split('/').nth(1).unwrap();
    assert_eq!(
        reader.facts()[&format!("tablespace.{oid}")],
        space.to_str().unwrap()
    );
    assert!(vault.repository.store().list("backups/").unwrap().len() >= 2);
    drop(streamer);
}

#[test]
fn a_damaged_page_is_recorded_with_its_relation_and_block_and_the_backup_is_kept() {
    let mut postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE good AS SELECT n FROM generate_series(1, 5000) n");
    postgres.sql("CREATE TABLE victim AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    let path = postgres.value("SELECT pg_relation_filepath('victim')");
    postgres.stop(StopMode::Fast);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .read(true)
        .open(postgres.data_dir().join(&path))
        .unwrap();
    let at = 7 * PAGE_BYTES as u64 + 4000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xFF], at).unwrap();
    postgres.start_again();

    let vault = Vault::new();
    let streamer = vault.attached_stream(&postgres);
    for source in SOURCES {
        let outcome = take_from(source, &vault, &postgres, &(), true).unwrap();
        assert_eq!(outcome.state, BackupState::Complete);
        let [page] = &outcome.damaged[..] else {
            panic!("{source:?}: {:?}", outcome.damaged)
        };
        assert_eq!((page.path.as_str(), page.block), (path.as_str(), 7));
        assert_eq!(
            page.relation.as_deref(),
            Some("victim in database postgres")
        );
        assert!(
            page.what.starts_with("checksum 0x") && !page.what.contains("not read"),
            "{page:?}"
        );
        let reader = BackupReader::open(&vault.repository, &vault.private, &outcome.id).unwrap();
        assert_eq!(reader.damaged_pages(), &outcome.damaged[..]);
        wait_durable(&streamer, Lsn(outcome.stop_lsn));
    }
}

/// Damages a page on disk while the server still has it in memory, and makes the server write WAL for it during the
/// backup: replay writes the whole page, so it does not count.
#[test]
fn a_page_that_wal_writes_as_a_whole_is_not_damaged() {
    let postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 2000) n");
    postgres.sql("CHECKPOINT");
    let path = postgres
        .data_dir()
        .join(postgres.value("SELECT pg_relation_filepath('t')"));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();

    /// The first change of the page after the backup's checkpoint logs an image of it.
    struct Touch<'a>(&'a TestPostgres);
    impl Progress for Touch<'_> {
        fn message(&self, text: &str) {
            if text == "copying" {
                self.0.sql("UPDATE t SET n = n");
            }
        }
    }
    let vault = Vault::new();
    let _streamer = vault.attached_stream(&postgres);
    for source in SOURCES {
        postgres.sql("CHECKPOINT");
        file.write_all_at(&[0xEE; 64], 3 * PAGE_BYTES as u64 + 4000)
            .unwrap();
        let outcome = take_from(source, &vault, &postgres, &Touch(&postgres), true).unwrap();
        assert_eq!(outcome.damaged, []);
    }
}

#[test]
fn a_cancelled_backup_leaves_no_manifest() {
    let postgres = TestPostgres::start();
    let vault = Vault::new();
    for source in SOURCES {
        let progress = Counter {
            cancel_after: Some(5 << 20),
            ..Counter::default()
        };
        let error = take_from(source, &vault, &postgres, &progress, false).unwrap_err();
        assert!(matches!(error, BackupError::Cancelled), "{error}");
        assert_eq!(vault.repository.store().list("backups/").unwrap(), []);
    }
    take(&vault, &postgres, &(), false).unwrap();
    assert_eq!(catalogue(&vault.repository).unwrap().backups.len(), 1);
}

const CHILD_SOCKET: &str = "BACKUP_TEST_SOCKET";
const CHILD_REPOSITORY: &str = "BACKUP_TEST_REPOSITORY";

/// Run by the test below in a process of its own: stops in the middle and waits to be killed.
#[test]
#[ignore = "only as a child of the test that kills it"]
fn child_that_is_killed() {
    struct Stuck;
    impl Progress for Stuck {
        fn advance(&self, _: u64) {
            static DONE: AtomicU64 = AtomicU64::new(0);
            if DONE.fetch_add(1, Ordering::Relaxed) == 100 {
                let marker =
                    Path::new(&std::env::var(CHILD_REPOSITORY).unwrap()).with_extension("halfway");
                std::fs::write(marker, "").unwrap();
                loop {
                    std::thread::park();
                }
            }
        }
    }
    let folder = std::env::var(CHILD_REPOSITORY).unwrap();
    let vault = Vault::on(Arc::new(PosixStore::new(&folder)));
    let connect = postgres_physical::wire::ConnectOptions::unix(
        std::env::var(CHILD_SOCKET).unwrap(),
        5432,
        "postgres",
        "postgres",
    );
    let request = DatabaseBackup {
        label: "killed",
        wal_timeout: TIMEOUT,
        ..DatabaseBackup::new(&connect, &vault.repository, &vault.public, &vault.chunk_key)
    };
    backup(&request, &Stuck).unwrap();
}

#[test]
fn a_kill_in_the_middle_of_a_backup_leaves_earlier_ones_and_no_manifest() {
    let postgres = TestPostgres::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repository");
    std::fs::create_dir(&path).unwrap();
    let vault = Vault::on(Arc::new(PosixStore::new(&path)));
    let first = take(&vault, &postgres, &(), false).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "full::child_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_SOCKET, postgres.socket_dir())
        .env(CHILD_REPOSITORY, &path)
        .spawn()
        .unwrap();
    testkit::eventually("the child is halfway", || {
        path.with_extension("halfway").exists().then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let mut manifests = vault.repository.store().list("backups/").unwrap();
    manifests.retain(|object| object.name.ends_with("/manifest"));
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    let reader = BackupReader::open(&vault.repository, &vault.private, &first.id).unwrap();
    assert!(reader.verify(2, &|_| ()).unwrap().damaged.is_empty());
    let next = take(&vault, &postgres, &(), false).unwrap();
    let reader = BackupReader::open(&vault.repository, &vault.private, &next.id).unwrap();
    assert!(reader.verify(2, &|_| ()).unwrap().damaged.is_empty());
}
