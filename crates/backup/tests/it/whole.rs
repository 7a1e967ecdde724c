//! What is copied while somebody removes the server's files is no backup.

use crate::Vault;
use crate::full::{SOURCES, take_from};
use backup::database::{
    BackupEnd, BackupStart, DatabaseBackup, Identity, Local, Protocol, Source, SourceChoice,
    Suspects, backup_from,
};
use backup::{BackupError, Progress};
use repository::backup::{BackupState, BackupWriter, catalogue};
use testkit::TestPostgres;

/// Another source, and what happens to the server once it has copied.
struct SourceWithInterference<'a> {
    source: Box<dyn Source>,
    then: &'a dyn Fn(),
}

impl std::fmt::Debug for SourceWithInterference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl Source for SourceWithInterference<'_> {
    fn identify(&mut self) -> backup::Result<Identity> {
        self.source.identify()
    }

    fn begin(
        &mut self,
        label: &str,
        writer: &BackupWriter,
        progress: &dyn Progress,
    ) -> backup::Result<BackupStart> {
        self.source.begin(label, writer, progress)
    }

    fn copy(&mut self, writer: &BackupWriter, progress: &dyn Progress) -> backup::Result<Suspects> {
        let copied = self.source.copy(writer, progress);
        (self.then)();
        copied
    }

    fn stop(
        &mut self,
        writer: &BackupWriter,
        progress: &dyn Progress,
    ) -> backup::Result<BackupEnd> {
        self.source.stop(writer, progress)
    }
}

fn interfered(
    choice: SourceChoice,
    vault: &Vault,
    postgres: &TestPostgres,
    then: &dyn Fn(),
) -> backup::Result<backup::database::BackupOutcome> {
    let connect = postgres.connect_options();
    let request = DatabaseBackup {
        source: choice,
        ..DatabaseBackup::new(&connect, &vault.repository, &vault.public, &vault.chunk_key)
    };
    let source: Box<dyn Source> = match choice {
        SourceChoice::Local => Box::new(Local::open(&request).unwrap().unwrap()),
        _ => Box::new(Protocol::new(&request)),
    };
    backup_from(&request, &mut SourceWithInterference { source, then }, &())
}

#[test]
fn a_relation_whose_file_is_gone_ends_the_backup_while_an_earlier_one_has_it() {
    let postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n");
    postgres.sql("CREATE TABLE kept (n integer)");
    postgres.sql("CHECKPOINT");
    let vault = Vault::new();
    let stream = vault.attached_stream(&postgres);
    take_from(SourceChoice::Protocol, &vault, &postgres, &(), true).unwrap();
    let path = postgres.value("SELECT pg_relation_filepath('t')");
    std::fs::remove_file(postgres.data_dir().join(&path)).unwrap();
    for source in SOURCES {
        match take_from(source, &vault, &postgres, &(), true) {
            Err(BackupError::FilesGone(gone)) => {
                assert_eq!(gone, [format!("{path} of t in database \"postgres\"")]);
            }
            other => panic!("{source:?}: {other:?}"),
        }
    }
    assert_eq!(catalogue(&vault.repository).unwrap().backups.len(), 1);

    // Without an earlier one it is better than none.
    drop(stream);
    let first = Vault::new();
    let _stream = first.attached_stream(&postgres);
    let outcome = take_from(SourceChoice::Local, &first, &postgres, &(), true).unwrap();
    assert_eq!(outcome.state, BackupState::Complete);
    assert!(
        outcome.warnings.iter().any(|it| it.contains(&path)),
        "{:?}",
        outcome.warnings
    );
}

#[test]
fn tables_that_come_go_and_are_rewritten_meanwhile_end_no_backup() {
    let postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE rewritten AS SELECT n FROM generate_series(1, 1000) n");
    postgres.sql("CREATE TABLE dropped (n integer)");
    postgres.sql("CREATE DATABASE dropped");
    let vault = Vault::new();
    let _stream = vault.attached_stream(&postgres);
    for source in SOURCES {
        take_from(source, &vault, &postgres, &(), true).unwrap();
        let changes = || {
            postgres.sql("VACUUM FULL");
            postgres.sql("TRUNCATE rewritten");
            postgres.sql("CREATE TABLE IF NOT EXISTS came (n integer)");
            postgres.sql("DROP TABLE IF EXISTS dropped");
            postgres.sql("DROP DATABASE IF EXISTS dropped");
        };
        interfered(source, &vault, &postgres, &changes).unwrap();
    }
}

#[test]
fn a_folder_that_is_removed_while_it_is_copied_gives_no_backup() {
    for source in SOURCES {
        let postgres = TestPostgres::start();
        let vault = Vault::new();
        let data = postgres.data_dir();
        let aside = data.with_extension("aside");
        // As long as its checkpoint is not asked for, the server does not notice.
        let removed = interfered(source, &vault, &postgres, &|| {
            std::fs::rename(data.join("global"), &aside).unwrap();
            std::fs::create_dir(data.join("global")).unwrap();
            std::fs::copy(aside.join("pg_control"), data.join("global/pg_control")).unwrap();
        });
        assert!(removed.is_err(), "{source:?}: {removed:?}");
        assert_eq!(catalogue(&vault.repository).unwrap().backups.len(), 0);
    }
}

#[test]
fn files_without_which_nothing_starts_are_missed() {
    let postgres = TestPostgres::start();
    for path in ["PG_VERSION", "base/1/PG_VERSION", "base/4/pg_filenode.map"] {
        let there = postgres.data_dir().join(path);
        let bytes = std::fs::read(&there).unwrap();
        std::fs::remove_file(&there).unwrap();
        for source in SOURCES {
            let vault = Vault::new();
            let back = || {
                std::fs::write(&there, &bytes).unwrap();
                postgres.os_user().own(&there).unwrap();
            };
            match interfered(source, &vault, &postgres, &back) {
                Err(BackupError::FilesGone(gone)) => assert_eq!(gone, [path]),
                other => panic!("{path}, {source:?}: {other:?}"),
            }
            std::fs::remove_file(&there).unwrap();
        }
        std::fs::write(&there, &bytes).unwrap();
        postgres.os_user().own(&there).unwrap();
    }
}
