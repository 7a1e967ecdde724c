//! A real PostgreSQL backed up, streamed, lost and restored.
#![allow(clippy::unwrap_used)]

mod application_state;
mod cache;
mod crashes;
mod delta;
mod faults;
mod incremental;
mod infrastructure;
mod leftovers;
mod mounts;
mod named;
mod odd;
mod pages;
mod retention;
mod secrets_manager;
mod standby;
mod table;
mod targets;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup::database::{BackupOutcome, DatabaseBackup, backup};
use backup::stream::{Streamer, StreamerConfig};
use postgres_physical::lsn::Lsn;
use postgres_physical::server::sql::Client;
use postgres_physical::server::{Server, StartOptions};
use postgres_physical::wire::ConnectOptions;
use recovery::database::{
    FetchCommand, FetchOutcome, Plan, Recover, RecoveryReport, RestoreOptions, Target, plan,
    recover, restore, wal_fetch,
};
use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::{PosixStore, Store},
};
use testkit::TestPostgres;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Small, so that a test crosses many of them.
const SEGMENT: u64 = 1 << 20;

/// A cluster, its repository and its keys.
struct World {
    root: tempfile::TempDir,
    postgres: TestPostgres,
    store: Arc<dyn Store>,
    repository: Repository,
    private: RecipientPrivate,
    chunk_key: ChunkIdKey,
}

impl World {
    fn new() -> World {
        World::with(TestPostgres::builder())
    }

    fn with(postgres: testkit::Builder) -> World {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // PostgreSQL's account runs this program again to fetch WAL.
        let program = root.path().join("fetch");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let store: Arc<dyn Store> = Arc::new(PosixStore::new(root.path().join("repository")));
        World {
            postgres: postgres
                .wal_segment_bytes(SEGMENT)
                .set("max_prepared_transactions", 2)
                .start(),
            repository: Repository::init(Arc::clone(&store)).unwrap(),
            store,
            private: RecipientPrivate::generate().unwrap(),
            chunk_key: ChunkIdKey::generate().unwrap(),
            root,
        }
    }

    fn stream(&self, connect: ConnectOptions) -> Streamer {
        let public = self.private.public().clone();
        let streamer = Streamer::start(StreamerConfig::new(
            connect,
            "bre",
            Arc::clone(&self.store),
            public,
        ));
        streamer
            .watch()
            .wait_until(TIMEOUT, |state| state.attached)
            .unwrap();
        streamer
    }

    fn backup(&self, connect: &ConnectOptions) -> BackupOutcome {
        let request = DatabaseBackup {
            label: "test",
            wal_timeout: TIMEOUT,
            ..DatabaseBackup::new(
                connect,
                &self.repository,
                self.private.public(),
                &self.chunk_key,
            )
        };
        backup(&request, &()).unwrap()
    }

    fn plan(&self, target: Target) -> recovery::Result<Plan> {
        plan(&self.repository, &self.private, target)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Plan, restore and recover into a folder of this name.
    fn restore_and_replay(&self, target: Target, name: &str) -> recovery::Result<RecoveryReport> {
        let plan = self.plan(target)?;
        let to = self.folder(name);
        let options = RestoreOptions::new(self.postgres.os_user().clone());
        restore(&self.repository, &self.private, &plan, &to, &options, &())?;
        assert!(to.join("backup_label").exists() && to.join("recovery.signal").exists());
        self.recover(&plan, &to)
    }

    fn recover(&self, plan: &Plan, dir: &Path) -> recovery::Result<RecoveryReport> {
        let request = Recover {
            repository: &self.repository,
            private: &self.private,
            plan,
            dir,
            binaries: self.postgres.binaries(),
            user: self.postgres.os_user(),
            fetch: &fetch_command(&self.folder("fetch")),
            log: &self.folder("recovery.log"),
        };
        recover(&request, &())
    }

    fn start(&self, name: &str) -> RestoredServer {
        let sockets = self.folder(&format!("{name}.run"));
        std::fs::create_dir_all(&sockets).unwrap();
        self.postgres.os_user().own(&sockets).unwrap();
        let options = StartOptions::new(&sockets, 5432, self.folder(&format!("{name}.log")))
            .set("fsync", "off");
        let dir = self.folder(name);
        let server = Server::start(
            self.postgres.binaries(),
            self.postgres.os_user(),
            &dir,
            &options,
        )
        .unwrap();
        let connect = ConnectOptions::unix(&sockets, 5432, "postgres", "postgres");
        RestoredServer {
            _server: server,
            connect,
        }
    }
}

/// This program, copied to where PostgreSQL's account may run it.
fn fetch_command(program: &Path) -> FetchCommand {
    let words = [
        "/usr/bin/env",
        "FETCH_SOCKET=%s",
        "FETCH_NAME=%f",
        "FETCH_TO=%p",
        program.to_str().unwrap(),
        "--ignored",
        "--exact",
        "fetch_client",
    ];
    FetchCommand::Words(words.map(str::to_owned).to_vec())
}

/// A restored cluster that runs.
struct RestoredServer {
    _server: Server,
    connect: ConnectOptions,
}

impl RestoredServer {
    fn value(&self, sql: &str) -> String {
        value(&self.connect, sql)
    }
}

fn value(connect: &ConnectOptions, sql: &str) -> String {
    let mut client = Client::connect(connect).unwrap();
    client
        .value(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .unwrap_or_default()
}

fn lsn(text: &str) -> u64 {
    text.parse::<Lsn>().unwrap().0
}

/// All that was committed so far is in the repository.
fn wait_durable(streamer: &Streamer, connect: &ConnectOptions) {
    let flushed = lsn(&value(connect, "SELECT pg_current_wal_flush_lsn()"));
    let durable = streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.durable_lsn >= flushed);
    assert!(durable.is_some(), "{:?}", streamer.state());
}

/// Not a test: what `restore_command` runs.
#[test]
#[ignore = "run by PostgreSQL as its restore_command"]
fn fetch_client() {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).unwrap();
    let name = variable("FETCH_NAME").to_str().unwrap().to_owned();
    let outcome = wal_fetch(&variable("FETCH_SOCKET"), &name, &variable("FETCH_TO"));
    if let FetchOutcome::Trouble(message) = &outcome {
        eprintln!("{message}");
    }
    std::process::exit(outcome.exit_code());
}
