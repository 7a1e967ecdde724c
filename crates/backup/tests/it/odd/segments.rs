//! WAL segments of every size: memory does not grow with them.

use std::process::{Child, Command};
use std::sync::Arc;

use backup::stream::{Streamer, StreamerConfig};
use postgres_physical::lsn::Lsn;
use postgres_physical::wire::ConnectOptions;
use repository::{keys::RecipientPublic, store::PosixStore, wal::wal_inventory};
use testkit::TestPostgres;

use crate::{Vault, flushed};

const SOCKET: &str = "ODD_TEST_SOCKET";
const REPOSITORY: &str = "ODD_TEST_REPOSITORY";
const RECIPIENT: &str = "ODD_TEST_RECIPIENT";
/// Of a process that streams, with all that a test binary needs besides.
const RESIDENT_MIB_MAX: u64 = 256;

/// Run by the tests below in a process of its own, whose memory is looked at.
#[test]
#[ignore = "only as a child of the tests that look at its memory"]
fn child_that_streams() {
    let variable = |name| std::env::var(name).unwrap();
    let connect = ConnectOptions::unix(variable(SOCKET), 5432, "postgres", "postgres");
    let store = Arc::new(PosixStore::new(variable(REPOSITORY)));
    let public = RecipientPublic::load(variable(RECIPIENT).as_ref()).unwrap();
    let _streamer = Streamer::start(StreamerConfig::new(connect, "bre", store, public));
    loop {
        std::thread::park();
    }
}

struct Streaming(Child);

impl Drop for Streaming {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Streaming {
    /// The most that it ever had in memory.
    fn resident_mib_max(&self) -> u64 {
        let path = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }
}

fn check(segment_mib: u64) {
    let postgres = TestPostgres::builder()
        .wal_segment_bytes(segment_mib << 20)
        .set("max_wal_size", format!("{}MB", 8 * segment_mib))
        .start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repository");
    std::fs::create_dir(&path).unwrap();
    let vault = Vault::on(Arc::new(PosixStore::new(&path)));
    let recipient = folder.path().join("recipient");
    vault.public.store(&recipient).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "odd::segments::child_that_streams", "--ignored"])
        .env(SOCKET, postgres.socket_dir())
        .env(REPOSITORY, &path)
        .env(RECIPIENT, &recipient)
        .spawn()
        .unwrap();
    let streaming = Streaming(child);
    testkit::eventually("the stream is attached", || {
        (postgres.value("SELECT count(*) FROM pg_stat_replication") == "1").then_some(())
    });
    // A segment is sealed by the stream that saw all of it: the second one.
    let segments = postgres
        .value("SELECT pg_switch_wal()")
        .parse::<Lsn>()
        .unwrap()
        .0
        / (segment_mib << 20)
        + 3;
    let mut client = postgres.client();
    while flushed(&postgres).0 < segments * (segment_mib << 20) {
        // Nothing that compresses.
        client
            .query("SELECT pg_logical_emit_message(false, 'odd', string_agg(sha256(random()::text::bytea), '')) FROM generate_series(1, 30000)")
            .unwrap();
    }
    let end = flushed(&postgres).0;
    // For 1 GB that is more than a minute.
    let mut last = None;
    let all = testkit::within(std::time::Duration::from_secs(600), || {
        let wal = wal_inventory(&vault.repository).unwrap();
        let held = wal
            .timelines
            .get(&1)
            .and_then(repository::wal::TimelineWal::end);
        let sealed = vault.store.list("wal/").unwrap();
        last = held;
        (held.is_some_and(|held| held >= end) && !sealed.is_empty()).then_some(())
    });
    assert!(all.is_some(), "{last:?} of {end}");
    let resident = streaming.resident_mib_max();
    eprintln!("WAL segments of {segment_mib} MB: {resident} MiB resident at most");
    assert!(resident <= RESIDENT_MIB_MAX, "{resident} MiB");
}

#[test]
fn a_stream_takes_no_more_memory_for_larger_segments() {
    check(64);
}

#[test]
#[ignore = "gigabytes: make slow-odd-clusters"]
fn a_stream_takes_no_more_memory_for_the_largest_segments() {
    for segment_mib in [1, 64, 1024] {
        check(segment_mib);
    }
}
