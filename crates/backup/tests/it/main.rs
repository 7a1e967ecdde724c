//! A real PostgreSQL into real repositories.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test has nothing better to do with an error than to stop, and may say what it did"
)]

mod cache;
mod full;
mod gate;
mod infrastructure;
mod local;
mod logs;
mod odd;
mod schema;
mod streaming;
mod whole;

use backup::stream::{Streamer, StreamerConfig};
use postgres_physical::lsn::Lsn;
use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate, RecipientPublic},
    store::{MemoryStore, Store},
    wal::WalReader,
};
use std::sync::Arc;
use std::time::Duration;
use testkit::TestPostgres;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A repository with its keys.
struct Vault {
    store: Arc<dyn Store>,
    repository: Repository,
    private: RecipientPrivate,
    public: RecipientPublic,
    chunk_key: ChunkIdKey,
}

impl Vault {
    fn new() -> Vault {
        Vault::on(Arc::new(MemoryStore::default()))
    }

    fn on(store: Arc<dyn Store>) -> Vault {
        let repository = Repository::init(Arc::clone(&store)).unwrap();
        let private = RecipientPrivate::generate().unwrap();
        let public = private.public().clone();
        Vault {
            store,
            repository,
            private,
            public,
            chunk_key: ChunkIdKey::generate().unwrap(),
        }
    }

    fn stream(&self, postgres: &TestPostgres) -> Streamer {
        Streamer::start(self.config(postgres))
    }

    fn config(&self, postgres: &TestPostgres) -> StreamerConfig {
        let mut config = StreamerConfig::new(
            postgres.connect_options(),
            "bre",
            Arc::clone(&self.store),
            self.public.clone(),
        );
        config.retry_pause_max = Duration::from_millis(200);
        config
    }

    fn attached_stream(&self, postgres: &TestPostgres) -> Streamer {
        let streamer = self.stream(postgres);
        let state = streamer.watch().wait_until(TIMEOUT, |state| state.attached);
        assert!(state.is_some(), "{:?}", streamer.state());
        streamer
    }

    fn wal(&self) -> WalReader {
        WalReader::new(&self.repository, &self.private)
    }
}

fn flushed(postgres: &TestPostgres) -> Lsn {
    postgres
        .value("SELECT pg_current_wal_flush_lsn()")
        .parse()
        .unwrap()
}

fn wait_durable(streamer: &Streamer, lsn: Lsn) {
    let reached = streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.durable_lsn >= lsn.0);
    assert!(
        reached.is_some(),
        "{lsn} was not reached: {:?}",
        streamer.state()
    );
}
